"""Watching a model in use: whether new images, and what it says of them, are as they were before.

No diagnosis is needed. Sites count what the model says of the images of a week, and what these are
like; the counts add over sites, and are compared with those of lesions that the model had not seen
in training, one image of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from common.answers.appearance import SHARE
from common.answers.counts import AnswerCounts
from common.arrays import Floats, Ints
from common.data.groups import listed, numbers
from common.data.image_measures import ImageMeasures
from common.statistics.metrics import SCORE_BINS, score_edges
from common.statistics.sums import Sums
from common.task import HAM10000

LEVEL = 0.05
"""Largest chance of an alarm in all weeks together where nothing has changed."""

PICTURES = ("short_side", "brightness", "sharpness")
"""What images are like, by the names of their histograms."""

OF_PICTURES = tuple(name.replace("_", " ") for name in PICTURES)
UNLIKE = "unlike lesions"
"""What is compared, as it is called in an alarm."""

LEAST_IMAGES = 20
"""Images from which on a week is compared."""

_PARTS = 10  # of the lesions before, by their largest probability
_LEAST_EXPECTED = 5.0  # in a cell of a chi-squared test


@dataclass(frozen=True)
class WatchCounts(Sums):
    """What a model says of images, in numbers of images.

    Attributes
    ----------
    likeliest : (n_classes,) by the likeliest diagnosis.
    confidence : (SCORE_BINS,) by the largest probability, in bins of ``score_edges(n_classes)``.
    distant : (2,) not further from the training lesions than the model's threshold, and further.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("likeliest", "confidence", "distant")
    counted: ClassVar[str | None] = "likeliest"

    likeliest: Ints
    confidence: Ints
    distant: Ints

    @classmethod
    def measure(cls, probabilities: Floats, distances: Floats, threshold: float) -> Self:
        """Count images.

        Parameters
        ----------
        probabilities : (n, n_classes) in [0, 1].
        distances : (n,) from the training lesions; nan, which counts as near, without such a model.
        threshold : of the distances.
        """
        n_classes = probabilities.shape[1]
        bins = np.searchsorted(score_edges(n_classes), probabilities.max(axis=1), side="right")
        far = distances > threshold
        return cls(
            np.bincount(probabilities.argmax(axis=1), minlength=n_classes),
            np.bincount(bins, minlength=SCORE_BINS),
            np.array([(~far).sum(), far.sum()]),
        )

    @classmethod
    def expected(cls, lesions: AnswerCounts) -> Self:
        """Return the counts of lesions that were counted at the training, without distances."""
        return cls(
            lesions.confusion.sum(axis=0), lesions.confidence.sum(axis=0), np.zeros(2, np.int64)
        )

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.likeliest.sum())


@dataclass(frozen=True)
class PictureCounts(Sums):
    """What images are like whatever a model says of them, in numbers of images.

    Attributes
    ----------
    short_side, brightness, sharpness : (groups,) by the groups of `common.data.groups.HISTOGRAMS`.
    """

    nonnegative: ClassVar[tuple[str, ...]] = PICTURES

    short_side: Ints
    brightness: Ints
    sharpness: Ints

    @classmethod
    def measure(cls, groups: Ints) -> Self:
        """Count images by their groups (n, 3), which :func:`picture_groups` returns."""
        sizes = [len(listed(name)) for name in PICTURES]
        pairs = zip(groups.T, sizes, strict=True)
        return cls(*(np.bincount(column, minlength=size) for column, size in pairs))


def picture_groups(images: Sequence[ImageMeasures | None]) -> Ints:
    """Return the groups (n, 3) of n images in each of ``PICTURES``; None is of one unreadable."""
    rows = [[getattr(image, name, None) for name in PICTURES] for image in images]
    columns = zip(*rows, strict=True) if rows else [[]] * len(PICTURES)
    found = [numbers(n, column, HAM10000) for n, column in zip(PICTURES, columns, strict=True)]
    return np.stack(found, axis=1)


@dataclass(frozen=True)
class Change:
    """How one count of a week differs from what was expected.

    Attributes
    ----------
    stability : population stability index: the sum over parts of the difference of shares times the
        difference of their logarithms [1]_; 0 is the same, 0.25 is commonly called a shift. For
        images far from the training lesions, their share.
    p : chance of at least such a difference where nothing has changed.

    References
    ----------
    .. [1] Yurdakul, "Statistical properties of population stability index", 2018, equation 1.
    """

    stability: float
    p: float


