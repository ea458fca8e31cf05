"""A site's part in fine-tuning: it trains the open stage on its images, and counts."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.counts import lesion_appearance
from client.counts.group_weights import count_groups
from client.counts.judged_scores import judge
from client.counts.network_scores import scores
from client.counts.paired_counts import count_pairs, keep_incumbent
from client.egress.questions import Question
from client.finetune.crosscheck import count_right
from client.finetune.former import keep_former
from client.finetune.moments import Tensors
from client.finetune.personal import fit_head
from client.finetune.site_round import count_known, train
from client.site import Site
from client.state import kept_array
from common.answers.paired import INCUMBENT, PAIRED, PAIRED_GROUPS, RULE_NAMES
from common.config.finetune import FAIRLY, FORMER, TRAIN
from common.config.robust import CROSSCHECK
from common.config.run import RunConfig
from common.data.balance import GROUP_COUNTS
from common.data.dataset import Dataset
from common.features.extract import content_keys
from common.finetune.half_precision import at_site
from common.networks.activations import activations
from common.networks.appearance_rows import appearances
from common.networks.network import ALL, run_network
from common.statistics.sums import Sums
from common.storage.verified import write_array
from common.wire.messages import Value

_NO_TENSORS = (*RULE_NAMES, GROUP_COUNTS)


def describe(site: Site) -> dict[str, Value]:
    """Describe the network that this site would train, and its views."""
    network = run_network(site.config)
    return {"n_features": network.n_features, "features": site.config.feature_spec.key}


def prepare(dataset: Dataset, config: RunConfig, cache: Path) -> None:
    """Compute the activations of images at the cut of each frozen part, and how they look."""
    network, contents = run_network(config), content_keys(dataset)
    if frozen := [stage for stage in config.stages if stage != ALL]:
        activations(network, frozen, dataset, contents, config.feature_spec, cache)
    appearances(dataset, config.feature_spec, cache, contents)


def answer(site: Site, question: Question) -> Sums:
    """Answer one question of the coordinator.

    Raises
    ------
    RefusalError
        If this site does not answer it.
    """
    if question.name == "counts":
        return count_known(site)
    if question.name in lesion_appearance.QUESTIONS:
        return lesion_appearance.answer_appearance(site, question)
    if question.name == GROUP_COUNTS:
        return count_groups(site, site.part("train"))
    if question.name == CROSSCHECK:
        return count_right(site, question)
    sent = {n: a for n, a in question.arrays.items() if n not in _NO_TENSORS}
    if question.name in (TRAIN, FAIRLY):
        pretrained = run_network(site.config).pretrained_arrays
        return train(site, at_site(sent, pretrained), question)
    tensors = {n: np.asarray(a, np.float32) for n, a in sent.items()}
    if question.name == FORMER:
        return keep_former(site, tensors, question)
    if question.name == INCUMBENT:
        said = scores(site, tensors, site.part("test"), site.config.predictions)
        return keep_incumbent(site, question, said)
    images = site.part(str(question.values["subset"]))
    found = _kept_scores(site, tensors, question)
    if question.name in (PAIRED, PAIRED_GROUPS):
        return count_pairs(site, question, images, found)
    return judge(site, question, images, found)


def _kept_scores(site: Site, tensors: Tensors, question: Question) -> NDArray[np.float64]:
    """Return scores; their weights are sent only with the first question about them."""
    values = question.values
    file = site.state.scratch(question.run) / f"scores-{values['scores']!s}.npy"
    if tensors:
        images, views = site.part(str(values["subset"])), int(str(values["views"]))
        adapt = partial(fit_head, site, views) if values["personal"] else None
        write_array(file, scores(site, tensors, images, views, adapt))
    missing = "these weights were not sent in this run; send them first"
    return np.asarray(kept_array(file, missing), dtype=np.float64)
