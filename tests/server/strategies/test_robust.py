"""Whatever a few sites send, the mean stays among what honest sites sent, of every kind."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.config.robust import RobustConfig
from common.data.balance import GroupImages
from common.errors import QuorumError, ReplyError
from common.finetune.imbalance import ClassCounts
from common.finetune.plan import CONTROL
from common.finetune.update import Update
from common.task import HAM10000
from server.federation.question import Answers
from server.strategies.robust import Defence, bound_norms, least_sites, mixing
from simulations.runtimes.in_process import InProcessGrid
from tests.examples import examples

Tensors = Mapping[str, NDArray[np.float32]]

SHAPES = {
    "head.weight": (7, 3),
    "head.bias": (7,),
    "momentum_buffer/head.weight": (7, 3),
    "momentum_buffer/scale": (),
    f"{CONTROL}head.bias": (7,),
}
RULES = ("median", "trimmed_mean", "krum", "multikrum")
SITES, HOSTILE = 9, 3


@pytest.fixture(scope="module", autouse=True)
def _process_with_a_name() -> None:
    """Flower makes a message only in a process that knows its run; a grid sees to it."""
    InProcessGrid(ClientApp(), [], {})


def answers(changes: Mapping[str, Tensors], weights: Mapping[str, float]) -> Answers[Update]:
    apart = {site: Update.of(weights[site], 1.0, change) for site, change in changes.items()}
    total = Update.zero(SHAPES)
    for update in apart.values():
        total = total + update
    return Answers(total, list(apart), apart)


def honest(seed: int, sites: int = SITES) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Return the changes of sites that agree on most and differ on the rest."""
    rng = np.random.default_rng(seed)
    common = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    return {
        f"site_{i}": {
            name: np.asarray(a + 0.3 * rng.standard_normal(a.shape), np.float32)
            for name, a in common.items()
        }
        for i in range(sites)
    }


def even(sites: int = SITES) -> dict[str, float]:
    return {f"site_{i}": 10.0 for i in range(sites)}


def farthest(found: Tensors, changes: Mapping[str, Tensors]) -> float:
    """Return how far a mean lies outside of the range of changes, at most over all values."""
    worst = -np.inf
    for name, mean in found.items():
        each = np.stack([change[name] for change in changes.values()])
        outside = np.maximum(mean - each.max(axis=0), each.min(axis=0) - mean)
        worst = max(worst, float(outside.max()))
    return worst


