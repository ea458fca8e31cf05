"""By which score a model's wrong answers are the least sure ones.

``python -m simulations.experiments.referral DATA RUN...`` judges runs on the lesions of ``DATA``
that they held out, and prints a table in Markdown.
"""

import sys
from pathlib import Path

import numpy as np

from common.formats import estimate, markdown_table
from common.models.file import load_model
from server.run.folder import model_file
from simulations.evaluation.answer_measures import AUGRCS
from simulations.evaluation.held_out import HeldOut
from simulations.evaluation.intervals import interval
from simulations.runtimes.experiment import with_splits


def areas(data: Path, run: Path) -> list[str]:
    """Return a run's AUGRC by score, with 95 % intervals over lesions."""
    model = load_model(model_file(run))
    held_out = HeldOut.of(with_splits(data, model.config), model.config)
    measured = held_out.measured(held_out.ask(model))
    drawn = (measured[name] for name in AUGRCS)
    return [estimate(float(value), interval(np.array(rest)), ".4f") for value, *rest in drawn]


def main(data: Path, runs: list[Path]) -> None:
    """Print the table."""
    print(markdown_table(("run", *AUGRCS.values()), [(str(r), *areas(data, r)) for r in runs]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
