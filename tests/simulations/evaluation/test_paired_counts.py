"""What added counts say of two models is what a paired bootstrap over lesions says."""

import numpy as np
import pytest

from common.answers.paired import FIGURES, PairedCounts, Said, changes, reach
from common.task import HAM10000
from simulations.evaluation.groups.changes import changes_by_group
from simulations.evaluation.groups.figures import Grouping
from simulations.evaluation.groups.gaps import NORMAL
from simulations.evaluation.groups.measures import Records
from simulations.evaluation.groups.weights import lesion_weights

N, K, MEL = 1500, HAM10000.n_classes, HAM10000.codes.index("mel")


def records(labels, said: Said) -> Records:
    predicted = np.where(said.correct, labels, (labels + 1) % K)
    none = np.full(N, np.nan)
    shares = {
        "melanoma_sensitivity": np.where(labels == MEL, said.flagged, np.nan),
        "malignant_sensitivity": none,
        "malignant_specificity": none,
        "coverage": said.covered.astype(float),
        "referred": np.zeros(N),
    }
    sure = np.full(N, 0.5)
    return Records(HAM10000, labels, predicted, shares, none, sure, np.full(N, 7))


@pytest.mark.parametrize("seed", range(3))
def test_changes_and_their_errors_are_those_of_the_bootstrap(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, N, p=[0.05, 0.08, 0.15, 0.05, 0.17, 0.4, 0.1])
    old = Said(*(rng.random((3, N)) < np.array([[0.7], [0.95], [0.9]])))
    # Of a tenth of the lesions the new one says something else.
    new = Said(*(np.where(rng.random(N) < 0.1, rng.random(N) < 0.6, each) for each in old))
    found = changes(PairedCounts.measure(HAM10000, labels, old, new), HAM10000)
    weights = lesion_weights(labels, np.arange(N).astype(str), seed, 1000)
    everyone = Grouping("", ["all"], np.full(N, "all"))
    pair = records(labels, old), records(labels, new)
    (group,) = changes_by_group(*pair, weights, [everyone], tuple(FIGURES)).groups
    for name, change in found.items():
        gap = group.changes[name]
        assert change.value == pytest.approx(gap.value)
        assert NORMAL < reach(len(found)) < 2.5
        # The counts know nothing of how the changes go together, and add one lesion that moved.
        assert reach(len(found)) * change.error == pytest.approx(gap.high - gap.value, rel=0.15)


def test_counts_of_sites_add_up_to_those_of_all():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, 60)
    old, new = (Said(*(rng.random((3, 60)) < 0.5)) for _ in range(2))
    whole = PairedCounts.measure(HAM10000, labels, old, new)
    parts = [slice(0, 7), slice(7, 40), slice(40, 60)]
    total = PairedCounts.zero(HAM10000)
    for part in parts:
        pair = (Said(*(each[part] for each in said)) for said in (old, new))
        total = total + PairedCounts.measure(HAM10000, labels[part], *pair)
    for name in Said._fields:
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))
        assert getattr(whole, name).sum() == 60
