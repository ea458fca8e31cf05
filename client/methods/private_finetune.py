"""A site's answers when a network is fine-tuned privately: noisy sums of clipped gradients."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.counts.network_scores import scores
from client.egress.questions import Question
from client.privacy import rules
from client.privacy.clipped import Clipped, clipped_overview, training_noise
from client.privacy.draws import sample, uniform
from client.privacy.paid_step import PaidStep
from client.privacy.units import training_units
from client.site import Site
from common.arrays import Floats, Floats32, Ints
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.metadata import forget
from common.networks.activations import activations
from common.networks.network import run_network
from common.privacy.linear import Units
from common.privacy.network import CHUNK, Batch, clipped_sum, run_part
from common.statistics.calibration import decisions, probabilities
from common.statistics.metrics import Evaluation
from common.statistics.sums import Sums
from common.wire.messages import Value


def describe(site: Site) -> dict[str, Value]:
    """Describe the network that this site would train, and nothing of its lesions."""
    return rules.describe(site, run_network(site.config).n_features)


def prepare(dataset: Dataset, config: RunConfig, cache: Path) -> None:
    """Compute nothing: a run computes the activations itself, of training images alone."""


def answer(site: Site, question: Question) -> Sums:
    """Answer one question of the coordinator.

    Raises
    ------
    RefusalError
        If this site does not answer it, or its budget does not allow it.
    """
    rules.refuse_what_only_simulations_may(site, question.name)
    sent = {name: np.asarray(array, dtype=np.float64) for name, array in question.arrays.items()}
    if question.name == "evaluate":
        return _evaluate(site, sent)
    units = site.once(_units)  # before a ledger is begun: data may have to be mended
    draw = partial(_drawn, site, units)
    step = PaidStep.read(question.values, question.name, "gradient")
    return step.answer(site, lambda: clipped(site.config, units, question.name, sent, draw))


def clipped(
    config: RunConfig,
    units: Units,
    question: str,
    sent: Mapping[str, Floats],
    draw: Callable[[], Iterator[Batch]],
) -> Clipped:
    """Sum over a site's units.

    Nothing is charged here: a site charges its ledger first, and an audit has none.

    Parameters
    ----------
    question : "overview" or "gradient".
    sent : what the coordinator sends with a gradient: "weights" (size,), "offset" and
        "class_weight" (n_classes,).
    draw : draws units by ``rate``, and one image of each.
    """
    if question == "overview":
        return clipped_overview(config, units)
    sums = clipped_sum(
        run_part(config),
        sent["weights"],
        draw(),
        sent["offset"],
        sent["class_weight"],
        config.clip_norm,
    )
    return Clipped(sums, config.clip_norm, training_noise(config))


def _units(site: Site) -> Units:
    """Return the privacy units; of their records, the lesions, only labels are kept."""
    train, names = training_units(site)
    return Units.group(np.zeros((len(train), 0)), train.labels, train.lesions, names)


def _drawn(site: Site, units: Units) -> Iterator[Batch]:
    return _batches(site, _drawn_images(site, units))


def _drawn_images(site: Site, units: Units) -> Ints:
    """Return a random training image (n,) of each unit that is drawn, by its number."""
    unit = site.once(_unit_of_image)
    drawn = sample(units.total, site.config.rate)
    # The first of a unit's images in an order by chance is one of them by chance.
    order = np.argsort(uniform(len(unit)), kind="stable")
    first = np.unique(unit[order], return_index=True)[1]
    return np.asarray(order[first[drawn]])


def _unit_of_image(site: Site) -> Ints:
    """Return the number of each training image's unit, (n,)."""
    _, names = training_units(site)
    return np.asarray(np.unique(names, return_inverse=True)[1])


def _batches(site: Site, images: Ints) -> Iterator[Batch]:
    """Yield a random view of each image; each may be seen without its metadata, by chance too."""
    labels, kept = site.dataset.labels[~site.held_out], site.once(_activations)
    views = (uniform(len(images)) * kept.shape[1]).astype(np.int64)
    about = _about(site, images)
    for begin in range(0, len(images), CHUNK):
        chosen = slice(begin, begin + CHUNK)
        inputs = kept[images[chosen], views[chosen]].astype(np.float32)
        yield Batch(inputs, about[chosen], labels[images[chosen]])


def _about(site: Site, images: Ints) -> Floats32:
    """Return the metadata (n, width) of training images, some of them dropped."""
    config, numbers = site.config, site.metadata[~site.held_out][images]
    if not config.metadata:
        return numbers
    return forget(config.metadata, numbers, uniform(len(images)) < config.metadata_dropped)


def _activations(site: Site) -> NDArray[np.float16]:
    """Return the activations (n, views, ...) of the training images at the cut."""
    config = site.config
    return activations(
        run_network(config),
        [config.opens],
        site.dataset.select(~site.held_out),
        [site.contents[i] for i in np.flatnonzero(~site.held_out)],
        config.feature_spec,
        config.cache.expanduser(),
    )[config.opens]


class _LastScores:
    """Scores of a site's test images at the weights of the last question."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._weights: Floats | None = None
        self._scores: Floats = np.empty(0)

    def at(self, weights: Floats) -> Floats:
        """Return the scores (n, n_classes) at open weights (size,)."""
        if self._weights is None or not np.array_equal(self._weights, weights):
            tensors = run_part(self._site.config).tensors(weights)
            self._scores = scores(
                self._site, tensors, self._site.part("test"), self._site.config.predictions
            )
            self._weights = weights
        return self._scores


def _evaluate(site: Site, sent: Mapping[str, Floats]) -> Evaluation:
    logits = site.once(_LastScores).at(sent["weights"])
    predicted = decisions(logits, sent["calibration"], sent["base_rates"])
    chances = probabilities(logits, sent["calibration"])
    return Evaluation.measure(site.dataset.labels[site.held_out], predicted, chances)
