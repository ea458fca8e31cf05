"""A record adds no more to a sum than its clip allows, and the sums are those of Opacus."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from common.config.run import RunConfig
from common.data.metadata import UNKNOWN, About, beside, encode
from common.privacy.accounting import epsilon
from common.privacy.linear import (
    OVERVIEW_NORM,
    Centre,
    NoisySum,
    Objective,
    Units,
    clipped_gradients,
    hidden_numbers,
    overview,
    plan,
    public_map,
)
from common.privacy.public_components import PublicComponents
from tests.examples import examples

N, D, CLASSES = 30, 5, 7
RNG = np.random.default_rng(4)
X = RNG.standard_normal((N, D))
AS_THEY_ARE = Centre(np.zeros(D), np.array(1.0), 0.4)
X1 = AS_THEY_ARE.apply(X)
Y = RNG.integers(0, CLASSES, N)
WEIGHTS = RNG.standard_normal((CLASSES, D + 1))
OFFSET, CLASS_WEIGHT = RNG.standard_normal(CLASSES), RNG.random(CLASSES)
SOFTMAX = Objective("softmax", OFFSET, CLASS_WEIGHT)


def _loss(scores: torch.Tensor, y: torch.Tensor, loss: str) -> torch.Tensor:
    scores = scores + torch.from_numpy(OFFSET)
    if loss == "softmax":
        return functional.cross_entropy(scores, y, reduction="none")
    targets = 2.0 * functional.one_hot(y, CLASSES) - 1
    return (functional.relu(1 - targets * scores) ** 2).sum(dim=1)


def _of(people: int, X: np.ndarray, y: np.ndarray) -> Units:
    """Deal records to people in turn."""
    return Units.apart(X, y)._replace(unit=np.arange(len(y)) % people)


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
@pytest.mark.parametrize("clip_norm", [0.5, 4.0])
def test_gradients_are_those_that_opacus_clips(loss, clip_norm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.grad_sample import GradSampleModule

        layer = GradSampleModule(torch.nn.Linear(D + 1, CLASSES, bias=False).double())
    layer._module.weight.data = torch.from_numpy(WEIGHTS.copy())
    _loss(layer(torch.from_numpy(X1).requires_grad_()), torch.from_numpy(Y), loss).mean().backward()
    each = layer._module.weight.grad_sample.numpy()
    norms = np.linalg.norm(each.reshape(N, -1), axis=1)
    assert (norms > clip_norm).any()
    factors = CLASS_WEIGHT[Y] * np.minimum(1, clip_norm / norms)
    units, expected = Units.apart(X, Y), (each * factors[:, None, None]).sum(axis=0)
    objective = Objective(loss, OFFSET, CLASS_WEIGHT)
    got = clipped_gradients(units, AS_THEY_ARE, WEIGHTS, objective, clip_norm)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@given(
    loss=st.sampled_from(["softmax", "hinge"]),
    clip_norm=st.floats(1e-3, 10),
    one=st.integers(0, N - 1),
    scale=st.sampled_from([0.0, 1.0, 1e150]),
    people=st.integers(1, N),
    share=st.sampled_from([0.0, 0.5, 0.99]),
)
def test_a_unit_adds_no_more_than_the_clip_whatever_is_asked(
    loss, clip_norm, one, scale, people, share
):
    short = X / np.linalg.norm(X, axis=1, keepdims=True)
    # Shorter than what stands there, so that no record is longer than 1.
    units = _of(people, short, Y).seen_without(np.zeros(1), share)
    others = units.of(np.arange(units.total) != one % people)
    assert others.total == people - 1

    def gradient(of: Units) -> np.ndarray:
        objective = Objective(loss, OFFSET, CLASS_WEIGHT)
        return clipped_gradients(of, AS_THEY_ARE, scale * WEIGHTS, objective, clip_norm)

    change = gradient(units) - gradient(others)
    assert np.linalg.norm(change) <= clip_norm * (1 + 1e-9)
    change = overview(units, CLASSES) - overview(others, CLASSES)
    assert np.linalg.norm(change) <= OVERVIEW_NORM * (1 + 1e-9)


def test_a_patient_counts_as_the_mean_of_its_lesions():
    lesions, patients = ["c", "a", "a", "b", "d"], ["q", "p", "p", "p", "q"]
    units = Units.group(X[:5], Y[[0, 1, 1, 3, 4]], np.array(lesions), np.array(patients))
    assert units.total == 2
    means = {"a": X[1:3].mean(axis=0), "b": X[3], "c": X[0], "d": X[4]}
    labels = {"a": Y[1], "b": Y[3], "c": Y[0], "d": Y[4]}

    def gradient(of: Units) -> np.ndarray:
        return clipped_gradients(of, AS_THEY_ARE, WEIGHTS, SOFTMAX, 0.7)

    each = {n: gradient(Units.apart(means[n][None], labels[n][None])) for n in means}
    expected = (each["a"] + each["b"]) / 2 + (each["c"] + each["d"]) / 2
    np.testing.assert_allclose(gradient(units), expected, atol=1e-12)


@given(cut=st.integers(0, N))
def test_parts_add_up_to_the_whole(cut):
    parts = [
        clipped_gradients(Units.apart(X[p], Y[p]), AS_THEY_ARE, WEIGHTS, SOFTMAX, 1.0)
        for p in (slice(cut), slice(cut, None))
    ]
    everyone = Units.apart(X, Y)
    whole = clipped_gradients(everyone, AS_THEY_ARE, WEIGHTS, SOFTMAX, 1.0)
    np.testing.assert_allclose(parts[0] + parts[1], whole, atol=1e-12)


def test_an_overview_counts_and_sums():
    short = X / np.linalg.norm(X, axis=1, keepdims=True)
    whole = overview(Units.apart(short, Y), CLASSES)
    np.testing.assert_array_equal(whole[:CLASSES], np.bincount(Y, minlength=CLASSES))
    np.testing.assert_allclose(whole[CLASSES:], short.sum(axis=0))


def test_a_map_is_the_same_everywhere_and_its_records_have_a_norm_of_1():
    views = RNG.standard_normal((9, 40)).astype(np.float32)
    mapped = public_map(40, 16, seed=3).apply(views)
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1)
    np.testing.assert_array_equal(mapped, public_map(40, 16, seed=3).apply(views))
    assert public_map(8, 16, seed=3).n_outputs == 8
    assert (public_map(40, 16, seed=3).apply(np.zeros((1, 40), np.float32)) == 0).all()


def test_public_components_give_records_a_norm_of_1_and_their_leading_dimensions():
    components = PublicComponents(RNG.standard_normal(40), RNG.standard_normal((40, 16)))
    views = RNG.standard_normal((9, 40)).astype(np.float32)
    mapped = public_map(40, 8, seed=3, components=components).apply(views)
    turned = (views - components.mean) @ components.matrix[:, :8]
    expected = turned / np.linalg.norm(turned, axis=1, keepdims=True)
    np.testing.assert_allclose(mapped, expected, atol=1e-12)
    beside_them = public_map(40, 99, 3, COLUMNS, 0.5, components)
    assert beside_them.n_outputs == 16 + beside_them.beside
    rows = beside(views[:, None], encode(COLUMNS, [UNKNOWN] * 9))[:, 0]
    assert (np.linalg.norm(beside_them.apply(rows), axis=1) <= 1 + 1e-12).all()


COLUMNS = ("age", "sex", "localization")


@given(
    scale=st.floats(1e-3, 1e3),
    age=st.none() | st.floats(0, 120),
    place=st.sampled_from(["back", "scalp", "", "elbow"]),
)
def test_metadata_stands_beside_an_image_within_a_norm_of_1(scale, age, place):
    """So an overview and a clipped gradient of it cost what those of the image alone do."""
    views = RNG.standard_normal((1, 1, 40)).astype(np.float32)
    whole, alone = public_map(40, 16, 3, COLUMNS, scale), public_map(40, 16, 3)
    rows = encode(COLUMNS, [About(age, "male", place)])
    mapped = whole.apply(beside(views, rows)[0])
    assert np.linalg.norm(mapped) <= 1 + 1e-12
    # Of the image no other direction, whatever is known of the patient.
    images = mapped[:, :16] / np.linalg.norm(mapped[:, :16])
    np.testing.assert_allclose(images, alone.apply(views[0]), atol=1e-12)
    numbers = (rows - whole.mean[40:]) * scale * whole.unit
    np.testing.assert_allclose(mapped[:, 16:], numbers, atol=1e-12)
    unknown = whole.apply(beside(views, encode(COLUMNS, [UNKNOWN]))[0])
    np.testing.assert_allclose(unknown[0, 16:], hidden_numbers(whole, COLUMNS), atol=1e-12)


def test_a_lesion_seen_with_and_without_metadata_adds_the_mean_of_both_gradients():
    hidden = RNG.standard_normal(2)
    without = X.copy()
    without[:, -2:] = hidden
    units = _of(4, X, Y)
    pairs, once = units.seen_without(hidden, 0.3), units._replace(X=without)

    def gradient(of: Units) -> np.ndarray:
        return clipped_gradients(of, AS_THEY_ARE, WEIGHTS, SOFTMAX, 0.7)

    expected = 0.7 * gradient(units) + 0.3 * gradient(once)
    np.testing.assert_allclose(gradient(pairs), expected, atol=1e-12)
    drawn = np.array([True, False, True, True])
    part = 0.7 * gradient(units.of(drawn)) + 0.3 * gradient(once.of(drawn))
    np.testing.assert_allclose(gradient(pairs.of(drawn)), part, atol=1e-12)
    np.testing.assert_allclose(overview(pairs, CLASSES)[:CLASSES], overview(units, CLASSES)[:7])
    assert units.seen_without(hidden, 0.0) is units
    assert units.seen_without(np.zeros(0), 0.3) is units


def test_folded_weights_score_records_as_they_are():
    centre = Centre.of(X.mean(axis=0) / 10, 0.4)
    scores = centre.apply(X) @ WEIGHTS.T
    plain = np.pad(X, ((0, 0), (0, 1)), constant_values=1.0)
    np.testing.assert_allclose(plain @ centre.fold(WEIGHTS).T, scores)


@given(
    wanted=st.floats(0.2, 10),
    steps=st.integers(1, 300),
    rate=st.sampled_from([1.0, 1.0, 0.2]),
)
@examples(4)
def test_a_plan_costs_what_is_wanted_and_hardly_less(wanted, steps, rate):
    config = RunConfig.read({"method": "private", "epsilon": wanted, "steps": steps, "rate": rate})
    spent = plan(config)
    cost = epsilon(spent, config.delta)
    assert 0.97 * wanted <= cost <= wanted


def test_nothing_is_planned_where_nothing_is_promised():
    assert plan(RunConfig.read({"method": "private"})) is None


def test_noisy_sums_add_in_the_ring():
    one = NoisySum(np.array([2**62, -5]))
    assert (NoisySum.zero(2) + one).values.tolist() == [2**62, -5]
    assert (one + one).values.tolist() == [-(2**63), -10]  # wraps, as secure sums do
