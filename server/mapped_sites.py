"""The sites of an SVM's federation, behind one map of their features: what they are asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from common.answers.counts import AnswerCounts
from common.answers.group_counts import ScreeningCounts
from common.answers.group_thresholds import GroupLesions
from common.arrays import Floats
from common.data.patient_groups import PatientGroups
from common.statistics import calibration
from common.statistics.calibration import even
from common.statistics.lbfgs import Solution
from common.statistics.metrics import Evaluation
from common.statistics.moments import Moments
from common.statistics.sums import Nothing, S
from common.svm import objective as svm
from common.svm.feature_map import FeatureMap
from common.task import Task
from common.wire.messages import Arrays, Value
from server.federation.federation import Federation
from server.federation.plausibility import HingeLimits, check_moments, check_screening
from server.federation.question import Answers, LossPolicy, Question
from server.group_balance import Weighting
from server.run.fit_rounds import FitRounds


class MappedSites:
    """The sites of a federation after they mapped their features with one map.

    Weights are (n_fits, n_classes, n_outputs + 1). One fit is trained on all training
    lesions and judged on the test lesions; several are each trained without one fold and
    judged on that.

    Parameters
    ----------
    task : the diagnoses.
    weighting : what records weigh.
    moments : the moments of the features after the map's matrix, before its clip and its Fourier
        map.

    Attributes
    ----------
    moments : the moments of the mapped features.
    """

    def __init__(
        self,
        task: Task,
        federation: Federation,
        feature_map: FeatureMap,
        weighting: Weighting,
        moments: Moments,
        rounds: FitRounds,
    ):
        self.feature_map = feature_map
        self._task, self._n_classes = task, task.n_classes
        self._federation = federation
        self._rounds = rounds
        self._values = {"map": feature_map.digest}
        arrays = {**feature_map.to_record(), **weighting.to_record()}
        prepare = Question("prepare", Nothing(), arrays, self._values)
        federation.total(prepare, LossPolicy.RESTART)
        self.moments = moments
        if feature_map.fourier or feature_map.clip:  # else they follow from the raw features'
            zero = Moments.zero(self._n_classes, feature_map.n_outputs)
            check = partial(check_moments, task)
            mapped = Question("mapped_moments", zero, values=self._values, check_answer=check)
            self.moments = federation.total(mapped, LossPolicy.RESTART)
        self._limits = HingeLimits(task, self.moments, weighting.largest, feature_map.longest)

    def hinge(self, weights: Floats) -> svm.HingeSums:
        """Return losses and gradients at ``weights`` (n_fits, n_classes, n_outputs + 1)."""
        self._rounds.spend(self.feature_map, weights)
        zero = svm.HingeSums.zero(weights.shape)
        question = Question(
            "hinge",
            zero,
            {"weights": weights},
            self._values,
            lambda sums, images: self._limits.check(sums, weights, images),
        )
        return self._federation.total(question, LossPolicy.RESTART)

    def solve(
        self,
        stage: str,
        start: Floats,
        preconditioner: svm.Preconditioner,
        c: float,
        tolerance: float,
        max_rounds: int,
    ) -> Solution:
        """Solve the fits.

        Parameters
        ----------
        stage : what the fits are for, in reports of progress.
        start : (n_fits, n_classes, n_outputs + 1) weights to start from.
        """
        report = partial(self._rounds.report, stage)
        return svm.solve(self.hinge, start, preconditioner, c, tolerance, max_rounds, report)

    def calibrate(self, weights: Floats) -> Floats:
        """Return the calibration (2, n_classes) of decision values of unseen lesions.

        Parameters
        ----------
        weights : (n_fits, n_classes, n_outputs + 1).
        """

        def ask(parameters: Floats) -> calibration.CalibrationSums:
            zero = calibration.CalibrationSums.zero(self._n_classes)
            return self._judge("calibrate", zero, weights, parameters, even(self._n_classes)).total

        return calibration.fit(ask, self._n_classes)

    def evaluate(
        self, weights: Floats, parameters: Floats, base_rates: Floats
    ) -> Answers[Evaluation]:
        """Return the sites' counts on images that no fit has seen.

        Parameters
        ----------
        weights : (n_fits, n_classes, n_outputs + 1).
        parameters : (2, n_classes) calibration.
        base_rates : (n_classes,) frequencies of the classes, for the decision.
        """
        zero = Evaluation.zero(self._n_classes)
        return self._judge("evaluate", zero, weights, parameters, base_rates)

    def count_answers(self, weights: Floats, parameters: Floats) -> Answers[AnswerCounts]:
        """Return the sites' counts on lesions that no fit has seen, one image each.

        Parameters
        ----------
        weights : (n_fits, n_classes, n_outputs + 1).
        parameters : (2, n_classes) calibration.
        """
        zero, rates = AnswerCounts.zero(self._task), even(self._n_classes)
        return self._judge("answers", zero, weights, parameters, rates)

    def count_groups(
        self, groups: PatientGroups, weights: Floats, parameters: Floats
    ) -> GroupLesions:
        """Return the lesions of groups of patients that no fit has seen, one image each.

        Parameters
        ----------
        weights : (n_fits, n_classes, n_outputs + 1).
        parameters : (2, n_classes) calibration.
        """
        zero, rates = ScreeningCounts.zero(self._task, groups.counted.size), even(self._n_classes)
        found = self._judge("screening", zero, weights, parameters, rates, check_screening)
        return GroupLesions(groups, groups.joined(found.total.screening))

    def _judge(
        self,
        question: str,
        zero: S,
        weights: Floats,
        parameters: Floats,
        base_rates: Floats,
        check: Callable[[S, int], None] | None = None,
    ) -> Answers[S]:
        arrays = {"calibration": parameters, "base_rates": base_rates}
        return self.of_weights(weights)(Question(question, zero, arrays, check_answer=check))

    def of_weights(self, weights: Floats) -> "OfWeights":
        """Return what asks about scores by ``weights`` (n_fits, n_classes, n_outputs + 1)."""
        return OfWeights(self._federation, {"weights": weights}, self._values)


@dataclass(frozen=True)
class OfWeights:
    """Asks the sites about scores of their images by weights under a map.

    Attributes
    ----------
    arrays : that go with each question: ``weights``, (n_fits, n_classes, n_outputs + 1).
    values : that go with each question: the name of the map.
    """

    federation: Federation
    arrays: Arrays
    values: Mapping[str, Value]

    def __call__(self, question: Question[S], /) -> Answers[S]:
        """Return the answers, all of them or none."""
        arrays, values = {**self.arrays, **question.arrays}, {**self.values, **question.values}
        return self.federation.answers(
            replace(question, arrays=arrays, values=values), LossPolicy.RESTART
        )
