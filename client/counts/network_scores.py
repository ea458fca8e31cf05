"""A trained network's scores of a site's images."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from client.site import Site
from common.data.dataset import Dataset
from common.features.inference_engine import one_thread_per_core
from common.networks.fusion import heard
from common.networks.inference import prediction_features
from common.networks.network import Network, Stage, autocast, run_network, to_device

_LARGEST = 1e30
"""Largest score; a larger one is cut off."""


def scores(
    site: Site,
    tensors: Mapping[str, NDArray[np.float32]],
    images: NDArray[np.int64],
    views: int,
    adapt: Callable[[Network], None] | None = None,
) -> NDArray[np.float64]:
    """Return logits (n, n_classes) of images, averaged over their prediction views.

    Parameters
    ----------
    tensors : weights of the network by name, of its shapes; the others are the pretrained ones.
    images : (n,) numbers of the site's images.
    views : number of prediction views.
    adapt : changes the network's head before it scores, for these scores alone.
    """
    network = run_network(site.config)
    network.load(tensors)
    features = image_features(site, network, site.dataset.select(images), views)
    if adapt is not None:
        adapt(network)
    about = heard(site.config.metadata, site.metadata[images], tensors)
    inputs = (to_device(torch.from_numpy(each)) for each in (features, about))
    with torch.inference_mode():
        logits = network.classify(*inputs).cpu()
    return finite(logits.numpy())


def tail_logits(
    network: Network, stage: Stage, inputs: NDArray[np.float32], about: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return logits (n, n_classes) of one batch by the open part of a network, without dropout.

    Parameters
    ----------
    inputs : (n, ...) what the stage starts from.
    about : (n, width) metadata.
    """
    views, numbers = (to_device(torch.from_numpy(each)) for each in (inputs, about))
    with torch.inference_mode(), autocast():
        logits = network.classify(stage.tail(views), numbers)
    return np.asarray(logits.float().cpu().numpy())


def finite(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return logits (n, n_classes) as numbers, which crafted weights can make of some image none.

    Returns
    -------
    (n, n_classes), those that are too large cut off.
    """
    found = np.nan_to_num(logits.astype(np.float64), posinf=_LARGEST, neginf=-_LARGEST)
    return np.asarray(found)


def image_features(
    site: Site, network: Network, dataset: Dataset, views: int
) -> NDArray[np.float32]:
    """Return features (n, n_features) of n images, averaged over prediction views."""
    spec = replace(site.config.feature_spec, predictions=views)
    files = (dataset.read(image.image_id) for image in dataset.images)
    with one_thread_per_core() as pool:
        return prediction_features(network.backbone, files, spec, pool)
