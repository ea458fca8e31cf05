"""Each strategy takes the published step, whatever layers open and wherever it was interrupted."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load, save

from common.errors import ConfigError
from server.strategies.aggregation import Aggregation
from simulations.runtimes.in_process import InProcessGrid
from tests.examples import examples

Array = NDArray[Any]
Step = Callable[[Array, int], Array]

STAGES = (["head.scale", "head.weight"], ["blocks.weight", "head.scale", "head.weight", "stem"])
SHAPES = {"blocks.weight": (3, 2), "head.scale": (), "head.weight": (3, 2), "stem": (4,)}
ROUNDS = 8
MEANS = ("fedavg", "fedprox", "scaffold", "qfedavg")
REMEMBERING = ("fedavgm", "fedadam", "fedyogi")


@pytest.fixture(scope="module", autouse=True)
def _process_with_a_name() -> None:
    """Flower makes a message only in a process that knows its run; a grid sees to it."""
    InProcessGrid(ClientApp(), [], {})


def names_in(round_: int) -> list[str]:
    """Return what is trained in a round: the second stage opens layers before and after."""
    return STAGES[round_ >= ROUNDS // 2]


def draw(seed: int, names: list[str], size: float) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(size * rng.standard_normal(SHAPES[name]), np.float32) for name in names
    }


def means(size: float) -> list[dict[str, Array]]:
    return [draw(round_ + 1, names_in(round_), size) for round_ in range(ROUNDS)]


START = draw(0, STAGES[-1], 1)


def train(
    aggregation: Aggregation, changes: list[dict[str, Array]], start: Mapping[str, Array] = START
) -> dict[str, Array]:
    """Return the weights after the changes, those that are not yet trained as they were."""
    weights = dict(start)
    for mean in changes:
        current = {name: weights[name] for name in mean}
        stepped = aggregation.step(current, mean)
        assert list(stepped) == list(current)
        assert all(w.dtype == np.float32 for w in stepped.values())
        assert all(w.shape == SHAPES[name] for name, w in stepped.items())
        weights |= stepped
    return weights


def fedavgm(learning_rate: float, momentum: float) -> Step:
    """Hsu et al. 2019, section 4.3."""
    v: Any = 0.0

    def step(delta: Array, _: int) -> Array:
        nonlocal v
        v = momentum * v + delta
        return np.asarray(learning_rate * v)

    return step


def fedadam(eta: float, beta_1: float) -> Step:
    """Reddi et al. 2021, Algorithm 2, with the rate of Kingma & Ba 2015 before section 2.1."""
    m: Any = 0.0
    v: Any = 0.0

    def step(delta: Array, t: int) -> Array:
        nonlocal m, v
        m = beta_1 * m + (1 - beta_1) * delta
        v = 0.99 * v + 0.01 * delta**2
        rate = eta * np.sqrt(1 - 0.99**t) / (1 - beta_1**t)
        return np.asarray(rate * m / (np.sqrt(v) + 1e-3))

    return step


def fedyogi(eta: float, beta_1: float) -> Step:
    """Reddi et al. 2021, Algorithm 2."""
    m: Any = 0.0
    v: Any = 0.0

    def step(delta: Array, _: int) -> Array:
        nonlocal m, v
        m = beta_1 * m + (1 - beta_1) * delta
        v = v - 0.01 * delta**2 * np.sign(v - delta**2)
        return np.asarray(eta * m / (np.sqrt(v) + 1e-3))

    return step


PUBLISHED = {"fedavgm": fedavgm, "fedadam": fedadam, "fedyogi": fedyogi}


# Beside weights of about 1, single precision keeps one or two digits of a change of 1e-6.
@pytest.mark.parametrize("size", [1e-6, 1.0])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("strategy", REMEMBERING)
def test_every_step_is_the_published_one_also_for_layers_opened_later(
    strategy: str, momentum: float, size: float
) -> None:
    changes = means(size)
    found = train(Aggregation(strategy, 0.5, momentum), changes)
    for name, start in START.items():
        step = PUBLISHED[strategy](0.5, momentum)
        steps = [
            step(mean[name].astype(np.float64), t)
            for t, mean in enumerate(changes, start=1)
            if name in mean
        ]
        path = start + np.cumsum(steps, axis=0)
        # Each step rounds the weights by at most half a unit in the last place.
        rounding = len(steps) * np.spacing(np.abs(path).max().astype(np.float32)) / 2
        np.testing.assert_allclose(found[name], path[-1], rtol=1e-6, atol=rounding)


@pytest.mark.parametrize("strategy", MEANS)
def test_the_mean_is_added_as_it_is_and_nothing_is_remembered(strategy: str) -> None:
    aggregation = Aggregation(strategy, learning_rate=0.1, momentum=0.9)
    for mean in means(0.01):
        current = {name: START[name] for name in mean}
        stepped = aggregation.step(current, mean)
        for name, change in mean.items():
            np.testing.assert_array_equal(stepped[name], START[name] + change)
    assert aggregation.state() == {}
    aggregation.restore({})


@given(
    strategy=st.sampled_from(REMEMBERING),
    done=st.integers(0, ROUNDS),
    learning_rate=st.floats(1e-3, 2),
    momentum=st.floats(0, 0.99),
    size=st.floats(1e-6, 1),
)
@examples(40)
def test_a_restored_run_goes_on_bit_for_bit(
    strategy: str, done: int, learning_rate: float, momentum: float, size: float
) -> None:
    changes = means(size)
    whole = Aggregation(strategy, learning_rate, momentum)
    midway = train(whole, changes[:done])
    state = whole.state()
    expected = train(whole, changes[done:], midway)
    resumed = Aggregation(strategy, learning_rate, momentum)
    resumed.restore(load(save(state)))  # saved late: later steps must not have changed it
    found = train(resumed, changes[done:], midway)
    for name, weights in expected.items():
        assert found[name].tobytes() == weights.tobytes()
    assert resumed.state().keys() == whole.state().keys()


def test_flower_says_nothing_of_a_step_and_speaks_again_after_it() -> None:
    said: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("flwr")
    log.addHandler(handler)
    try:
        train(Aggregation("fedavg", 1, 0), means(1))
        assert said == []
        log.info("again")
        assert said == ["again"]
    finally:
        log.removeHandler(handler)


def test_an_unknown_strategy_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'strategy' is 'fedsgd'; known are fedavg, "):
        Aggregation("fedsgd", 1, 0)
