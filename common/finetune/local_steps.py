"""The local step: gradients on all cores, and the optimiser of one site."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from common.arrays import Floats32
from common.config.finetune import FinetuneConfig
from common.config.run import RunConfig
from common.data.metadata import UNKNOWN, encode
from common.finetune.former import distillation_loss
from common.finetune.imbalance import Balance
from common.finetune.mixup import Mix
from common.finetune.plan import SQUARES, STEP, Item, moment_kinds
from common.finetune.targets import Targets
from common.networks.network import DEVICE, Network, Stage, autocast, to_device

CHUNK = 4
"""Most images that one core differentiates at once: more leave its cache."""

Loaded = tuple[Floats32, Floats32, Floats32]
"""The activations at a stage's cut, the factors (n_features,) of dropout, and the metadata."""

Load = Callable[[Item], Loaded]
Reading = dict[Item, Future[Loaded]]
Parameters = Mapping[str, nn.Parameter]
T = TypeVar("T")


class LocalSteps:
    """Steps of a local optimiser on the open stage of a network.

    Parameters
    ----------
    network : holds the weights to start from; they are changed in place.
    targets : of the site's training images.
    load : reads what the steps need; called from many threads.
    pool : one thread for each core.
    moments : the optimiser's, by kind and parameter such as ``exp_avg/head.weight``, of the shapes
        that :func:`common.finetune.plan.shapes` returns; those that are not given start at zero.
    correction : by parameter and of its shape, added to every gradient (SCAFFOLD's c - c_i).
    seed : of the site, for what is drawn here.
    """

    def __init__(
        self,
        network: Network,
        stage: Stage,
        config: RunConfig,
        balance: Balance,
        targets: Targets,
        load: Load,
        pool: Executor,
        moments: Mapping[str, Floats32],
        correction: Mapping[str, Tensor] | None = None,
        seed: Sequence[int] = (),
    ) -> None:
        self._network, self._stage, self._config = network, stage, config
        self._balance, self._targets, self._load, self._pool = balance, targets, load, pool
        self._correction, self._seed = correction or {}, seed
        self._unknown = to_device(torch.from_numpy(encode(config.metadata, [UNKNOWN])))
        self._start = {name: p.detach().clone() for name, p in stage.trainable.items()}
        self._halves = [
            (part, _optimizer(part, stage.depth, config, moments)) for part in _halves(stage)
        ]
        self._reading: Reading = {}

    def step(self, items: Sequence[Item], lr: float, upcoming: Sequence[Item] = ()) -> float:
        """Take one step on a batch and return its summed loss.

        Parameters
        ----------
        upcoming : the next step's batch, read while cores would wait for this step's end.
        """
        reading = self._read(items)
        parts = self._parts(items, reading)
        self._reading = self._read(upcoming)
        loss, total = next(parts)
        for more, gradients in parts:
            loss += more
            torch._foreach_add_(total, gradients)
        for parameter, gradient in zip(self._stage.trainable.values(), total, strict=True):
            parameter.grad = gradient
        norms = itertools.chain.from_iterable(self._on_halves(self._adjust, self.size(items)))
        norm = torch.linalg.vector_norm(torch.stack(list(norms)))
        self._on_halves(self._update, norm, lr)
        return loss

    def size(self, items: Sequence[Item]) -> float:
        """Return as how many images a batch counts."""
        if self._targets.sizes is None:
            return len(items)
        return float(self._targets.sizes[[item.image for item in items]].sum())

    def loss(self, items: Sequence[Item]) -> float:
        """Return the summed loss of a batch under the weights as they are, without a step."""

        def measure(chunk: Sequence[Item]) -> float:
            with torch.no_grad():
                return self._loss(chunk, reading).item()

        reading = self._read(items)
        if DEVICE == "cuda":
            return measure(items)
        return sum(self._pool.map(measure, _even_chunks(items)))

    def squared_length(self) -> float:
        """Return the squared norm of the weights' change, where steps follow the gradient.

        A step is the learning rate times P times the gradient, with P that of the layer's
        depth, over the root of the mean squares for AdamW. In coordinates scaled by the root of P
        it is a step of gradient descent, and the norm there is that of P's inverse.
        """
        return sum(
            _squared(parameter.detach() - self._start[name], optimizer, parameter)
            / self._config.layer_decay ** self._stage.depth[name]
            for part, optimizer in self._halves
            for name, parameter in part.items()
        )

    def change(self) -> dict[str, Floats32]:
        """Return how far the weights have moved, by name, in their own shapes."""
        return {
            name: (parameter.detach() - self._start[name]).cpu().contiguous().numpy()
            for name, parameter in self._stage.trainable.items()
        }

    def moments(self) -> dict[str, Floats32]:
        """Return the optimiser's moments as they are, by kind and parameter, in their shapes."""
        return {
            f"{kind}/{name}": optimizer.state[part[name]][kind].cpu().numpy().copy()
            for part, optimizer in self._halves
            for name, kind in itertools.product(part, moment_kinds(self._config))
        }

    def _on_halves(self, work: Callable[..., T], *arguments: object) -> list[T]:
        """Work on both halves of the parameters at once."""
        return [f.result() for f in [self._pool.submit(work, *h, *arguments) for h in self._halves]]

    def _read(self, items: Sequence[Item]) -> Reading:
        submit, load = self._pool.submit, self._load
        return {item: self._reading.get(item) or submit(load, item) for item in items}

    def _parts(
        self, items: Sequence[Item], reading: Reading
    ) -> Iterator[tuple[float, tuple[Tensor, ...]]]:
        """Differentiate the loss on chunks of a batch, one on each core, always the same ones."""
        if DEVICE == "cuda":
            return map(self._differentiate, [items], [reading])
        chunks = _even_chunks(items)
        return self._pool.map(self._differentiate, chunks, [reading] * len(chunks))

    def _differentiate(
        self, items: Sequence[Item], reading: Reading
    ) -> tuple[float, tuple[Tensor, ...]]:
        loss = self._loss(items, reading)
        gradients = torch.autograd.grad(loss, list(self._stage.trainable.values()))
        return loss.item(), gradients

    def _loss(self, items: Sequence[Item], reading: Reading) -> Tensor:
        """Return the loss (), summed over a batch that is being read."""
        # All were submitted before this, and wait for nothing themselves.
        loaded = [reading[item].result() for item in items]
        stacked = (torch.from_numpy(np.stack(each)) for each in zip(*loaded, strict=True))
        inputs, factors, about = map(to_device, stacked)
        images = [item.image for item in items]
        targets = self._targets.of(images)
        labels = torch.from_numpy(targets.labels).to(DEVICE)
        weights = None if targets.weights is None else torch.from_numpy(targets.weights).float()
        former = None
        if targets.former is not None:
            former = to_device(torch.from_numpy(targets.former))
        mix = self._mix(items)
        if mix is not None:
            inputs, mix = mix.images(inputs)
            about = mix.blend(about)
            former = None if former is None else mix.blend(former)
        with autocast():
            features = self._stage.tail(inputs)

        def loss(about: Tensor) -> Tensor:
            with autocast():
                logits = self._network.classify(features, about, factors)
            own = self._labelled(logits.float(), labels, weights, mix)
            if former is None:
                return own
            return own + self._config.distillation * distillation_loss(logits.float(), former)

        share = self._config.metadata_dropped if self._config.metadata else 0.0
        if not share:
            return loss(about)
        return (1 - share) * loss(about) + share * loss(self._unknown.expand_as(about))

    def _mix(self, items: Sequence[Item]) -> Mix | None:
        """Return how images are mixed: none where nothing is learnt, or part of the network is."""
        if not self._config.mixup or self._stage.frozen or not torch.is_grad_enabled():
            return None
        return Mix.drawn(self._seed, items, self._config.mixup)

    def _labelled(
        self, logits: Tensor, labels: Tensor, weights: Tensor | None, mix: Mix | None
    ) -> Tensor:
        """Return the loss () by the labels (n,), of mixed images by both in their shares."""
        own = self._balance.loss(logits, labels, weights)
        if mix is None:
            return own
        of_others = None if weights is None else weights.roll(1)
        other = self._balance.loss(logits, labels.roll(1), of_others)
        return mix.share * own + (1 - mix.share) * other

    def _adjust(
        self, part: Parameters, _: torch.optim.Optimizer, images: float
    ) -> Sequence[Tensor]:
        """Average, correct and pull the gradients, in this order; return their norms."""
        gradients = [_laid_out(p.grad, p) for p in part.values() if p.grad is not None]
        torch._foreach_div_(gradients, images)
        for (name, parameter), gradient in zip(part.items(), gradients, strict=True):
            parameter.grad = gradient
            if name in self._correction:
                gradient += self._correction[name]
            if self._config.strategy == "fedprox":  # Li et al., MLSys 2020, equation 2
                gradient += self._config.proximal * (parameter.detach() - self._start[name])
        return torch._foreach_norm(gradients)

    def _update(
        self, part: Parameters, optimizer: torch.optim.Optimizer, norm: Tensor, lr: float
    ) -> None:
        """Clip the gradients by the norm of both halves, and take the optimiser's step."""
        if self._config.clip:
            torch.nn.utils.clip_grads_with_norm_(part.values(), self._config.clip, norm)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        optimizer.step()


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


