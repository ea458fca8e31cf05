"""A site's part where pictures are compared: keyed tokens leave, names of images never do."""

import hashlib
import hmac
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from client.egress.allowlist.duplicates import n_rows
from client.egress.questions import Question
from client.operator.picture_secret import read_secret
from client.site import Site
from common.arrays import Bools, Ints
from common.config.run import RunConfig
from common.data.dataset import SYNTHETIC_MARKER, Dataset
from common.data.duplicates import Hashes, near_duplicates, picture_hashes
from common.data.picture_tokens import PictureTokens, order, padded
from common.errors import Reason, RefusalError
from common.features.extract import content_keys
from common.statistics.sums import Nothing
from common.storage.whole_files import write_atomically
from common.text import printable
from common.wire.messages import Value

ELSEWHERE_FILE = "pictures-elsewhere.tsv"
"""File in a hospital's state folder: its images that are at other sites too, and at which."""

_log = logging.getLogger(__name__)

_MOST_LINES = 50
"""Most images that a site's log names."""


class _Pictures(NamedTuple):
    """The n pictures of a site, of which no two are near-duplicates.

    Attributes
    ----------
    hashes : (n, 4).
    images : names of the images that each of them stands for.
    """

    hashes: Hashes
    images: list[list[str]]


def describe(site: Site) -> Mapping[str, Value]:
    """Describe this site, and nothing of its images, not even how many there are.

    Raises
    ------
    RefusalError
        If the operator's rules do not let pictures be compared.
    """
    _secret(site)
    rows = (site.name, site.scan.images, site.scan.left_out)
    return {
        "classes": [True] * site.config.task.n_classes,
        "images": "",
        "lesions": "",
        "synthetic": (site.folder / SYNTHETIC_MARKER).exists(),
        "fingerprint": site.keyed(hashlib.sha256(repr(rows).encode()).hexdigest()),
    }


def prepare(dataset: Dataset, config: RunConfig, cache: Path) -> None:
    """Compute the perceptual hashes of images."""
    picture_hashes(dataset, cache, content_keys(dataset))


def answer(site: Site, question: Question) -> PictureTokens | Nothing:
    """Give the tokens of this site's pictures, or name in its own log those that others have.

    Raises
    ------
    RefusalError
        If the operator's rules do not let pictures be compared, or there are too many.
    """
    secret, rows = _secret(site), n_rows(site.config)
    pictures, own = site.once(_pictures), _own_key(site, question.run)
    if len(pictures.images) > rows:
        raise RefusalError(
            Reason.SETTINGS,
            f"{len(pictures.images)} pictures are more than 'most_pictures', {rows}; raise it",
        )
    if question.name == "tokens":
        # Tokens of two runs cannot be compared with each other.
        key = hmac.digest(secret, f"pictures of run {question.run}".encode(), "sha256")
        return padded(pictures.hashes, key, own, rows)
    others, flags = question.values["others"], np.asarray(question.arrays["rows"])
    if not isinstance(others, list) or len(others) != len(flags):
        raise RefusalError(Reason.FORM, "'rows' are not of as many sites as 'others'")
    names = [str(name) for name in others]
    _tell(site, list(_elsewhere(pictures, order(own, rows), flags != 0, names)))
    return Nothing()


def _secret(site: Site) -> bytes:
    """Return the secret of the sites; a simulation's hides nothing from who runs it."""
    if not site.deployed:
        return hashlib.sha256(f"simulated sites, seed {site.config.seed}".encode()).digest()
    rules = site.rules
    if rules.picture_secret is None:
        raise RefusalError(
            Reason.METHOD,
            "pictures are compared under a secret only: name its file as 'picture_secret'",
        )
    if rules.least_count > 1:
        raise RefusalError(
            Reason.METHOD,
            f"a single shared picture would be counted, and 'least_count' is {rules.least_count}",
        )
    return read_secret(rules.picture_secret)


def _own_key(site: Site, run: int) -> bytes:
    """Return a key of this site's alone, another in each run."""
    text = f"rows of {site.name}, run {run}"
    return site.keyed(hashlib.sha256(text.encode()).hexdigest()).encode()


def _pictures(site: Site) -> _Pictures:
    """Return a site's pictures, those that no training can use among them."""
    rows = (*site.scan.images, *site.scan.left_out)
    there = tuple(image for image in rows if image.image_id in site.scan.files)
    dataset = Dataset(site.folder, there, site.scan.files)
    hashes = picture_hashes(dataset, site.config.cache.expanduser(), content_keys(dataset))
    groups = {int(members[0]): members for members in near_duplicates(hashes)}
    copies = {int(i) for members in groups.values() for i in members[1:]}
    first = [i for i in range(len(there)) if i not in copies]
    images = [[there[j].image_id for j in groups.get(i, np.array([i]))] for i in first]
    return _Pictures(hashes[first], images)


def _elsewhere(
    pictures: _Pictures, placed: Ints, flags: Bools, others: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield the names of images that others have, and at which sites, by name.

    Parameters
    ----------
    placed : which picture, or padding, is in each row, (rows,).
    flags : which row each of the m other sites has, (m, rows).
    """
    for row in np.flatnonzero(flags.any(axis=0)):
        if placed[row] < len(pictures.images):
            where = ", ".join(others[i] for i in np.flatnonzero(flags[:, row]).tolist())
            yield from ((name, where) for name in pictures.images[placed[row]])


def _tell(site: Site, found: list[tuple[str, str]]) -> None:
    """Name to the site alone its images that are elsewhere too."""
    if site.deployed:
        lines = [f"{printable(name)}\t{printable(where)}\n" for name, where in sorted(found)]
        write_atomically(site.own_folder / ELSEWHERE_FILE, "".join(lines).encode())
    for name, where in sorted(found)[:_MOST_LINES]:
        _warn(
            site,
            f"{name} is also at {where}: agree on the site that keeps it, and take its row out of "
            "the table at the other",
        )
    if len(found) > _MOST_LINES:
        _warn(site, f"{len(found) - _MOST_LINES} more images are also at other sites")


def _warn(site: Site, text: str) -> None:
    _log.warning("%s", printable(f"{site.name}: {text}"))
