"""A head of a site's own on the network of all, by which alone the site itself is judged."""

import numpy as np

from client.counts.group_weights import own_group_weights
from client.counts.network_scores import image_features
from client.finetune.local_round import batches_of, walk
from client.site import Site
from common.features.inference_engine import one_thread_per_core
from common.finetune.imbalance import Balance, ClassCounts
from common.finetune.local_steps import LocalSteps
from common.finetune.plan import Round, Stream
from common.finetune.targets import Targets
from common.networks.network import HEAD, Network, open_stage


def fit_head(site: Site, views: int, network: Network) -> None:
    """Train the head on this site's images alone, by its own class frequencies."""
    config, images = site.config, site.part("train")
    if not len(images):
        return
    labels = site.dataset.labels[images]
    features = image_features(site, network, site.dataset.select(images), views)
    epochs = float(config.personal)
    this = Round(0, HEAD, 0.0, epochs, 0.0, epochs, epochs, config.lr[0])
    balance = Balance.from_counts(config, ClassCounts.measure(labels, config.task.n_classes).images)
    stream = Stream(labels, balance.draws, config.seed, site.name)
    even, about = np.ones(network.n_features, dtype=np.float32), site.metadata[images]
    with one_thread_per_core() as pool:
        steps = LocalSteps(
            network,
            open_stage(network, HEAD),
            config,
            balance,
            Targets(labels, own_group_weights(site, images)),
            lambda item: (features[item.image], even, about[item.image]),
            pool,
            {},
        )
        walk(steps, this, batches_of([stream], this, len(labels), config), config)
