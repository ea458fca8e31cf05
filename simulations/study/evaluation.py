"""Models on the same test lesions: how good each is, and whether one is better."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from client.site import Site, site_folders
from common.arrays import Floats, Ints
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.splits import TEST
from common.errors import ConfigError, DataError, FedDermError
from common.models.file import Model, load_model
from common.statistics.calibration import probabilities, uncalibrated
from common.statistics.metrics import Evaluation, Metrics
from server.run.folder import CONFIG_FILE
from simulations.runtimes.experiment import with_splits
from simulations.study.answer_measures import measure_answers
from simulations.study.answered import Answered
from simulations.study.intervals import (
    Predicted,
    bootstrap,
    interval,
    paired_difference,
    point_estimates,
    resample,
)
from simulations.study.judgement import AnswerQuality, Gap, Judged, Judgement, Quality

_log = logging.getLogger(__name__)


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
        if (diagnoses := len(np.unique(dataset.labels))) < 2:
            raise DataError(
                f"{pooled.folder}: a comparison needs test lesions of two diagnoses, there "
                f"are {diagnoses}; raise test_fraction, or name test lesions in the column split"
            )
        return cls(dataset, config.cache, config.seed)

    def ask(self, model: Model) -> Answers:
        """Return a model's answers on the images."""
        scores, basis = model.dataset_scores(self.dataset, self.cache), model.basis
        answered = Answered.of(model, self.dataset, basis.probabilities(scores), self.cache)
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

    def _answer_quality(self, answers: Answers) -> AnswerQuality:
        labels, lesions = self.dataset.labels, self.dataset.by_lesion
        drawn = resample(labels, self.dataset.lesions, seed=self.seed, repeats=1000)
        weights = np.vstack([np.ones(len(labels)), drawn]) / lesions.sizes[lesions.index]
        chances = answers.predictions[1]
        values = measure_answers(self.dataset.task, labels, chances, answers.answered, weights)
        known = {field.name for field in fields(AnswerQuality)}
        figures: dict[str, Any] = {}
        for name, (value, *resamples) in values.items():
            if name in known:
                figures[name] = float(value)
                figures[f"{name}_interval"] = interval(np.array(resamples))
        return AnswerQuality(**figures)

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


def evaluate(
    data: Path, files: Mapping[str, Path], cache: Path, weights: Sequence[Path] = ()
) -> Judgement:
    """Judge the models of finished runs on the test images that they hold out of ``data``.

    Parameters
    ----------
    files : the runs' model files by the runs' names; the others are compared with the first.
    cache : folder of frozen features.
    weights : files among which the models' pretrained weights are found.

    Raises
    ------
    ConfigError
        If there are no runs, they hold out different lesions, or a model's pretrained weights are
        missing.
    DataError
        If a file is no model, the data cannot be used, or a run trained on a test lesion.
    """
    if not files:
        raise ConfigError("no run to evaluate; name the folders of finished runs")
    models = {name: load_model(file, *weights) for name, file in files.items()}
    held_out = _common_images(data, models, cache)
    for name, model in models.items():
        _refuse_trained_on(held_out.dataset, name, files[name].parent, model.config)
    answers = {name: held_out.ask(model) for name, model in models.items()}
    first, *others = models
    gaps = {name: held_out.gap(answers[name], answers[first]) for name in others}
    runs = [
        Judged(name, model.config.method, held_out.quality(answers[name]), gaps.get(name))
        for name, model in models.items()
    ]
    dataset = held_out.dataset
    return Judgement(dataset.synthetic, len(dataset), len(dataset.by_lesion.sizes), runs)


def _common_images(data: Path, models: Mapping[str, Model], cache: Path) -> HeldOut:
    """Return the images that all runs hold out, which must be the same."""
    configs = {n: m.config.model_copy(update={"cache": cache}) for n, m in models.items()}
    first, config = next(iter(configs.items()))
    held_out = HeldOut.of(with_splits(data, config), config)
    for name, other in configs.items():
        if HeldOut.of(with_splits(data, other), other).dataset != held_out.dataset:
            # The folds count too: a rare class keeps a lesion for each before it gives one.
            keys = ("seed", "test_fraction", "folds")
            key = next(key for key in keys if getattr(other, key) != getattr(config, key))
            raise ConfigError(
                f"{name} holds out other test lesions: its {key} is {getattr(other, key)}, that of "
                f"{first} is {getattr(config, key)}; evaluate runs that agree on {key}"
            )
    return held_out


def _refuse_trained_on(test: Dataset, name: str, run: Path, config: RunConfig) -> None:
    """Refuse a run whose sites trained on test lesions, as far as their folders still exist."""
    try:
        started = json.loads((run / CONFIG_FILE).read_text(encoding="utf-8"))
        sites = [Site(folder, config).dataset for folder in site_folders(Path(started["sites"]))]
    except (FedDermError, OSError, ValueError, LookupError, TypeError):
        _log.warning(
            "%s: its sites are gone; nobody can check that it held out these lesions", name
        )
        return
    trained = {lesion for site in sites for lesion in site.lesions[site.splits != TEST]}
    if seen := sorted(trained & set(test.lesions)):
        raise DataError(
            f"{name} was trained on {len(seen)} of the test lesions ({seen[0]}, ...): its sites "
            "hold out others; put their column split into the table of the data"
        )


def _calibration_error(labels: Ints, predictions: Predicted) -> float:
    return Metrics.compute(Evaluation.measure(labels, *predictions)).expected_calibration_error
