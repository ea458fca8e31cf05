"""Training under differential privacy: an overview once, then steps along noisy gradients."""

import math
from typing import Final

import numpy as np

from common.answers.basis import AnswerBasis
from common.config.run import RunConfig
from common.data.metadata import width
from common.features.extract import check_network
from common.features.tuned import refuse_tuned
from common.models.linear import LinearModel
from common.privacy.lda import discriminant, moments_size
from common.privacy.linear import Centre, intercept_of, plan, run_map
from common.statistics.calibration import even, uncalibrated
from server.federation.federation import Federation
from server.privacy.card_facts import privacy_facts
from server.privacy.descent import Learned, Remedy, Total, descend
from server.privacy.noisy_sites import NoisySites, details
from server.run.folder import RunFolder
from server.run.training_result import TrainingResult

_HINGE_RATE: Final = 1.0
"""Learning rate of an SVM's loss; chosen on HAM10000's first fold."""

_MOST_RATE: Final = 10.0
_NOISE_OF_STEP: Final = 0.01
"""Of the cross-entropy the largest learning rate, and how far a step's noise alone moves a weight;
both chosen on folds of HAM10000's training lesions."""


def train(federation: Federation, config: RunConfig, folder: RunFolder) -> TrainingResult:
    """Train a linear classifier; a site that fails is left out from then on.

    Raises
    ------
    QuorumError
        If too few sites are left, or too few that add noise.
    """
    sites = NoisySites(federation, config, folder)
    n_features = next(iter(federation.sites.values())).n_features
    feature_map = run_map(n_features - width(config.metadata), config)
    learned = learn(sites.sum, feature_map.n_outputs, config)
    # Scores are for classes that are equally frequent, probabilities for these as they are.
    n_classes = config.task.n_classes
    calibration = np.stack([np.ones(n_classes), learned.offset])
    base_rates = learned.counts / learned.counts.sum()
    basis = AnswerBasis.of(config.task, calibration, base_rates)
    return TrainingResult(
        LinearModel(feature_map, learned.weights, basis, config),
        sites.evaluate(weights=learned.weights, calibration=calibration, base_rates=base_rates),
        sites.evaluate(
            weights=learned.weights, calibration=uncalibrated(n_classes), base_rates=even(n_classes)
        ),
        details(config, learned.counts),
    )


def learn(total: Total, dimensions: int, config: RunConfig) -> Learned:
    """Train on records of ``dimensions`` dimensions, seen through ``total`` alone.

    Parameters
    ----------
    total : returns the sum over all sites in real numbers, given question, step, shape and what
        goes with the question.
    """
    n_classes = config.task.n_classes
    overview = total("overview", 0, (n_classes + dimensions,), {})
    counts = np.maximum(overview[:n_classes], 1.0)
    centre = Centre.of(overview[n_classes:] / counts.sum(), intercept_of(config.head))
    fixed = {"mean": centre.mean, "scale": centre.scale}
    frequencies = np.log(counts / counts.sum())
    if config.head == "lda":
        size = moments_size(dimensions, n_classes)
        weights = discriminant(total("moments", 1, (size,), fixed), counts)
        return Learned(centre.fold(weights), frequencies, counts)
    remedy = Remedy.choose(config, counts)
    start, rate = np.zeros((n_classes, dimensions + 1)), learning_rate(config, remedy.units)
    weights = descend(total, config, {**fixed, **remedy.sent}, start, np.array(rate), remedy.units)
    # Margins are no log-probabilities that a remedy has shifted: the largest one decides.
    offset = frequencies if config.head == "hinge" else remedy.priors
    return Learned(centre.fold(weights), offset, counts)


def learning_rate(config: RunConfig, units: float) -> float:
    """Return the learning rate that the noise allows, which is no secret.

    Less noise allows larger steps, which come further down. Of sites that add all of the noise
    each, as many are supposed as the run waits for: who is there may change as it is interrupted.

    Parameters
    ----------
    units : noisy number of units, as of :class:`Remedy`.
    """
    if config.head == "hinge":
        return _HINGE_RATE
    spent, sites = plan(config), max(config.expected, config.quorum, config.honest)
    noise = spent.training.noise * math.sqrt(sites / config.honest) if spent else 0.0
    of_mean = noise * config.clip_norm / (config.rate * units)
    return _NOISE_OF_STEP / max(of_mean, _NOISE_OF_STEP / _MOST_RATE)


def check(config: RunConfig) -> None:
    """Refuse a network that cannot be loaded, or was trained without noise."""
    refuse_tuned(config.weights, "a private method promises nothing of what that run saw")
    check_network(config.feature_spec)


def model_name(config: RunConfig) -> str:
    """Return what the model card calls the model."""
    return f"linear classifier on frozen features of {config.backbone}"


training_facts = privacy_facts
