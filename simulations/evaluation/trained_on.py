"""What a run was trained on, as far as its folders are still there, and where it is met again.

An image is known by the SHA-256 of its bytes, and a copy that was encoded again or resized by the
hash of the picture.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np

from client.open_site import site_folders
from client.site import Site
from common.arrays import Bools
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.duplicates import MOST_DIFFERENT, WORDS, Hashes, nearest, picture_hashes
from common.data.splits import TEST
from common.errors import FedDermError
from common.features.extract import content_keys
from common.methods import METHODS
from server.run.folder import CONFIG_FILE


def training_sets(run: Path, config: RunConfig) -> list[Dataset] | None:
    """Return what each site of a run trained on; None where that is not on this machine.

    Parameters
    ----------
    run : its folder, where its configuration names that of its sites.
    """
    try:
        started = json.loads((run / CONFIG_FILE).read_text(encoding="utf-8"))
        if not METHODS[started["method"]].trains:  # the sites judged the model, no more
            return None
        sites = [Site(folder, config).dataset for folder in site_folders(Path(started["sites"]))]
    except (FedDermError, OSError, ValueError, LookupError, TypeError):
        return None
    return [site.select(site.splits != TEST) for site in sites]


def named_sets(folders: Sequence[Path]) -> list[Dataset]:
    """Return the images of folders that a user says were trained on.

    Those whose row in the table says that they are for testing are not among them.

    Raises
    ------
    DataError
        If a folder cannot be used.
    """
    named = map(Dataset.open, folders)
    return [dataset.select(dataset.splits != TEST) for dataset in named]


@dataclass(frozen=True)
class Pictures:
    """Images as they are known again.

    Attributes
    ----------
    names : of the n images.
    keys : of their bytes.
    hashes : (n, 4) of the pictures.
    """

    names: Sequence[str]
    keys: Sequence[str]
    hashes: Hashes

    @classmethod
    def of(cls, parts: Sequence[Dataset], cache: Path) -> Self:
        """Read the images of several data sets; ``cache`` keeps the hashes.

        Raises
        ------
        DataError
            If an image cannot be read or decoded.
        """
        keys = [content_keys(part) for part in parts]
        hashes = [picture_hashes(part, cache, k) for part, k in zip(parts, keys, strict=True) if k]
        names = [image.image_id for part in parts for image in part.images]
        none = np.zeros((0, WORDS), dtype=np.uint64)
        return cls(names, list(chain(*keys)), np.concatenate([none, *hashes]))


@dataclass(frozen=True)
class Met:
    """Which of n images were trained on.

    Attributes
    ----------
    images : (n,) those that show a lesion of which an image was trained on.
    copies : images that were encoded again or resized, each with the one that was trained on.
    """

    images: Bools
    copies: tuple[tuple[str, str], ...] = ()


def met_again(dataset: Dataset, own: Pictures, trained: Pictures) -> Met:
    """Find the images of a dataset that were trained on, by bytes and by what they show.

    Parameters
    ----------
    own : the dataset's.
    trained : those that were trained on.
    """
    if not trained.names or not own.names:
        return Met(np.zeros(len(dataset), dtype=np.bool_))
    known = set(trained.keys)
    same = np.array([key in known for key in own.keys], dtype=np.bool_)
    number, apart = nearest(own.hashes, trained.hashes)
    copies = ~same & (apart <= MOST_DIFFERENT)
    pairs = [(own.names[int(i)], trained.names[int(number[i])]) for i in np.flatnonzero(copies)]
    met = np.isin(dataset.lesions, dataset.lesions[same | copies])
    return Met(np.asarray(met), tuple(pairs))
