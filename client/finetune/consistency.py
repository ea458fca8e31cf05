"""Images without a diagnosis in a round of fine-tuning: two views are to be named alike.

The model that the round starts from, an average over all sites, names a plain view; the network
learns to name a strong view so: Sohn et al., "FixMatch", NeurIPS 2020, equations 3 and 4. Its
probabilities are first moved to the frequencies of known diagnoses: Berthelot et al., "ReMixMatch",
ICLR 2020, section 3.1. A pseudo-label counts where its probability reaches the mean of its class:
the threshold of Wang et al., "FreeMatch", ICLR 2023, equation 5, for each class apart, since one
for all would keep hardly anything but the most frequent class.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.counts.network_scores import tail_logits
from client.finetune.training_views import weak_loader
from client.site import Site
from common.answers.prevalence import for_frequencies
from common.arrays import Bools, Floats, Ints
from common.features.inference_engine import one_thread_per_core
from common.finetune.imbalance import as_trained
from common.finetune.local_steps import Load
from common.finetune.plan import Item
from common.networks.network import Network, Stage
from common.statistics.calibration import probabilities

_LEAST = 128
"""Images, if there are as many, whose probabilities tell frequencies and thresholds."""

_BLOCK = 32  # images that are named at once
_OF_COMPARED = 4  # tells these draws from those of orders, dropout and mixing
_ROUNDING = 1e-9


class Known(NamedTuple):
    """What a site knows when it gives pseudo-labels.

    Attributes
    ----------
    everywhere : (n_classes,) images of each diagnosis over all sites.
    here : (n_classes,) those of this site.
    seed : of site and round.
    """

    everywhere: Ints
    here: Ints
    seed: Sequence[int]


def pace_of_unlabelled(labelled: int, images: int) -> float:
    """Return how often an image without a diagnosis is seen while one with is seen once, in (0, 1].

    So that over all sites no more of them are in a batch than with one: of more, a step costs more
    and is taken as seldom.

    Parameters
    ----------
    labelled : training images with a diagnosis, over all sites.
    images : all images of the sites that say how many they have, held-out ones too; 0 if none does.
    """
    return min(1.0, labelled / max(images - labelled, 1))


def pseudo_labels(
    site: Site, network: Network, stage: Stage, items: Sequence[Item], known: Known
) -> tuple[Ints, Bools]:
    """Name the images without a diagnosis that a round uses.

    Parameters
    ----------
    network : with the weights that the round starts from.
    stage : the open one.
    items : those images, numbered among those without a diagnosis.

    Returns
    -------
    Of all n images without a diagnosis the labels (n,), and whether each counts (n,).
    """
    images = site.unlabelled
    labels, kept = np.zeros(len(images), np.int64), np.zeros(len(images), np.bool_)
    if items:
        compared = _compared(items, len(images), known.seed)
        numbers = [item.image for item in compared]
        base = (known.everywhere + 1) / (known.everywhere + 1).sum()  # no class is impossible
        scores = _scores(network, stage, compared, weak_loader(site, network, stage))
        chances = aligned(probabilities(scores, as_trained(site.config, base)), base, known.here)
        found = named(chances, images.lesions[numbers], site.least_group)
        labels[numbers], kept[numbers] = found
    return labels, kept


def _compared(items: Sequence[Item], n: int, seed: Sequence[int]) -> list[Item]:
    """Return the items, each image once, and more of the n images where these are few."""
    rng = np.random.default_rng([*seed, _OF_COMPARED])
    used = {item.image: item for item in items}
    more = [Item(int(i), 0) for i in rng.permutation(n) if i not in used]
    return [*used.values(), *more[: max(0, _LEAST - len(used))]]


def aligned(chances: Floats, base: Floats, own: Ints) -> Floats:
    """Move probabilities so that their means are the frequencies of the classes.

    Parameters
    ----------
    chances : (n, n_classes) at the frequencies ``base``; rows sum to 1.
    base : (n_classes,) frequencies over all sites.
    own : (n_classes,) images of each diagnosis at this site. As many images as there are classes,
        at the frequencies ``base``, are added to these and to the probabilities: few tell little.

    Returns
    -------
    (n, n_classes) whose rows sum to 1.
    """
    prior = len(base) * base
    wanted, mean = own + prior, chances.sum(axis=0) + prior
    return for_frequencies(chances, mean / mean.sum(), wanted / wanted.sum())


def named(chances: Floats, lesions: NDArray[np.str_], least: int) -> tuple[Ints, Bools]:
    """Return the likeliest class of each image (n,), and whether it is sure enough to count (n,).

    Parameters
    ----------
    chances : (n, n_classes) probabilities.
    lesions : (n,) names of the images' lesions.
    least : fewest lesions of a class; of a class with fewer none counts.
    """
    labels, sure = chances.argmax(axis=1), chances.max(axis=1)
    kept = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        own = labels == label
        if len(np.unique(lesions[own])) >= least:
            kept |= own & (sure >= sure[own].mean() - _ROUNDING)
    return labels, kept


def _scores(network: Network, stage: Stage, items: Sequence[Item], load: Load) -> Floats:
    """Return logits (m, n_classes) of weak views, without dropout."""
    rows = []
    with one_thread_per_core() as pool:
        for start in range(0, len(items), _BLOCK):
            block = items[start : start + _BLOCK]
            inputs, _, about = map(np.stack, zip(*pool.map(load, block), strict=True))
            rows.append(tail_logits(network, stage, inputs, about))
    return np.concatenate(rows).astype(np.float64)
