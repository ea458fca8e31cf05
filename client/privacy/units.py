"""A site's privacy units: whom the training images are of, and who may be counted exactly."""

import numpy as np
from numpy.typing import NDArray

from client.site import Site
from common.data.dataset import Dataset
from common.errors import DataError


def training_units(site: Site) -> tuple[Dataset, NDArray[np.str_]]:
    """Return the training images, and the names (n,) of the privacy units that they are of.

    Raises
    ------
    DataError
        If the table does not name them.
    """
    column = site.config.unit
    names = np.array([getattr(image, column) for image in site.dataset.images], dtype=np.str_)
    # Of test images too: which are these may be the coordinator's choice.
    if (names == "").any():
        raise DataError(
            f"'unit' is {column}, which the site's table lacks for some images; fill that column "
            "in, or set unit=lesion_id"
        )
    train = ~site.held_out
    return site.dataset.select(train), names[train]
