"""From what a user names to answers: files, folders and lists, read and answered bit by bit."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from client.predict.picture import NOT_AN_IMAGE
from client.predict.shown import Answerer, ImageFile, Shown
from common.answers.answer import Unreadable
from common.data.metadata import UNKNOWN, About, Described
from common.data.patients import read_patients
from common.data.pictures import KNOWN_FORMATS, is_image, named_as_image
from common.errors import ConfigError, DataError
from common.storage.reading import open_file

STANDARD_INPUT = "-"
"""What stands for a list of paths on standard input, one a line."""

BATCH = 16
"""Images that are in memory at once, and that a model answers together."""

_FIRST_BYTES = 132  # where DICOM says so; others say it before

LARGEST = 200_000_000
"""Most bytes of a file: no image of a lesion is larger."""


NO_PATIENTS: Mapping[Path, Described] = MappingProxyType({})
"""Nothing is known of any patient."""


class Answered(NamedTuple):
    """What is shown of an image, with the bytes of its file; none where it could not be read."""

    shown: Shown
    data: bytes


def expand(paths: Iterable[str], listed: Iterable[bytes]) -> list[Path | Unreadable]:
    """Return the image files that paths name, those of a folder sorted, at any depth.

    A folder that has none or cannot be listed has an entry that says so. A file that is named is
    an image whatever its ending. In a folder pictures of formats that are not read are images too,
    so that their answer says so, and files without an ending whose first bytes are an image's.

    Parameters
    ----------
    paths : of files and folders; ``-`` stands for all of ``listed``.
    listed : lines of a list of paths.

    Raises
    ------
    DataError
        If there is nothing to read at all.
    """
    found = [each for path in _named(paths, listed) for each in _of_path(path)]
    if any(isinstance(each, Path) for each in found):
        return found
    problem = next(iter(found), None)
    if isinstance(problem, Unreadable):
        raise DataError(f"{problem.image}: {problem.error}")
    raise DataError("the list of paths is empty; write the path of an image on each line")


def patients_of(
    found: Iterable[Path | Unreadable], about: About, table: Path | None
) -> Mapping[Path, Described]:
    """Return what is known of the patients behind images.

    Parameters
    ----------
    found : what :func:`expand` gives.
    about : holds for all images.
    table : says it of each image.

    Raises
    ------
    ConfigError
        If both say something.
    DataError
        If the table cannot be used.
    """
    paths = [path for path in found if isinstance(path, Path)]
    if table is None:
        return dict.fromkeys(paths, about) if about != UNKNOWN else NO_PATIENTS
    if about != UNKNOWN:
        raise ConfigError(
            "--age, --sex and --place hold for all images, --metadata for each; choose one of them"
        )
    return read_patients(table, paths)


def answers(
    answerer: Answerer,
    found: Iterable[Path | Unreadable],
    *,
    evidence: bool,
    patients: Mapping[Path, Described] = NO_PATIENTS,
) -> Iterator[Answered]:
    """Yield what is shown of images, in their order, while the next ones are still to be read.

    Only :data:`BATCH` images are in memory at once.

    Parameters
    ----------
    found : paths of images, and what is no image, which is passed on.
    evidence : whether maps are asked for.
    patients : what is known of the patients behind the paths.
    """
    left = iter(found)
    while group := list(islice(left, BATCH)):
        files = [_with_patient(read(each), each, patients) for each in group]
        yield from answered(answerer, files, evidence=evidence)


def answered(
    answerer: Answerer, files: Sequence[ImageFile | Unreadable], *, evidence: bool
) -> Iterator[Answered]:
    """Yield what is shown of a few files, in their order; the model gets the images together.

    Parameters
    ----------
    files : images, and what could not be read, which is passed on.
    evidence : whether maps are asked for.
    """
    checked = [_check(each) for each in files]
    images = [each for each in checked if isinstance(each, ImageFile)]
    shown = iter(answerer.answer(images, evidence=evidence) if images else ())
    for each in checked:
        if isinstance(each, ImageFile):
            yield Answered(next(shown), each.data)
        else:
            yield Answered(Shown(each), b"")


def _named(paths: Iterable[str], listed: Iterable[bytes]) -> Iterator[Path]:
    for path in paths:
        if path == STANDARD_INPUT:
            lines = (line.rstrip(b"\r\n") for line in listed)
            yield from (Path(os.fsdecode(line)) for line in lines if line)
        else:
            yield Path(path)


def _of_path(path: Path) -> Iterator[Path | Unreadable]:
    if not path.is_dir():
        yield path
        return
    problems: list[OSError] = []
    empty = True
    for folder, inner, names in os.walk(path, onerror=problems.append):
        inner.sort()
        images = [path for name in sorted(names) if _may_be_image(path := Path(folder, name))]
        yield from images
        empty = empty and not images
    yield from (Unreadable(str(e.filename), f"cannot be listed ({e.strerror})") for e in problems)
    if empty and not problems:
        yield Unreadable(str(path), f"a folder without {KNOWN_FORMATS}; name another")


def _may_be_image(path: Path) -> bool:
    return named_as_image(path.name) or (_has_no_ending(path) and _is_image(path))


def _has_no_ending(path: Path) -> bool:
    # Cameras and archives of DICOM name files by a number or by an identifier of numbers and dots.
    numbered = not path.suffix or path.suffix[1:].isdigit()
    return numbered and not path.name.startswith(".")


def _is_image(path: Path) -> bool:
    try:
        with open_file(path) as file:
            return is_image(file.read(_FIRST_BYTES))
    except OSError:
        return False


def read(path: Path | Unreadable) -> ImageFile | Unreadable:
    """Return the image file at a path, or why it cannot be read; what is none is passed on."""
    if isinstance(path, Unreadable):
        return path
    try:
        with open_file(path) as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        return Unreadable(str(path), f"cannot be read ({error.strerror})")
    if len(data) > LARGEST:
        return Unreadable(str(path), f"larger than {LARGEST // 1_000_000} MB; name an image")
    return ImageFile(str(path), data)


def _with_patient(
    file: ImageFile | Unreadable, path: Path | Unreadable, patients: Mapping[Path, Described]
) -> ImageFile | Unreadable:
    if isinstance(file, Unreadable) or isinstance(path, Unreadable):
        return file
    return file._replace(patient=patients.get(path, UNKNOWN))


def _check(file: ImageFile | Unreadable) -> ImageFile | Unreadable:
    if isinstance(file, Unreadable) or is_image(file.data):
        return file
    return Unreadable(file.name, NOT_AN_IMAGE if file.data else "an empty file; copy it again")
