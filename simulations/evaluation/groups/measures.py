"""The metrics of a group of lesions, under many weightings of its images at once."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.answers.operating import target_members, target_probabilities, targets_of
from common.answers.referral import confidences
from common.arrays import Bools, Floats, Ints
from common.statistics.confusion import mean_defined, ratio
from common.statistics.metrics import CALIBRATION_BINS, calibration_error
from common.statistics.metrics import confidences as given
from common.task import Task
from simulations.evaluation.answered import Answered
from simulations.evaluation.measures import RocCurve

REFERRED = 0.1
"""Share of all lesions that is referred, those that the model is least sure of."""

METRICS = MappingProxyType(
    {
        "balanced_accuracy": "balanced accuracy",
        "melanoma_sensitivity": "melanoma screening, sensitivity",
        "malignant_sensitivity": "malignant screening, sensitivity",
        "malignant_specificity": "malignant screening, specificity",
        "auc": "AUC, malignant or not",
        "calibration_error": "calibration error",
        "coverage": "coverage of 95 % sets",
        "referred": "share referred",
    }
)
"""The metrics of a group, all in [0, 1], and what they are called."""

SHARES = ("melanoma_sensitivity", "malignant_sensitivity", "malignant_specificity")


@dataclass(frozen=True)
class Records:
    """What a model said of n images, as the metrics of groups need it.

    A share that nobody knows is nan: of lesions that it is not about, and where the model has no
    such rule.

    Attributes
    ----------
    task : the diagnoses.
    labels, predicted : (n,) true and predicted classes.
    shares : (n,) for each metric that is a mean over lesions, 1 for yes and 0 for no, by name.
    malignant : (n,) probability that an image shows a malignant lesion; nan without the target.
    confidence : (n,) probability of the predicted class.
    bins : (n,) calibration bins of these.
    """

    task: Task
    labels: Ints
    predicted: Ints
    shares: dict[str, Floats]
    malignant: Floats
    confidence: Floats
    bins: Ints

    @classmethod
    def of(
        cls,
        task: Task,
        labels: NDArray[np.integer],
        predicted: NDArray[np.integer],
        probabilities: NDArray[np.floating],
        answered: Answered,
        weights: Floats,
    ) -> Self:
        """Prepare them.

        Parameters
        ----------
        labels, predicted : (n,) true and predicted classes.
        probabilities : (n, n_classes) whose rows sum to 1.
        answered : the model's answers about the same images.
        weights : (n,) share of an image in its lesion, by which what is referred is chosen.
        """
        p = probabilities.astype(np.float64)
        confidence, bins = given(p, predicted)
        shares = {
            **_screened(task, labels, answered),
            "coverage": answered.inside[np.arange(len(labels)), labels],
            "referred": _referred(confidences(probabilities, "probability"), weights),
        }
        malignant = np.full(len(labels), np.nan)
        if "malignant" in targets_of(task):
            column = targets_of(task).index("malignant")
            malignant = target_probabilities(p, task)[:, column]
        classes = (labels.astype(np.int64), predicted.astype(np.int64))
        return cls(task, *classes, shares, malignant, confidence, bins)

    @property
    def is_malignant(self) -> Bools:
        """Whether the lesion of each image is malignant, (n,)."""
        return np.isin(np.array(self.task.codes)[self.labels], self.task.malignant)

    def select(self, rows: Bools) -> Self:
        """Return the images that a mask ``rows`` (n,) chooses."""
        shares = {name: values[rows] for name, values in self.shares.items()}
        return type(self)(
            self.task,
            self.labels[rows],
            self.predicted[rows],
            shares,
            self.malignant[rows],
            self.confidence[rows],
            self.bins[rows],
        )

    def measure(self, weights: Floats) -> dict[str, Floats]:
        """Return each of ``METRICS``, (repeats,); nan where no lesion is there for it.

        Parameters
        ----------
        weights : (repeats, n) non-negative, those of a lesion's images a share each.
        """
        found = {
            "balanced_accuracy": mean_defined(self.sensitivities(weights)),
            **{name: _mean(values, weights) for name, values in self.shares.items()},
            "auc": self._area(weights),
            "calibration_error": self._calibration_error(weights),
        }
        return {name: found[name] for name in METRICS}

    def sensitivities(self, weights: Floats) -> Floats:
        """Return the sensitivity of each class, nan for those that are absent.

        Parameters
        ----------
        weights : (repeats, n) non-negative.

        Returns
        -------
        (repeats, n_classes) in [0, 1].
        """
        own = np.eye(self.task.n_classes)[self.labels]
        right = own * (self.predicted == self.labels)[:, None]
        return ratio(weights @ right, weights @ own)

    def counts(self, weights: Floats) -> dict[str, float]:
        """Return the number of lesions that each metric rests on; the smaller part of an AUC.

        Parameters
        ----------
        weights : (n,) share of an image in its lesion.
        """
        # Shares of lesions add up to whole numbers but for rounding.
        n, malignant = (round(float(w.sum()), 6) for w in (weights, weights[self.is_malignant]))
        known = {
            name: round(float(weights[~np.isnan(values)].sum()), 6)
            for name, values in self.shares.items()
        }
        return {
            "balanced_accuracy": n,
            **known,
            "auc": 0.0 if np.isnan(self.malignant).any() else min(malignant, n - malignant),
            "calibration_error": n,
        }

    def _area(self, weights: Floats) -> Floats:
        positive = self.is_malignant
        if positive.all() or not positive.any() or np.isnan(self.malignant).any():
            return np.full(len(weights), np.nan)
        return RocCurve.of(positive, self.malignant, weights).area()

    def _calibration_error(self, weights: Floats) -> Floats:
        surplus = (self.predicted == self.labels) - self.confidence
        in_bin = surplus[:, None] * np.eye(CALIBRATION_BINS)[self.bins]
        return calibration_error(weights @ in_bin, weights.sum(axis=1))


def _screened(task: Task, labels: NDArray[np.integer], answered: Answered) -> dict[str, Floats]:
    """Return whether screening rules decide rightly, (n,) by metric; nan for other lesions."""
    found = {name: np.full(len(labels), np.nan) for name in SHARES}
    for column, target in enumerate(targets_of(task)):
        flagged, having = answered.flagged[:, column], target_members(task)[labels, column]
        sensitivity = "melanoma_sensitivity" if target == "mel" else "malignant_sensitivity"
        found[sensitivity] = np.where(having, flagged, np.nan)
        if target == "malignant":
            found["malignant_specificity"] = np.where(having, np.nan, 1 - flagged)
    return found


def _referred(confidence: Floats, weights: Floats) -> Floats:
    """Return which images are among the ``REFERRED`` that the model is least sure of, (n,)."""
    order = np.argsort(confidence, kind="stable")
    referred = np.zeros(len(confidence))
    referred[order] = np.cumsum(weights[order]) <= REFERRED * weights.sum() * (1 + 1e-12)
    return referred


def _mean(values: Floats, weights: Floats) -> Floats:
    """Return the means (repeats,) of what is known of values (n,)."""
    known = ~np.isnan(values)
    return ratio(weights @ np.where(known, values, 0.0), weights @ known.astype(np.float64))
