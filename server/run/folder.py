"""The folder of a run: its configuration, its rounds and its results."""

import json
import math
import platform
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from common.config.run import RunConfig
from common.errors import ConfigError, DataError
from common.features.pretrained import weights_digest
from common.json_types import Json, JsonObject
from common.methods import METHODS
from common.models import registry
from common.models.file import Model
from common.storage.verified import read_verified, write_verified
from common.storage.whole_files import append, make_folder, owned, write_atomically
from server.run.journal import Journal

if TYPE_CHECKING:
    from server.federation.transport import RoundRecord

CARD_FILE = "MODEL_CARD.md"
CHECKPOINT_FILE = "checkpoint.safetensors"
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.json"
GATE = "gate"
"""The key in a run's metrics of whether its model may replace that of its parent."""
MODEL_FILE = registry.MODEL_FILE
ROUNDS_FILE = "rounds.jsonl"
RUN = "run"
"""The run's folder in the one given for results, beside the sites'."""
STATISTICS_FILE = "statistics.json"
"""The result of a method that trains no model."""
ANOTHER_FOLDER = "name a new folder: --out, or the setting 'out' under Flower"
"""What to do where a folder cannot take a run."""

_NAME_FILE = "name"
_PACKAGES = ("fedderm", "flwr", "numpy", "scikit-learn", "torch")


def read_metrics(run: Path) -> JsonObject:
    """Return the metrics of a finished run, or its statistics, as written into its folder."""
    file = run / STATISTICS_FILE
    file = file if file.exists() else run / METRICS_FILE
    metrics: JsonObject = json.loads(file.read_text(encoding="utf-8"))
    return metrics


def model_file(path: Path) -> Path:
    """Return the model of a run's folder, or of the one given for results; or ``path`` itself.

    Of a model registry it is the current version.

    Raises
    ------
    DataError
        If there is none.
    """
    if registry.Registry.is_at(path):
        models = registry.Registry.open(path)
        return models.file(models.current)
    # Not a pipe, for which a reader waits.
    for file in (path, path / MODEL_FILE, path / RUN / MODEL_FILE):
        if file.is_file():
            return file
    refuse_statistics(path)
    raise DataError(f"{path} holds no finished run; name a run's folder or its model file")


def refuse_statistics(path: Path) -> None:
    """Refuse a run's folder, or the one given for its results, that holds no model by its method.

    Raises
    ------
    DataError
        If it is one.
    """
    if any((folder / STATISTICS_FILE).is_file() for folder in (path, path / RUN)):
        raise DataError(
            f"{path} holds statistics, and no model: its method trains none; name another run"
        )


