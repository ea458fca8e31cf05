"""What a network gives of images' views, and its features averaged over prediction views."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from common.arrays import Floats32
from common.features.augment import normalise, prediction_view
from common.features.backbone import input_statistics
from common.features.extract import FeatureSpec
from common.networks.network import DEVICE, autocast, to_device

BLOCK = 64
"""Image files in memory at once."""

T = TypeVar("T")


def outputs_of_views(
    see: Callable[[Tensor], Sequence[Tensor]],
    images: Iterable[T],
    views: Callable[[T], Floats32],
    pool: Executor,
) -> Iterator[Sequence[Tensor]]:
    """Yield a network's outputs of each image's views, (views, ...) each, on the CPU.

    On a CPU each core sees an image of its own. A GPU sees a block of images at once, from one
    thread: every thread would plan all kernels anew.

    Parameters
    ----------
    see : the network, from normalised views (n, 3, size, size).
    views : makes the views (views, 3, size, size) of an image, as many of each.
    pool : one thread for each core.
    """

    def seen(stacked: Sequence[Floats32]) -> Iterator[Sequence[Tensor]]:
        inputs = torch.from_numpy(np.stack(stacked))
        with torch.inference_mode(), autocast():
            outputs = see(to_device(inputs.flatten(0, 1)))
        by_image = (each.cpu().reshape(*inputs.shape[:2], *each.shape[1:]) for each in outputs)
        return zip(*by_image, strict=True)

    waiting = iter(images)
    while block := list(islice(waiting, BLOCK)):  # a pool takes in all that it is given at once
        if DEVICE == "cpu":
            yield from pool.map(lambda image: next(seen([views(image)])), block)
        else:
            yield from seen(list(pool.map(views, block)))


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

    def views(data: bytes) -> Floats32:
        image = spec.transform.image(data)
        shown = [prediction_view(image, k, spec.size) for k in range(spec.predictions)]
        return np.stack([normalise(view, mean, std) for view in shown])

    outputs = outputs_of_views(lambda inputs: [backbone(inputs)], images, views, pool)
    rows = [features.float().mean(dim=0).numpy() for [features] in outputs]
    width: Any = backbone.num_features
    return np.array(rows, dtype=np.float32).reshape(len(rows), int(width))
