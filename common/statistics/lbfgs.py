"""Preconditioned L-BFGS for many independent convex problems that share each evaluation.

In a federation an evaluation is a round, so all problems advance in lockstep: a round
evaluates one point of each. Nocedal and Wright, Numerical Optimization, algorithm 7.4,
with the approximate Wolfe test of Hager and Zhang (SIAM J. Optim. 16, 2005, eq. 4.1)
where differences of the objective vanish in rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.arrays import Bools, Floats

Evaluate = Callable[[Floats], tuple[Floats, Floats]]
Precondition = Callable[[Floats], Floats]

_SUFFICIENT_DECREASE = 1e-4
_ROUNDING = 1e-12  # relative to the objective


@dataclass(frozen=True)
class Solution:
    """Where the problems ended.

    Attributes
    ----------
    x : (n_problems, n_variables) the minimisers.
    value : (n_problems,) objectives there.
    gradient_norm : (n_problems,) Euclidean norms of the gradients there.
    rounds : number of evaluations spent.
    """

    x: Floats
    value: Floats
    gradient_norm: Floats
    rounds: int


def minimise(
    evaluate: Evaluate,
    start: Floats,
    precondition: Precondition,
    tolerance: float,
    max_rounds: int,
    memory: int = 40,
    turning: bool = False,
) -> Solution:
    """Minimise every problem until its gradient's norm is at most ``tolerance``.

    Parameters
    ----------
    evaluate : maps points (n_problems, n_variables) to objectives (n_problems,) and
        gradients (n_problems, n_variables).
    start : (n_problems, n_variables).
    precondition : maps gradients to approximate Newton steps, same shape.
    tolerance : largest Euclidean norm of a gradient at which a problem counts as solved.
    max_rounds : largest number of evaluations; ``gradient_norm`` says what was reached.
    memory : pairs of steps and gradient changes kept.
    turning : whether to repeat a step that was too long in a new direction, given by the curvature
        that it met, before it is shortened; so no three points lie on a line.
    """
    x = start
    value, gradient = evaluate(x)
    rounds = 1
    history: list[tuple[Floats, Floats]] = []
    direction = _direction(gradient, history, precondition)
    step, rejected = np.ones(len(x)), np.zeros(len(x), dtype=np.bool_)
    while rounds < max_rounds and (_norm(gradient) > tolerance).any():
        unsolved = _norm(gradient) > tolerance
        # A solved problem asks again what it has asked.
        trial = np.where(unsolved[:, None], x + step[:, None] * direction, x)
        trial_value, trial_gradient = evaluate(trial)
        rounds += 1
        slope = _dot(gradient, direction)
        trial_slope = _dot(trial_gradient, direction)
        accepted = _accept(value, trial_value, slope, trial_slope, step)
        moved = accepted & unsolved
        renewed = unsolved if turning else moved
        history = _remember(history, renewed, trial - x, trial_gradient - gradient, memory)
        x = np.where(moved[:, None], trial, x)
        value = np.where(moved, trial_value, value)
        gradient = np.where(moved[:, None], trial_gradient, gradient)
        shorter = step * np.clip(slope / np.minimum(slope - trial_slope, -1e-300), 0.1, 0.5)
        step = np.where(accepted | (turning & ~rejected), 1.0, shorter)
        rejected = ~accepted
        turned = accepted | turning
        direction = np.where(
            turned[:, None], _direction(gradient, history, precondition), direction
        )
    return Solution(x, value, _norm(gradient), rounds)


def _accept(
    value: Floats, trial_value: Floats, slope: Floats, trial_slope: Floats, step: Floats
) -> Bools:
    armijo = trial_value <= value + _SUFFICIENT_DECREASE * step * slope
    within_rounding = trial_value <= value + _ROUNDING * np.abs(value)
    return armijo | (within_rounding & (np.abs(trial_slope) <= 0.9 * np.abs(slope)))


def _remember(
    history: list[tuple[Floats, Floats]],
    renewed: Bools,
    step: Floats,
    change: Floats,
    memory: int,
) -> list[tuple[Floats, Floats]]:
    """Append a pair for each renewed problem; the others get zeros, which change nothing."""
    keep = (renewed & (_dot(step, change) > 0))[:, None]
    if not keep.any():
        return history
    return [*history, (np.where(keep, step, 0.0), np.where(keep, change, 0.0))][-memory:]


def _direction(
    gradient: Floats, history: list[tuple[Floats, Floats]], precondition: Precondition
) -> Floats:
    """Two-loop recursion, all problems at once."""
    q = gradient
    alphas = []
    for step, change in reversed(history):
        alpha = _ratio(_dot(step, q), _dot(step, change))
        q = q - alpha[:, None] * change
        alphas.append(alpha)
    r = precondition(q)
    for (step, change), alpha in zip(history, reversed(alphas), strict=True):
        beta = _ratio(_dot(change, r), _dot(step, change))
        r = r + (alpha - beta)[:, None] * step
    return -r


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _norm(a: Floats) -> Floats:
    return np.asarray(np.linalg.norm(a, axis=1))
