"""How often `fedderm drift` raises an alarm where nothing changed, and how soon where it did.

``python -m simulations.bench.drift RUN DIR`` takes the lesions of DIR that the run held out, one
image of each, as they are and as the changed camera of ``fedderm continual --scenario drift`` would
have made them. Weeks are drawn from them, again and again, and a table in Markdown is printed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from common.answers.watch import WatchCounts, alarms, compare
from common.arrays import Floats
from common.data.dataset import Dataset
from common.data.splits import TEST
from common.errors import DataError
from common.formats import markdown_table
from common.models.predictor import Judged, Predictor
from common.statistics.calibration import probabilities
from server.run.expected import read_expected
from server.run.folder import model_file
from simulations.bench.cameras import one_a_lesion
from simulations.continual.scenarios import by_another_camera
from simulations.runtimes.experiment import with_splits

_WEEKS, _REPEATS = 12, 300
_IMAGES = (25, 50, 100, 200)
_SHARES = (0.25, 0.5, 1.0)
_CHANGED_AT = 6


class _Said(NamedTuple):
    """Probabilities (n, n_classes) and distances (n,) of images."""

    probabilities: Floats
    distances: Floats

    def drawn(self, rng: np.random.Generator, n: int) -> "_Said":
        chosen = rng.integers(0, len(self.distances), n)
        return _Said(self.probabilities[chosen], self.distances[chosen])


def _say(predictor: Predictor, dataset: Dataset) -> _Said:
    names = [image.image_id for image in dataset.images]
    judged = list(predictor.judge((name, dataset.read(name)) for name in names))
    good = [each for each in judged if isinstance(each, Judged)]
    if len(good) < len(judged):
        raise DataError(f"{dataset.folder}: some images cannot be read; `fedderm data check`")
    scores = np.array([each.scores for each in good])
    chances = probabilities(scores, predictor.model.basis.calibration)
    return _Said(chances, np.array([each.distance for each in good]))


def _first_alarm(weeks: Sequence[WatchCounts], expected: WatchCounts) -> int | None:
    """Return the number of the first week with an alarm; weeks are watched as they come."""
    raised = alarms([compare(week, expected) for week in weeks])
    return next((number for number, what in enumerate(raised) if what), None)


def main(run: Path, data: Path) -> None:
    """Print the table."""
    predictor = Predictor.open(model_file(run))
    basis = predictor.model.basis
    threshold = basis.appearance.threshold if basis.appearance else np.inf
    dataset = with_splits(data, predictor.model.config)
    held_out = one_a_lesion(dataset.select(dataset.splits == TEST), len(dataset))
    usual = _say(predictor, held_out)
    expected = read_expected(model_file(run).parent, basis.task)
    if expected is None or not expected.images:
        raise DataError(f"{run} keeps no counts of test lesions; train it with test lesions")
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
                    measured = (WatchCounts.measure(*part, threshold) for part in parts)
                    weeks.append(next(measured) + next(measured))
                first.append(_first_alarm(weeks, expected))
            early = np.mean([f is not None and f < _CHANGED_AT for f in first])
            if share:
                after = [f - _CHANGED_AT + 1 for f in first if f is not None and f >= _CHANGED_AT]
                seen = f"{len(after) / len(first):.2f}"
                delay = f"{np.mean(after):.1f}" if after else "-"
            else:
                early, seen, delay = np.mean([f is not None for f in first]), "-", "-"
            rows.append((str(images), f"{share:.2f}", f"{early:.3f}", seen, delay))
    header = (
        "images a week",
        "share by the other camera",
        "runs with a false alarm",
        "runs in which the change is seen",
        "weeks until then",
    )
    print(
        f"{len(held_out)} lesions; {_WEEKS} weeks, the change from week {_CHANGED_AT + 1} on; "
        f"{_REPEATS} draws of each row.\n"
    )
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
