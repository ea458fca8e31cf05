"""What a method hands back, and the files that a run makes of it."""

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from common.dataset import DIAGNOSES
from common.metrics import Evaluation, Metrics
from common.model import LinearModel


@dataclass(frozen=True)
class Result:
    """A trained model and how it did on each site's test lesions.

    Attributes
    ----------
    model : the classifier.
    evaluations : each site's counts.
    uncalibrated : the same without calibration.
    details : how the training went, in plain values.
    """

    model: LinearModel
    evaluations: dict[str, Evaluation]
    uncalibrated: dict[str, Evaluation]
    details: dict[str, Any]

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of all sites together, from added counts, and of each alone."""
        raw = Metrics.compute(reduce(add, self.uncalibrated.values()))
        return {
            "overall": _json(reduce(add, self.evaluations.values())),
            "calibration_error_before": raw.expected_calibration_error,
            "sites": {site: _json(counts) for site, counts in self.evaluations.items()},
            "training": self.details,
        }


def _json(evaluation: Evaluation) -> dict[str, Any]:
    return Metrics.compute(evaluation).to_json(list(DIAGNOSES))
