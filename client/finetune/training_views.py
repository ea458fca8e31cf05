"""The views that a site's network is trained on, as they lie on disk or are made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from client.site import Site
from common.arrays import Floats32
from common.data.dataset import Dataset
from common.data.metadata import UNKNOWN, encode
from common.features.augment import STRONG, WEAK, Augmentation
from common.features.extract import FeatureSpec
from common.finetune.local_steps import Load, Loaded
from common.finetune.plan import Item
from common.networks.activations import Halves, Views, activations
from common.networks.network import ALL, Network, Stage, run_network


@dataclass(frozen=True)
class _Images:
    """Images of a site: the n keys of their bytes, their metadata (n, width), and their views."""

    dataset: Dataset
    contents: Sequence[str]
    about: Floats32
    spec: FeatureSpec


_Kind = Callable[[Site], _Images]


def loader(site: Site, network: Network, stage: Stage) -> Load:
    """Return the function that reads the activations that ``stage`` starts from.

    The images are the training images, and after them those without a diagnosis in strong views.
    """
    if not stage.frozen:
        site.forget()  # no stage closes what another has opened
    labelled = _load_of(site, network, stage, _labelled)
    strong = _load_of(site, network, stage, _strong)
    first = len(site.part("train"))

    def load(item: Item) -> Loaded:
        if item.image < first:
            return labelled(item)
        return strong(item._replace(image=item.image - first))

    return load


def weak_loader(site: Site, network: Network, stage: Stage) -> Load:
    """Return the same for the images without a diagnosis in weak views, numbered from 0."""
    return _load_of(site, network, stage, _weak)


def _labelled(site: Site) -> _Images:
    images = site.part("train")
    contents = [site.contents[i] for i in images]
    spec = site.config.feature_spec
    return _Images(site.dataset.select(images), contents, site.metadata[images], spec)


def _strong(site: Site) -> _Images:
    return _unlabelled(site, STRONG)


def _weak(site: Site) -> _Images:
    return _unlabelled(site, WEAK)


def _unlabelled(site: Site, how: Augmentation) -> _Images:
    """Return the images without a diagnosis; of their patients nothing is used."""
    unknown = np.repeat(encode(site.config.metadata, [UNKNOWN]), len(site.unlabelled), axis=0)
    spec = replace(site.config.feature_spec, augmentation=how)
    return _Images(site.unlabelled, site.unlabelled_contents, unknown, spec)


def _load_of(site: Site, network: Network, stage: Stage, images_of: _Kind) -> Load:
    """Return the function that reads views of images, or what is kept of them."""
    images = images_of(site)
    spec, contents = images.spec, images.contents
    views = Views(images.dataset, contents, spec)
    kept = site.once(_ACTIVATIONS[images_of]).get(stage.name) if stage.frozen else None

    def load(item: Item) -> Loaded:
        number = item.view if kept is None else item.view % spec.views
        inputs = views.load(item) if kept is None else kept[item.image, number].astype(np.float32)
        # Named after the image, as its view is: the same wherever the image lies.
        rng = np.random.default_rng([spec.seed, int(contents[item.image], 16), item.view, 1])
        keeps = rng.random(network.n_features, dtype=np.float32) >= site.config.dropout
        factors = keeps.astype(np.float32) / np.float32(1 - site.config.dropout)
        return inputs, factors, images.about[item.image]

    return load


def _kept(site: Site, images_of: _Kind) -> Mapping[str, Halves]:
    """Return the activations (n, views, ...) of images at the stages' cuts."""
    config, images = site.config, images_of(site)
    if not len(images.dataset):
        return {}
    return activations(
        run_network(config),
        [name for name in config.stages if name != ALL],
        images.dataset,
        images.contents,
        images.spec,
        config.cache.expanduser(),
    )


_ACTIVATIONS: Mapping[_Kind, Callable[[Site], Mapping[str, Halves]]] = {
    kind: partial(_kept, images_of=kind) for kind in (_labelled, _strong, _weak)
}
