"""The images that models are judged on, and how good their answers about them are."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from common.arrays import Floats, Ints
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.dimensions import Dimension
from common.data.splits import TEST
from common.errors import DataError
from common.models.file import Model
from common.statistics.calibration import probabilities, uncalibrated
from common.statistics.confusion import confusion_matrix
from common.statistics.metrics import Evaluation, Metrics
from simulations.evaluation.answer_measures import measure_answers
from simulations.evaluation.answered import Answered
from simulations.evaluation.by_site import site_figures
from simulations.evaluation.groups.figures import ByGroup, Grouping, by_group
from simulations.evaluation.groups.measures import Records
from simulations.evaluation.groups.weights import lesion_weights
from simulations.evaluation.intervals import (
    Predicted,
    bootstrap,
    interval,
    paired_difference,
    point_estimates,
    resample,
)
from simulations.evaluation.judgement import AnswerQuality, Gap, Judged, Quality


@dataclass(frozen=True)
class Answers:
    """A model's answers on n images.

    Attributes
    ----------
    scores : (n, n_classes).
    labels : (n,) predicted classes.
    calibration : (2, n_classes) scales and biases of its probabilities.
    answered : its prediction sets and screening flags.
    """

    scores: Floats
    labels: Ints
    calibration: Floats
    answered: Answered

    @cached_property
    def predictions(self) -> Predicted:
        """Predicted classes (n,) and probabilities (n, n_classes)."""
        return self.labels, probabilities(self.scores, self.calibration)

    @property
    def uncalibrated(self) -> Predicted:
        """Classes (n,) of the largest scores, and uncalibrated probabilities (n, n_classes)."""
        plain = uncalibrated(self.scores.shape[1])
        return self.scores.argmax(axis=1), probabilities(self.scores, plain)


@dataclass(frozen=True)
class HeldOut:
    """The test images of pooled data.

    Attributes
    ----------
    dataset : these images alone.
    cache : folder of frozen features.
    seed : seed of the resamples.
    """

    dataset: Dataset
    cache: Path
    seed: int

    @classmethod
    def of(cls, pooled: Dataset, config: RunConfig) -> "HeldOut":
        """Take the test images of pooled data with splits.

        Raises
        ------
        DataError
            If there are no test lesions of two diagnoses.
        """
        dataset = pooled.select(pooled.splits == TEST)
        remedy = "raise test_fraction, or name test lesions in the column split"
        return cls.all_of(dataset, config, remedy)

    @classmethod
    def all_of(cls, dataset: Dataset, config: RunConfig, remedy: str) -> "HeldOut":
        """Take all images of a dataset.

        Parameters
        ----------
        remedy : what to do where they are too few.

        Raises
        ------
        DataError
            If there are no lesions of two diagnoses.
        """
        if (diagnoses := len(np.unique(dataset.labels))) < 2:
            raise DataError(
                f"{dataset.folder}: a comparison needs test lesions of two diagnoses, there "
                f"are {diagnoses}; {remedy}"
            )
        return cls(dataset, config.cache, config.seed)

    def ask(self, model: Model, with_metadata: bool = True) -> Answers:
        """Return a model's answers on the images, or on them as if no patient was known."""
        dataset = self.dataset if with_metadata else self.dataset.without_metadata()
        scores, basis = model.dataset_scores(dataset, self.cache), model.basis
        answered = Answered.of(model, dataset, basis.probabilities(scores), self.cache)
        return Answers(scores, basis.decide(scores), basis.calibration, answered)

    def quality(self, answers: Answers) -> Quality:
        """Judge a model's answers."""
        labels, predictions = self.dataset.labels, answers.predictions
        values = point_estimates(labels, *predictions)
        intervals = bootstrap(labels, *predictions, self.dataset.lesions, seed=self.seed)
        return Quality(
            balanced_accuracy=values["balanced_accuracy"],
            balanced_accuracy_interval=intervals["balanced_accuracy"],
            macro_auc=values["macro_auc"],
            macro_auc_interval=intervals["macro_auc"],
            accuracy=values["accuracy"],
            calibration_error=_calibration_error(labels, predictions),
            calibration_error_before=_calibration_error(labels, answers.uncalibrated),
            answers=self._answer_quality(answers),
        )

    def measured(self, answers: Answers) -> dict[str, Floats]:
        """Return metrics as of :func:`measure_answers`, (1001,): of all, then of resamples."""
        labels, lesions = self.dataset.labels, self.dataset.by_lesion
        drawn = resample(labels, self.dataset.lesions, seed=self.seed, repeats=1000)
        weights = np.vstack([np.ones(len(labels)), drawn]) / lesions.sizes[lesions.index]
        chances = answers.predictions[1]
        return measure_answers(self.dataset.task, labels, chances, answers.answered, weights)

    def _answer_quality(self, answers: Answers) -> AnswerQuality:
        values = self.measured(answers)
        known = {field.name for field in fields(AnswerQuality)}
        figures: dict[str, Any] = {}
        for name, (value, *resamples) in values.items():
            if name in known:
                figures[name] = float(value)
                figures[f"{name}_interval"] = interval(np.array(resamples))
        return AnswerQuality(**figures)

    def judged(
        self,
        run: str,
        method: str,
        answers: Answers,
        gap: Gap | None,
        by: Sequence[Dimension] = (),
    ) -> Judged:
        """Judge a run's model by its answers, together, by site and by groups."""
        labels, predictions = self.dataset.labels, answers.predictions
        confusion = confusion_matrix(labels, predictions[0], self.dataset.task.n_classes)
        return Judged(
            run,
            method,
            self.quality(answers),
            gap,
            tuple(map(tuple, confusion.tolist())),
            tuple(site_figures(self.dataset, predictions, self.seed)),
            self._by_group(answers, by) if by else None,
        )

    @cached_property
    def lesion_weights(self) -> Floats:
        """Weights (1001, n) of the images: as they are, then of resamples of lesions."""
        return lesion_weights(self.dataset.labels, self.dataset.lesions, [self.seed, 7], 1000)

    def records(self, answers: Answers) -> Records:
        """Return what a model said, as the metrics of groups need it."""
        dataset, (predicted, chances) = self.dataset, answers.predictions
        said = (dataset.labels, predicted, chances, answers.answered)
        return Records.of(dataset.task, *said, self.lesion_weights[0])

    def _by_group(self, answers: Answers, by: Sequence[Dimension]) -> ByGroup:
        groupings = [Grouping.of(dimension, self.dataset.images) for dimension in by]
        return by_group(self.records(answers), self.lesion_weights, groupings)

    def gap(self, answers: Answers, reference: Answers) -> Gap:
        """Compare a model's answers with another's."""
        labels, pair = self.dataset.labels, (answers.predictions, reference.predictions)
        ours, theirs = (point_estimates(labels, *predictions) for predictions in pair)
        intervals = paired_difference(labels, *pair, self.dataset.lesions, seed=self.seed)
        return Gap(
            balanced_accuracy=ours["balanced_accuracy"] - theirs["balanced_accuracy"],
            balanced_accuracy_interval=intervals["balanced_accuracy"],
            macro_auc=ours["macro_auc"] - theirs["macro_auc"],
            macro_auc_interval=intervals["macro_auc"],
        )


def _calibration_error(labels: Ints, predictions: Predicted) -> float:
    return Metrics.compute(Evaluation.measure(labels, *predictions)).expected_calibration_error