class RunFolder:
    """Writes a run's files; each appears whole or not at all.

    A killed run goes on if it is started again with the same settings. It has trained when there is
    a model, or the statistics of a method without one. It is finished when the sites have heard so
    and the files from which it would go on are removed, its name last.

    Attributes
    ----------
    finished : whether the folder holds this very run, and nothing is left to do.
    name : names the run to the sites, in hexadecimal; a new one for each, "" if it is finished.
    journal : the sums added so far.
    features : key of the features that the model will rest on, pretrained weights included; "" for
        a method without a model.
    bytes_down, bytes_up : sent to the sites and by them since this process opened the folder.

    Raises
    ------
    ConfigError
        If no folder is configured, or it holds a run of another kind.
    DataError
        If the folder holds anything else.
    """

    def __init__(self, config: RunConfig):
        self.path = _out(config)
        versions = {"python": platform.python_version(), **{p: _version(p) for p in _PACKAGES}}
        model = METHODS[config.method].model
        self._result = MODEL_FILE if model else STATISTICS_FILE
        self.features = config.feature_spec.key if model else ""
        # The path says little: another file may lie there when the run goes on.
        weights = {"weights_sha256": weights_digest(config.backbone, config.weights)}
        start = {**config.model_dump(mode="json"), **weights, "versions": versions}
        if (self.path / CONFIG_FILE).exists():
            self._refuse_changes(start)
            for part in self.path.glob("*.part"):  # of files that a crash cut short
                part.unlink()
        else:
            make_folder(self.path, CONFIG_FILE)
            self.write_json(CONFIG_FILE, start)
        name = self.path / _NAME_FILE
        self.finished = self.trained and not name.exists()
        if not self.finished and not name.exists():
            write_verified(name, secrets.token_hex(8).encode())
        self.name = "" if self.finished else read_verified(name).decode()
        self.journal = Journal(self.path / "journal")
        self.bytes_down, self.bytes_up = 0, 0
        self._rounds = self.trim(ROUNDS_FILE)

    @classmethod
    @contextmanager
    def opened(cls, config: RunConfig) -> Iterator[Self]:
        """Open the folder for the only process that writes it meanwhile.

        Raises
        ------
        BusyError
            If another process does; other errors are those of the class.
        """
        with owned(_out(config)):
            yield cls(config)

    @property
    def trained(self) -> bool:
        """Whether there is a model, or the statistics of a method without one."""
        return (self.path / self._result).exists()

    def log_round(self, record: "RoundRecord", seconds: float) -> None:
        """Append one line for a round: who answered, who failed and why, seconds and bytes."""
        line = {"round": self._rounds + 1, **vars(record), "seconds": round(seconds, 4)}
        self.append(ROUNDS_FILE, line)
        self._rounds += 1
        self.bytes_down += record.bytes_down
        self.bytes_up += record.bytes_up

    def append(self, name: str, values: Mapping[str, Json]) -> None:
        """Append a line of JSON to a file; what is not a finite number, JSON's null.

        Raises
        ------
        DataError
            If it cannot be written.
        """
        append(self.path / name, f"{json.dumps(_finite(values))}\n".encode())

    def trim(self, name: str, last: float = math.inf) -> int:
        """Drop a line that a crash cut short, and the lines of rounds after ``last``.

        Returns
        -------
        Number of lines left in the file, which need not exist.

        Raises
        ------
        DataError
            If a line is none that was written.
        """
        file = self.path / name
        text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        try:
            kept = [line for line in whole if json.loads(line)["round"] <= last]
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{file} was changed ({error}); {ANOTHER_FOLDER}") from error
        if "".join(kept) != text:
            self.write_text(name, "".join(kept))
        return len(kept)

    def write_json(self, name: str, values: Mapping[str, Json]) -> None:
        """Write a JSON file; what is not a finite number, JSON's null."""
        self.write_text(name, json.dumps(_finite(values), indent=1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        write_atomically(self.path / name, text.encode())

    def finish(self, model: Model) -> None:
        """Write the model."""
        model.save(self.path / MODEL_FILE)

    def forget(self) -> None:
        """Remove the files from which the run would go on; it is finished."""
        self.journal.clear()
        for name in (CHECKPOINT_FILE, _NAME_FILE):
            (self.path / name).unlink(missing_ok=True)

    def _refuse_changes(self, start: Mapping[str, Any]) -> None:
        """Check that a run is started as it was at first."""
        file = self.path / CONFIG_FILE
        try:
            first = _flat(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, AttributeError) as error:  # not JSON, or no object
            raise ConfigError(f"{file} cannot be read; {ANOTHER_FOLDER}") from error
        now = _flat(start)
        for key in sorted(first.keys() | now.keys()):
            if first.get(key) != now.get(key):
                kind = "a finished" if self.trained else "an unfinished"
                raise ConfigError(
                    f"{self.path} holds {kind} run whose {key} is {first.get(key)!r}, not "
                    f"{now.get(key)!r}; start it as it was, or {ANOTHER_FOLDER}"
                )


def _out(config: RunConfig) -> Path:
    if config.out is None:
        raise ConfigError(f"no run folder: {ANOTHER_FOLDER}")
    return config.out


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
