"""A site's round of fine-tuning: what it trains on, its steps, and what they changed."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from client.counts.group_weights import group_weights, own_group_weights
from client.egress.questions import Question
from client.finetune.consistency import Known, pace_of_unlabelled, pseudo_labels
from client.finetune.former import former_answers
from client.finetune.local_round import Batch, Course, batches_of, loss_before, pull_of, walk
from client.finetune.moments import Moments, Tensors
from client.finetune.scaffold import control_change, correction
from client.finetune.training_views import loader
from client.site import Site
from common.config.finetune import FAIRLY
from common.data.image import TRAIN as TRAIN_SPLIT
from common.features.inference_engine import one_thread_per_core
from common.finetune.half_precision import rounded
from common.finetune.imbalance import Balance, ClassCounts
from common.finetune.local_steps import Load, LocalSteps
from common.finetune.plan import Stream, plan
from common.finetune.qfedavg import FairUpdate
from common.finetune.targets import Targets
from common.finetune.update import Update
from common.networks.network import open_stage, run_network


def count_known(site: Site) -> ClassCounts:
    """Count the training images by diagnosis; a pseudo-label is none."""
    images = site.part("train")
    images = images[site.dataset.splits[images] != TRAIN_SPLIT]
    return ClassCounts.measure(site.dataset.labels[images], site.config.task.n_classes)


def train(site: Site, tensors: Tensors, question: Question) -> Update:
    """Take one round's steps from the coordinator's weights.

    Parameters
    ----------
    tensors : weights by name, moments and control variates, in their own shapes.
    """
    return _SiteRound(site, tensors, question).update()


class _SiteRound:
    def __init__(self, site: Site, tensors: Tensors, question: Question) -> None:
        config, values = site.config, question.values
        self._site, self._config = site, config
        self._tensors, self._question = tensors, question
        self._this = plan(config)[int(str(values["round"]))]
        self._network = run_network(config)
        self._stage = open_stage(self._network, self._this.stage)
        self._labels = site.dataset.labels[site.part("train")]
        self._counts = np.array(values["counts"], dtype=np.int64)
        self._all_images = int(str(values["images"]))
        self._own = count_known(site).images
        self._local = config.priors == "local"
        self._balance = Balance.from_counts(config, self._own if self._local else self._counts)
        self._stream = Stream(self._labels, self._balance.draws, config.seed, site.name)
        self._rounds = site.state.by_round(str(values["run"]))
        self._kept = self._rounds.load(self._this.number)

    def update(self) -> Update:
        this, fairly = self._this, self._question.name == FAIRLY
        batches, moments = self._batches(), Moments.at(this, self._tensors, self._kept)
        load = loader(self._site, self._network, self._stage)
        self._network.load(self._tensors)
        targets = self._targets(batches)
        with one_thread_per_core() as pool:
            steps = self._steps(targets, load, pool, moments)
            before = loss_before(steps, batches) if fairly else 0.0
            course = walk(steps, this, batches, self._config)
        change = self._moved(steps, course, moments)
        weight, loss = self._weight(course), course.loss / (course.seen or 1)
        if fairly:
            return FairUpdate.pulled(
                weight, loss, change, pull_of(steps, course, before, self._config)
            )
        return Update.of(weight, loss, change, this.most(self._all_images))

    def _batches(self) -> list[Batch]:
        """Return the round's steps, over the images with a diagnosis and those without."""
        labelled, blank = int(self._counts.sum()), np.zeros(len(self._site.unlabelled), np.int64)
        pace = pace_of_unlabelled(labelled, self._all_images)
        seed, name = self._config.seed, self._site.name
        others = Stream(blank, np.ones(1), seed, name, len(self._labels), pace)
        return batches_of([self._stream, others], self._this, labelled, self._config)

    def _targets(self, batches: list[Batch]) -> Targets:
        """Return what the network is to say; it has the round's weights."""
        site, images = self._site, self._site.part("train")
        if self._local:
            weights = own_group_weights(site, images)
        else:
            weights = group_weights(site, images, self._question.arrays)
        n = len(self._labels)
        targets = Targets(self._labels, weights, former_answers(site, self._question))
        if not len(site.unlabelled):
            return targets
        used = [item for batch in batches for item in batch.items if item.image >= n]
        items = [item._replace(image=item.image - n) for item in used]
        known = Known(self._counts, self._own, [*self._stream.seed, self._this.number])
        pseudo = pseudo_labels(site, self._network, self._stage, items, known)
        return targets.with_pseudo(*pseudo, self._config.unlabelled_weight)

    def _steps(
        self, targets: Targets, load: Load, pool: ThreadPoolExecutor, moments: Moments
    ) -> LocalSteps:
        return LocalSteps(
            self._network,
            self._stage,
            self._config,
            self._balance,
            targets,
            load,
            pool,
            moments.now,
            correction(self._stage, self._tensors, self._kept),
            self._stream.seed,
        )

    def _moved(self, steps: LocalSteps, course: Course, moments: Moments) -> Tensors:
        """Return what the steps changed, and keep what the site's next round needs."""
        this, change = self._this, steps.change()
        controls = control_change(
            self._stage, self._config, self._tensors, change, course.travelled
        )
        if moved := rounded(controls):
            now = {n: np.asarray(self._kept.get(n, 0) + a, np.float32) for n, a in moved.items()}
            self._rounds.save(this.number + 1, {**self._kept, **now})
        after = moments.after(steps.moments())
        if this.ends:
            return change | after.change() | moved
        self._rounds.save(this.number + 1, after.to_keep(this))
        return change | moved

    def _weight(self, course: Course) -> float:
        """Return how much the site counts: by its images, not by how often rare ones are drawn.

        By its own frequencies a site draws as many as it has.
        """
        draws = self._balance.draws
        most = 1.0 if self._local or not draws.any() else draws.max()
        return float(course.seen / most / math.ceil(self._this.end - self._this.begin))
