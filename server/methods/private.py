"""Training under differential privacy: an overview once, then steps along noisy gradients.

What is made of noisy sums costs no more privacy: sizes of steps, averages, scales.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.data.dataset import DIAGNOSES
from common.errors import QuorumError
from common.models.linear import LinearModel
from common.privacy.lda import discriminant, moments_size
from common.privacy.linear import Centre, NoisySum, plan, public_map
from common.statistics.calibration import uncalibrated
from common.statistics.metrics import Evaluation
from common.wire.messages import Value
from server.federation.federation import Federation
from server.federation.question import Answers, LossPolicy, Question
from server.run.folder import RunFolder
from server.run.training_result import Result

Floats = NDArray[np.float64]
Arrays = Mapping[str, Floats]
Total = Callable[[str, int, tuple[int, ...], Arrays], Floats]

N_CLASSES = len(DIAGNOSES)

_MOMENTUM = 0.9
_LEARNING_RATE = {"softmax": 3.0, "hinge": 1.0}
"""Chosen on HAM10000's first fold."""

_log = logging.getLogger(__name__)


def train(federation: Federation, config: RunConfig, folder: RunFolder) -> Result:
    """Train a linear classifier; a site that fails is left out from then on.

    Raises
    ------
    QuorumError
        If too few sites are left, or too few that add noise.
    """
    sites = Sites(federation, config, folder)
    n_features = next(iter(federation.sites.values())).n_features
    feature_map = public_map(n_features, config.projection, config.seed)
    learned = learn(sites.sum, feature_map.n_outputs, config)
    # Scores are for classes that are equally frequent, probabilities for these as they are.
    calibration = np.stack([np.ones(N_CLASSES), learned.offset])
    unknown = np.full(feature_map.n_outputs, np.inf)
    return Result(
        LinearModel(feature_map, unknown, learned.weights, calibration, DIAGNOSES, config),
        sites.evaluate(weights=learned.weights, calibration=calibration),
        sites.evaluate(weights=learned.weights, calibration=uncalibrated(N_CLASSES)),
        details(config, learned.counts),
    )


def details(config: RunConfig, counts: Floats) -> dict[str, Any]:
    """Return what a private run tells of itself, given its noisy class counts."""
    spent = plan(config)
    return {
        "noise": spent.training.noise if spent else 0.0,
        "class_counts": dict(zip(DIAGNOSES, counts.tolist(), strict=True)),
    }


class Learned(NamedTuple):
    """What comes of noisy sums.

    Attributes
    ----------
    weights : (n_classes, d + 1) for records as they are, the intercepts last; of a network all
        that is open, (size,).
    offset : (n_classes,) added to the scores for classes as frequent as they are.
    counts : (n_classes,) noisy numbers of units, at least 1.
    """

    weights: Floats
    offset: Floats
    counts: Floats


def learn(total: Total, dimensions: int, config: RunConfig) -> Learned:
    """Train on records of ``dimensions`` dimensions, of which only ``total`` tells.

    Parameters
    ----------
    total : returns the sum over all sites in real numbers, given question, step, shape and what
        goes with the question.
    """
    seen = total("overview", 0, (N_CLASSES + dimensions,), {})
    counts = np.maximum(seen[:N_CLASSES], 1.0)
    centre = Centre.of(seen[N_CLASSES:] / counts.sum())
    fixed = {"mean": centre.mean, "scale": centre.scale}
    if config.classifier == "lda":
        size = moments_size(dimensions, N_CLASSES)
        weights = discriminant(total("moments", 1, (size,), fixed), counts)
        return Learned(centre.fold(weights), np.log(counts / counts.sum()), counts)
    start, rate = np.zeros((N_CLASSES, dimensions + 1)), np.array(_LEARNING_RATE[config.classifier])
    remedy = Remedy.choose(config, counts)
    weights = descend(total, config, {**fixed, **remedy.sent}, start, rate, remedy.units)
    return Learned(centre.fold(weights), remedy.priors, counts)


