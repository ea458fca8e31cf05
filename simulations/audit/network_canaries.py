"""The game of the one-run audit with a network that is trained privately from a module on.

Canaries are random activations of a large norm at the cut; their gradients are clipped and nearly
orthogonal. The attacker computes what each adds by plain automatic differentiation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from client.methods.private_finetune import clipped
from client.privacy.draws import sample
from common.arrays import Bools, Floats, Floats32, Ints
from common.config.run import RunConfig
from common.data.metadata import width
from common.networks.network import DEVICE, run_network, trunk
from common.privacy.linear import Units
from common.privacy.network import CHUNK, Batch, OpenPart, run_part
from server.methods.private_finetune import learn
from server.privacy.descent import Arrays
from simulations.audit.canaries import CANARIES, Evidence, deviation
from simulations.audit.epsilon_bound import OneRun, judge

_LOUD = 30.0
"""Standard deviation of canaries: their gradients are to reach the clip."""

_LARGEST = 2**27
"""Of canaries times open weights: more gradients than that are not held in memory."""


@dataclass(frozen=True)
class Activations:
    """Canaries at the cut.

    Attributes
    ----------
    X : (m, ...) activations.
    about : (m, width) numbers of their patients, which the attacker chose too.
    y : (m,) labels.
    site : (m,) numbers of their sites.
    """

    X: Floats32
    about: Floats32
    y: Ints
    site: Ints

    @classmethod
    def draw(
        cls,
        m: int,
        shape: Sequence[int],
        width: int,
        sites: int,
        n_classes: int,
        rng: np.random.Generator,
    ) -> Self:
        """Draw canaries of a shape at random sites, of random classes and numbers of patients."""
        X = (_LOUD * rng.standard_normal((m, *shape))).astype(np.float32)
        y, site = rng.integers(0, n_classes, m), rng.integers(0, sites, m)
        return cls(X, rng.random((m, width), dtype=np.float32), y, site)

    def __len__(self) -> int:
        return len(self.y)

    def select(self, chosen: Bools) -> "Activations":
        """Return the canaries that are ``chosen``, (m,)."""
        X, about = self.X[chosen], self.about[chosen]
        return Activations(X, about, self.y[chosen], self.site[chosen])

    def batches(self, rate: float) -> Iterator[Batch]:
        """Draw each canary by itself; yield those that are drawn."""
        drawn = np.flatnonzero(sample(len(self), rate))
        for begin in range(0, len(drawn), CHUNK):
            rows = drawn[begin : begin + CHUNK]
            yield Batch(self.X[rows], self.about[rows], self.y[rows])


def audit_network(config: RunConfig, sites: int, m: int | None = None) -> OneRun:
    """Play the game with a run of method private_finetune.

    Parameters
    ----------
    m : number of canaries; None for as many as memory allows for.
    """
    n_classes = config.task.n_classes
    part = run_part(config)
    m = min(CANARIES, _LARGEST // len(part.pretrained)) if m is None else m
    rng = np.random.default_rng([config.seed, 1])
    canaries = Activations.draw(
        m, _shape_at_cut(config), width(config.metadata), sites, n_classes, rng
    )
    included = rng.random(m) < 0.5
    channels = _channels(config, canaries, sites)
    evidence = [Evidence.none(int(channel.sum())) for channel in channels]

    def total(question: str, step: int, shape: tuple[int, ...], sent: Arrays) -> Floats:
        sums = []
        for number in range(sites):
            own = canaries.select(included & (canaries.site == number))
            units = Units.apart(np.zeros((len(own), 0)), own.y)
            draw = partial(own.batches, config.rate)
            noisy = clipped(config, units, question, sent, draw).noisy(config.honest)
            sums.append(noisy.decoded())
        observed = [np.sum(sums, axis=0)] if config.trust == "distributed" else sums
        for i, channel in enumerate(channels):
            new = _evidence(config, part, canaries.select(channel), question, sent, observed[i])
            evidence[i] = evidence[i].plus(new, deviation(config, question, sites))
        return np.asarray(sum(sums))

    learn(total, part, config)
    scores = np.zeros(m)
    for channel, own in zip(channels, evidence, strict=True):
        scores[channel] = own.scores()
    return judge(scores, included, config.delta, "all sums of the run")


def gradients(part: OpenPart, weights: Floats, canaries: Activations, offset: Floats) -> Floats32:
    """Return each canary's gradient, by torch.func.

    Parameters
    ----------
    weights : (size,) of the open part.
    offset : (n_classes,) added to the logits.

    Returns
    -------
    (m, size) gradients of all open weights.
    """
    part.load(weights)
    added = torch.tensor(offset, dtype=torch.float32, device=DEVICE)

    def loss(
        opened: tuple[torch.Tensor, ...], x: torch.Tensor, about: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        parameters = dict(zip(part.names, opened, strict=True))
        logits: torch.Tensor = functional_call(part, parameters, (x[None], about[None]))
        return functional.cross_entropy(logits + added, label[None])

    opened = tuple(parameter.detach() for parameter in part.opened)
    each = vmap(grad(loss), in_dims=(None, 0, 0, 0))
    rows = []
    for begin in range(0, len(canaries), CHUNK):
        chosen = slice(begin, begin + CHUNK)
        own = (canaries.X, canaries.about, canaries.y)
        inputs = (torch.tensor(array[chosen], device=DEVICE) for array in own)
        rows.append(torch.cat([g.flatten(1) for g in each(opened, *inputs)], dim=1).cpu())
    return np.asarray(torch.cat(rows).numpy())


def _evidence(
    config: RunConfig,
    part: OpenPart,
    canaries: Activations,
    question: str,
    sent: Arrays,
    observed: Floats,
) -> Evidence:
    """Weigh one sum; in a step that samples, a canary is expected with its rate."""
    energy = float((observed**2).sum())
    if question == "overview":
        own = np.equal.outer(canaries.y, np.arange(config.task.n_classes)).astype(np.float64)
        return Evidence(own @ own.T, own @ observed, energy, observed.size)
    rows = gradients(part, sent["weights"], canaries, sent["offset"])
    norms = np.linalg.norm(rows, axis=1)
    shrink = (
        sent["class_weight"][canaries.y] * config.clip_norm / np.maximum(norms, config.clip_norm)
    )
    rows *= config.rate * shrink[:, None].astype(np.float32)
    gram, matched = rows @ rows.T, rows @ observed.astype(np.float32)
    return Evidence(gram.astype(np.float64), matched.astype(np.float64), energy, observed.size)


def _channels(config: RunConfig, canaries: Activations, sites: int) -> list[Bools]:
    """Return which canaries each sum that is seen is of: one for all, or one for each site."""
    if config.trust == "distributed":
        return [np.ones(len(canaries), dtype=np.bool_)]
    return [canaries.site == number for number in range(sites)]


def _shape_at_cut(config: RunConfig) -> tuple[int, ...]:
    network = run_network(config)
    image = torch.zeros((1, 3, config.size, config.size), device=DEVICE)
    with torch.inference_mode():
        return tuple(trunk(network, [config.opens])(image)[0].shape[1:])
