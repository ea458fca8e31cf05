"""What a run was trained on, as far as its folders are still there, and where it is met again.

An image is known by the SHA-256 of its bytes. A copy that was encoded again or resized is another
image to that.
"""

import json
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np

from client.site import Site, site_folders
from common.arrays import Bools
from common.config.run import RunConfig
from common.data.dataset import Dataset
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


def contents(parts: Sequence[Dataset]) -> set[str]:
    """Return the keys of the images' bytes.

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    return {key for part in parts for key in content_keys(part)}


def met_again(dataset: Dataset, keys: Sequence[str], trained: Set[str]) -> Bools:
    """Return which images (n,) show a lesion of which an image was trained on.

    Parameters
    ----------
    keys : (n,) keys of the images' bytes.
    trained : keys of the images that were trained on.
    """
    same = np.array([key in trained for key in keys], dtype=np.bool_)
    return np.isin(dataset.lesions, dataset.lesions[same])
