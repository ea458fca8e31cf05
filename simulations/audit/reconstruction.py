"""Reconstruction: the features of a lesion that is alone in a batch, from what is sent of it.

In a linear layer a lesion's gradient is the outer product of its pull on the scores and its
features: one divided by the other is the lesion (Geiping et al., "Inverting gradients", NeurIPS
2020, proposition 3.1). The attacker knows the diagnosis, and with it the pull but for a factor, so
that under noise he takes the direction that fits best.
"""

from collections.abc import Mapping

import numpy as np

from common.arrays import Floats, Ints
from common.config.run import RunConfig
from common.privacy.lda import shortened, unpacked
from common.privacy.linear import Centre, Objective, clipped_pulls
from common.statistics.moments import Moments
from simulations.audit.recorded_training import AllSites, ask
from simulations.audit.results import Reconstruction

LESIONS = 100


def from_noisy_sums(config: RunConfig, units: AllSites) -> list[Reconstruction]:
    """Reconstruct units, each alone in a run's batch, from what method private sends of it."""
    return (_from_noisy_moments if config.head == "lda" else _from_gradients)(config, units)


def _from_noisy_moments(config: RunConfig, units: AllSites) -> list[Reconstruction]:
    """Take a class's noisy sum for the unit, once with the noise of the run and once without."""
    chosen, centre = _choose(len(units), config.seed), Centre.of(units.X.mean(axis=0))
    truth = shortened(units.X[chosen], centre)

    def reconstruct(run: RunConfig) -> Floats:
        rows = []
        for i, y in zip(chosen, units.y[chosen], strict=True):
            moments = _alone(run, units.select(np.array([i])), "moments", centre._asdict(), 1)
            rows.append(unpacked(moments, config.task.n_classes)[0][y])
        return np.array(rows)

    plain = config.model_copy(update={"epsilon": 0.0})
    clear = compare("the moments, without noise", reconstruct(plain), truth)
    if not config.epsilon:
        return [clear]
    return [compare("the moments, with this run's noise", reconstruct(config), truth), clear]


def _from_gradients(config: RunConfig, units: AllSites) -> list[Reconstruction]:
    """Divide gradients by the pull.

    With the noise and clip of the run: from one gradient, and from the mean of all steps' at the
    same weights. Then from one gradient without noise.
    """
    chosen = _choose(len(units), config.seed)
    mean = units.X.mean(axis=0)
    centre = Centre.of(mean)
    n_classes = config.task.n_classes
    zeros = np.zeros((n_classes, len(mean) + 1))
    even = {"offset": np.zeros(n_classes), "class_weight": np.ones(n_classes)}
    sent = {**centre._asdict(), "weights": zeros, **even}
    truth = centre.apply(units.X[chosen])[:, :-1]

    def reconstruct(run: RunConfig, steps: int) -> Floats:
        rows = [
            invert(_alone(run, units.select(np.array([i])), "gradient", sent, steps), _pull(run, y))
            for i, y in zip(chosen, units.y[chosen], strict=True)
        ]
        return np.array(rows)

    plain = config.model_copy(update={"epsilon": 0.0, "rate": 1.0})
    if not config.epsilon:
        return [compare("one gradient, without noise as in this run", reconstruct(plain, 1), truth)]
    noisy = config.model_copy(update={"rate": 1.0})
    every = f"all {config.steps} gradients at the same weights, with this run's noise"
    return [
        compare("one gradient, with this run's noise and clip", reconstruct(noisy, 1), truth),
        compare(every, reconstruct(noisy, config.steps), truth),
        compare("one gradient, without noise", reconstruct(plain, 1), truth),
    ]


def from_moments(units: AllSites, seed: int) -> Reconstruction:
    """Reconstruct units from the moments that a site sends for an SVM, without noise.

    Each is the only one of its diagnosis at its site: the sum over the class is the lesion.
    """
    chosen, mean = _choose(len(units), seed), units.X.mean(axis=0)
    n_classes, rows = int(units.y.max()) + 1, []
    for i in chosen:
        lone = slice(i, i + 1)
        sent = Moments.measure(units.X[lone], units.y[lone], np.ones(1), n_classes)
        rows.append(sent.class_sum[units.y[i]] - mean)
    source = "the moments, of a lesion that is alone in its diagnosis at a site"
    return compare(source, np.array(rows), units.X[chosen] - mean)


def invert(gradient: Floats, pull: Floats) -> Floats:
    """Return the features (d,), but for a factor, of a record that alone makes up a gradient.

    The least-squares solution of gradient = pull x^T, which under noise is the most likely one.
    The intercept's gradient is the factor, but under noise its sign may be wrong.

    Parameters
    ----------
    gradient : (n_classes, d + 1), the intercepts' last.
    pull : (n_classes,) the record's on the scores, but for a factor above 0.
    """
    return np.asarray((pull @ gradient)[:-1] / (pull @ pull))


def compare(source: str, reconstructed: Floats, truth: Floats) -> Reconstruction:
    """Compare ``reconstructed`` with ``truth``, both (n, d), and each with another lesion."""
    own, other = _cosines(reconstructed, truth), _cosines(reconstructed, np.roll(truth, 1, axis=0))
    (median, high), (chance, high_chance) = (
        (float(np.median(values)), float(np.quantile(values, 0.95))) for values in (own, other)
    )
    return Reconstruction(source, len(truth), median, high, chance, high_chance)


def _cosines(a: Floats, b: Floats) -> Floats:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.einsum("ij,ij->i", a, b) / np.maximum(norms, np.finfo(float).tiny))


def _alone(
    run: RunConfig, unit: AllSites, question: str, sent: Mapping[str, Floats], steps: int
) -> Floats:
    """Return the mean of what is seen of a unit that no other hides."""
    channel = 0 if run.trust == "distributed" else int(unit.site[0])
    sums = [ask(run, unit, question, sent).sums[channel] for _ in range(steps)]
    return np.asarray(np.mean(sums, axis=0))


def _pull(run: RunConfig, y: int) -> Floats:
    """Return the pull of a record of class ``y`` at weights of zero, but for a factor."""
    one = np.ones((1, 1))
    n_classes = run.task.n_classes
    objective = Objective(run.head, np.zeros(n_classes), np.ones(n_classes))
    zeros = np.zeros((n_classes, 1))
    pulls = clipped_pulls(one, np.array([y]), zeros, objective, run.clip_norm)
    return np.asarray(pulls[0])


def _choose(n: int, seed: int) -> Ints:
    """Draw the units that are tried, of n."""
    return np.asarray(np.random.default_rng([seed, 4]).permutation(n)[:LESIONS])
