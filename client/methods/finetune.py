"""A site's part in fine-tuning: it trains the open stage on its images, and counts."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from client.counts import lesion_appearance
from client.counts.group_weights import count_groups, group_weights
from client.counts.judged_scores import judge
from client.counts.network_scores import image_features, scores
from client.counts.paired_counts import count_pairs, keep_incumbent
from client.egress.questions import Question
from client.finetune.consistency import Known, pace_of_unlabelled, pseudo_labels
from client.finetune.crosscheck import count_right
from client.finetune.local_round import batches_of, loss_before, pull_of, walk
from client.finetune.moments import Moments, Tensors
from client.finetune.training_views import loader
from client.site import Site
from client.state import kept_array
from common.answers.paired import INCUMBENT, PAIRED, PAIRED_GROUPS, RULE_NAMES
from common.arrays import Floats, Floats32, Ints
from common.config.finetune import FAIRLY, FORMER, TRAIN
from common.config.robust import CROSSCHECK
from common.config.run import RunConfig
from common.data.balance import GROUP_COUNTS
from common.data.dataset import Dataset
from common.data.image import TRAIN as TRAIN_SPLIT
from common.features.extract import content_keys
from common.features.inference_engine import one_thread_per_core
from common.finetune.former import softened
from common.finetune.half_precision import at_site, rounded
from common.finetune.imbalance import Balance, ClassCounts
from common.finetune.local_steps import LocalSteps
from common.finetune.plan import CONTROL, Round, Stream, plan
from common.finetune.qfedavg import FairUpdate
from common.finetune.targets import Targets
from common.finetune.update import Update
from common.networks.activations import activations
from common.networks.appearance_rows import appearances
from common.networks.network import ALL, DEVICE, HEAD, Network, Stage, open_stage, run_network
from common.statistics.sums import Nothing, Sums
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
        return _known(site)
    if question.name in lesion_appearance.QUESTIONS:
        return lesion_appearance.answer_appearance(site, question)
    if question.name == GROUP_COUNTS:
        return count_groups(site, site.part("train"))
    if question.name == CROSSCHECK:
        return count_right(site, question)
    sent = {n: a for n, a in question.arrays.items() if n not in _NO_TENSORS}
    if question.name in (TRAIN, FAIRLY):
        pretrained = run_network(site.config).pretrained_arrays
        return _train(site, at_site(sent, pretrained), question)
    tensors = {n: np.asarray(a, np.float32) for n, a in sent.items()}
    if question.name == FORMER:
        return _keep_former(site, tensors, question)
    if question.name == INCUMBENT:
        said = scores(site, tensors, site.part("test"), site.config.predictions)
        return keep_incumbent(site, question, said)
    images = site.part(str(question.values["subset"]))
    found = _kept_scores(site, tensors, question)
    if question.name in (PAIRED, PAIRED_GROUPS):
        return count_pairs(site, question, images, found)
    return judge(site, question, images, found)


def _train(site: Site, tensors: Tensors, question: Question) -> Update:
    """Take one round's steps from the coordinator's weights."""
    config, values, images = site.config, question.values, site.part("train")
    labels = site.dataset.labels[images]
    if config.priors == "local":
        weights = _own_weights(site, images)
    else:
        weights = group_weights(site, images, question.arrays)
    this = _round(config, values)
    network = run_network(config)
    stage = open_stage(network, this.stage)
    counts = np.array(values["counts"], dtype=np.int64)
    own = _known(site).images
    balance = Balance.from_counts(config, own if config.priors == "local" else counts)
    stream = Stream(labels, balance.draws, config.seed, site.name)
    blank = np.zeros(len(site.unlabelled), np.int64)
    labelled, all_images = int(counts.sum()), int(str(values["images"]))
    pace = pace_of_unlabelled(labelled, all_images)
    others = Stream(blank, np.ones(1), config.seed, site.name, len(labels), pace)
    batches = batches_of([stream, others], this, labelled, config)
    rounds = site.state.by_round(str(values["run"]))
    kept = rounds.load(this.number)
    moments = Moments.at(this, tensors, kept)
    load = loader(site, network, stage)
    network.load(tensors)
    targets = Targets(labels, weights, _former(site, question))
    if len(blank):
        used = [i for batch in batches for i in batch.items if i.image >= len(labels)]
        items = [item._replace(image=item.image - len(labels)) for item in used]
        known = Known(counts, own, [*stream.seed, this.number])
        pseudo = pseudo_labels(site, network, stage, items, known)
        targets = targets.with_pseudo(*pseudo, config.unlabelled_weight)
    with one_thread_per_core() as pool:
        correction = _correction(stage, tensors, kept)
        steps = LocalSteps(
            network,
            stage,
            config,
            balance,
            targets,
            load,
            pool,
            moments.now,
            correction,
            stream.seed,
        )
        before = loss_before(steps, batches) if question.name == FAIRLY else 0.0
        course = walk(steps, this, batches, config)
    change, moments = steps.change(), moments.after(steps.moments())
    moved = rounded(_control_change(stage, config, tensors, change, course.travelled))
    if moved:
        kept |= {n: np.asarray(kept.get(n, 0) + a, np.float32) for n, a in moved.items()}
        rounds.save(this.number + 1, kept)
    if this.ends:
        change |= moments.change()
    else:
        rounds.save(this.number + 1, moments.to_keep(this))
    # Frequent draws of rare images must not make a site weigh more than its images; by its own
    # frequencies a site draws as many as it has.
    most = balance.draws.max() if config.priors == "global" and balance.draws.any() else 1.0
    weight = course.seen / most / math.ceil(this.end - this.begin)
    loss = course.loss / (course.seen or 1)
    if question.name == FAIRLY:
        pull = pull_of(steps, course, before, config)
        return FairUpdate.pulled(weight, loss, change | moved, pull)
    return Update.of(weight, loss, change | moved, this.most(all_images))


def _keep_former(site: Site, tensors: Tensors, question: Question) -> Nothing:
    """Keep what the parent's model says of each training image, seen as in prediction."""
    known = np.array(question.values["known"], dtype=np.bool_)
    said = scores(site, tensors, site.part("train"), views=1)
    write_array(_former_file(site, question), softened(said, known))
    return Nothing()


