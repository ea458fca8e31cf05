"""A file that answers otherwise than its model is refused, by the figure that it is worse in."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from common.answers.answering import Answering, AnswerOptions
from common.answers.basis import AnswerBasis
from common.answers.counts import AnswerCounts
from common.export.gate import Lesions, compare, table
from common.task import HAM10000

CLASSES = HAM10000.n_classes
MEL = HAM10000.codes.index("mel")


def draw(n, seed):
    """Draw labels of n images, two a lesion, and probabilities that are calibrated about."""
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(CLASSES, 0.3), n)
    labels = (chances.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    index = np.arange(n) // 2
    return labels[2 * index], chances, index


@pytest.fixture(scope="module")
def basis():
    labels, chances, _ = draw(3000, 1)
    counts = AnswerCounts.measure(HAM10000, labels, chances)
    rates = np.full(CLASSES, 1 / CLASSES)
    return AnswerBasis.of(HAM10000, np.stack([np.ones(CLASSES), np.zeros(CLASSES)]), rates, counts)


@pytest.fixture(scope="module")
def drawn():
    labels, chances, index = draw(2000, 2)
    return Lesions(labels, index, 0), chances


def verdicts(rows):
    return {row.what for row in rows if row.verdict == "refused"}


def test_the_same_answers_pass_and_figures_are_those_of_others(basis, drawn):
    lesions, chances = drawn
    rows = compare(basis, lesions, chances, chances)
    assert [row.verdict for row in rows] == 6 * ["passed"]
    assert all(row.before == row.after for row in rows)
    figures = {row.what: row.before for row in rows}
    called = chances.argmax(axis=1)  # the base rates are equal
    wanted = balanced_accuracy_score(lesions.labels, called)
    assert figures["balanced accuracy"] == pytest.approx(wanted)
    threshold = Answering(basis, AnswerOptions()).points[0].threshold
    own = lesions.labels == MEL
    flagged = (chances[own, MEL] >= threshold).mean()  # each lesion has two images
    assert figures["mel flagged"] == pytest.approx(flagged)


def test_each_loss_is_refused_by_its_own_figure(basis, drawn):
    lesions, chances = drawn
    sharpened = chances**3
    sharpened /= sharpened.sum(axis=1, keepdims=True)
    assert "calibration error" in verdicts(compare(basis, lesions, chances, sharpened))
    turned = chances.copy()
    turned[:60] = np.roll(turned[:60], 1, axis=1)  # 3 % of the images
    assert "same likeliest diagnosis" in verdicts(compare(basis, lesions, chances, turned))
    blind = chances.copy()
    blind[lesions.labels == MEL, MEL] = 0.0
    blind /= blind.sum(axis=1, keepdims=True)
    found = verdicts(compare(basis, lesions, chances, blind))
    assert {"balanced accuracy", "mel flagged", "coverage of sets"} <= found


def test_what_cannot_be_measured_is_said(basis, drawn):
    lesions, chances = drawn
    few = Lesions(lesions.labels[:20], lesions.index[:20], 0)
    rows = compare(basis, few, chances[:20], chances[:20])
    assert rows[-1].verdict == "not measured"
    assert "| coverage of sets, calibrated anew |" in table(rows)
    assert "not measured" in table(rows)
