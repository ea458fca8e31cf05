"""The settings are listed as they are, for a user and for Flower."""

import tomllib

import pytest

from common.config.run import RunConfig, flat, settings_of
from common.methods import METHODS
from simulations.cli.settings import FLOWER_FOLDERS, PYPROJECT, write_flower_defaults


def test_flower_knows_exactly_the_defaults(tmp_path):
    """As ``python -m simulations.cli.settings`` writes them."""
    written = tmp_path / "pyproject.toml"
    written.write_text(PYPROJECT.read_text())
    write_flower_defaults(written)
    assert written.read_text() == PYPROJECT.read_text()
    config = tomllib.loads(written.read_text())["tool"]["flwr"]["app"]["config"]
    assert config.keys() == RunConfig.model_fields.keys()
    assert FLOWER_FOLDERS.items() <= config.items()
    usual = {key: value for key, value in config.items() if key not in FLOWER_FOLDERS}
    for name in METHODS:
        assert RunConfig.read({**usual, "method": name}) == RunConfig(method=name)
    tuned = {"method": "finetune"}
    for preset in ({"quality": "best"}, {"parent": "runs/before"}):
        assert RunConfig.read({**usual, **tuned, **preset}) == RunConfig.read({**tuned, **preset})


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_what_a_method_uses_is_listed_with_default_and_meaning(fedderm, method):
    code, out, err = fedderm("settings", method.name)
    assert (code, err) == (0, "")
    listed = [line.strip() for line in out.splitlines() if line.startswith("  ")]
    usual = RunConfig(method=method.name)
    names = settings_of(method)
    assert sorted(line.partition("=")[0] for line in listed) == sorted(names)
    for key, values in method.choices.items():
        [shown] = [line for line in listed if line.startswith(f"{key}=")]
        assert set(shown.rpartition("[")[2].removesuffix("]").split(", ")) == set(values)
    for line in listed:
        name = line.partition("=")[0]
        assert line.startswith(f"{name}={flat(getattr(usual, name))} ")
        assert str(RunConfig.model_fields[name].description) in line


def test_all_settings_are_listed_with_their_ranges(fedderm):
    code, out, err = fedderm("settings")
    assert (code, err) == (0, "")
    names = {line.strip().partition("=")[0] for line in out.splitlines() if line.startswith("  ")}
    assert names == RunConfig.model_fields.keys()
    for shown in (
        "size=224 or 128 ",
        "[from 32 to 2048]",
        "[each above 0]",
        "[svm, ridge, lda, softmax, hinge]",
        "method=private_finetune",
    ):
        assert shown in out


def test_a_method_that_is_none_is_refused_in_one_line(fedderm):
    code, out, err = fedderm("settings", "finetuned")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.endswith("did you mean 'finetune'?\n")
    assert err.count("\n") == 1