def compare(week: WatchCounts, expected: WatchCounts) -> dict[str, Change]:
    """Compare the images of a week with lesions that were counted before, by what is counted.

    Shares of diagnoses and of surety by chi-squared tests of two samples, images that look unlike
    training lesions by a binomial test, as at most a share of ``SHARE`` of new lesions should.
    """
    from scipy.stats import binom  # a command that needs it not is not to wait for it

    sure = _parts(week.confidence, expected.confidence)
    far, n = int(week.distant[1]), int(week.distant.sum())
    return {
        "diagnoses": _change(week.likeliest, expected.likeliest),
        "surety": _change(*sure),
        UNLIKE: Change(far / max(n, 1), float(binom.sf(far - 1, n, SHARE))),
    }


def compare_pictures(week: PictureCounts, expected: PictureCounts) -> dict[str, Change]:
    """Compare what the images of a week are like with images that were counted before, if any.

    The groups are in order, and a changed camera has images where there were none, in which a
    chi-squared test is blind. So the images up to each group are compared exactly, and chances are
    corrected for the number of groups.
    """
    pairs = [(getattr(week, name), getattr(expected, name)) for name in PICTURES]
    return {
        shown: Change(_stability(now, before), _exact(now, before))
        for shown, (now, before) in zip(OF_PICTURES, pairs, strict=True)
        if before.any()
    }


@dataclass(frozen=True)
class Week:
    """What is counted of the images of a week: what a model says, and what they are like."""

    said: WatchCounts
    pictures: PictureCounts

    def __add__(self, other: "Week") -> "Week":
        return Week(self.said + other.said, self.pictures + other.pictures)

    def compared(self, expected: "Week") -> dict[str, Change]:
        """Compare all that was counted before, too."""
        of_said = compare(self.said, expected.said)
        return {**of_said, **compare_pictures(self.pictures, expected.pictures)}

    def to_record(self) -> dict[str, NDArray[np.generic]]:
        """Return the counts by name, in the shapes of both kinds."""
        return {**self.said.to_record(), **self.pictures.to_record()}

    def from_record(self, record: Mapping[str, NDArray[np.generic]]) -> "Week":
        """Read a ``record`` with the names and shapes of this one.

        Raises
        ------
        ReplyError
            If it has others.
        """
        ours = self.pictures.to_record().keys()
        pictures = {name: array for name, array in record.items() if name in ours}
        said = {name: array for name, array in record.items() if name not in ours}
        return Week(self.said.from_record(said), self.pictures.from_record(pictures))


def alarms(weeks: Sequence[dict[str, Change]], level: float = LEVEL) -> list[list[str]]:
    """Return what has changed in each week, by a test that holds for all weeks and counts together.

    Bonferroni's: each chance times the number of tests must be below ``level``.
    """
    tests = sum(len(week) for week in weeks)
    return [[what for what, each in week.items() if each.p * tests < level] for week in weeks]


def _parts(week: Ints, expected: Ints) -> tuple[Ints, Ints]:
    """Join bins into parts that hold about equal numbers of the expected lesions."""
    share = np.cumsum(expected) / max(int(expected.sum()), 1)
    part = np.minimum((share * _PARTS).astype(np.int64), _PARTS - 1)
    joined = [np.bincount(part, weights=counts, minlength=_PARTS) for counts in (week, expected)]
    return joined[0].astype(np.int64), joined[1].astype(np.int64)


def _stability(week: Ints, expected: Ints) -> float:
    found = np.stack([week, expected]).astype(np.float64)
    shares = (found + 0.5) / (found + 0.5).sum(axis=1, keepdims=True)
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def _exact(week: Ints, expected: Ints) -> float:
    """Return the chance of such a difference in ordered groups, by Fisher's test at each border."""
    from scipy.stats import hypergeom

    every, up_to, n = week + expected, np.cumsum(week), int(week.sum())
    both = np.cumsum(every)
    borders = (both > 0) & (both < both[-1])
    if not borders.any():
        return 1.0
    k, of = up_to[borders], (int(both[-1]), both[borders], n)
    least = np.minimum(hypergeom.cdf(k, *of), hypergeom.sf(k - 1, *of)).min()
    return float(min(1.0, 2 * least * borders.sum()))


def _change(week: Ints, expected: Ints) -> Change:
    stability = _stability(week, expected)
    table = _joined(np.stack([week, expected]).astype(np.float64))
    if table.shape[1] < 2:
        return Change(stability, 1.0)
    from scipy.stats import chi2_contingency

    return Change(stability, float(chi2_contingency(table, correction=False).pvalue))


def _joined(found: Floats) -> Floats:
    """Join the parts (2, parts) in which too few are expected for the test, the smallest first."""
    while found.shape[1] > 1:
        least = found.sum(axis=0) * found.sum(axis=1).min() / found.sum()
        order = np.argsort(least, kind="stable")
        if least[order[0]] >= _LEAST_EXPECTED:
            break
        first, second = order[:2]
        found[:, second] += found[:, first]
        found = np.delete(found, first, axis=1)
    return found
