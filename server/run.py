"""The folder of a run: what was asked for, what happened, and what came out."""

import json
import math
import platform
import secrets
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from common.config import RunConfig
from common.dataset import make_folder
from common.errors import ConfigError, DataError
from common.files import write_atomically
from common.model_file import Model
from server.journal import Journal

if TYPE_CHECKING:
    from server.post import Round

CARD_FILE = "MODEL_CARD.md"
CHECKPOINT_FILE = "checkpoint.safetensors"
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.json"
MODEL_FILE = "model.safetensors"
ROUNDS_FILE = "rounds.jsonl"
_NAME_FILE = "name"
_PACKAGES = ("fedderm", "flwr", "numpy", "scikit-learn", "torch")


class RunFolder:
    """Writes a run's files; each appears whole or not at all.

    An unfinished run, one without a model, goes on if it is started again as it was.

    Attributes
    ----------
    name : names the run to the sites, in hexadecimal; a new one for each.
    journal : the sums added so far.

    Raises
    ------
    ConfigError
        If no folder is configured, or it holds a finished run or one of another kind.
    DataError
        If the folder holds anything else.
    """

    def __init__(self, config: RunConfig):
        if config.out is None:
            raise ConfigError("no run folder: set 'out' to a new folder")
        self.path = config.out
        if (self.path / MODEL_FILE).exists():
            raise ConfigError(f"{self.path} holds a finished run; set 'out' to a new folder")
        versions = {"python": platform.python_version(), **{p: _version(p) for p in _PACKAGES}}
        start = {**config.model_dump(mode="json"), "versions": versions}
        if (self.path / CONFIG_FILE).exists():
            self._refuse_changes(start)
            for part in self.path.glob("*.part"):  # of files that a crash cut short
                part.unlink()
        else:
            make_folder(self.path)
            self.write_json(CONFIG_FILE, start)
        if not (self.path / _NAME_FILE).exists():
            self.write_text(_NAME_FILE, secrets.token_hex(8))
        self.name = (self.path / _NAME_FILE).read_text(encoding="utf-8")
        self.journal = Journal(self.path / "journal")
        self._rounds = self.trim(ROUNDS_FILE)

    def log_round(self, record: "Round", seconds: float) -> None:
        """Append one line for a round: who answered, who failed and why, seconds and bytes."""
        self._rounds += 1
        line = {"round": self._rounds, **vars(record), "seconds": round(seconds, 4)}
        self.append(ROUNDS_FILE, line)

    def append(self, name: str, values: Mapping[str, Any]) -> None:
        """Append a line of JSON to a file; what is not a finite number, JSON's null.

        Raises
        ------
        DataError
            If it cannot be written; the next start drops a part of a line.
        """
        file = self.path / name
        try:
            with file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(_finite(values)) + "\n")
        except OSError as error:
            raise DataError(
                f"cannot write {file} ({error.strerror}); what was finished before is kept"
            ) from error

    def trim(self, name: str, last: float = math.inf) -> int:
        """Drop a line that a crash cut short, and the lines of rounds after ``last``.

        Returns
        -------
        int
            Number of lines left in the file, which need not exist.
        """
        file = self.path / name
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        kept = [line for line in whole if json.loads(line)["round"] <= last]
        if "".join(kept) != text:
            self.write_text(name, "".join(kept))
        return len(kept)

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file; what is not a finite number, JSON's null."""
        self.write_text(name, json.dumps(_finite(values), indent=1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        write_atomically(self.path / name, text.encode())

    def finish(self, model: Model) -> None:
        """Write the model, which makes the run a finished one, and drop what it went on from."""
        model.save(self.path / MODEL_FILE)
        self.journal.clear()
        for name in (CHECKPOINT_FILE, _NAME_FILE):
            (self.path / name).unlink(missing_ok=True)

    def _refuse_changes(self, start: Mapping[str, Any]) -> None:
        """Check that an unfinished run is started as it was at first."""
        file = self.path / CONFIG_FILE
        try:
            first = _flat(json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ConfigError(f"{file} cannot be read; set 'out' to a new folder") from error
        now = _flat(start)
        for key in sorted(first.keys() | now.keys()):
            if first.get(key) != now.get(key):
                raise ConfigError(
                    f"{self.path} holds an unfinished run whose {key} is {first.get(key)!r}, not "
                    f"{now.get(key)!r}; start it as it was or set 'out' to a new folder"
                )


def _finite(values: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(values), parse_constant=lambda _: None)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # Flower runs the app's files, installed or not
        return "not installed"


def _flat(start: Mapping[str, Any]) -> dict[str, Any]:
    versions = {f"version of {name}": v for name, v in start.get("versions", {}).items()}
    return {**{key: value for key, value in start.items() if key != "versions"}, **versions}
