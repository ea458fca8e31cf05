"""Study files, right and wrong."""

import tomllib
from pathlib import Path

import pytest

from common.errors import ConfigError
from simulations.study.definition import BALANCED, DEFAULT_STUDY, Study

GOOD = """
folds = 3
scales = [0.5, 1.0]
[routes.svm]
c = [1e-4, 1e-3]
[routes.net]
method = "finetune"
stages = ["head"]
rounds = [3]
[spreads]
pooled = { scheme = "pooled" }
dirichlet = { scheme = "dirichlet", sites = 4, alpha = 0.3 }
[[arms]]
route = "svm"
spreads = ["pooled", "dirichlet"]
curve = ["pooled"]
[[arms]]
route = "net"
spreads = ["pooled"]
"""

STUDIES = sorted((Path(__file__).parents[3] / "docs" / "study").glob("*.toml"))


def _read(tmp_path, text: str) -> Study:
    file = tmp_path / "study.toml"
    file.write_text(text)
    return Study.read(file)


@pytest.mark.parametrize("file", [DEFAULT_STUDY, *STUDIES], ids=lambda file: file.name)
def test_the_studies_that_come_along_can_be_read(file):
    assert Study.read(file).arms


def test_routes_get_their_settings_and_those_of_all(tmp_path):
    study = _read(tmp_path, GOOD)
    svm, net = study.config("svm"), study.config("net")
    assert svm.c == (1e-4, 1e-3)
    assert (net.method, net.stages, net.rounds) == ("finetune", ("head",), (3,))
    assert svm.views == net.views == study.views
    assert net.imbalance_strength == BALANCED["imbalance_strength"] == 1
    assert Study.model_validate(study.model_dump(mode="json")) == study
    assert tomllib.loads(GOOD)["folds"] == study.folds


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("folds = 3", "fold = 3", "unknown key 'fold' with value 3; did you mean 'folds'?"),
        ('route = "net"', 'rout = "net"', "unknown key 'arms.rout' with value 'net'; did you mean"),
        ("[routes.net]", '[routes."a net"]', "a name has letters, digits, - and _"),
        ("folds = 3", "folds = 1", "key 'folds' is 1: Input should be greater than or equal to 2"),
        ("[0.5, 1.0]", "[0.5, 0.7]", "shares of the training lesions must ascend and end with 1.0"),
        ("c = [1e-4, 1e-3]", "c = [1e-4, -1]", "route svm: key 'c' is '-1'"),
        ("c = [1e-4, 1e-3]", "zebra = 1", "route svm: unknown key 'zebra'"),
        ("c = [1e-4, 1e-3]", "views = 2", "route svm: 'views' is the study's, the same for all"),
        ("c = [1e-4, 1e-3]", "imbalance = 'none'", "route svm: 'imbalance' is the study's"),
        ('scheme = "pooled"', 'scheme = "polled"', "key 'spreads.pooled.scheme' is 'polled'"),
        ("sites = 4, ", "", "scheme dirichlet needs 'sites' and 'alpha'"),
        ('scheme = "pooled"', 'scheme = "pooled", sites = 3', "'sites' is for scheme dirichlet"),
        ('route = "net"', 'route = "nat"', "unknown route 'nat' in arms; known are svm, net"),
        ('route = "net"', 'route = "svm"', "the arm svm pooled is there twice"),
        ('"pooled", "dirichlet"', '"pooled", "iid"', "unknown spread 'iid' in arms; known are"),
        ('curve = ["pooled"]', 'curve = ["p"]', "unknown spread of a curve 'p' in arms"),
        ("folds = 3", "folds = ", "is no study file ("),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path, old, new, reason):
    assert old in GOOD
    with pytest.raises(ConfigError) as refused:
        _read(tmp_path, GOOD.replace(old, new, 1))
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="is no study file"):
        Study.read(tmp_path / "none.toml")
