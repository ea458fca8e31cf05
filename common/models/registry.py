"""A model registry: a folder of model versions, of which one is current.

It has a folder for each version, and two files: ``registry.json`` says what the versions are and
which were promoted in which order, and ``answers.jsonl`` which version answered when. Whoever is
given the folder uses the current version.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from common.errors import ConfigError, DataError, reason
from common.json_types import JsonObject
from common.storage.reading import read_bytes
from common.storage.verified import FORMAT_ERRORS, DamagedError, read_json, write_json
from common.storage.whole_files import append, owned, whole_folder, write_atomically

MODEL_FILE = "model.safetensors"
"""Of each version, and of each run."""

ANSWERS_FILE = "answers.jsonl"
_FILE = "registry.json"


@dataclass(frozen=True)
class Version:
    """A model that was promoted.

    Attributes
    ----------
    number : its name in the registry, from 1.
    sha256 : of its file, in hexadecimal.
    parent : SHA-256 of the model that it was trained on from; None if from none.
    added : when it came, in ISO 8601.
    gate : how it did beside the version that it replaced; None if nobody compared them.
    """

    number: int
    sha256: str
    parent: str | None
    added: str
    gate: JsonObject | None


@dataclass(frozen=True)
class Registry:
    """What a registry's file says.

    Attributes
    ----------
    versions : in the order in which they came.
    promoted : numbers of the current version, last, and of those to roll back to, before it.
    """

    folder: Path
    versions: tuple[Version, ...] = ()
    promoted: tuple[int, ...] = ()

    @classmethod
    def is_at(cls, folder: Path) -> bool:
        """Tell whether a folder is a registry."""
        return (folder / _FILE).is_file()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read a registry.

        Raises
        ------
        DataError
            If the folder is none, or its file was changed.
        """
        if not cls.is_at(folder):
            raise DataError(f"{folder} is no model registry; `fedderm models promote` makes one")
        try:
            said = read_json(folder / _FILE)
            versions = tuple(Version(**each) for each in said["versions"])
            return cls(folder, versions, tuple(said["promoted"]))
        except (DamagedError, *FORMAT_ERRORS) as error:
            raise DataError(
                f"{folder / _FILE} is damaged; put a copy of it back, or promote the models in "
                f"{folder} again, into a new folder"
            ) from error

    @property
    def current(self) -> Version:
        """The version that answers."""
        return self.version(self.promoted[-1])

    def version(self, number: int) -> Version:
        """Return a version by its number.

        Raises
        ------
        ConfigError
            If there is none.
        """
        for version in self.versions:
            if version.number == number:
                return version
        raise ConfigError(f"{self.folder} has no version {number}; `fedderm models list` names all")

    def file(self, version: Version) -> Path:
        """Return a version's model file, which is the one that was promoted.

        Raises
        ------
        DataError
            If it is gone, or was changed.
        """
        file = self.folder / str(version.number) / MODEL_FILE
        try:
            same = hashlib.sha256(read_bytes(file)).hexdigest() == version.sha256
        except OSError as error:
            raise self._lost(version, f"cannot be read ({reason(error)})") from error
        if not same:
            raise self._lost(version, "was changed")
        return file

    def _lost(self, version: Version, what: str) -> DataError:
        return DataError(
            f"version {version.number} in {self.folder} {what}; put it back, or "
            f"`fedderm models rollback {self.folder}` to one that is there"
        )

    def promoted_version(
        self, files: Mapping[str, bytes], parent: str | None, gate: JsonObject | None
    ) -> Self:
        """Make a model the current version, written to the folder.

        Parameters
        ----------
        files : of its run by name, ``MODEL_FILE`` among them.
        parent, gate : as of `Version`.

        Raises
        ------
        ConfigError
            If it is the current version already.
        DataError
            If it cannot be written; the registry is as it was.
        """
        digest = hashlib.sha256(files[MODEL_FILE]).hexdigest()
        if self.promoted and self.current.sha256 == digest:
            raise ConfigError(f"this model is the current version, {self.current.number}, already")
        number = max((version.number for version in self.versions), default=0) + 1
        place = self.folder / str(number)
        shutil.rmtree(place, ignore_errors=True)  # of a call that was killed before it was listed
        with whole_folder(place) as folder:
            for name, content in files.items():
                write_atomically(folder / name, content)
        new = Version(number, digest, parent, _now(), gate)
        return self._written((*self.versions, new), (*self.promoted, number))

    def rolled_back(self, number: int | None = None) -> Self:
        """Make an earlier version the current one again, the one before if none is named.

        Raises
        ------
        ConfigError
            If there is none before, or the one that is named was not current before.
        DataError
            If it is gone, or was changed; the registry is as it was.
        """
        before = self.promoted[:-1]
        if not before:
            raise ConfigError(f"no version was current before {self.current.number}")
        wanted = before[-1] if number is None else self.version(number).number
        if wanted not in before:
            known = ", ".join(map(str, before))
            raise ConfigError(f"version {wanted} is none to roll back to; these are: {known}")
        self.file(self.version(wanted))
        return self._written(self.versions, before[: before.index(wanted) + 1])

    def _written(self, versions: tuple[Version, ...], promoted: tuple[int, ...]) -> Self:
        described = [asdict(version) for version in versions]
        write_json(self.folder / _FILE, {"versions": described, "promoted": list(promoted)})
        return replace(self, versions=versions, promoted=promoted)


@contextmanager
def changing(folder: Path) -> Iterator[Registry]:
    """Own a registry, which need not exist yet, while it is changed.

    Raises
    ------
    BusyError
        If another process changes it.
    DataError
        As of :meth:`Registry.open`, or if the folder has other files.
    """
    with owned(folder):
        if Registry.is_at(folder):
            yield Registry.open(folder)
            return
        # What a first promotion that was killed has left is no version yet.
        if folder.exists() and any(each.name not in ("1", ".1.part") for each in folder.iterdir()):
            raise DataError(f"{folder} is no model registry, and not empty; name a new folder")
        yield Registry(folder)


def log_answers(folder: Path, version: Version, images: int) -> None:
    """Append to a registry's log that a version answers about so many images, before it does.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    said = {
        "time": _now(),
        "version": version.number,
        "sha256": version.sha256,
        "images": images,
    }
    append(folder / ANSWERS_FILE, f"{json.dumps(said)}\n".encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
