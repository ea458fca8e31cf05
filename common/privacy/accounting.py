"""What a history of noisy sums costs in differential privacy, and how much noise a plan needs.

Neighbouring data sets differ by one unit, such as a lesion, added or removed. A step samples every
unit by itself with a public probability (Poisson sampling), adds what the sampled ones contribute,
each clipped, and adds Gaussian noise: the sampled Gaussian mechanism.
"""

import math
import warnings
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common.errors import ConfigError

# Opacus imports PyTorch, and SciPy takes long too: both are imported where they are used.

_RELATIVE_ERROR = 0.005
_MOST_POINTS = 2_000_000  # of a discretised privacy loss: some 100 MB, and about a second
_LEAST_DELTA = 1e-10  # at 1e-12 rounding in the Fourier transform has been seen to hide losses
_LARGE_EPSILON = 200.0  # far from any protection; exp of some three times as much overflows
_MOST_STEPS = 100_000
_MOST_NOISE = 2**14
_NOISE_RANGE = (1e-4, 1e6)
_MOST_STEPS_OF_ONE = 10**9
_MOST_UNITS = 10**9
_LITTLE_NOISE = 1e-6  # below, rounding hides the exact epsilon, which is above 1e11


@dataclass(frozen=True)
class SampledGaussian:
    """Steps of the sampled Gaussian mechanism.

    Attributes
    ----------
    noise : noise multiplier, the noise's standard deviation over the clipping norm; 1e-4 to 1e6.
    rate : probability with which a step samples a unit; above 0, at most 1.
    steps : how many there are, 1 to 1e9.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    noise: float
    rate: float
    steps: int = 1

    def __post_init__(self) -> None:
        least, most = _NOISE_RANGE
        if not least <= self.noise <= most:
            raise ConfigError(
                f"the noise multiplier is {self.noise:g}; it must be {least:g} to {most:g}"
            )
        if not 0 < self.rate <= 1:
            raise ConfigError(f"the sampling rate is {self.rate}; it must be above 0, at most 1")
        if not 1 <= self.steps <= _MOST_STEPS_OF_ONE or self.steps != int(self.steps):
            raise ConfigError(
                f"the number of steps is {self.steps}; it must be 1 to {_MOST_STEPS_OF_ONE}"
            )


class _Steps(NamedTuple):
    """Steps of a history added up, whose noise may be less than any of a plan."""

    noise: float
    rate: float
    steps: int


def epsilon(history: Sequence[SampledGaussian], delta: float) -> float:
    """Return an epsilon such that the whole of ``history`` is (epsilon, ``delta``)-private.

    Without sampling the steps are one Gaussian mechanism, whose epsilon is exact (Balle and Wang,
    "Improving the Gaussian mechanism", 2018, theorem 8). Else it is the upper bound of Opacus's
    PRV accountant (Gopi, Lee and Wutschitz, "Numerical composition of differential privacy", 2021),
    which is within 2 % of the exact one, or within 0.002 of it where that is more, up to 5,000
    steps; beyond, the discretised loss keeps its size, and the bound gets looser. For an epsilon
    above 200 or a ``delta`` below 1e-10, where the accountant's arithmetic fails, it is the
    Renyi bound (Mironov, Talwar and Zhang, 2019), some 3 to 20 % above.

    Raises
    ------
    ConfigError
        If ``delta`` is not between 0 and 1.
    """
    if not 0 < delta < 1:
        raise ConfigError(f"delta is {delta}; it must be above 0 and below 1")
    merged = _merge(history)
    if not merged:
        return 0.0
    if all(each.rate == 1 for each in merged):
        return _gaussian_epsilon(merged[0].noise, delta)
    return _composed_epsilon(merged, delta)


def noise_for(
    epsilon: float,
    delta: float,
    rate: float,
    steps: int,
    history: Sequence[SampledGaussian] = (),
) -> float:
    """Return the least noise multiplier, in thousandths, that keeps a plan within ``epsilon``.

    The plan is ``steps`` steps at ``rate`` after ``history``.

    Raises
    ------
    ConfigError
        If a value is out of its range, or no noise up to 16,384 is enough.
    """
    _check_epsilon(epsilon)
    spent = _cost(history, delta)
    if spent > epsilon:
        raise ConfigError(f"{spent:.4g} of epsilon {epsilon:.4g} is spent; no noise is enough")

    def enough(thousandths: int) -> bool:
        plan = SampledGaussian(thousandths / 1000, rate, steps)
        return _cost([*history, plan], delta) <= epsilon

    most = 1000
    while not enough(most):
        most *= 2
        if most > 1000 * _MOST_NOISE:
            raise ConfigError(
                f"{spent:.4g} of epsilon {epsilon:.4g} is spent; even a noise multiplier of "
                f"{_MOST_NOISE} does not keep {steps} steps within what is left"
            )
    least = most // 2 + 1 if most > 1000 else 1
    return bisect_left(range(most), True, least, key=enough) / 1000


def steps_within(
    epsilon: float,
    delta: float,
    noise: float,
    rate: float,
    history: Sequence[SampledGaussian] = (),
    most: int = _MOST_STEPS,
) -> int:
    """Return how many steps, up to ``most``, stay within ``epsilon`` after ``history``.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """
    _check_epsilon(epsilon)

    def cost(steps: int) -> float:
        return _cost([*history, SampledGaussian(noise, rate, steps)], delta)

    # By doubling first: few steps cost less to account for than many.
    above = 1
    while above <= most and cost(above) <= epsilon:
        above *= 2
    return (
        bisect_right(range(most + 1), epsilon, above // 2 + 1, min(above, most + 1), key=cost) - 1
    )


def largest_delta(units: int) -> float:
    """Return the largest delta that is fit for ``units`` units: 1e-5, or less for many.

    At a delta of 1 / ``units`` a mechanism could publish one unit as it is.
    """
    if not 1 <= units <= _MOST_UNITS:
        raise ConfigError(f"the number of units is {units}; it must be 1 to {_MOST_UNITS}")
    return float(min(1e-5, units**-1.1))


_cost = epsilon  # for where an argument has that name


def _check_epsilon(value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"epsilon is {value}; it must be above 0")


def _merge(history: Sequence[SampledGaussian]) -> list[_Steps]:
    """Add up equal steps; those without sampling are one step of less noise."""
    precision = sum(each.steps / each.noise**2 for each in history if each.rate == 1)
    whole = [_Steps(precision**-0.5, 1.0, 1)] if precision else []
    steps = Counter[tuple[float, float]]()
    for each in history:
        if each.rate < 1:
            steps[each.noise, each.rate] += each.steps
    return whole + [_Steps(*key, count) for key, count in sorted(steps.items())]


def _gaussian_epsilon(noise: float, delta: float) -> float:
    if noise < _LITTLE_NOISE:  # what zero-concentrated privacy costs (Bun and Steinke, 2016)
        rho = 0.5 / noise**2
        return rho + 2 * math.sqrt(rho * -math.log(delta))
    from scipy.optimize import brentq
    from scipy.special import log_ndtr

    def excess(value: float) -> float:
        """Return the logarithm of the delta that ``value`` needs, over the one there is."""
        first = log_ndtr(0.5 / noise - value * noise)
        second = value + log_ndtr(-0.5 / noise - value * noise)
        if second >= first:  # by rounding, far out in the tails: their difference is at most this
            return float(first - math.log(delta))
        with np.errstate(divide="ignore"):  # no delta at all
            return float(first + np.log1p(-np.exp(second - first)) - math.log(delta))

    if excess(0.0) <= 0:
        return 0.0
    most = 1.0
    while excess(most) > 0:
        most *= 2
    tolerance = 1e-12
    return float(brentq(excess, 0.0, most, xtol=tolerance)) + tolerance


def _composed_epsilon(merged: Sequence[_Steps], delta: float) -> float:
    from opacus.accountants import PRVAccountant, RDPAccountant

    renyi, prv = RDPAccountant(), PRVAccountant()
    renyi.history = prv.history = [tuple(each) for each in merged]
    # They warn of the logarithm of 0 at rate 1, and of a Renyi bound that is not the tightest.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        bound = float(renyi.get_epsilon(delta))
        if bound <= 0:
            return 0.0
        # The accountant's grid: 2 (bound + 3) wide, in parts of the error over this root.
        root = math.sqrt(sum(each.steps for each in merged) * math.log(12_000 / delta) / 2)
        least_error = 2 * (bound + 3) * root / _MOST_POINTS
        # Its guarantee is for errors below 1.
        if bound > _LARGE_EPSILON or delta < _LEAST_DELTA or least_error > 1:
            return bound
        rough = prv.get_epsilon(delta, eps_error=max(0.05 * bound, least_error))
        error = max(_RELATIVE_ERROR * rough, least_error)
        return min(bound, float(prv.get_epsilon(delta, eps_error=error)))
