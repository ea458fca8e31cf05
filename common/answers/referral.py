"""Referral: which images a model leaves to a person, and how often it errs on the others."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Floats, Ints
from common.errors import ConfigError
from common.statistics.confusion import ratio
from common.statistics.metrics import SCORE_BINS, score_edges
from common.statistics.proportions import wilson

Confidence = Literal["probability", "margin", "entropy"]
"""Scores of how sure a model is: the largest probability; by how much it is larger than the next;
1 minus the entropy's share of the largest that there is."""


@dataclass(frozen=True)
class Referral:
    """The rule to refer what a model is least sure of.

    Attributes
    ----------
    threshold : confidence in [0, 1] below which an image is referred.
    referred : share of the calibration lesions that are, in [0, 1].
    risk : share of the others whose likeliest diagnosis is wrong, in [0, 1].
    risk_interval : its 95 % interval.
    risk_of_all : the same share where nothing is referred.
    lesions : number of calibration lesions.
    """

    threshold: float
    referred: float
    risk: float
    risk_interval: tuple[float, float]
    risk_of_all: float
    lesions: int


@dataclass(frozen=True)
class RiskCoverage:
    """What is accepted, and what of it is wrong, at each threshold of a confidence score.

    Attributes
    ----------
    accepted, failed : (..., thresholds) weight of the records at or above each threshold, and of
        the wrong ones among them, the strictest threshold first; all records at the last.
    """

    accepted: Floats
    failed: Floats

    @classmethod
    def of(cls, wrong: Bools, confidence: NDArray[np.floating], weights: Floats) -> Self:
        """Rank records under many weightings, as a bootstrap wants them.

        Parameters
        ----------
        wrong : (n,) whether a record's likeliest diagnosis is wrong.
        confidence : (n,) score of each record, higher for those that are surer.
        weights : (repeats, n) non-negative; every row has some.

        Returns
        -------
        Weights of shape (repeats, thresholds); a threshold lies at each score that occurs.
        """
        order = np.argsort(-confidence, kind="stable")
        last = np.append(np.flatnonzero(np.diff(confidence[order])), len(confidence) - 1)
        ranked = weights[:, order]
        return cls(
            np.cumsum(ranked, axis=1)[:, last], np.cumsum(ranked * wrong[order], axis=1)[:, last]
        )

    @classmethod
    def counted(cls, histograms: Ints) -> Self:
        """Rank the bins of added counts.

        Parameters
        ----------
        histograms : (2, SCORE_BINS) records that are wrong (0) and right (1), as of
            :class:`common.answers.counts.AnswerCounts`.
        """
        surest_first = histograms[:, ::-1].astype(np.float64)
        return cls(np.cumsum(surest_first.sum(axis=0)), np.cumsum(surest_first[0]))

    def augrc(self) -> Floats:
        """Return the areas (...) under the generalised risk over coverage, in [0, 0.5].

        The generalised risk is the share of all records that are accepted and wrong. The area is
        the probability that of two records drawn at random the first is wrong and at least as sure
        as the second, where equally sure ones count one half. 0 is best.

        References
        ----------
        Traub et al., "Overcoming common flaws in the evaluation of selective classification
        systems", NeurIPS 2024, equation 7.
        """
        steps = np.diff(self.accepted, axis=-1, prepend=0.0)
        middle = self.failed - np.diff(self.failed, axis=-1, prepend=0.0) / 2
        return ratio((steps * middle).sum(axis=-1), self.accepted[..., -1] ** 2)

    def risk(self, coverage: float) -> Floats:
        """Return the share (...) of wrong ones among the surest records, in [0, 1].

        Parameters
        ----------
        coverage : share of the records that are accepted, in (0, 1]. Of equally sure ones as many
            as fit are accepted by chance.
        """
        wanted = coverage * self.accepted[..., -1:]
        # A rounding error must not ask for more than all.
        last = (self.accepted < wanted * (1 - 1e-12)).sum(axis=-1)[..., None]
        accepted, before = _at(self.accepted, last)
        failed, failed_before = _at(self.failed, last)
        part = ratio(wanted - before, accepted - before)
        return ratio(failed_before + part * (failed - failed_before), wanted)[..., 0]


def _at(cumulated: Floats, index: Ints) -> tuple[Floats, Floats]:
    """Return the values (..., 1) at an ``index`` (..., 1) and before it, 0 before the first."""
    padded = np.concatenate([np.zeros_like(cumulated[..., :1]), cumulated], axis=-1)
    return (
        np.take_along_axis(padded, index + 1, axis=-1),
        np.take_along_axis(padded, index, axis=-1),
    )


def confidences(probabilities: NDArray[np.floating], score: Confidence) -> Floats:
    """Return how sure a model is, (n,) in [0, 1].

    Parameters
    ----------
    probabilities : (n, n_classes) whose rows sum to 1.
    score : one of `Confidence`.
    """
    ascending = np.sort(probabilities, axis=1)
    if score == "probability":
        return np.asarray(ascending[:, -1])
    if score == "margin":
        return np.asarray(ascending[:, -1] - ascending[:, -2])
    from scipy.special import entr  # a command that needs it not is not to wait for it

    entropy = entr(probabilities).sum(axis=1)
    return np.asarray(np.clip(1.0 - entropy / np.log(probabilities.shape[1]), 0.0, 1.0))


def refer_least_sure(histograms: Ints, share: float, n_classes: int) -> Referral:
    """Return the rule that refers a share of images, those that the model is least sure of.

    Parameters
    ----------
    histograms : (2, SCORE_BINS) calibration lesions that are wrong (0) and right (1).
    share : in [0, 1). At most as many of the calibration lesions are referred.
    n_classes : number of classes that the scores are about.

    Raises
    ------
    ConfigError
        If the share is out of range, or there are no calibration lesions.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"the share to refer is {share:g}; choose one from 0 to below 1")
    n = int(histograms.sum())
    if not n:
        raise ConfigError("there are no calibration lesions to choose what to refer; add some")
    below = np.cumsum(histograms.sum(axis=0))
    # Bins that are referred as a whole; the last one, at most all but it, stays.
    bins = min(int((below <= share * n * (1 + 1e-12)).sum()), SCORE_BINS - 1)
    threshold = float(score_edges(n_classes)[bins - 1]) if bins else 0.0
    wrong, right = (int(part) for part in histograms[:, bins:].sum(axis=1))
    return Referral(
        threshold=threshold,
        referred=1 - (wrong + right) / n,
        risk=wrong / (wrong + right),
        risk_interval=wilson(wrong, wrong + right),
        risk_of_all=int(histograms[0].sum()) / n,
        lesions=n,
    )
