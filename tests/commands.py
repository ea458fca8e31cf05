"""The command line as a user types it, and what to expect of it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.run.folder import METRICS_FILE

Type = Callable[..., tuple[int, str, str]]
"""Types a command; returns its exit code, standard output and standard error."""

FEDDERM = [sys.executable, "-c", "from simulations.cli.main import main; main()"]

IID = ("--scheme", "iid", "--sites", "2")

TUNE = [
    *("method=finetune", "size=64", "stages=head", "rounds=4", "local_epochs=3", "lr=0.01"),
    *("batch=16", "views=1", "predictions=1", "folds=2", "test_fraction=0.3"),
]
"""Fine-tuning of the head alone, in about a second once the network is there."""


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Type a command in a process of its own."""
    command = [*FEDDERM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def metrics_of(run: Path) -> dict[str, Any]:
    """Read what a run's sites counted."""
    metrics: dict[str, Any] = json.loads((run / METRICS_FILE).read_text())
    return metrics


def is_one_error(code: int, out: str, err: str) -> bool:
    """Tell whether a command ended with one line that is for the user."""
    return code == 1 and out == "" and err.startswith("error: ") and err.count("\n") == 1
