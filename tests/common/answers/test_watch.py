"""A model in use is watched by counts that add, and by tests that keep their level."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, ks_2samp

from common.answers.watch import (
    LEVEL,
    OF_PICTURES,
    PictureCounts,
    WatchCounts,
    Week,
    alarms,
    compare,
    picture_groups,
)
from common.data.image_measures import ImageMeasures
from tests.records import N_CLASSES, SHARES, Ints, partitions, total

LABELS = np.random.default_rng(0).choice(N_CLASSES, 200, p=SHARES)
THRESHOLD = 1.4


def draw(rng: np.random.Generator, n: int, sharpness: float = 3.0) -> WatchCounts:
    """Count images of a model that is more or less sure of them; 4 % lie far away."""
    y = rng.choice(N_CLASSES, n, p=SHARES)
    logits = rng.standard_normal((n, N_CLASSES)) + sharpness * np.eye(N_CLASSES)[y]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return WatchCounts.measure(p, np.where(rng.random(n) < 0.04, 2.0, 1.0), THRESHOLD)


def _measures(rng: np.random.Generator, n: int) -> list[ImageMeasures | None]:
    """Measure images of a camera; one in ten has fewer pixels, and the last cannot be read."""
    sides = np.where(rng.random(n) < 0.1, 300, 450)
    rows = zip(sides, rng.normal(0.6, 0.1, n), rng.lognormal(4, 1.5, n), strict=True)
    found = [ImageMeasures(int(s), float(b), float(e)) for s, b, e in rows]
    return [*found[:-1], None]


def pictures(rng: np.random.Generator, n: int) -> PictureCounts:
    """Count such images."""
    return PictureCounts.measure(picture_groups(_measures(rng, n)))


@given(partitions(LABELS), st.integers(0, 2**32 - 1))
def test_counts_add_over_any_partition(sites: list[Ints], seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, distances = rng.dirichlet(np.ones(N_CLASSES), len(LABELS)), rng.uniform(0, 3, len(LABELS))

    def count(rows: Ints) -> WatchCounts:
        return WatchCounts.measure(p[rows], distances[rows], THRESHOLD)

    got, want = total([count(rows) for rows in sites]), count(np.arange(len(LABELS)))
    for name, array in want.to_record().items():
        np.testing.assert_array_equal(got.to_record()[name], array)
    assert got.images == len(LABELS)


def test_false_alarms_keep_their_level_over_all_weeks_together() -> None:
    """With an interval of three standard errors of 400 draws."""
    false = 0
    for repeat in range(400):
        rng = np.random.default_rng(repeat)
        expected = Week(draw(rng, 600), pictures(rng, 600))
        weeks = [Week(draw(rng, 60), pictures(rng, 60)) for _ in range(10)]
        false += any(alarms([week.compared(expected) for week in weeks]))
    assert false / 400 < LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 400)


@given(partitions(LABELS), st.integers(0, 2**32 - 1))
def test_counts_of_pictures_add_and_are_read_again(sites: list[Ints], seed: int) -> None:
    measures = _measures(np.random.default_rng(seed), len(LABELS))

    def count(rows: Ints) -> Week:
        of_rows = [measures[i] for i in rows]
        return Week(
            draw(np.random.default_rng(0), 0), PictureCounts.measure(picture_groups(of_rows))
        )

    want = count(np.arange(len(LABELS)))
    got = total([count(rows) for rows in sites])
    for found in (got, want.from_record(want.to_record())):
        for name, array in want.to_record().items():
            np.testing.assert_array_equal(found.to_record()[name], array)
    assert want.pictures.brightness.sum() == len(LABELS)


@pytest.mark.parametrize("what", OF_PICTURES)
def test_what_has_changed_of_pictures_is_named(what: str) -> None:
    rng = np.random.default_rng(5)
    groups = picture_groups(_measures(rng, 1200))
    changed = groups[1000:-1].copy()
    changed[:, OF_PICTURES.index(what)] += 1
    parts = (groups[:1000], groups[1000:], changed)
    expected, week, other = (PictureCounts.measure(part) for part in parts)
    said = draw(rng, 200)
    found = [Week(said, each).compared(Week(said, expected)) for each in (other, week)]
    assert alarms(found) == [[what], []]
    # Where nothing was counted before nothing is compared.
    unknown = PictureCounts.measure(groups[:0])
    assert Week(said, week).compared(Week(said, unknown)).keys() == compare(said, said).keys()


def test_a_camera_that_nobody_had_is_named_and_one_odd_image_is_not() -> None:
    rng = np.random.default_rng(6)
    said, usual = draw(rng, 25), picture_groups([ImageMeasures(450, 0.65, 100.0)] * 1525)
    odd, other = usual[1500:].copy(), usual[1500:].copy()
    odd[0] -= 1
    other[:, 0] -= 1
    expected = Week(said, PictureCounts.measure(usual[:1500]))
    found = [Week(said, PictureCounts.measure(each)).compared(expected) for each in (odd, other)]
    assert alarms(found) == [[], ["short side"]]
    # The one image is among the 25 of 1,525, or it is not; two sides are looked at.
    assert found[0]["short side"].p == pytest.approx(2 * 25 / 1525)


@pytest.mark.parametrize("what", ["diagnoses", "surety", "unlike lesions"])
def test_what_has_changed_is_named_and_nothing_else(what: str) -> None:
    rng = np.random.default_rng(1)
    expected, week = draw(rng, 1000), draw(rng, 200)
    if what == "unlike lesions":
        other = WatchCounts(week.likeliest, week.confidence, np.array([160, 40]))
    elif what == "surety":
        other = WatchCounts(week.likeliest, week.confidence[::-1], week.distant)
    else:
        other = WatchCounts(np.roll(week.likeliest, 1), week.confidence, week.distant)
    found = compare(other, expected)
    assert alarms([found, compare(week, expected)]) == [[what], []]
    assert found[what].stability > 0.15


def test_a_test_is_that_of_scipy_where_no_part_is_too_small() -> None:
    rng = np.random.default_rng(2)
    expected = WatchCounts(rng.integers(50, 90, N_CLASSES), np.zeros(1), np.zeros(2))
    week = WatchCounts(rng.integers(20, 60, N_CLASSES), np.zeros(1), np.zeros(2))
    found = compare(_with_bins(week), _with_bins(expected))["diagnoses"]
    table = np.stack([week.likeliest, expected.likeliest])
    assert found.p == pytest.approx(chi2_contingency(table, correction=False).pvalue)
    shares = (table + 0.5) / (table + 0.5).sum(axis=1, keepdims=True)
    assert found.stability == pytest.approx(
        float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())
    )


def test_chances_are_uniform_where_nothing_changed() -> None:
    """Those of surety, in ten parts; parts that are joined make them a little larger."""
    found = []
    for repeat in range(300):
        rng = np.random.default_rng([3, repeat])
        found.append(compare(draw(rng, 400), draw(rng, 800))["surety"].p)
    assert ks_2samp(found, np.linspace(0, 1, 10_001)).pvalue > 0.01


def _with_bins(counts: WatchCounts) -> WatchCounts:
    bins = np.zeros(500, dtype=np.int64)
    bins[:1] = counts.images
    return WatchCounts(counts.likeliest, bins, counts.distant)
