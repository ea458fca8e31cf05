"""Pseudo-labels follow the frequencies that are known, and every class may have some."""

import numpy as np
import pytest

from client.finetune.consistency import aligned, named, pace_of_unlabelled
from common.finetune.plan import Stream

BASE = np.array([0.8, 0.15, 0.05])


def _chances(n: int = 3000, shift: float = 0.0) -> np.ndarray:
    """Draw probabilities of images whose classes are as frequent as BASE."""
    rng = np.random.default_rng(0)
    label = rng.choice(3, n, p=BASE)
    logits = np.log(BASE) + 1.5 * np.eye(3)[label] + rng.standard_normal((n, 3))
    logits[:, 0] += shift
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0])
def test_a_model_that_prefers_a_class_is_brought_back(shift) -> None:
    chances = _chances(shift=shift)
    found = aligned(chances, BASE, np.zeros(3, np.int64))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    before, after = (abs(each.mean(axis=0) - BASE).sum() for each in (chances, found))
    assert after <= before / 2 or after < 0.02


def test_a_site_with_diagnoses_has_its_own_frequencies() -> None:
    chances, own = _chances(), np.array([100, 300, 600])
    towards = aligned(chances, BASE, own).mean(axis=0) - chances.mean(axis=0)
    assert (np.sign(towards) == [-1, 1, 1]).all()
    # Two images say next to nothing.
    few = aligned(chances, BASE, np.array([0, 0, 2])).mean(axis=0)
    assert few[2] < aligned(chances, BASE, own).mean(axis=0)[2] / 1.5


@pytest.mark.parametrize(("labelled", "blank"), [(500, 200), (500, 500), (200, 900), (90, 1800)])
def test_no_more_are_in_a_batch_than_images_with_a_diagnosis(labelled, blank) -> None:
    pace = pace_of_unlabelled(labelled, labelled + blank)
    each = labelled * np.array([0.0, 0.3, 0.7]), blank * np.array([0.5, 0.4, 0.1])  # of three sites
    streams = [
        (
            Stream(np.zeros(round(known), np.int64), np.ones(1), 0, str(site)),
            Stream(np.zeros(round(lacks), np.int64), np.ones(1), 0, str(site), round(known), pace),
        )
        for site, (known, lacks) in enumerate(zip(*each, strict=True))
    ]
    seen = [[stream.between(1.0, 4.0) for stream in pair] for pair in streams]
    with_one, without = (sum(len(pair[kind]) for pair in seen) for kind in (0, 1))
    assert with_one == pytest.approx(3 * labelled, abs=3)
    assert without == pytest.approx(3 * min(labelled, blank), abs=3)
    for (_, items), lacks in zip(seen, each[1], strict=True):
        # One after the other in an order of their own: none again before all were seen.
        times = np.bincount([item.image for item in items])
        assert times.max() <= np.ceil(len(items) / round(lacks)) + 1


def test_where_no_site_says_how_many_images_it_has_all_are_seen() -> None:
    assert pace_of_unlabelled(500, 0) == 1


def test_each_class_has_its_threshold() -> None:
    sure = np.array([0.99, 0.95, 0.9, 0.6, 0.5])
    chances = np.stack([sure, 1 - sure, np.zeros(5)], axis=1)
    rare = np.array([[0.3, 0.25, 0.45], [0.3, 0.35, 0.35 + 1e-3]])
    rare /= rare.sum(axis=1, keepdims=True)
    lesions = np.array([f"lesion {i}" for i in range(7)])
    labels, kept = named(np.concatenate([chances, rare]), lesions, 0)
    assert labels.tolist() == [0] * 5 + [2, 2]
    # An image of 0.45 counts in its class, one of 0.6 does not in its own.
    assert kept.tolist() == [True] * 3 + [False] * 2 + [True, False]


def test_of_a_class_with_few_lesions_none_counts() -> None:
    chances = np.eye(2)[[0, 0, 0, 1, 1, 1]]
    lesions = np.array(["a", "b", "c", "d", "d", "e"])
    assert named(chances, lesions, 3)[1].tolist() == [True] * 3 + [False] * 3
    assert named(chances, lesions, 2)[1].all()
