"""Fine-tuning under differential privacy: class counts once, then steps along noisy gradients."""

from typing import Final

import numpy as np

from common.answers.basis import AnswerBasis
from common.config.run import RunConfig
from common.features.tuned import refuse_tuned
from common.models.network import NetworkModel
from common.networks.fusion import ADDED
from common.privacy.network import OpenPart, run_part
from common.statistics.calibration import even, uncalibrated
from server.federation.federation import Federation
from server.privacy.card_facts import privacy_facts
from server.privacy.descent import Learned, Remedy, Total, descend
from server.privacy.noisy_sites import NoisySites, details
from server.run.folder import RunFolder
from server.run.training_result import TrainingResult

_HEAD_RATE: Final = 5.0
_BACKBONE_RATE: Final = 0.1
"""Learning rates of clipped gradients; of those tried on HAM10000's first fold the best. Those of
the head hold for all that is linear in the logits."""

_HEAD: Final = ("head.weight", "head.bias", ADDED)


def train(federation: Federation, config: RunConfig, folder: RunFolder) -> TrainingResult:
    """Train a head and the layers opened before it; leave a site out once it fails.

    Raises
    ------
    QuorumError
        If too few sites are left, or too few that add noise.
    """
    sites = NoisySites(federation, config, folder)
    part = run_part(config)
    learned = learn(sites.sum, part, config)
    weights, base_rates = learned.weights, learned.counts / learned.counts.sum()
    n_classes = config.task.n_classes
    calibration = np.stack([np.ones(n_classes), learned.offset])
    basis = AnswerBasis.of(config.task, calibration, base_rates)
    return TrainingResult(
        NetworkModel(part.tensors(weights), basis, config),
        sites.evaluate(weights=weights, calibration=calibration, base_rates=base_rates),
        sites.evaluate(
            weights=weights, calibration=uncalibrated(n_classes), base_rates=even(n_classes)
        ),
        details(config, learned.counts),
    )


def learn(total: Total, part: OpenPart, config: RunConfig) -> Learned:
    """Train the open part, whose weights come as one vector (size,).

    Parameters
    ----------
    total : asks the sites for a sum.
    """
    rates = np.concatenate(
        [
            np.full(p.numel(), _HEAD_RATE if name in _HEAD else _BACKBONE_RATE)
            for name, p in zip(part.names, part.opened, strict=True)
        ]
    )
    counts = np.maximum(total("overview", 0, (config.task.n_classes,), {}), 1.0)
    remedy = Remedy.choose(config, counts)
    weights = descend(total, config, remedy.sent, part.pretrained, rates, remedy.units)
    return Learned(weights, remedy.priors, counts)


def check(config: RunConfig) -> None:
    """Refuse a network that cannot be loaded, or was trained without noise, or has no such part."""
    refuse_tuned(config.weights, "a private method promises nothing of what that run saw")
    run_part(config)


def model_name(config: RunConfig) -> str:
    """Return what the model card calls the model."""
    return f"{config.backbone} with a linear head, trained from {config.opens} on"


training_facts = privacy_facts
