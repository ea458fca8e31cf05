"""Staged fine-tuning: the plan of a run, what sites send, and the local step.

Time is counted in epochs. Every site goes through its images at the same pace, so in a step of
the federation each contributes images in proportion to how many it has, and with one step a
round the average of the sites' weights is exactly one step of SGD on the pooled batch
(McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
AISTATS 2017, algorithm 1 and section 2).
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.finetune_config import FinetuneConfig
from common.imbalance import Balance
from common.network import DEVICE, Network, Stage
from common.sums import Sums

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CONTROL = "control/"
"""Before the names of SCAFFOLD's control variates."""

_STEP = "step"

CHUNK = 4
"""Most images that one core differentiates at once: more leave its cache."""


@dataclass(frozen=True)
class Round:
    """One averaging of the sites' weights.

    Attributes
    ----------
    number : from 0 over the whole run.
    stage : name of the open stage.
    begin, end : epochs since the run began.
    stage_begin, stage_end, run_end : the same, of its stage and of the run.
    lr : highest learning rate of the stage.
    """

    number: int
    stage: str
    begin: float
    end: float
    stage_begin: float
    stage_end: float
    run_end: float
    lr: float

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
    found: list[Round] = []
    for s, stage in enumerate(config.stages):
        begin, end = sum(lengths[:s]), sum(lengths[: s + 1])
        for r in range(rounds[s]):
            span = (begin + r * epochs[s], begin + (r + 1) * epochs[s])
            found.append(Round(len(found), stage, *span, begin, end, sum(lengths), rates[s]))
    return found


def moment_kinds(config: FinetuneConfig) -> tuple[str, ...]:
    """Return the optimiser's moments, by PyTorch's names for them."""
    if config.optimizer == "adamw":
        return ("exp_avg", "exp_avg_sq", _STEP)
    return ("momentum_buffer",) if config.momentum else ()


