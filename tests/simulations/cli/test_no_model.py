"""A method that trains no model: its run is shown, and what needs a model refuses it in a line."""

import pytest

import fedderm as interface
from common.errors import ConfigError


@pytest.fixture(scope="module")
def described(synthetic_folder, tmp_path_factory):
    from common.config.run import RunConfig
    from simulations.runtimes.experiment import train

    out = tmp_path_factory.mktemp("described") / "out"
    train(RunConfig.read({"method": "statistics"}), synthetic_folder, out, "iid", 2)
    return out


def test_a_run_ends_with_its_figures(fedderm, synthetic_folder, tmp_path):
    code, out, err = fedderm(
        *("simulate", synthetic_folder, "--out", tmp_path / "out", "method=statistics")
    )
    assert (code, err) == (0, "")
    assert " images of " in out
    assert f"run folder: {tmp_path / 'out' / 'run'}" in out


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "RUN", "DATA"],
        ["evaluate", "DATA", "RUN"],
        ["privacy", "audit", "RUN"],
    ],
)
def test_what_needs_a_model_refuses_it_in_one_line(fedderm, described, synthetic_folder, command):
    names = {"RUN": described, "DATA": synthetic_folder}
    code, out, err = fedderm(*(names.get(word, word) for word in command))
    assert (code, out) == (1, "")
    assert len(err.strip().splitlines()) == 1
    assert "holds statistics, and no model" in err


def test_a_study_has_no_route_of_it(fedderm, synthetic_folder, tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(
        '[routes.a]\nmethod = "statistics"\n[spreads]\npooled = { scheme = "pooled" }\n'
        '[[arms]]\nroute = "a"\nspreads = ["pooled"]\n'
    )
    command = ("compare", synthetic_folder, "--out", tmp_path / "out", "--study", study)
    code, _, err = fedderm(*command)
    assert code == 1
    assert "route a: method statistics trains no model" in err


@pytest.mark.parametrize("train", [interface.simulate, interface.centralized])
def test_python_says_what_to_type(train, synthetic_folder, tmp_path):
    with pytest.raises(ConfigError, match="statistics trains no model; type `fedderm simulate"):
        train(synthetic_folder, tmp_path / "out", method="statistics")
    assert not (tmp_path / "out").exists()


def test_it_takes_no_setting_of_a_network(fedderm, synthetic_folder, tmp_path):
    where = ("simulate", synthetic_folder, "--out", tmp_path / "out", "method=statistics")
    code, _, err = fedderm(*where, "size=128")
    assert code == 1
    assert "'size' is 128, but method statistics trains no model" in err
