"""The folder of a run: what was asked for, what happened, and what came out."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from common.config import RunConfig
from common.errors import ConfigError

if TYPE_CHECKING:
    from server.federation import Round

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.json"
MODEL_FILE = "model.safetensors"
ROUNDS_FILE = "rounds.jsonl"
_PACKAGES = ("fedderm", "flwr", "numpy", "scikit-learn", "torch")


class RunFolder:
    """Writes a run's files; each appears whole or not at all.

    Raises
    ------
    ConfigError
        If the folder holds a run already, or no folder is configured.
    """

    def __init__(self, config: RunConfig):
        if config.out is None:
            raise ConfigError("no run folder: set 'out' to a new folder")
        self.path = config.out
        if (self.path / CONFIG_FILE).exists():
            raise ConfigError(f"{self.path} holds a run already; set 'out' to a new folder")
        self.path.mkdir(parents=True, exist_ok=True)
        self._rounds = 0
        versions = {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}}
        self.write(CONFIG_FILE, {**config.model_dump(mode="json"), "versions": versions})

    def log_round(self, record: "Round", seconds: float) -> None:
        """Append one line for a round: who answered, who failed and why, seconds and bytes."""
        self._rounds += 1
        line = {"round": self._rounds, **vars(record), "seconds": round(seconds, 4)}
        with (self.path / ROUNDS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file atomically."""
        part = self.path / f".{name}.part"
        part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path / name)
