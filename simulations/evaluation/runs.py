"""Models on the same test lesions: how good each is, and whether one is better."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.dimensions import Dimension
from common.errors import ConfigError, DataError
from common.models.file import Model, load_model
from simulations.evaluation.held_out import Answers, HeldOut
from simulations.evaluation.judgement import Judgement, Selection
from simulations.evaluation.other_data import EveryLesion, test_lesions
from simulations.evaluation.trained_on import training_sets
from simulations.runtimes.experiment import with_splits

WITHOUT = " (without metadata)"
"""What marks the name of a run that uses metadata and was judged without."""

_log = logging.getLogger(__name__)


def evaluate_runs(
    data: Path,
    files: Mapping[str, Path],
    cache: Path,
    weights: Sequence[Path] = (),
    every: EveryLesion | None = None,
    by: Sequence[Dimension] = (),
    without_metadata: bool = False,
) -> Judgement:
    """Judge the models of finished runs on the test images that they hold out of ``data``.

    Parameters
    ----------
    files : the runs' model files by the runs' names; the others are compared with the first.
    cache : folder of frozen features, and of the hashes of pictures.
    weights : files among which the models' pretrained weights are found.
    every : takes all lesions of ``data`` for testing, in place of those held out.
    by : by what groups of lesions are judged apart.
    without_metadata : judges runs that use metadata, or thresholds by group, a second time, as if
        no patient was known; such a run's name says so.

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
    runs = {name: file.parent for name, file in files.items()}
    if every is None:
        held_out, selection = common_images(data, models, cache), Selection()
        for name, model in models.items():
            _refuse_trained_on(held_out.dataset, name, runs[name], model.config)
    else:
        dataset, selection = test_lesions(data, models, runs, every, cache)
        config = next(iter(models.values())).config.model_copy(update={"cache": cache})
        held_out = HeldOut.all_of(dataset, config, "name data with more")
    return _judgement(held_out, models, selection, by, without_metadata)


def held_out_of(data: Path, file: Path, model: Model, cache: Path) -> HeldOut:
    """Return the test images of ``data`` that a run holds out.

    Parameters
    ----------
    file : of the run's model, in its folder.
    cache : folder of the hashes of pictures.

    Raises
    ------
    DataError
        If the data cannot be used, there are too few such lesions, or the run trained on one.
    """
    name = str(file.parent)
    held_out = common_images(data, {name: model}, cache)
    _refuse_trained_on(held_out.dataset, name, file.parent, model.config)
    return held_out


def _judgement(
    held_out: HeldOut,
    models: Mapping[str, Model],
    selection: Selection,
    by: Sequence[Dimension],
    without_metadata: bool,
) -> Judgement:
    answers: dict[str, Answers] = {}
    asked = dict(models)
    for name, model in models.items():
        answers[name] = held_out.ask(model)
        config = model.config
        if without_metadata and (config.metadata or config.screening_by):
            asked[(blank := f"{name}{WITHOUT}")] = model
            answers[blank] = held_out.ask(model, with_metadata=False)
    first, *others = answers
    gaps = {name: held_out.gap(answers[name], answers[first]) for name in others}
    runs = [
        held_out.judged(name, asked[name].config.method, given, gaps.get(name), by)
        for name, given in answers.items()
    ]
    dataset = held_out.dataset
    lesions = len(dataset.by_lesion.sizes)
    classes = dataset.task.codes
    return Judgement(dataset.synthetic, len(dataset), lesions, classes, selection, runs)


def common_images(data: Path, models: Mapping[str, Model], cache: Path) -> HeldOut:
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
    parts = training_sets(run, config)
    if parts is None:
        _log.warning(
            "%s: its sites are gone; nobody can check that it held out these lesions", name
        )
        return
    trained = {lesion for part in parts for lesion in part.lesions}
    if seen := sorted(trained & set(test.lesions)):
        raise DataError(
            f"{name} was trained on {len(seen)} of the test lesions ({seen[0]}, ...): its sites "
            "hold out others; put their column split into the table of the data"
        )
