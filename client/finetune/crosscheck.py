"""What a site counts about the changes of others: images that they tell apart, by class."""

from collections.abc import Iterator

import numpy as np

from client.counts.network_scores import finite, tail_logits
from client.egress.questions import Question
from client.finetune.training_views import loader
from client.site import Site
from common.arrays import Floats, Floats32
from common.finetune.crosscheck import PairCounts, chosen
from common.finetune.plan import Item, plan
from common.networks.network import Network, Stage, open_stage, run_network

_BATCH = 64


def count_right(site: Site, question: Question) -> PairCounts:
    """Count what each candidate of a round tells apart among this site's training images."""
    number, candidates = (int(str(question.values[name])) for name in ("round", "candidates"))
    network = run_network(site.config)
    stage = open_stage(network, plan(site.config)[number].stage)
    labels = site.dataset.labels[site.part("train")]
    images = chosen(labels)
    if not len(images):
        return PairCounts.zero(candidates, site.config.task.n_classes)
    load = loader(site, network, stage)
    inputs = [load(Item(int(image), 0)) for image in images]
    views, about = np.stack([each for each, _, _ in inputs]), np.stack([a for *_, a in inputs])

    def each_scores() -> Iterator[Floats]:
        for i in range(candidates):
            network.load({n: np.asarray(a[i], np.float32) for n, a in question.arrays.items()})
            yield _scores(network, stage, views, about)

    return PairCounts.measure(each_scores(), labels[images])


def _scores(network: Network, stage: Stage, views: Floats32, about: Floats32) -> Floats:
    """Return scores (n, n_classes) of activations at the cut and metadata, (n, ...)."""
    parts = [slice(start, start + _BATCH) for start in range(0, len(views), _BATCH)]
    batches = [tail_logits(network, stage, views[part], about[part]) for part in parts]
    return finite(np.concatenate(batches))
