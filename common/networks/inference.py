"""A network's features of images, averaged over their prediction views."""

from collections.abc import Iterable
from concurrent.futures import Executor
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from common.arrays import Floats32
from common.features.augment import normalise, prediction_view
from common.features.backbone import input_statistics
from common.features.extract import FeatureSpec
from common.networks.network import autocast, to_device

BLOCK = 64
"""Image files in memory at once."""


def prediction_features(
    backbone: nn.Module, images: Iterable[bytes], spec: FeatureSpec, pool: Executor
) -> Floats32:
    """Return features (n, n_features) of JPEG or PNG files' bytes, averaged over the views.

    A head that is linear gives the same from averaged features as averaged over the views.

    Parameters
    ----------
    spec : its transform, size and number of prediction views.
    pool : one thread for each core.

    Raises
    ------
    DataError
        If an image cannot be decoded.
    """
    mean, std = input_statistics(spec.backbone)

    def features(data: bytes) -> Floats32:
        image = spec.transform.image(data)
        views = [prediction_view(image, k, spec.size) for k in range(spec.predictions)]
        inputs = torch.from_numpy(np.stack([normalise(view, mean, std) for view in views]))
        with torch.inference_mode(), autocast():
            pooled = backbone(to_device(inputs)).float().mean(dim=0)
        row: Floats32 = pooled.cpu().numpy()
        return row

    files = iter(images)
    rows: list[Floats32] = []
    while block := list(islice(files, BLOCK)):  # a pool takes in all that it is given at once
        rows += pool.map(features, block)
    width: Any = backbone.num_features
    return np.array(rows, dtype=np.float32).reshape(len(rows), int(width))
