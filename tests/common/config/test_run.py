"""The configuration is read once, completely, or refused in one line."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.run import RunConfig
from common.errors import ConfigError

ROOT = Path(__file__).parents[3]

positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
positives = st.lists(positive, min_size=1, max_size=4).map(tuple)


@given(c=positives, widths=positives, tolerance=positive, seed=st.integers(0, 2**63))
def test_a_configuration_survives_flowers_flat_strings_exactly(c, widths, tolerance, seed):
    config = RunConfig(c=c, widths=widths, tolerance=tolerance, seed=seed, out=Path("/runs/a b"))
    assert RunConfig.read(config.flat()) == config


def test_flowers_strings_are_read():
    config = RunConfig.read({"c": "1e-5,1e-4", "widths": 2.0, "out": "", "size": "160"})
    assert config.c == (1e-5, 1e-4)
    assert config.widths == (2.0,)
    assert config.out is None
    assert config.size == 160


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("size", 16, "greater than or equal to 32"),
        ("predictions", 9, "less than or equal to 8"),
        ("seed", 1.5, "integer"),
        ("test_fraction", 1, "less than 1"),
        ("alpha", float("inf"), "finite"),
        ("tolerance", "nan", "finite"),
        ("c", "1e-5,tiny", "number"),
        ("c", "-1", "greater than 0"),
        ("c", (), "at least 1"),
        ("head", "forest", "'svm', 'ridge' or 'lda'"),
        ("sites", 3, "path"),
        ("colour", "red\nblue", "known are"),
    ],
)
def test_a_refusal_names_key_value_and_what_is_allowed_in_one_line(key, value, allowed):
    with pytest.raises(ConfigError) as refusal:
        RunConfig.read({key: value})
    message = str(refusal.value)
    offender = value.split(",")[-1] if isinstance(value, str) else value
    assert f"'{key}'" in message
    assert repr(offender) in message
    assert allowed in message
    assert "\n" not in message


def test_the_first_of_several_problems_is_named():
    with pytest.raises(ConfigError, match="'seed' is -1"):
        RunConfig.read({"seed": -1, "size": 1})


def test_flower_knows_exactly_the_defaults():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    config = pyproject["tool"]["flwr"]["app"]["config"]
    # Methods differ in the first four, stages in the others.
    methods = ("size", "folds", "imbalance", "imbalance_strength")
    empty = dict.fromkeys((*methods, "rounds", "lr"), "")
    assert config == {**RunConfig().flat(), **empty}


def test_stages_have_rounds_and_rates_that_suit_them():
    config = RunConfig()
    assert (config.rounds, config.lr) == ((20, 30, 100), (3e-3, 1e-3, 5e-4))
    for stages in ("head,all", ("head", "all")):
        config = RunConfig.read({"stages": stages, "rounds": ""})
        assert (config.rounds, config.lr) == ((20, 100), (3e-3, 5e-4))
    config = RunConfig.read({"stages": "blocks.4", "rounds": 7})
    assert (config.rounds, config.lr) == ((7,), (1e-3,))
    for stages in ("", 3, None, [{}]):
        with pytest.raises(ConfigError, match="'stages'"):
            RunConfig.read({"stages": stages})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"robust": "median"}, "'robust' is median and 'hostile' is 0; a rule needs the number"),
        ({"hostile": 2}, "'robust' is none and 'hostile' is 2; a rule needs the number"),
        ({"robust": "krum", "hostile": 1, "secure": True}, "'robust' is krum, but under secure"),
        ({"norm_bound": 2, "secure": True}, "would have to prove the norm of its own"),
        ({"robust": "median", "hostile": 1, "method": "svm"}, "of which none can be outvoted"),
        ({"robust": "median", "hostile": 1, "method": "private"}, "noise is made for the sum"),
        ({"norm_bound": 2, "method": "private_finetune"}, "'norm_bound' is 2.0, but a private"),
        ({"norm_bound": 2, "optimizer": "adamw"}, "set optimizer=sgd, and lr to suit"),
        ({"robust": "median", "hostile": 1, "patience": 3}, "'patience' is 3, but what sites say"),
    ],
)
def test_a_defence_is_refused_where_it_cannot_hold(values, message):
    with pytest.raises(ConfigError) as refusal:
        RunConfig.read({"method": "finetune", "optimizer": "sgd", **values})
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
