"""What a method hands back, and the files that a run makes of it."""

from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

from common.dataset import DIAGNOSES
from common.metrics import Evaluation, Metrics
from common.model_file import Model


@dataclass(frozen=True)
class Result:
    """A trained model and how it did on each site's test lesions.

    Attributes
    ----------
    model : the classifier.
    evaluations : each site's counts.
    uncalibrated : the same without calibration.
    details : how the training went, in plain values.
    personal : each site's counts under a model of its own, where there is one.
    """

    model: Model
    evaluations: dict[str, Evaluation]
    uncalibrated: dict[str, Evaluation]
    details: dict[str, Any]
    personal: dict[str, Evaluation] = field(default_factory=dict)

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of all sites together, from added counts, and of each alone."""
        personal = {site: _json(counts) for site, counts in self.personal.items()}
        raw = Metrics.compute(reduce(add, self.uncalibrated.values()))
        return {
            "overall": _json(reduce(add, self.evaluations.values())),
            "calibration_error_before": raw.expected_calibration_error,
            "sites": {site: _json(counts) for site, counts in self.evaluations.items()},
            **({"personal": personal} if personal else {}),
            "training": self.details,
        }


def _json(evaluation: Evaluation) -> dict[str, Any]:
    return Metrics.compute(evaluation).to_json(list(DIAGNOSES))
