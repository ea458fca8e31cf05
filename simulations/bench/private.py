"""What privacy costs in time: a step over many records, clipped and noisy, and a plain one."""

import os
from collections.abc import Callable
from timeit import repeat

import numpy as np
import torch
from torch.nn import functional

from common.config.run import RunConfig
from common.privacy.linear import Centre, Objective, Units, clipped_gradients
from common.privacy.noise import noisy
from common.svm.objective import with_intercept
from simulations.bench.measurement import Measurement

_RECORDS = 8000
_REPEATS = 20


def bench_private() -> list[Measurement]:
    """Time an epoch of a linear head on synthetic features, one step over all records."""
    config = RunConfig()
    n_classes, rng = config.task.n_classes, np.random.default_rng(0)
    X, y = rng.standard_normal((_RECORDS, config.components)), rng.integers(0, n_classes, _RECORDS)
    weights = 0.1 * rng.standard_normal((n_classes, config.components + 1))
    units = Units.apart(X, y)
    objective = Objective("softmax", np.zeros(n_classes), np.ones(n_classes))
    centre = Centre(np.zeros(config.components), np.array(1.0))
    inputs, labels = torch.from_numpy(with_intercept(X)), torch.from_numpy(y)
    layer = torch.from_numpy(weights).requires_grad_()

    def private() -> None:
        total = clipped_gradients(units, centre, weights, objective, config.clip_norm)
        noisy(total, config.clip_norm, 1.0, os.urandom)

    def plain() -> None:
        loss = functional.cross_entropy(inputs @ layer.T, labels)
        torch.autograd.grad(loss, layer)

    ratio = _fastest(private) / _fastest(plain)
    what = f"private epoch of a head on {_RECORDS} records over a plain one"
    return [Measurement(what, ratio, "", "at most 5")]


def _fastest(run: Callable[[], None]) -> float:
    return min(repeat(run, number=1, repeat=_REPEATS))
