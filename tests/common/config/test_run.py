"""The configuration is read once, completely, or refused in one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.run import RunConfig, settings_of
from common.errors import ConfigError
from common.methods import METHODS

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
        ("penalty", float("inf"), "finite"),
        ("tolerance", "nan", "finite"),
        ("c", "1e-5,tiny", "number"),
        ("c", "-1", "greater than 0"),
        ("c", (), "at least 1"),
        ("head", "forest", "'svm', 'ridge', 'lda', 'softmax' or 'hinge'"),
        ("sites", 3, "path"),
        ("zebra", "red\nblue", "known are"),
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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 1}, "'lr' is 1.0, but method svm does not use it; `fedderm settings svm` lists"),
        ({"method": "private", "c": 1}, "'c' is 1.0, but method private does not use it"),
        ({"method": "finetune", "kernel": "rbf"}, "'kernel' is rbf, but method finetune does not"),
        ({"method": "private_finetune", "head": "lda"}, "is trained with softmax only"),
        ({"method": "svm", "fusion": "late"}, "'fusion' is late, but method svm does not use it"),
        ({"method": "private", "opens": "head"}, "'opens' is head, but no network is trained"),
        ({"epsilon": 3}, "sends sums without noise; set method=private head=hinge"),
        (
            {"head": "softmax"},
            "'head' is softmax, which method svm does not offer; set svm, ridge,",
        ),
        ({"method": "private", "imbalance": "focal"}, "does not offer; set none, weights, logits"),
        ({"method": "finetune", "epsilon": 3, "delta": 1e-6}, "set method=private_finetune"),
    ],
)
def test_a_setting_that_the_method_does_not_use_is_refused(values, message):
    with pytest.raises(ConfigError) as refusal:
        RunConfig.read(values)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        ({"mehtod": "svm"}, "'method'"),
        ({"method": "private_finetuning"}, "'private_finetune'"),
        ({"component": 64}, "'components'"),
    ],
)
def test_a_slip_of_the_pen_is_told_what_was_meant(values, meant):
    with pytest.raises(ConfigError, match=rf"; did you mean {meant}\?$"):
        RunConfig.read(values)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_takes_each_setting_that_it_is_listed_with(method):
    """Also those of families that it shares, at the values that it has by default."""
    config = RunConfig.read({"method": method.name})
    assert RunConfig.read(config.flat()) == config
    used = settings_of(method)
    assert method.settings <= set(used)
    assert method.defaults.keys() <= RunConfig.model_fields.keys()
    assert method.refused.keys() <= RunConfig.model_fields.keys() - set(used)


def test_every_setting_is_of_some_method():
    used = {name for method in METHODS.values() for name in settings_of(method)}
    assert used == RunConfig.model_fields.keys()


def test_the_first_of_several_problems_is_named():
    with pytest.raises(ConfigError, match="'seed' is -1"):
        RunConfig.read({"seed": -1, "size": 1})


def test_stages_have_rounds_and_rates_that_suit_them():
    config = RunConfig()
    assert (config.rounds, config.lr) == ((20, 30, 100), (3e-3, 1e-3, 5e-4))
    for stages in ("head,all", ("head", "all")):
        config = RunConfig.read({"method": "finetune", "stages": stages, "rounds": ""})
        assert (config.rounds, config.lr) == ((20, 100), (3e-3, 5e-4))
    config = RunConfig.read({"method": "finetune", "stages": "blocks.4", "rounds": 7})
    assert (config.rounds, config.lr) == ((7,), (1e-3,))
    for stages in (3, None, [{}]):
        with pytest.raises(ConfigError, match="'stages'"):
            RunConfig.read({"stages": stages})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"robust": "median"}, "'robust' is median and 'hostile' is 0; a rule needs the number"),
        ({"hostile": 2}, "'robust' is none and 'hostile' is 2; a rule needs the number"),
        (
            {"robust": "krum", "hostile": 1, "secure": True, "optimizer": "sgd"},
            "'robust' is krum, but under secure",
        ),
        (
            {"norm_bound": 2, "secure": True, "optimizer": "sgd"},
            "would have to prove the norm of its own",
        ),
        (
            {"robust": "crosscheck", "hostile": 1, "optimizer": "sgd", "local_epochs": 1},
            "'robust' is crosscheck, by which sites judge changes of weights alone",
        ),
        (
            {"robust": "crosscheck", "hostile": 1, "optimizer": "sgd", "momentum": 0},
            "'local_epochs' is 0.05, but with 'robust' crosscheck",
        ),
        ({"robust": "median", "hostile": 1, "method": "svm"}, "of which none can be outvoted"),
        ({"robust": "median", "hostile": 1, "method": "private"}, "noise is made for the sum"),
        ({"norm_bound": 2, "method": "private_finetune"}, "'norm_bound' is 2.0, but a private"),
        ({"norm_bound": 2, "optimizer": "adamw"}, "set optimizer=sgd, and lr to suit"),
        (
            {"robust": "median", "hostile": 1, "patience": 3, "optimizer": "sgd"},
            "'patience' is 3, but what sites say",
        ),
    ],
)
def test_a_defence_is_refused_where_it_cannot_hold(values, message):
    with pytest.raises(ConfigError) as refusal:
        RunConfig.read({"method": "finetune", **values})
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
