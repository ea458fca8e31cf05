"""Whether a new model may replace an old one: both answer about the same held-out lesions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.answers.paired import FIGURES
from common.answers.verdict import ALL, Verdict, unjudged, verdict, worse
from common.arrays import Floats
from common.data.dataset import Dataset
from common.data.dimensions import Dimension
from common.errors import ConfigError, DataError
from common.models.file import load_model
from simulations.evaluation.groups.changes import GroupChange, changes_by_group
from simulations.evaluation.groups.figures import Grouping
from simulations.evaluation.groups.gaps import Gap
from simulations.evaluation.groups.measures import Records
from simulations.evaluation.held_out import HeldOut
from simulations.evaluation.runs import common_images


@dataclass(frozen=True)
class Row:
    """A figure of both models on all lesions, or on those of a site or group.

    Attributes
    ----------
    group : name of the site or group, or ``ALL``.
    metric : one of :data:`common.answers.paired.FIGURES`.
    lesions : of the group.
    old, new : of the models, in [0, 1]; nan where a model does not say.
    change : the new model's minus the old one's.
    verdict : of :func:`common.answers.verdict.verdict`.
    """

    group: str
    metric: str
    lesions: float
    old: float
    new: float
    change: Gap
    verdict: Verdict


@dataclass(frozen=True)
class Replacement:
    """Both models' figures, and whether the new one may replace the old.

    Attributes
    ----------
    images, lesions : held out by both runs.
    margin : the largest loss of each figure.
    least : lesions from which on a group is judged.
    small : groups with fewer, which are not judged.
    """

    synthetic: bool
    images: int
    lesions: int
    margin: float
    least: int
    rows: tuple[Row, ...]
    small: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why the old model stays; "" if it need not."""
        return worse((row.group, row.metric, row.verdict) for row in self.rows)


def compare(
    data: Path,
    old: Path,
    new: Path,
    cache: Path,
    weights: Sequence[Path],
    by: Sequence[Dimension],
    margin: float,
    least: int,
) -> Replacement:
    """Compare two runs' models on the lesions of ``data`` that both hold out.

    Parameters
    ----------
    old, new : model files.
    cache : folder of frozen features, and of the hashes of pictures.
    weights : files among which the models' pretrained weights are found.
    by : groups of lesions that are judged apart, beside the sites.
    margin : the largest loss of each figure, in [0, 1).
    least : lesions from which on a site or group is judged apart.

    Raises
    ------
    ConfigError
        If the models have other diagnoses or hold out other lesions.
    DataError
        If a file is no model, the data cannot be used, or a diagnosis has no held-out lesion.
    """
    models = {str(file.parent): load_model(file, *weights) for file in (old, new)}
    if len(models) < 2:
        raise ConfigError(f"{old.parent} is both the old run and the new one; name two")
    first, second = models.values()
    if first.task.codes != second.task.codes:
        raise ConfigError(
            f"{new.parent} knows {', '.join(second.task.codes)} and {old.parent} "
            f"{', '.join(first.task.codes)}; models are compared on the same diagnoses"
        )
    held_out = common_images(data, models, cache)
    _refuse_missing(held_out.dataset)
    before, after = (held_out.records(held_out.ask(model)) for model in (first, second))
    return _judged(held_out, before, after, by, margin, least)


def _refuse_missing(dataset: Dataset) -> None:
    codes, labels = dataset.task.codes, dataset.labels
    if missing := [code for k, code in enumerate(codes) if k not in labels]:
        raise DataError(f"{dataset.folder}: {unjudged(missing)}")


def _judged(
    held_out: HeldOut,
    before: Records,
    after: Records,
    by: Sequence[Dimension],
    margin: float,
    least: int,
) -> Replacement:
    dataset, weights = held_out.dataset, held_out.lesion_weights
    everyone = Grouping("", [ALL], np.full(len(dataset), ALL))
    dimensions = [Dimension(("site",)), *(each for each in by if each.name != "site")]
    groupings = [everyone, *(Grouping.of(each, dataset.images) for each in dimensions)]
    large = [_of_at_least(least, grouping, weights[0]) for grouping in groupings]
    found = changes_by_group(before, after, weights, large, tuple(FIGURES))
    where = {(g.dimension, name): g.group == name for g in groupings for name in g.names}
    rows: list[Row] = []
    for group in found.groups:
        chosen = where[group.dimension, group.group]
        one = weights[:1, chosen]
        pair = before.select(chosen).measure(one), after.select(chosen).measure(one)
        rows += _rows(group, *pair, margin)
    judged = {(group.dimension, group.group) for group in found.groups}
    small = tuple(name for key in where if key not in judged for name in key[1:])
    lesions = len(dataset.by_lesion.sizes)
    return Replacement(dataset.synthetic, len(dataset), lesions, margin, least, tuple(rows), small)


def _of_at_least(least: int, grouping: Grouping, weights: Floats) -> Grouping:
    """Return a grouping without the groups of fewer lesions; all lesions are always judged."""
    names = [
        name
        for name in grouping.names
        if name == ALL or weights[grouping.group == name].sum() >= least
    ]
    return Grouping(grouping.dimension, names, grouping.group)


def _rows(
    group: GroupChange, old: Mapping[str, Floats], new: Mapping[str, Floats], margin: float
) -> Iterator[Row]:
    for metric in FIGURES:
        change = group.changes[metric]
        judged = verdict(change.value, change.high, margin, group.group == ALL)
        pair = float(old[metric][0]), float(new[metric][0])
        yield Row(group.group, metric, group.lesions, *pair, change, judged)