def _halves(stage: Stage) -> list[Parameters]:
    """Cut the open parameters in two, as equal as may be: cores come in pairs."""
    items = list(stage.trainable.items())
    sizes = np.cumsum([parameter.numel() for _, parameter in items])
    cut = int(np.searchsorted(sizes, sizes[-1] / 2)) + 1  # the last, a bias, is never half
    return [dict(items[:cut]), dict(items[cut:])]


def _squared(change: Tensor, optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> float:
    """Return the squared norm of a parameter's change, by the inverse of what scales its steps.

    Parameters
    ----------
    change : of the parameter's shape.
    """
    squares = change.double() ** 2
    if SQUARES not in (state := optimizer.state[parameter]):
        return float(squares.sum())
    options = optimizer.param_groups[0]
    steps = max(float(state[STEP]), 1.0)
    mean = state[SQUARES].double() / (1 - options["betas"][1] ** steps)
    return float((squares * (mean.sqrt() + options["eps"])).sum())


def _optimizer(
    part: Parameters,
    depths: Mapping[str, int],
    config: FinetuneConfig,
    moments: Mapping[str, Floats32],
) -> torch.optim.Optimizer:
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in part.items():
        depth, decays = depths[name], parameter.ndim > 1
        weight_decay = config.weight_decay if decays else 0.0
        new = {"params": [], "weight_decay": weight_decay, "scale": config.layer_decay**depth}
        groups.setdefault((depth, decays), new)["params"].append(parameter)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups.values(), lr=0.0, fused=True)
    else:
        optimizer = torch.optim.SGD(groups.values(), lr=0.0, momentum=config.momentum, fused=True)
    for name, parameter in part.items():
        for kind in moment_kinds(config):
            start = moments.get(f"{kind}/{name}")
            if kind == STEP:
                moment = torch.zeros((), device=parameter.device)
            else:
                moment = torch.zeros_like(parameter, requires_grad=False)
            if start is not None:
                moment.copy_(torch.from_numpy(np.array(start)))
            optimizer.state[parameter][kind] = moment
    return optimizer
