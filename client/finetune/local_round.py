"""A site's steps in a round of fine-tuning, and how much they count where sites are not alike."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from common.config.run import RunConfig
from common.finetune.local_steps import LocalSteps
from common.finetune.plan import Item, Round, Stream
from common.finetune.qfedavg import Pull


class Course(NamedTuple):
    """A round's steps: images seen, their summed loss, steps, and the sum of their rates.

    An image without a diagnosis counts as ``unlabelled_weight`` images.
    """

    seen: float
    loss: float
    steps: int
    travelled: float


class Batch(NamedTuple):
    """When a step is taken, in epochs, and of which images."""

    time: float
    items: list[Item]


def batches_of(
    streams: Sequence[Stream], this: Round, images: int, config: RunConfig
) -> list[Batch]:
    """Return a round's steps, as many as ``images`` over all sites make."""
    spans = itertools.pairwise(this.times(images, config.batch))
    return [
        Batch((begin + end) / 2, [i for each in streams for i in each.between(begin, end)])
        for begin, end in spans
    ]


def walk(steps: LocalSteps, this: Round, batches: Sequence[Batch], config: RunConfig) -> Course:
    """Take a round's steps."""
    course = Course(0, 0.0, 0, 0.0)
    for (time, items), following in zip(batches, [*batches[1:], Batch(0.0, [])], strict=True):
        if items:
            lr = this.learning_rate(time, config.warmup)
            loss = course.loss + steps.step(items, lr, following.items)
            seen = course.seen + steps.size(items)
            course = Course(seen, loss, course.steps + 1, course.travelled + lr)
    return course


def loss_before(steps: LocalSteps, batches: Sequence[Batch]) -> float:
    """Return the mean loss of a round's images before its first step; 0 without images."""
    seen = sum(steps.size(items) for _, items in batches)
    return sum(steps.loss(items) for _, items in batches if items) / (seen or 1)


def pull_of(steps: LocalSteps, course: Course, before: float, config: RunConfig) -> Pull:
    """Return how much q-FedAvg makes this site count, by the mean loss ``before`` its steps."""
    if not course.travelled:
        return Pull(0.0, 0.0)
    # Momentum makes a step of so many gradients that it is that much longer.
    slowness = 1 - config.momentum if config.optimizer == "sgd" else 1.0
    lipschitz = slowness * course.steps / course.travelled
    return Pull.of(config.q, before, lipschitz, steps.squared_length())
