"""What a coordinator can learn of one patient from the sums of one site: attacks as tests.

The attacker sees every question and every answer of a site, in the clear, and knows the
site's second moments. Where an attack on the sums themselves succeeds, the test says which rule of
a hospital refuses them, or that none can (docs/security.md has the table).
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from client.egress.dependent_questions import Lines
from client.egress.questions import Question
from client.methods.svm import Prepared, answer, hinge
from client.operator.site_rules import Rules
from client.site import Site
from common.config.run import RunConfig
from common.errors import Reason, RefusalError
from common.statistics.moments import Moments
from common.svm import objective as svm
from common.svm.feature_map import FeatureMap
from tests.records import N_CLASSES, Floats, Ints, draw_records, total

LESIONS, FEATURES = 200, 64
MIN_ACTIVE = RunConfig().min_active
RECOVERED = 1 - 1e-9  # cosine


def make_site(X: Floats, y: Ints, class_weights: Floats, views: int = 1) -> Prepared:
    """Return a site; each lesion has one image in ``views`` equal views."""
    lesion = np.repeat(np.arange(len(y)), views)
    share = np.full(len(lesion), 1 / views)
    return Prepared(
        X1=svm.with_intercept(X)[lesion],
        y=y[lesion],
        fold=lesion % 3,
        lesion=lesion,
        view_weight=share,
        sample_weight=class_weights[y[lesion]] * share,
        Z=X,
        image_fold=np.arange(len(y)) % 3,
    )


class World:
    """A site, the rest of its federation, and as many lesions that took no part."""

    def __init__(self, balanced: bool = True) -> None:
        X, y = draw_records(900 + LESIONS, FEATURES)
        order = np.random.default_rng(1).permutation(len(y))
        X, y = X[order], y[order]
        self.strangers, X, y = X[900:], X[:900], y[:900]
        self.moments = Moments.measure(X, y, np.ones(len(y)), N_CLASSES)
        weights = svm.balanced_weights(self.moments.class_weight)
        self.class_weights = weights if balanced else np.ones(N_CLASSES)
        self.site = make_site(X[:LESIONS], y[:LESIONS], self.class_weights)
        self.others = make_site(X[LESIONS:], y[LESIONS:], self.class_weights)
        counts = np.bincount(self.site.y, minlength=N_CLASSES)
        self.common = counts[self.site.y] >= MIN_ACTIVE

    @property
    def gram(self) -> Floats:
        return self.site.X1.T @ self.site.X1

    @property
    def class_sums(self) -> Floats:
        return np.stack([self.site.X1[self.site.y == k].sum(axis=0) for k in range(N_CLASSES)])


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def summed_hessians(world: World, c: float) -> Iterator[list[Floats]]:
    """Run Newton on summed Hessians; yield those of the site, one a class, in each round."""
    X1, y, weight = (
        np.concatenate([getattr(world.site, name), getattr(world.others, name)])
        for name in ("X1", "y", "sample_weight")
    )
    W = np.zeros((N_CLASSES, X1.shape[1]))
    for _ in range(12):
        of_site = []
        for k in range(N_CLASSES):
            t = 2.0 * np.equal(y, k) - 1.0
            slack = np.maximum(1 - t * (X1 @ W[k]), 0)
            outer = (X1 * (weight * (slack > 0))[:, None])[:, :, None] * X1[:, None]
            of_site.append(outer[:LESIONS].sum(axis=0))
            gradient = W[k] - 2 * c * (weight * t * slack) @ X1
            W[k] -= np.linalg.solve(np.eye(len(W[k])) + 2 * c * outer.sum(axis=0), gradient)
        yield of_site


def test_hessians_give_records_away(world: World) -> None:
    changes = np.diff(np.array(list(summed_hessians(world, 1e-2))), axis=0)
    recovered = []
    for change in changes.reshape(-1, FEATURES + 1, FEATURES + 1):
        values, vectors = np.linalg.eigh(change)
        order = np.argsort(-np.abs(values))
        if np.abs(values[order[0]]) > 1e-9 > np.abs(values[order[1]] / values[order[0]]):
            features = vectors[:, order[0]] / vectors[-1, order[0]]
            recovered.append(np.abs(world.site.X1 - features).max(axis=1).min())
    assert recovered
    assert max(recovered) < 1e-10


@cache
def transcript(world: World, c: float) -> tuple[Floats, Floats]:
    """Run the shipped solver; return the questions and the site's gradients, by round."""
    preconditioner = svm.Preconditioner(world.moments, world.class_weights)
    questions, gradients = [], []

    def ask(weights: Floats) -> svm.HingeSums:
        answers = [hinge(site, weights, MIN_ACTIVE) for site in (world.site, world.others)]
        questions.append(weights[0].copy())
        gradients.append(answers[0].gradient[0])
        return total(answers)

    svm.solve(ask, preconditioner.start(c)[None], preconditioner, c, 1e-8, FEATURES // 2)
    return np.array(questions), np.array(gradients)


@cache
def candidates(world: World, c: float) -> Floats:
    """Return the directions an attacker would try, from every problem and stretch of rounds."""
    questions, gradients = transcript(world, c)
    tried: list[Floats] = []
    for k in range(N_CLASSES):
        w, g = questions[:, k], gradients[:, k]
        for first in range(len(w)):
            for last in range(first + 2, len(w) + 1):
                tried += combinations(w[first:last], g[first:last], world)
    return np.array([direction for direction in tried if np.abs(direction).max() > 1e-12])


def combinations(w: Floats, g: Floats, world: World) -> Iterator[Floats]:
    """Combine gradients so that what is known, or the same in all, drops out.

    The weights that add to nothing over the questions cancel the curvature they share: what is
    left is of the records that changed their state. Then the part that the known Gram matrix
    and the known class sums explain is taken out.
    """
    directions = np.linalg.svd(w - w.mean(axis=0))[0].T
    for share in [np.eye(len(w))[-1] - np.eye(len(w))[0], *directions[-3:-1]]:
        share = share - share.mean()
        step, change = share @ w, share @ g
        yield change
        for known in ([world.gram @ step], [world.gram @ step, step, *world.class_sums]):
            K = np.array(known)
            yield change - K.T @ np.linalg.lstsq(K.T, change)[0]


def similarity(world: World, tried: Floats, X1: Floats) -> Floats:
    """Return each record's best absolute cosine over the tried directions, decorrelated."""
    values, vectors = np.linalg.eigh(world.gram)
    white = (vectors / np.sqrt(values)) @ vectors.T
    A, B = tried @ white, X1 @ white
    A, B = (M / np.linalg.norm(M, axis=1, keepdims=True) for M in (A, B))
    return np.asarray(np.abs(A @ B.T).max(axis=0))


@pytest.mark.parametrize("c", [1e-4, 1e-3, 1e-2])
def test_gradients_of_the_shipped_solver_hide_the_records_of_common_classes(
    world: World, c: float
) -> None:
    tried = candidates(world, c)
    chance = np.random.default_rng(99).standard_normal(tried.shape) @ world.gram
    members = world.site.X1[world.common]
    strangers = svm.with_intercept(world.strangers)
    found = similarity(world, tried, members).max()
    assert found < 1.1 * similarity(world, tried, strangers).max()
    assert found < 1.1 * similarity(world, chance, members).max() < 0.7
    # The same measure sees a record where there is one.
    assert similarity(world, members[:1] - 1e-6, members).max() > RECOVERED


def test_gradients_give_the_records_of_rare_classes_away(world: World) -> None:
    """Few, heavily weighted records make up their class's sums.

    So by default a hospital sends no plain sums while a class has fewer lesions than the others
    here have, whose records stay hidden.
    """
    tried, rare = candidates(world, 1e-2), world.site.X1[~world.common]
    strangers = svm.with_intercept(world.strangers)
    assert similarity(world, tried, rare).max() > 1.1 * similarity(world, tried, strangers).max()
    assert Rules().least_lesions >= MIN_ACTIVE


def test_moments_give_the_only_record_of_a_class_away() -> None:
    """The same rule refuses it."""
    X, y = draw_records(100, 8)
    alone = np.flatnonzero(y == np.bincount(y).argmin())[:1]
    rows = np.append(np.flatnonzero(y != y[alone]), alone)
    moments = Moments.measure(X[rows], y[rows], np.ones(len(rows)), N_CLASSES)
    np.testing.assert_allclose(moments.class_sum[y[alone]], X[alone])


def test_where_all_weigh_the_same_the_moments_give_a_lone_inactive_record_away() -> None:
    """As at a site of one class, which sends no plain sums, or if the coordinator weighs so.

    Honest runs come through such points too, so no rule can refuse them: noise alone helps.
    """
    world = World(balanced=False)
    one_vs_rest = 2 * np.eye(N_CLASSES) - 1
    errors = []
    for w, gradient in zip(*transcript(world, 6e-4), strict=True):
        if_all_were_active = 2 * (w @ world.gram - one_vs_rest @ world.class_sums)
        for missing in if_all_were_active - gradient:
            if np.abs(missing).max() > 1e-9:
                features = missing / missing[-1]
                errors.append(np.abs(world.site.X1 - features).max(axis=1).min())
    assert min(errors) < 1e-6


def on_a_line(step: float) -> Floats:
    """Return questions (n, 1, n_classes, d + 1) that are ``step`` of their norm apart."""
    rng = np.random.default_rng(5)
    start, direction = 0.3 * rng.standard_normal((2, 1, N_CLASSES, FEATURES + 1))
    return start + step * np.arange(FEATURES // 2)[:, None, None, None] * direction


def kinks(world: World, questions: Floats) -> float:
    """Return how well the best of the second differences of gradients is a record."""
    answers = [hinge(world.site, weights, MIN_ACTIVE).gradient[0] for weights in questions]
    found = np.diff(answers, n=2, axis=0).swapaxes(0, 1)
    errors = [1.0]
    pairs = np.stack([found[:, :-1], found[:, 1:]], axis=2).reshape(-1, 2, FEATURES + 1)
    for before, after in pairs:
        if parallel(before, after):  # both hold the one record that lies between
            errors.append(np.abs(world.site.X1 - before / before[-1]).max(axis=1).min())
    return min(errors)


@pytest.mark.parametrize(("step", "as_folds"), [(1.5e-3, False), (0.2, False), (1.5e-3, True)])
def test_questions_on_a_line_single_out_a_record_and_are_refused(
    world: World, tmp_path: Path, step: float, as_folds: bool
) -> None:
    questions = on_a_line(step)
    assert kinks(world, questions) < 1e-6
    lines = Lines(tmp_path)
    first, second, third = questions[:3]
    lines.add(first)
    # Fits without one fold each add up to the same sum.
    lines.add(np.repeat(second, 3, axis=0) if as_folds else second)
    with pytest.raises(RefusalError, match="depend on earlier ones") as refusal:
        lines.add(third)
    assert refusal.value.reason is Reason.LINE
    lines.add(first)  # the same again tells nothing new
    elsewhere = third + 1e-2 * np.random.default_rng(6).standard_normal(third.shape)
    lines.add(elsewhere)


def test_questions_in_a_plane_are_refused(tmp_path: Path) -> None:
    """Whatever number of them depends on each other: the linear part cancels in all of them."""
    rng = np.random.default_rng(7)
    start = rng.standard_normal((1, N_CLASSES, FEATURES + 1))
    axes = 1e-3 * rng.standard_normal((3, *start.shape))
    lines = Lines(tmp_path)
    for shares in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        lines.add(start + np.tensordot(shares, axes, 1))
    with pytest.raises(RefusalError, match="depend on earlier ones"):
        lines.add(start + np.tensordot((0.3, 0.4, -0.5), axes, 1))


@pytest.mark.parametrize("c", [1e-3, 1e-2])
def test_the_shipped_solver_asks_no_such_questions(world: World, tmp_path: Path, c: float) -> None:
    lines = Lines(tmp_path)
    for weights in transcript(world, c)[0]:
        lines.add(weights[None])


def parallel(a: Floats, b: Floats) -> bool:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return bool(norms > 1e-9 and abs(a @ b) > RECOVERED * norms)


def singling_out(problem: int) -> Floats:
    """Craft weights under which only the records of the class ``problem`` pull in its problem."""
    weights = np.zeros((1, N_CLASSES, FEATURES + 1))
    weights[0, problem, -1] = -2.0
    return weights


@pytest.mark.parametrize("problem", [0, 6])
def test_without_the_gate_a_crafted_question_is_answered_with_a_record(problem: int) -> None:
    X, _ = draw_records(60, FEATURES)
    y = np.full(60, 1 if problem == 0 else 0)
    y[17] = problem
    site = make_site(X, y, np.ones(N_CLASSES), views=3)
    gradient = hinge(site, singling_out(problem), min_active=0).gradient[0, problem]
    np.testing.assert_allclose(gradient[:-1] / gradient[-1], X[17], rtol=1e-12)
    with pytest.raises(RefusalError, match="are active in one of the problems"):
        hinge(site, singling_out(problem), MIN_ACTIVE)


@pytest.mark.parametrize("problem", range(N_CLASSES))
@pytest.mark.parametrize("views", [1, 3])
def test_the_gate_counts_lesions_not_views_in_every_problem(problem: int, views: int) -> None:
    X, _ = draw_records(80, FEATURES)
    few, enough = (
        make_site(X, np.where(np.arange(80) < n, problem, (problem + 1) % 7), np.ones(7), views)
        for n in (MIN_ACTIVE, MIN_ACTIVE + 1)
    )
    assert hinge(enough, singling_out(problem), MIN_ACTIVE + 1).loss[0, problem] > 0
    with pytest.raises(RefusalError, match=f"fewer than {MIN_ACTIVE + 1} lesions"):
        hinge(few, singling_out(problem), MIN_ACTIVE + 1)
    # Without one fold there are fewer again.
    with pytest.raises(RefusalError, match="are active in one of the problems"):
        hinge(enough, np.repeat(singling_out(problem), 3, axis=0), MIN_ACTIVE)


def test_a_class_that_weighs_nothing_does_not_hide_others() -> None:
    X, y = draw_records(100, FEATURES)
    site = make_site(X, y, np.eye(N_CLASSES)[0])
    with pytest.raises(RefusalError, match="are active in one of the problems"):
        hinge(site, np.zeros((1, N_CLASSES, FEATURES + 1)), MIN_ACTIVE)


def test_folds_cannot_be_subtracted_to_single_out_a_lesion() -> None:
    X, y = draw_records(100, FEATURES)
    fold = np.where(np.arange(100) == 33, 1, 2 * (np.arange(100) % 2))
    site = replace(make_site(X, y, np.ones(N_CLASSES)), fold=fold)
    weights = np.zeros((3, N_CLASSES, FEATURES + 1))
    without_33 = hinge(site, weights, min_active=1).gradient[1, 0]
    difference = hinge(site, weights[:1], min_active=1).gradient[0, 0] - without_33
    np.testing.assert_allclose(difference[:-1] / difference[-1], X[33], rtol=1e-9)
    for fits in (weights, weights[:1]):
        with pytest.raises(RefusalError, match="of one fold fewer than 7, are active"):
            hinge(site, fits, MIN_ACTIVE)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site", RunConfig(cache=tmp_path, min_active=1))


def test_a_site_answers_half_as_many_rounds_as_features(site: Site, world: World) -> None:
    weights = np.zeros((1, N_CLASSES, FEATURES + 1))
    a, b = "a" * 64, "b" * 64
    for name in (a, b):
        world.site.save(site.state.scratch(1) / name)

    def ask(feature_map: str) -> None:
        answer(site, Question(1, "1", "hinge", {"weights": weights}, {"map": feature_map}))

    for _ in range(FEATURES // 2):
        ask(a)
    for _ in range(2):
        with pytest.raises(RefusalError, match="32 rounds were answered"):
            ask(a)
    with pytest.raises(RefusalError, match="32 rounds were answered"):
        ask(b)  # another map is no new budget


def test_a_round_is_not_hundreds_of_questions(site: Site, world: World) -> None:
    weights = np.zeros((FEATURES, N_CLASSES, FEATURES + 1))
    world.site.save(site.state.scratch(1) / ("a" * 64))
    with pytest.raises(RefusalError, match="1 or 3 fits are allowed"):
        answer(site, Question(1, "1", "hinge", {"weights": weights}, {"map": "a" * 64}))


def test_a_map_has_one_name_and_so_one_budget(site: Site) -> None:
    feature_map = FeatureMap(np.zeros(4), np.eye(4))
    arrays = {**feature_map.to_record(), "class_weights": np.ones(N_CLASSES)}
    with pytest.raises(RefusalError, match="not the one that its name says"):
        answer(site, Question(1, "1", "prepare", arrays, {"map": "a" * 64}))
