"""A site's answers when a network is fine-tuned privately: noisy sums of clipped gradients."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from flwr.app import Context
from numpy.typing import NDArray

from client.methods import private
from client.methods.finetune import scores
from client.methods.private import Clipped, Step
from client.site import Site
from common.config.run import RunConfig
from common.networks.activations import activations
from common.networks.network import shared_network
from common.privacy.linear import Units, plan
from common.privacy.network import CHUNK, Batch, clipped_sum, open_part
from common.statistics.calibration import decisions, probabilities
from common.statistics.metrics import Evaluation
from common.statistics.sums import Sums
from common.wire.messages import Arrays, Value

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def describe(site: Site) -> dict[str, Value]:
    """Say which network this site would train; of its lesions nothing."""
    network = shared_network(site.config.backbone, site.config.weights)
    return private.introduction(site, network.n_features)


def answer(
    site: Site, question: str, arrays: Arrays, values: Mapping[str, Value], context: Context
) -> Sums:
    """Answer one question of the coordinator.

    Raises
    ------
    RefusalError
        If this site does not answer it, or its budget does not allow it.
    """
    private.refuse_what_only_simulations_may(site, question)
    known = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    if question == "evaluate":
        return _evaluate(site, known)
    units = _units(site)  # before a ledger is begun: data may have to be mended
    draw = partial(_drawn, site, units)
    step = Step.read(values, question, "gradient")
    return step.paid(site, lambda: clipped(site.config, units, question, known, draw))


def clipped(
    config: RunConfig,
    units: Units,
    question: str,
    known: Mapping[str, Floats],
    draw: Callable[[], Iterator[Batch]],
) -> Clipped:
    """Sum over a site's units.

    Nothing is paid for here: this is for a site that will, and for an audit of the mechanism.

    Parameters
    ----------
    question : "overview" or "gradient".
    known : what the coordinator sends with it.
    draw : draws units by ``rate``, and one image of each.
    """
    spent = plan(config)
    if question == "overview":
        return private.clipped(config, units, question, known)
    part = open_part(config.backbone, config.weights, config.opens)
    sums = clipped_sum(
        part,
        known["weights"],
        draw(),
        known["offset"],
        known["class_weight"],
        config.clip_norm,
    )
    return Clipped(sums, config.clip_norm, spent.training.noise if spent else 0.0)


def _units(site: Site) -> Units:
    """Return the privacy units, whose records are lesions of which nothing but labels is kept."""
    if "units" not in site.memory:
        train, names = private.training_units(site)
        site.memory["units"] = Units.group(
            np.zeros((len(train), 0)), train.labels, train.lesions, names
        )
    found: Units = site.memory["units"]
    return found


def _drawn(site: Site, units: Units) -> Iterator[Batch]:
    return _batches(site, _drawn_images(site, units))


def _drawn_images(site: Site, units: Units) -> Ints:
    """Return one image (n,) of each unit that is drawn; of all images are numbers those below."""
    if "unit of image" not in site.memory:
        _, names = private.training_units(site)
        site.memory["unit of image"] = np.unique(names, return_inverse=True)[1]
    unit: Ints = site.memory["unit of image"]
    drawn = private.sample(units.total, site.config.rate)
    # The first of a unit's images in an order by chance is one of them by chance.
    order = np.argsort(private.chances(len(unit)), kind="stable")
    first = np.unique(unit[order], return_index=True)[1]
    return np.asarray(order[first[drawn]])


def _batches(site: Site, images: Ints) -> Iterator[Batch]:
    """Yield activations of a view by chance of each image, and labels."""
    config = site.config
    train = site.dataset.select(~site.held_out)
    if "activations" not in site.memory:
        contents = [site.contents[i] for i in np.flatnonzero(~site.held_out)]
        site.memory["activations"] = activations(
            shared_network(config.backbone, config.weights),
            [config.opens],
            train,
            contents,
            config.feature_spec,
            config.cache.expanduser(),
        )[config.opens]
    kept: NDArray[np.float16] = site.memory["activations"]
    views = (private.chances(len(images)) * kept.shape[1]).astype(np.int64)
    for begin in range(0, len(images), CHUNK):
        chosen = slice(begin, begin + CHUNK)
        inputs = kept[images[chosen], views[chosen]].astype(np.float32)
        yield inputs, train.labels[images[chosen]]


def _evaluate(site: Site, known: Mapping[str, Floats]) -> Evaluation:
    config, weights = site.config, known["weights"]
    if "scores" not in site.memory or not np.array_equal(site.memory["scores"][0], weights):
        tensors = open_part(config.backbone, config.weights, config.opens).tensors(weights)
        found = scores(site, tensors, site.part("test"), config.predictions)
        site.memory["scores"] = weights, found
    found = site.memory["scores"][1]
    predicted = decisions(found, known["calibration"], known["priors"])
    chances = probabilities(found, known["calibration"])
    return Evaluation.measure(site.dataset.labels[site.held_out], predicted, chances)
