"""Staged fine-tuning: the rounds of a run, the order of images, and the updates of sites.

Time is counted in epochs. Every site goes through its images at the same pace, so in a step of
the federation each contributes images in proportion to how many it has, and with one step a
round the average of the sites' weights is exactly one step of SGD on the pooled batch
(McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
AISTATS 2017, algorithm 1 and section 2).
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats, Floats32, Ints
from common.config.finetune import FinetuneConfig
from common.errors import ReplyError
from common.networks.network import Stage
from common.statistics.sums import Sums

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

    Attributes
    ----------
    seed : of all that is drawn for this site, beside the round or the image.
    """

    def __init__(self, labels: Ints, draws: Floats, seed: int, site: str, first: int = 0) -> None:
        self._draws, self._first = draws[labels], first
        # Of classes that are never drawn nothing is seen.
        self._length = max(1, round(self._draws.sum())) if self._draws.any() else 0
        digest = hashlib.sha256(site.encode()).digest()
        self.seed = [seed, int.from_bytes(digest[:8], "big")]

    def between(self, begin: float, end: float) -> list[Item]:
        """Return the items between two times in epochs."""
        first, last = (math.floor(self._length * time + 1e-6) for time in (begin, end))
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


@dataclass(frozen=True)
class Update(Sums):
    """Changes of weights, each site's times its weight in the average.

    Attributes
    ----------
    weight : () images seen by the sites, at most one for each that they have.
    loss : () mean training loss times weight.
    tensors : changes times weight, by name, of the shapes that :func:`shapes` returns.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("weight", "loss")
    counted: ClassVar[str | None] = "weight"

    weight: Floats
    loss: Floats
    tensors: Mapping[str, Floats32]

    @classmethod
    def of(cls, weight: float, loss: float, change: Mapping[str, Floats32]) -> Self:
        """Weigh a site's mean loss and ``change``, by name, of the shapes in :func:`shapes`."""
        scaled = {name: np.asarray(np.float32(weight) * a) for name, a in change.items()}
        return cls(np.array(weight), np.array(weight * loss), scaled)

    @classmethod
    def zero(cls, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """Return the update of no sites."""
        return cls.of(0.0, 0.0, {n: np.zeros(s, dtype=np.float32) for n, s in shapes.items()})

    @property
    def share(self) -> Floats:
        """What the changes are times, ()."""
        return self.weight

    def __add__(self, other: Self) -> Self:
        tensors = {name: a + other.tensors[name] for name, a in self.tensors.items()}
        theirs = other._numbers()
        numbers = {name: a + theirs[name] for name, a in self._numbers().items()}
        return type(self)(tensors=tensors, **numbers)

    def to_record(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by name: those of one number (), and tensors of their own shapes."""
        return {**self._numbers(), **self.tensors}

    def from_record(self, record: Mapping[str, NDArray[np.generic]]) -> Self:
        """Read a ``record`` with this one's names and shapes; without weight it changes nothing.

        Raises
        ------
        ReplyError
            If it does not, or a change is not finite once the weight is divided out.
        """
        answer = super().from_record(record)
        most = float(np.finfo(np.float32).max) * float(answer.share)
        for name, tensor in answer.tensors.items():
            if (largest := float(np.abs(tensor).max(initial=0.0))) > most:
                raise ReplyError(
                    f"array '{name}' is up to {largest:g}, which is no change times the weight of "
                    f"{answer.share:g}"
                )
        return answer

    def change(self, name: str) -> Floats32:
        """Return a tensor's change in its own shape, not times the weight, which must not be 0."""
        return np.asarray(self.tensors[name] / self.share, np.float32)

    def extra_bits(self, name: str) -> int:
        """Return 16 for mean squares, since steps divide by their roots, else 0."""
        return 16 if name.startswith(f"{SQUARES}/") else 0

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        tensors: dict[str, Any] = dict(arrays)
        numbers = {f.name: tensors.pop(f.name) for f in fields(cls) if f.name != "tensors"}
        return cls(tensors=tensors, **numbers)

    def _numbers(self) -> dict[str, Floats]:
        """Return what is one number, (), by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tensors"}

    def mean(self) -> dict[str, Floats32]:
        """Return the weighted mean of the changes, in their own shapes; zeros without images."""
        scale = np.float32(1 / self.share if self.share else 0.0)
        return {name: np.asarray(a * scale) for name, a in self.tensors.items()}
