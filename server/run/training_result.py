"""The result of a method, and the metrics of its run."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.answers.counts import AnswerCounts
from common.answers.performance import performance
from common.json_types import Json
from common.models.file import Model
from common.statistics.metrics import Evaluation, Metrics
from common.task import Task
from server.federation.question import Answers
from server.run.folder import GATE


@dataclass(frozen=True)
class TrainingResult:
    """A trained model and how it did on the sites' test lesions.

    Attributes
    ----------
    model : the classifier.
    evaluations : the sites' counts.
    uncalibrated : the same without calibration.
    details : how the training went, by name.
    answers : the sites' counts of the model's answers about test lesions; None where none leave.
    groups : how groups of lesions are served, by dimension; None where none were counted.
    gate : whether the model may replace that of its parent; None where that was not asked.
    personal : their counts under a model of each site's own, where there is one.
    """

    model: Model
    evaluations: Answers[Evaluation]
    uncalibrated: Answers[Evaluation]
    details: Mapping[str, Json]
    answers: Answers[AnswerCounts] | None = None
    personal: Answers[Evaluation] | None = None
    groups: Mapping[str, Json] | None = None
    gate: Mapping[str, Json] | None = None

    def metrics(self) -> dict[str, Json]:
        """Return the metrics of all sites together, from added counts, and of each alone.

        Where sums are secure there are no metrics of single sites.
        """
        task = self.model.task
        raw = Metrics.compute(self.uncalibrated.total)
        metrics: dict[str, Json] = {
            "overall": _json(task, self.evaluations.total),
            "calibration_error_before": raw.expected_calibration_error,
            "sites": _each(task, self.evaluations),
            "training": self.details,
        }
        if self.answers is not None:
            counts = self.answers
            metrics["answers"] = performance(self.model.basis, counts.total, counts.by_site)
        if self.groups is not None:
            metrics["groups"] = self.groups
        if self.gate is not None:
            metrics[GATE] = self.gate
        if self.personal is not None:
            metrics |= {"overall_personal": _json(task, self.personal.total)}
            metrics |= {"personal": _each(task, self.personal)}
        return metrics


def _each(task: Task, answers: Answers[Evaluation]) -> dict[str, Json]:
    return {site: _json(task, counts) for site, counts in answers.by_site.items()}


def _json(task: Task, evaluation: Evaluation) -> Json:
    return Metrics.compute(evaluation).to_json(list(task.codes))