class Remedy(NamedTuple):
    """What rare classes get.

    Attributes
    ----------
    sent : with every question, (n_classes,) each: "offset", which is added to the scores in
        training, and "class_weight", which clipped gradients are multiplied with.
    priors : (n_classes,) added to the trained scores for classes as frequent as they are.
    units : noisy number of units, each counted by its class's weight.
    """

    sent: Arrays
    priors: Floats
    units: float

    @classmethod
    def choose(cls, config: RunConfig, counts: Floats) -> Self:
        """Choose the remedy that is configured.

        Parameters
        ----------
        counts : (n_classes,) noisy numbers of units, at least 1.

        References
        ----------
        Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 10, which
        unlike weights does not make the gradients of frequent classes shorter beside the noise.
        """
        even = np.ones(N_CLASSES)
        adjusted = config.imbalance_strength * np.log(counts / counts.sum())
        match config.imbalance:
            case "logits":
                return cls({"offset": adjusted, "class_weight": even}, adjusted, counts.sum())
            case "weights":
                weight = (counts / counts.min()) ** -config.imbalance_strength
                sent = {"offset": 0 * even, "class_weight": weight}
                return cls(sent, adjusted, float(counts @ weight))
        return cls({"offset": 0 * even, "class_weight": even}, 0 * even, counts.sum())


class Sites:
    """Asks for noisy sums. Those of an interrupted run are on disk, and not asked for again."""

    def __init__(self, federation: Federation, config: RunConfig, folder: RunFolder):
        if config.epsilon and config.unit == "image_id":
            _log.warning("an image is private, not a lesion: one of six has six times epsilon")
        plan(config)  # what cannot be paid for is said before a site is asked
        self._federation, self._config, self._folder = federation, config, folder

    def sum(self, question: str, step: int, shape: tuple[int, ...], arrays: Arrays) -> Floats:
        """Return the sum over the sites that are left, in real numbers."""

        def check_noise(sites: Collection[str]) -> None:
            if len(sites) < self._config.honest:
                raise QuorumError(
                    f"{len(sites)} sites added noise in step {step}, {self._config.honest} must"
                )

        values: dict[str, Value] = {"run": self._folder.name, "step": step}
        zero = NoisySum.zero(*shape)
        noisy = Question(question, zero, arrays, values, check_sites=check_noise)
        return self._federation.total(noisy, LossPolicy.CONTINUE).decoded()

    def evaluate(self, **arrays: Floats) -> Answers[Evaluation]:
        """Return the counts on test lesions of the sites that give them.

        Of secure sums, which are over all sites, there are none where one gives none.
        """
        sites, zero = self._federation.sites, Evaluation.zero(N_CLASSES)
        giving = [name for name, info in sites.items() if info.test_counts]
        if len(giving) < len(sites):
            _log.warning("hospitals give no counts on test lesions; figures are without theirs")
            if self._config.secure or not giving:
                return Answers(zero, [], {})
        question = Question("evaluate", zero, arrays, sites=giving)
        return self._federation.answers(question, LossPolicy.CONTINUE)


def descend(
    ask: Total, config: RunConfig, fixed: Arrays, start: Floats, rates: Floats, units: float
) -> Floats:
    """Return the mean of the later half of the weights on the way down.

    By gradient descent with momentum (Polyak 1964); the average (Polyak and Juditsky 1992) has
    less noise than the last.

    Parameters
    ----------
    fixed : what goes with every question beside the weights.
    start : the weights to start from.
    rates : learning rates that can be broadcast to them.
    units : noisy number of units.
    """
    weights, velocity, mean = start, np.zeros_like(start), np.zeros_like(start)
    for step in range(1, config.steps + 1):
        total = ask("gradient", step, weights.shape, {**fixed, "weights": weights})
        velocity = _MOMENTUM * velocity + total / (config.rate * units)
        weights = weights - rates * velocity
        later = step - config.steps // 2
        if later > 0:
            mean = mean + (weights - mean) / later
    return mean