@pytest.mark.parametrize("mixes", [True, False])
@pytest.mark.parametrize("rule", RULES)
@examples(15)
@given(
    seed=st.integers(0, 1000),
    lie=st.sampled_from([-1e30, -5.0, 0.0, 100.0, 3e37]),
    kind=st.sampled_from([None, *SHAPES]),
    boast=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_hostile_sites_cannot_move_the_mean_out_of_the_honest_ones(
    rule, mixes, seed, lie, kind, boast
):
    changes, weights = honest(seed), even()
    good = {site: change for site, change in changes.items() if site >= f"site_{HOSTILE}"}
    told: dict[str, Any] = dict(changes)
    for site in changes.keys() - good.keys():
        told[site] = {
            name: np.float32(lie) * a if kind in (None, name) else a
            for name, a in changes[site].items()
        }
        weights[site] *= boast
    with np.errstate(all="ignore"):  # Krum's distances of vectors of 1e37 are infinite
        config = RobustConfig(robust=rule, hostile=HOSTILE, mixing=mixes)
        found = Defence(config).mean(answers(_fit(told, weights), weights))
    # A rule may choose a lie that is close to the truth: further off than that there is none.
    assert farthest(found, good) < 1.5


def _fit(changes: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Any]:
    """Keep changes times weights within single precision, as the wire does."""
    most = float(np.finfo(np.float32).max)
    return {
        site: {
            n: np.clip(a, -most / max(weights[site], 1), most / max(weights[site], 1))
            for n, a in c.items()
        }
        for site, c in changes.items()
    }


def test_without_a_defence_one_site_is_enough_to_move_it():
    changes = honest(0)
    changes["site_0"] = {name: 1e6 * a for name, a in changes["site_0"].items()}
    found = Defence(RobustConfig()).mean(answers(changes, even()))
    assert farthest(found, {s: c for s, c in changes.items() if s != "site_0"}) > 1e3


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_what_its_paper_says(rule):
    changes, weights = honest(3), {f"site_{i}": float(i + 1) for i in range(SITES)}
    config = RobustConfig(robust=rule, hostile=HOSTILE, mixing=False)
    found = Defence(config).mean(answers(changes, weights))
    capped = np.minimum(list(weights.values()), np.median(list(weights.values())))
    momentum = ("momentum_buffer/head.weight", "momentum_buffer/scale")
    for kind in (("head.weight", "head.bias"), momentum, (f"{CONTROL}head.bias",)):
        flat = [np.concatenate([c[name].ravel() for name in kind]) for c in changes.values()]
        expected = _by_the_book(rule, np.array(flat, float), capped)
        got = np.concatenate([found[name].ravel() for name in kind])
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def _by_the_book(rule: str, X: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    ordered = np.sort(X, axis=0)
    if rule == "median":
        return ordered[SITES // 2]
    if rule == "trimmed_mean":
        return ordered[HOSTILE : SITES - HOSTILE].mean(axis=0)
    scores = []
    for i in range(SITES):
        others = sorted(float(((X[i] - X[j]) ** 2).sum()) for j in range(SITES) if j != i)
        scores.append(sum(others[: SITES - HOSTILE - 2]))
    best = np.argsort(scores)[: 1 if rule == "krum" else SITES - HOSTILE - 2]
    return np.average(X[best], axis=0, weights=weights[best])


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_mixing_averages_the_nearest(seed, hostile):
    rng = np.random.default_rng(seed)
    X, weights = rng.standard_normal((SITES, 5)), rng.uniform(0.1, 1, SITES)
    for i, row in enumerate(mixing(X @ X.T, weights, hostile)):
        near = sorted(range(SITES), key=lambda j: float(((X[i] - X[j]) ** 2).sum()))
        near = near[: SITES - hostile]
        assert i in near
        assert set(np.flatnonzero(row)) == set(near)
        np.testing.assert_allclose(row[near], weights[near] / weights[near].sum())


def test_a_bound_on_norms_holds_in_the_plain_mean_as_well():
    changes, lied = honest(1), honest(1)
    lied["site_0"] = {name: -1e6 * a for name, a in changes["site_0"].items()}
    found = Defence(RobustConfig(norm_bound=1.0)).mean(answers(lied, even()))
    for name in ("head.bias", f"{CONTROL}head.bias"):
        norms = [np.linalg.norm(change[name]) for change in changes.values()]
        assert np.linalg.norm(found[name]) <= max(norms)
    np.testing.assert_allclose(bound_norms(np.array([1.0, 2.0, 8.0]), 2.0), [1, 1, 0.5])
    np.testing.assert_allclose(bound_norms(np.array([1.0, 2.0, 8.0]), 0.0), 1)


def test_a_bound_that_none_exceeds_changes_nothing():
    plain = answers(honest(2), even())
    bounded = Defence(RobustConfig(norm_bound=1e6)).mean(plain)
    for name, mean in plain.total.mean().items():
        np.testing.assert_allclose(bounded[name], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_fewer_sites_than_the_theorem_needs_are_refused(rule):
    config = RobustConfig(robust=rule, hostile=HOSTILE)
    needed = least_sites(rule, HOSTILE)
    assert needed == {"median": 7, "trimmed_mean": 7, "krum": 9, "multikrum": 9}[rule]
    enough, few = honest(0, needed), even(needed)
    Defence(config).mean(answers(enough, few))
    few["site_0"] = 0.0  # it saw no image and has nothing to say
    with pytest.raises(QuorumError, match=f"needs {needed} sites that train, and there are"):
        Defence(config).mean(answers(enough, few))


@given(st.lists(st.integers(0, 1000), min_size=7, max_size=7), st.integers(0, 6))
def test_a_lie_about_a_class_counts_no_more_than_an_honest_site_may(lie, site):
    rng = np.random.default_rng(0)
    each = {f"site_{i}": ClassCounts(rng.integers(0, 50, 7)) for i in range(7)}
    truth = np.stack([c.images for c in each.values()])
    each[f"site_{site}"] = ClassCounts(np.array(lie))
    config = RobustConfig(robust="median", hostile=1)
    total = Defence(config).counts(Answers(ClassCounts.zero(HAM10000.n_classes), list(each), each))
    others = np.delete(truth, site, axis=0)
    most = others.sum() + others.sum(axis=1).max()
    assert total.sum() <= most + 7  # rounded


def test_a_site_that_claims_a_million_rare_images_hardly_changes_how_rare_they_are():
    truth = np.tile([10, 10, 10, 1, 10, 60, 2], (SITES, 1))
    lie = truth.copy()
    lie[0, 3] = 10**6
    shares = []
    for told in (truth, lie):
        each = {f"site_{i}": ClassCounts(counts) for i, counts in enumerate(told)}
        config = RobustConfig(robust="median", hostile=1)
        total = Defence(config).counts(
            Answers(ClassCounts.zero(HAM10000.n_classes), list(each), each)
        )
        shares.append(total[3] / total.sum())
    assert shares[1] == pytest.approx(shares[0], rel=0.01)


@pytest.mark.parametrize("kind", [ClassCounts, GroupImages])
def test_an_honest_count_of_even_sites_is_whole(kind):
    images = np.arange(1, 8) if kind is ClassCounts else np.arange(1, 15).reshape(7, 2)
    each = {f"site_{i}": kind(images) for i in range(SITES)}
    config = RobustConfig(robust="median", hostile=HOSTILE)
    total = Defence(config).counts(Answers(kind(0 * images), list(each), each))
    np.testing.assert_array_equal(total, SITES * images)


@pytest.mark.parametrize("weight", [0.0, 1e-300, 1e-40, 1.0])
def test_no_weight_makes_a_change_larger_than_half_precision_can_tell(weight):
    zero = Update.zero({"head.bias": (7,)})
    most = np.full(7, np.finfo(np.float16).max)
    update = zero.from_record({**zero.to_record(), "weight": np.array(weight), "head.bias": most})
    assert np.abs(update.mean()["head.bias"]).max() <= 256


def test_a_weight_that_no_images_give_is_refused():
    zero = Update.zero({"head.bias": (7,)})
    ones = {**zero.to_record(), "weight": np.array(1e300), "head.bias": np.ones(7, np.float16)}
    with pytest.raises(ReplyError, match=r"array .head.bias. times the weight of 1e.300 is no num"):
        zero.from_record(ones)
