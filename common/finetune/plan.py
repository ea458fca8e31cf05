"""Staged fine-tuning: the rounds of a run and the order of images.

Time is counted in epochs. Every site goes through its images at the same pace, so in a step of
the federation each contributes images in proportion to how many it has, and with one step a
round the average of the sites' weights is exactly one step of SGD on the pooled batch
(McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
AISTATS 2017, algorithm 1 and section 2).
"""

import hashlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common.arrays import Floats, Ints
from common.config.finetune import FinetuneConfig
from common.networks.network import Stage

CONTROL = "control/"
"""Prefix of the names of SCAFFOLD's control variates."""

SQUARES = "exp_avg_sq"
"""The one of AdamW's moments that a step divides by the root of."""

STEP = "step"
"""The one of AdamW's moments that is a number: how many steps there were."""


NONNEGATIVE = (f"{SQUARES}/", f"{STEP}/")
"""Prefixes of the names of moments that no steps make negative."""


@dataclass(frozen=True)
class Round:
    """One averaging of the sites' weights.

    Attributes
    ----------
    number : the number of the round in the run, from 0.
    stage : name of the open stage.
    begin, end : epochs since the run began.
    stage_begin, stage_end, run_end : the same, of its stage and of the run.
    lr : highest learning rate of the stage.
    cycle : number of the round in which its moments' cycle began. In that round all sites start
        from the average of their moments; until its end each goes on with its own.
    ends : whether the cycle ends with it, so that the moments are averaged.
    """

    number: int
    stage: str
    begin: float
    end: float
    stage_begin: float
    stage_end: float
    run_end: float
    lr: float
    cycle: int = 0
    ends: bool = True

    @property
    def begins(self) -> bool:
        """Whether a cycle begins with it."""
        return self.number == self.cycle

    def times(self, images: int, batch: int) -> list[float]:
        """Return where the steps begin, and the end, for ``images`` over all sites."""
        steps = max(1, round((self.end - self.begin) * images / batch))
        return [self.begin + (self.end - self.begin) * i / steps for i in range(steps + 1)]

    def most(self, images: int) -> float:
        """Return what the sites' weights in the average add up to, for ``images`` over all.

        Each site may be above its share by one image at each end.
        """
        return images * (self.end - self.begin) / math.ceil(self.end - self.begin)

    def learning_rate(self, time: float, warmup: float) -> float:
        """Return the rate at a time: rising at a stage's start, a half cosine over the run.

        Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts.
        """
        rise = (time - self.stage_begin) / (self.stage_end - self.stage_begin)
        warm = min(1.0, rise / warmup) if warmup else 1.0
        return self.lr * warm * (1 + math.cos(math.pi * time / self.run_end)) / 2


def plan(config: FinetuneConfig) -> list[Round]:
    """Return the rounds of a run."""
    n_stages = len(config.stages)
    rounds = config.rounds * (n_stages // len(config.rounds))
    epochs = config.local_epochs * (n_stages // len(config.local_epochs))
    rates = config.lr * (n_stages // len(config.lr))
    lengths = [n * e for n, e in zip(rounds, epochs, strict=True)]
    every = config.moments_every if moment_kinds(config) else 1
    planned: list[Round] = []
    for s, stage in enumerate(config.stages):
        begin, end = sum(lengths[:s]), sum(lengths[: s + 1])
        for r in range(rounds[s]):
            span = (begin + r * epochs[s], begin + (r + 1) * epochs[s])
            # A stage begins a cycle, since patience may cut the one before short.
            ends = (r + 1) % every == 0 or r + 1 == rounds[s]
            number, bounds = len(planned), (*span, begin, end, sum(lengths))
            planned.append(Round(number, stage, *bounds, rates[s], number - r % every, ends))
    return planned


def moment_kinds(config: FinetuneConfig) -> tuple[str, ...]:
    """Return the optimiser's moments, by PyTorch's names for them."""
    if config.optimizer == "adamw":
        return ("exp_avg", SQUARES, STEP)
    return ("momentum_buffer",) if config.momentum else ()


def shapes(stage: Stage, config: FinetuneConfig, moments: bool) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors that a round sends to a site, or back, by name.

    Beside the weights these are, where a cycle begins or ends, the optimiser's moments: sites that
    go on from the average of all moments scale their steps as pooled training would. SCAFFOLD adds
    the control variates.
    """
    by_name: dict[str, tuple[int, ...]] = {}
    for name, parameter in stage.trainable.items():
        by_name[name] = tuple(parameter.shape)
        for kind in moment_kinds(config) if moments else ():
            by_name[f"{kind}/{name}"] = () if kind == STEP else tuple(parameter.shape)
        if config.strategy == "scaffold":
            by_name[CONTROL + name] = tuple(parameter.shape)
    return by_name


class Item(NamedTuple):
    """An image to train on: its number at the site, and the number of its view."""

    image: int
    view: int


class Stream:
    """The endless order in which a site sees its images; a function of seed and site alone.

    Parameters
    ----------
    labels : (n,) of the site's training images.
    draws : (n_classes,) draws of an image of each class in an epoch.
    first : number of the first of these images at the site.
    pace : share of an epoch's draws that are taken where others are gone through once, in (0, 1].

    Attributes
    ----------
    seed : of all that is drawn for this site, beside the round or the image.
    """

    def __init__(
        self,
        labels: Ints,
        draws: Floats,
        seed: int,
        site: str,
        first: int = 0,
        pace: float = 1.0,
    ) -> None:
        self._draws, self._first, self._pace = draws[labels], first, pace
        # Of classes that are never drawn nothing is seen.
        self._length = max(1, round(self._draws.sum())) if self._draws.any() else 0
        digest = hashlib.sha256(site.encode()).digest()
        self.seed = [seed, int.from_bytes(digest[:8], "big")]

    def between(self, begin: float, end: float) -> list[Item]:
        """Return the items between two times in epochs."""
        length = self._length * self._pace
        first, last = (math.floor(length * time + 1e-6) for time in (begin, end))
        epochs = {position // self._length for position in range(first, last)}
        orders = {epoch: self._order(epoch) for epoch in epochs}
        return [
            Item(self._first + int(orders[p // self._length][p % self._length]), self._view(p))
            for p in range(first, last)
        ]

    def _order(self, epoch: int) -> Ints:
        rng = np.random.default_rng([*self.seed, epoch])
        n = len(self._draws)
        if self._even:
            return rng.permutation(n)
        return rng.choice(n, self._length, p=self._draws / self._draws.sum())

    @property
    def _even(self) -> bool:
        return bool((self._draws == 1).all())

    def _view(self, position: int) -> int:
        # With even draws, a view an epoch: the same ones wherever the image is.
        return position // self._length if self._even else position
