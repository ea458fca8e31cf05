"""How often `fedderm drift` raises an alarm where nothing changed, and how soon where it did.

``python -m simulations.experiments.drift RUN DIR`` takes the lesions of DIR that the run held out,
one image of each, as they are and as the changed camera of ``fedderm continual --scenario drift``
would have made them. Weeks are drawn from them, again and again, and a table in Markdown is
printed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from common.answers.watch import (
    OF_PICTURES,
    PictureCounts,
    WatchCounts,
    Week,
    alarms,
    picture_groups,
)
from common.arrays import Floats, Ints
from common.data.dataset import Dataset
from common.data.image_measures import measure_image
from common.data.splits import TEST
from common.errors import DataError
from common.formats import markdown_table
from common.models.predictor import Judged, Predictor
from common.statistics.calibration import probabilities
from server.run.expected import read_expected
from server.run.folder import model_file
from simulations.continual.scenarios import by_another_camera
from simulations.experiments.cameras import one_a_lesion
from simulations.runtimes.experiment import with_splits

_WEEKS, _REPEATS = 12, 300
_IMAGES = (25, 50, 100, 200)
_SHARES = (0.25, 0.5, 1.0)
_CHANGED_AT = 6


class _Said(NamedTuple):
    """Probabilities (n, n_classes), distances (n,) and groups (n, 3) of images."""

    probabilities: Floats
    distances: Floats
    pictures: Ints

    def drawn(self, rng: np.random.Generator, n: int) -> "_Said":
        chosen = rng.integers(0, len(self.distances), n)
        return _Said(self.probabilities[chosen], self.distances[chosen], self.pictures[chosen])

    def counted(self, threshold: float) -> Week:
        said = WatchCounts.measure(self.probabilities, self.distances, threshold)
        return Week(said, PictureCounts.measure(self.pictures))


def _say(predictor: Predictor, dataset: Dataset) -> _Said:
    names = [image.image_id for image in dataset.images]
    judged = list(predictor.judge((name, dataset.read(name)) for name in names))
    good = [each for each in judged if isinstance(each, Judged)]
    if len(good) < len(judged):
        raise DataError(f"{dataset.folder}: some images cannot be read; `fedderm data check`")
    scores = np.array([each.scores for each in good])
    chances = probabilities(scores, predictor.model.basis.calibration)
    pictures = picture_groups([measure_image(dataset.read(name)) for name in names])
    return _Said(chances, np.array([each.distance for each in good]), pictures)


class _Alarm(NamedTuple):
    """The first alarm of a run: the number of its week, and whether it names the images."""

    week: int
    of_pictures: bool


def _first_alarm(weeks: Sequence[Week], expected: Week) -> _Alarm | None:
    """Return the first alarm, if any; weeks are watched as they come."""
    raised = alarms([week.compared(expected) for week in weeks])
    found = (_Alarm(n, bool(set(OF_PICTURES) & {*what})) for n, what in enumerate(raised) if what)
    return next(found, None)


def _figures(first: Sequence[_Alarm | None], changes: bool) -> tuple[str, ...]:
    """Return the figures of a row, of runs whose first alarms are ``first``."""
    until = _CHANGED_AT if changes else _WEEKS
    early = np.mean([alarm is not None and alarm.week < until for alarm in first])
    after = [alarm for alarm in first if alarm is not None and alarm.week >= until]
    if not after:
        return (f"{early:.3f}", "0.00" if changes else "-", "-", "-")
    named = sum(alarm.of_pictures for alarm in after) / len(first)
    delay = np.mean([alarm.week - _CHANGED_AT + 1 for alarm in after])
    return (f"{early:.3f}", f"{len(after) / len(first):.2f}", f"{named:.2f}", f"{delay:.1f}")


def main(run: Path, data: Path) -> None:
    """Print the table."""
    predictor = Predictor.open(model_file(run))
    basis = predictor.model.basis
    threshold = basis.appearance.threshold if basis.appearance else np.inf
    dataset = with_splits(data, predictor.model.config)
    held_out = one_a_lesion(dataset.select(dataset.splits == TEST), len(dataset))
    usual = _say(predictor, held_out)
    said = read_expected(model_file(run).parent, basis.task)
    if said is None or not said.images:
        raise DataError(f"{run} keeps no counts of test lesions; train it with test lesions")
    expected = Week(said, PictureCounts.measure(usual.pictures))
    every = np.ones(len(held_out), dtype=np.bool_)
    with TemporaryDirectory() as folder:
        changed = _say(predictor, by_another_camera(held_out, every, Path(folder) / "changed"))
    rows = []
    for images in _IMAGES:
        for share in (0.0, *_SHARES):
            rng = np.random.default_rng([images, int(100 * share)])
            first = []
            for _ in range(_REPEATS):
                weeks = []
                for number in range(_WEEKS):
                    late = round(images * share) if number >= _CHANGED_AT else 0
                    parts = usual.drawn(rng, images - late), changed.drawn(rng, late)
                    one, other = (part.counted(threshold) for part in parts)
                    weeks.append(one + other)
                first.append(_first_alarm(weeks, expected))
            rows.append((str(images), f"{share:.2f}", *_figures(first, bool(share))))
    header = (
        "images a week",
        "share by the other camera",
        "runs with a false alarm",
        "runs in which the change is seen",
        "in which the alarm names the images",
        "weeks until then",
    )
    print(
        f"{len(held_out)} lesions; {_WEEKS} weeks, the change from week {_CHANGED_AT + 1} on; "
        f"{_REPEATS} draws of each row.\n"
    )
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
