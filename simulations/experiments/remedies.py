"""What remedies for groups do at the same total sensitivity, and what each costs the others.

``python -m simulations.experiments.remedies DATA RUN... --by sex,age:40,60,site`` judges runs on
the lesions of ``DATA`` that all of them held out, and prints tables in Markdown. A run that was
trained with ``screening_by`` is judged twice: with one threshold for all, and with its thresholds
by group; once where a run before gave the same scores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from common.answers.operating import TARGET_NAMES, target_members, target_probabilities, targets_of
from common.arrays import Bools, Floats, Ints
from common.command_line import run as run_command
from common.data.dimensions import Dimension, read_dimensions
from common.data.splits import folds
from common.errors import ConfigError
from common.formats import estimate, markdown_table
from common.models.file import Model, load_model
from server.run.folder import model_file
from simulations.evaluation.groups.figures import Grouping
from simulations.evaluation.groups.measures import Records
from simulations.evaluation.groups.remedies import (
    ALL,
    FOLDS,
    Remedy,
    Served,
    above_own_threshold,
    diagnoses_served,
    screening_served,
)
from simulations.evaluation.groups.weights import lesion_weights
from simulations.evaluation.held_out import HeldOut
from simulations.evaluation.intervals import interval
from simulations.evaluation.runs import common_images

_TITLES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "referred": "share referred",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC, malignant or not",
}
_REPEATS = 1000

app = typer.Typer(pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Compared:
    """Remedies on the same n test images.

    Attributes
    ----------
    weights : (1 + repeats, n) of the images, and of resamples of their lesions.
    fold : (n,) of each image, whole lesions.
    """

    held_out: HeldOut
    remedies: Sequence[Remedy]
    weights: Floats
    fold: Ints
    sensitivity: float

    def tables(self, dimension: Dimension) -> Iterator[str]:
        """Yield the tables of one dimension, the first remedy's figures before differences."""
        dataset = self.held_out.dataset
        grouping = Grouping.of(dimension, dataset.images)
        yield f"By {dimension.name}: diagnoses, whatever the threshold"
        yield from _tables([diagnoses_served(r, self.weights, grouping) for r in self.models])
        for column, target in enumerate(targets_of(dataset.task)):
            having = target_members(dataset.task)[dataset.labels, column]
            yield (
                f"By {dimension.name}: screening for {TARGET_NAMES[target]}, each model at a "
                f"sensitivity of {100 * self.sensitivity:g} % of all; such lesions: "
                f"{self._numbers(grouping, having)}"
            )
            yield from _tables(
                [
                    screening_served(
                        *(remedy, target, self.weights, self.fold, grouping),
                        sensitivity=self.sensitivity,
                    )
                    for remedy in self.remedies
                ]
            )

    @property
    def models(self) -> list[Remedy]:
        """The remedies whose diagnoses differ."""
        found: list[Remedy] = []
        for remedy in self.remedies:
            if not any(remedy.same_diagnoses(other) for other in found):
                found.append(remedy)
        return found

    def _numbers(self, grouping: Grouping, having: Bools) -> str:
        numbers = {
            name: self.weights[0, having & (grouping.group == name)].sum()
            for name in grouping.names
        }
        return ", ".join(f"{name} {n:.0f}" for name, n in numbers.items())


def compared(data: Path, runs: Sequence[Path], cache: Path, sensitivity: float) -> Compared:
    """Ask the models of runs about the test images that all of them hold out.

    Parameters
    ----------
    cache : folder of frozen features.
    sensitivity : of all models, in (0, 1).

    Raises
    ------
    ConfigError
        If the runs hold out different lesions, or the sensitivity is none.
    DataError
        If a folder is no finished run, or the data cannot be used.
    """
    if not 0 < sensitivity < 1:
        raise ConfigError(f"the sensitivity is {sensitivity:g}; choose one above 0 and below 1")
    models = {str(run): load_model(model_file(run)) for run in runs}
    held_out = common_images(data, models, cache)
    dataset = held_out.dataset
    weights = lesion_weights(dataset.labels, dataset.lesions, [held_out.seed, 7], _REPEATS)
    remedies: list[Remedy] = []
    for name, model in models.items():
        for remedy in _remedies(name, model, held_out, weights[0], sensitivity):
            if not any(np.array_equal(remedy.scores, other.scores) for other in remedies):
                remedies.append(remedy)
    fold = folds(dataset, FOLDS, held_out.seed)
    return Compared(held_out, remedies, weights, fold, sensitivity)


def _remedies(
    name: str, model: Model, held_out: HeldOut, shares: Floats, sensitivity: float
) -> Iterator[Remedy]:
    """Yield a model with one threshold, then with its thresholds by group, if it has them."""
    dataset, answers = held_out.dataset, held_out.ask(model)
    predicted, chances = answers.predictions
    records = Records.of(dataset.task, dataset.labels, predicted, chances, answers.answered, shares)
    scores = target_probabilities(np.asarray(chances, np.float64), dataset.task)
    yield Remedy(name, scores, records)
    if model.basis.by_group is not None:
        above = above_own_threshold(model.basis, scores, dataset.images, sensitivity)
        yield Remedy(f"{name}, thresholds by {model.config.screening_by}", above, records)


def _tables(served: Sequence[Served]) -> Iterator[str]:
    """Yield figures by group, then by how far groups are apart, with differences to the first."""
    first, metrics = served[0], [*served[0].by_group[ALL]]
    header = ("model", "group", *(_TITLES[metric] for metric in metrics))
    yield markdown_table(
        header,
        [
            (
                each.name,
                group,
                *(_cell(v[m], first.by_group[group][m], each is first) for m in metrics),
            )
            for each in served
            for group, v in each.by_group.items()
        ],
    )
    header = ("model", "figure", "worst group", "its figure", "largest gap of two groups")
    yield markdown_table(header, [row for each in served for row in _spread(each, first)])


def _spread(each: Served, first: Served) -> Iterator[tuple[str, ...]]:
    """Yield by figure which group is served worst, and how far groups are apart."""
    for metric, worst in each.worst.items():
        if metric != "referred":  # neither few nor many are better
            cells = (
                _cell(values[metric], reference[metric], each is first)
                for values, reference in ((each.lowest, first.lowest), (each.gap, first.gap))
            )
            yield (each.name, _TITLES[metric], worst or "-", *cells)


def _cell(values: Floats, first: Floats, same: bool) -> str:
    """Return a figure with its interval, and its difference to the first model's."""
    if isnan(values[0]):
        return "-"
    shown = estimate(float(values[0]), interval(values[1:]))
    if same:
        return shown
    apart = values - first
    return f"{shown}; {estimate(float(apart[0]), interval(apart[1:]), '+.3f')}"


@app.command()
def main(
    data: Annotated[Path, typer.Argument(help="Folder of the pooled data.")],
    runs: Annotated[
        list[Path], typer.Argument(help="Finished runs, the one to compare with first.")
    ],
    by: Annotated[str, typer.Option(help="Groups: sex, age:40,60, site, ...")] = "sex",
    sensitivity: Annotated[float, typer.Option(help="Of all models, over all lesions.")] = 0.95,
    cache: Annotated[Path, typer.Option(help="Folder for features.")] = Path("~/.cache/fedderm"),
) -> None:
    """Print the tables: "figure (95 % interval); difference to the first model (interval)"."""
    found = compared(data, runs, cache, sensitivity)
    for dimension in read_dimensions(by):
        for text in found.tables(dimension):
            typer.echo(f"{text}\n")


if __name__ == "__main__":
    run_command(app)
