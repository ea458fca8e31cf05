"""The sites of a network's federation: what they are asked about its scores of their images."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from common.answers.counts import AnswerCounts
from common.answers.group_counts import ScreeningCounts
from common.answers.group_thresholds import GroupLesions
from common.arrays import Floats
from common.data.patient_groups import PatientGroups
from common.statistics.calibration import CalibrationSums, even
from common.statistics.metrics import Evaluation
from common.statistics.sums import S
from common.task import Task
from common.wire.messages import Value
from server.federation.federation import Federation
from server.federation.plausibility import check_screening
from server.federation.question import Answers, LossPolicy, Question
from server.run.checkpoint import Tensors


@dataclass(frozen=True)
class NetworkScores:
    """Scores of a part of the sites' images under some weights.

    Attributes
    ----------
    weights : of the network by name, of its shapes.
    subset : name of the part.
    views : prediction views of each image.
    personal : whether each site first trains the head on its own images.
    """

    weights: Tensors
    subset: str
    views: int
    personal: bool = False

    @cached_property
    def key(self) -> str:
        """A digest of all this."""
        digest = hashlib.sha256(repr((self.subset, self.views, self.personal)).encode())
        for name, array in sorted(self.weights.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def values(self) -> Mapping[str, Value]:
        """What goes with each question about them."""
        return {
            "scores": self.key,
            "subset": self.subset,
            "views": self.views,
            "personal": self.personal,
        }


class ScoredSites:
    """The sites, which keep the scores of weights that were sent to them.

    Parameters
    ----------
    task : the diagnoses.
    """

    def __init__(self, federation: Federation, task: Task) -> None:
        self._federation, self._task = federation, task
        self._sent: set[str] = set()

    def forget(self) -> None:
        """Send all weights again: some sites may not have them."""
        self._sent.clear()

    def calibrate(self, scores: NetworkScores, parameters: Floats) -> CalibrationSums:
        """Return the sums for a calibration at ``parameters`` (2, n_classes)."""
        zero = CalibrationSums.zero(self._task.n_classes)
        return self.ask(scores, Question("calibrate", zero, self._rule(parameters))).total

    def evaluate(
        self, scores: NetworkScores, parameters: Floats, base_rates: Floats
    ) -> Answers[Evaluation]:
        """Return the sites' counts of diagnoses.

        Parameters
        ----------
        parameters : (2, n_classes) calibration.
        base_rates : (n_classes,) frequencies of the classes, for the decision.
        """
        zero = Evaluation.zero(self._task.n_classes)
        rule = {**self._rule(parameters), "base_rates": base_rates}
        return self.ask(scores, Question("evaluate", zero, rule))

    def count_answers(self, scores: NetworkScores, parameters: Floats) -> Answers[AnswerCounts]:
        """Return the sites' counts of answers by a calibration ``parameters`` (2, n_classes)."""
        zero = AnswerCounts.zero(self._task)
        return self.ask(scores, Question("answers", zero, self._rule(parameters)))

    def count_groups(
        self, groups: PatientGroups, scores: NetworkScores, parameters: Floats
    ) -> GroupLesions:
        """Return lesions of groups of patients by a calibration ``parameters`` (2, n_classes)."""
        zero = ScreeningCounts.zero(self._task, groups.counted.size)
        rule = self._rule(parameters)
        question = Question("screening", zero, rule, check_answer=check_screening)
        return GroupLesions(groups, groups.joined(self.ask(scores, question).total.screening))

    def ask(self, scores: NetworkScores, question: Question[S]) -> Answers[S]:
        """Ask about scores; their weights are sent once, because the sites keep the scores."""
        new = scores.key not in self._sent
        arrays = {**question.arrays, **(scores.weights if new else {})}
        self._sent.add(scores.key)
        asked = replace(question, arrays=arrays, values=scores.values)
        return self._federation.answers(asked, LossPolicy.CONTINUE)

    def _rule(self, parameters: Floats) -> dict[str, Floats]:
        return {"calibration": parameters, "base_rates": even(self._task.n_classes)}
