"""The sums that sites make for q-FedAvg are those that Flower's coordinator makes."""

import numpy as np
import pytest
from flwr.serverapp.strategy.qfedavg import compute_delta_and_h
from hypothesis import given
from hypothesis import strategies as st

from common.finetune.qfedavg import FairUpdate, Pull

SHAPES = {"head.weight": (2, 3), "head.bias": (2,)}
RATE = 0.1


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (0.3 * rng.standard_normal(shape)).astype(np.float32)


def _update(change: dict[str, np.ndarray], loss: float, q: float) -> FairUpdate:
    squared = sum(float((a**2).sum()) for a in change.values())
    return FairUpdate.pulled(3.0, loss, change, Pull.of(q, loss, 1 / RATE, squared))


@given(
    st.lists(st.floats(0.01, 5), min_size=1, max_size=4),
    st.floats(0, 4),
    st.integers(0, 99),
)
def test_the_step_is_that_of_flower(losses: list[float], q: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = {name: rng.standard_normal(s).astype(np.float32) for name, s in SHAPES.items()}
    ends = [{name: a + _noise(rng, a.shape) for name, a in start.items()} for _ in losses]
    begin = [start[name] for name in SHAPES]
    terms = [
        compute_delta_and_h(begin, [end[name].copy() for name in SHAPES], q, 1 / RATE, loss)
        for end, loss in zip(ends, losses, strict=True)
    ]
    h = sum(term for _, term in terms)
    expected = {
        name: start[name] - sum(delta[i] for delta, _ in terms) / h for i, name in enumerate(SHAPES)
    }
    total = FairUpdate.zero(SHAPES)
    for end, loss in zip(ends, losses, strict=True):
        total = total + _update({name: end[name] - start[name] for name in start}, loss, q)
    for name, step in total.from_record(total.to_record()).mean().items():
        np.testing.assert_allclose(start[name] + step, expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("q", "step", "moment"), [(0.0, 2.0, 2.0), (1.0, 7 / 5, 7 / 3)])
def test_moments_are_averaged_by_pull_without_a_shorter_step(q, step, moment) -> None:
    """Without q all sites count alike, however many images they have."""
    total = FairUpdate.zero({"w": (1,), "exp_avg_sq/w": (1,)})
    for images, change in ((9.0, 1), (1.0, 3)):
        loss = 1.0 if change == 1 else 2.0
        moved = {name: np.full(1, change, np.float32) for name in ("w", "exp_avg_sq/w")}
        total = total + FairUpdate.pulled(images, loss, moved, Pull.of(q, loss, 1.0, 1.0))
    assert total.mean()["w"][0] == pytest.approx(step)
    assert total.mean()["exp_avg_sq/w"][0] == pytest.approx(moment)


def test_a_site_without_images_or_without_loss_breaks_nothing() -> None:
    change = {"w": np.zeros(1, np.float32)}
    nothing = FairUpdate.pulled(0.0, 0.0, change, Pull.of(0.5, 0.0, 1.0, 0.0))
    assert nothing.mean()["w"] == float(nothing.pull) == 0
    assert np.isfinite(Pull.of(0.5, 0.0, 1.0, 1.0)).all()