def _former(site: Site, question: Question) -> Floats32 | None:
    """Return what was kept of the parent's model, (n, n_classes); None where none is held on to."""
    if not site.config.distillation:
        return None
    missing = "what the parent's model says was not asked in this run; send its weights first"
    return np.asarray(kept_array(_former_file(site, question), missing))


def _former_file(site: Site, question: Question) -> Path:
    return site.state.scratch(question.run) / "former.npy"


def _round(config: RunConfig, values: Mapping[str, Value]) -> Round:
    return plan(config)[int(str(values["round"]))]


def _known(site: Site) -> ClassCounts:
    """Count the training images by diagnosis; a pseudo-label is none."""
    images = site.part("train")
    images = images[site.dataset.splits[images] != TRAIN_SPLIT]
    return ClassCounts.measure(site.dataset.labels[images], site.config.task.n_classes)


def _correction(stage: Stage, tensors: Tensors, control: Tensors) -> dict[str, torch.Tensor]:
    """Return SCAFFOLD's c - c_i; nothing where no control variates were sent."""
    sent = {n: tensors[CONTROL + n] for n in stage.trainable if CONTROL + n in tensors}
    return {
        name: torch.from_numpy(np.asarray(c - control.get(CONTROL + name, 0))).to(DEVICE)
        for name, c in sent.items()
    }


def _control_change(
    stage: Stage, config: RunConfig, tensors: Tensors, change: Tensors, travelled: float
) -> Tensors:
    """Return the change of c_i by option II of SCAFFOLD, where control variates were sent.

    Parameters
    ----------
    travelled : sum of the learning rates of this round's steps.

    References
    ----------
    Karimireddy et al., "SCAFFOLD: stochastic controlled averaging for federated learning", ICML
    2020, equation 4.
    """
    moved: Tensors = {}
    for name, depth in stage.depth.items():
        if CONTROL + name in tensors:
            rate = travelled * config.layer_decay**depth
            c = tensors[CONTROL + name]
            new = -c - change[name] / np.float32(rate) if rate else np.zeros_like(c)
            moved[CONTROL + name] = np.asarray(new, np.float32)
    return moved


def _kept_scores(site: Site, tensors: Tensors, question: Question) -> NDArray[np.float64]:
    """Return scores; their weights are sent only with the first question about them."""
    values = question.values
    file = site.state.scratch(question.run) / f"scores-{values['scores']!s}.npy"
    if tensors:
        images, views = site.part(str(values["subset"])), int(str(values["views"]))
        adapt = partial(_fit_head, site, views) if values["personal"] else None
        write_array(file, scores(site, tensors, images, views, adapt))
    missing = "these weights were not sent in this run; send them first"
    return np.asarray(kept_array(file, missing), dtype=np.float64)


def _fit_head(site: Site, views: int, network: Network) -> None:
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
            Targets(labels, _own_weights(site, images)),
            lambda item: (features[item.image], even, about[item.image]),
            pool,
            {},
        )
        walk(steps, this, batches_of([stream], this, len(labels), config), config)


def _own_weights(site: Site, images: Ints) -> Floats | None:
    """Return what ``images`` (n,) weigh by their groups' counts at this site, (n,)."""
    if site.config.balanced_groups is None:
        return None
    own = count_groups(site, images).images
    return group_weights(site, images, {GROUP_COUNTS: own})