def shapes(stage: Stage, config: FinetuneConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors that a round sends to a site and back, by name.

    Beside the weights these are the optimiser's moments: a site that goes on from the average of
    all sites' moments, not from its own, scales its steps as pooled training would, and nothing
    of a run need be kept at the site. SCAFFOLD adds the control variates.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, parameter in stage.trainable.items():
        found[name] = tuple(parameter.shape)
        for kind in moment_kinds(config):
            found[f"{kind}/{name}"] = _moment_shape(kind, parameter)
        if config.strategy == "scaffold":
            found[CONTROL + name] = tuple(parameter.shape)
    return found


class Item(NamedTuple):
    """An image to be seen: its number at the site, and which view of it."""

    image: int
    view: int


class Stream:
    """The endless order in which a site sees its images; a function of seed and site alone.

    Parameters
    ----------
    labels : (n,) of the site's training images.
    draws : (n_classes,) draws of an image of each class in an epoch.
    """

    def __init__(self, labels: Ints, draws: NDArray[np.float64], seed: int, site: str) -> None:
        self._draws = draws[labels]
        self._length = max(1, round(self._draws.sum())) if len(labels) else 0
        digest = hashlib.sha256(site.encode()).digest()
        self._seed = [seed, int.from_bytes(digest[:8], "big")]

    def between(self, begin: float, end: float) -> list[Item]:
        """Return what is seen between two times in epochs."""
        first, last = (math.floor(self._length * time + 1e-6) for time in (begin, end))
        epochs = {position // self._length for position in range(first, last)}
        orders = {epoch: self._order(epoch) for epoch in epochs}
        return [
            Item(int(orders[p // self._length][p % self._length]), self._view(p))
            for p in range(first, last)
        ]

    def _order(self, epoch: int) -> Ints:
        rng = np.random.default_rng([*self._seed, epoch])
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
    tensors : changes of the trainable tensors by name, times weight.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("weight", "loss")
    counted: ClassVar[str | None] = "weight"

    weight: NDArray[np.float64]
    loss: NDArray[np.float64]
    tensors: Mapping[str, Floats]

    @classmethod
    def of(cls, weight: float, loss: float, change: Mapping[str, Floats]) -> Self:
        """Weigh a site's mean loss and its change of weights."""
        scaled = {name: np.asarray(np.float32(weight) * a) for name, a in change.items()}
        return cls(np.array(weight), np.array(weight * loss), scaled)

    @classmethod
    def zero(cls, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """Return the update of no sites."""
        return cls.of(0.0, 0.0, {n: np.zeros(s, dtype=np.float32) for n, s in shapes.items()})

    def __add__(self, other: Self) -> Self:
        tensors = {name: a + other.tensors[name] for name, a in self.tensors.items()}
        return type(self)(self.weight + other.weight, self.loss + other.loss, tensors)

    def to_record(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by name, the tensors' beside the others'."""
        return {"weight": self.weight, "loss": self.loss, **self.tensors}

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        tensors: dict[str, Any] = dict(arrays)
        weight, loss = tensors.pop("weight"), tensors.pop("loss")
        return cls(weight, loss, tensors)

    def mean(self) -> dict[str, Floats]:
        """Return the weighted mean of the changes; none where no images were seen."""
        scale = np.float32(1 / self.weight if self.weight else 0.0)
        return {name: np.asarray(a * scale) for name, a in self.tensors.items()}


Load = Callable[[Item], tuple[Floats, Floats]]
"""Returns the activations at a stage's cut, and the factors (n_features,) of dropout."""


class LocalSteps:
    """Steps of a local optimiser on the open stage of a network.

    Parameters
    ----------
    network : holds the weights to start from; they are changed in place.
    labels : (n,) of the site's training images.
    load : reads what the steps need; called from many threads.
    pool : one thread for each core.
    moments : the optimiser's, by kind and parameter such as ``exp_avg/head.weight``; it begins
        anew with those that are not given.
    correction : by parameter, added to every gradient (SCAFFOLD's c - c_i).
    """

    def __init__(
        self,
        network: Network,
        stage: Stage,
        config: FinetuneConfig,
        balance: Balance,
        labels: Ints,
        load: Load,
        pool: Executor,
        moments: Mapping[str, Floats],
        correction: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._network, self._stage, self._config = network, stage, config
        self._balance, self._labels, self._load, self._pool = balance, labels, load, pool
        self._correction = correction or {}
        self._optimizer = _optimizer(stage, config, moments)
        self._start = {name: tensor.detach().clone() for name, tensor in self._tensors()}

    def step(self, items: Sequence[Item], lr: float) -> float:
        """Take one step on a batch and return its summed loss."""
        parts = self._parts(items)
        loss, total = next(parts)
        for more, gradients in parts:
            loss += more
            torch._foreach_add_(total, gradients)
        torch._foreach_div_(total, len(items))
        for parameter, gradient in zip(self._stage.trainable.values(), total, strict=True):
            parameter.grad = _laid_out(gradient, parameter)
        self._adjust_gradients()
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        self._optimizer.step()
        return loss

    def change(self) -> dict[str, Floats]:
        """Return how far the weights and the optimiser's moments have moved, by their names."""
        return {
            name: (tensor.detach() - self._start[name]).cpu().contiguous().numpy()
            for name, tensor in self._tensors()
        }

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self._stage.trainable.items():
            yield name, parameter
            for kind in moment_kinds(self._config):
                yield f"{kind}/{name}", self._optimizer.state[parameter][kind]

    def _parts(self, items: Sequence[Item]) -> Iterator[tuple[float, tuple[Tensor, ...]]]:
        """Differentiate the loss on chunks of a batch, one on each core, always the same ones."""
        if DEVICE == "cuda":
            loaded = list(self._pool.map(self._load, items))
            return iter([self._differentiate(items, loaded)])
        return self._pool.map(self._load_and_differentiate, _even_chunks(items))

    def _load_and_differentiate(self, items: Sequence[Item]) -> tuple[float, tuple[Tensor, ...]]:
        return self._differentiate(items, list(map(self._load, items)))

    def _differentiate(
        self, items: Sequence[Item], loaded: Sequence[tuple[Floats, Floats]]
    ) -> tuple[float, tuple[Tensor, ...]]:
        inputs, factors = (torch.from_numpy(np.stack(each)) for each in zip(*loaded, strict=True))
        labels = torch.from_numpy(self._labels[[item.image for item in items]])
        with autocast():
            features = self._stage.tail(to_device(inputs))
            logits = self._network.head(features * factors.to(DEVICE))
        loss = self._balance.loss(logits.float(), labels.to(DEVICE))
        gradients = torch.autograd.grad(loss, list(self._stage.trainable.values()))
        return loss.item(), gradients

    def _adjust_gradients(self) -> None:
        """Correct, pull and clip, in this order."""
        for name, parameter in self._stage.trainable.items():
            assert parameter.grad is not None
            if name in self._correction:
                parameter.grad += self._correction[name]
            if self._config.strategy == "fedprox":  # Li et al., MLSys 2020, equation 2
                pull = parameter.detach() - self._start[name]
                parameter.grad += self._config.proximal * pull
        if self._config.clip:
            torch.nn.utils.clip_grad_norm_(self._stage.trainable.values(), self._config.clip)


def to_device(inputs: Tensor) -> Tensor:
    """Move inputs to where the network is, images in its memory layout."""
    if inputs.ndim == 4:
        return inputs.to(DEVICE, memory_format=torch.channels_last)
    return inputs.to(DEVICE)


def autocast() -> torch.autocast:
    """Compute in mixed precision on a GPU, in single precision on a CPU."""
    return torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=DEVICE == "cuda")


def _even_chunks(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Cut a batch into an even number of about equal chunks: cores come in pairs."""
    count = min(len(items), 2 * math.ceil(len(items) / (2 * CHUNK)))
    bounds = [len(items) * i // count for i in range(count + 1)]
    return [items[a:b] for a, b in itertools.pairwise(bounds)]


def _laid_out(tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a tensor where its parameter is and in the same order in memory.

    Fused steps go through the memory of both, whatever their strides.
    """
    if tensor.device == parameter.device and tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _optimizer(
    stage: Stage, config: FinetuneConfig, moments: Mapping[str, Floats]
) -> torch.optim.Optimizer:
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in stage.trainable.items():
        depth, decays = stage.depth[name], parameter.ndim > 1
        weight_decay = config.weight_decay if decays else 0.0
        new = {"params": [], "weight_decay": weight_decay, "scale": config.layer_decay**depth}
        groups.setdefault((depth, decays), new)["params"].append(parameter)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups.values(), lr=0.0, fused=True)
    else:
        optimizer = torch.optim.SGD(groups.values(), lr=0.0, momentum=config.momentum, fused=True)
    for name, parameter in stage.trainable.items():
        for kind in moment_kinds(config):
            start = moments.get(f"{kind}/{name}")
            moment = torch.zeros(_moment_shape(kind, parameter), device=parameter.device)
            if start is not None:
                moment = torch.from_numpy(np.array(start)).to(parameter.device)
            if kind != _STEP:
                moment = _laid_out(moment, parameter)
            optimizer.state[parameter][kind] = moment
    return optimizer


def _moment_shape(kind: str, parameter: Tensor) -> tuple[int, ...]:
    return () if kind == _STEP else tuple(parameter.shape)
