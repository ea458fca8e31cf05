"""Remedies for rare classes: weights, draws, focal loss and logit adjustment."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from common.arrays import Floats, Ints
from common.config.finetune import FinetuneConfig
from common.statistics.sums import Sums

_LEAST = 1e-7  # doubt in an answer
_MOST_DRAWS = 1000.0  # of an image in an epoch


@dataclass(frozen=True)
class ClassCounts(Sums):
    """Number of training images of each class, (n_classes,)."""

    nonnegative: ClassVar[tuple[str, ...]] = ("images",)
    counted: ClassVar[str | None] = "images"

    images: Ints

    @classmethod
    def zero(cls, n_classes: int) -> Self:
        """Return the counts of no images."""
        return cls(np.zeros(n_classes, dtype=np.int64))

    @classmethod
    def measure(cls, labels: Ints, n_classes: int) -> Self:
        """Count labels (n,), each below ``n_classes``."""
        return cls(np.bincount(labels, minlength=n_classes))


def class_weights(counts: Ints, strength: float) -> Floats:
    """Return weights ``counts ** -strength`` whose mean over images is 1.

    Parameters
    ----------
    counts : (n_classes,) numbers of images.
    strength : 0 for equal weights, 1 for weights that make the classes count alike.

    Returns
    -------
    (n_classes,) weights, at least 0; 0 for absent classes.
    """
    present = np.maximum(counts, 1)
    weights = np.where(counts > 0, present.astype(np.float64) ** -strength, 0.0)
    total = float(weights @ counts)
    return np.asarray(weights * counts.sum() / total) if total else weights


def as_trained(config: FinetuneConfig, base_rates: Floats) -> Floats:
    """Return the calibration (2, n_classes) of a trained network that follows from its remedy.

    A remedy of strength s makes scores of ``log p(k | x) - s log base_rates[k]``: Menon et al.,
    "Long-tail learning via logit adjustment", ICLR 2021, equations 9 to 11. What was taken off is
    added again.

    Parameters
    ----------
    base_rates : (n_classes,) frequencies of the classes among the training images.
    """
    done = config.imbalance_strength if config.imbalance not in ("none", "focal") else 0.0
    bias = done * np.log(np.maximum(base_rates, np.finfo(np.float64).tiny))
    return np.stack([np.ones_like(bias), bias])


@dataclass(frozen=True)
class Balance:
    """The loss of a class-imbalanced problem, and how often each class is drawn.

    Attributes
    ----------
    weight : (n_classes,) factors of the loss, by the true class.
    offset : (n_classes,) added to the logits in training.
    gamma : exponent of the focal loss; 0 for the cross-entropy.
    draws : (n_classes,) draws of an image of each class in an epoch.
    smoothing : share of the target that is spread evenly over the classes.

    References
    ----------
    Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 4; Menon et al.,
    "Long-tail learning via logit adjustment", ICLR 2021, equation 10; for sites with priors of
    their own, Zhang et al., "Federated learning with label distribution skew via logits
    calibration", ICML 2022, equation 7.
    """

    weight: Tensor
    offset: Tensor
    gamma: float
    draws: Floats
    smoothing: float

    @classmethod
    def from_counts(cls, config: FinetuneConfig, counts: Ints) -> Self:
        """Choose the configured remedy for classes as frequent as ``counts`` (n_classes,)."""
        kind, strength, n_classes = config.imbalance, config.imbalance_strength, len(counts)
        even = np.ones(n_classes)
        weights = class_weights(counts, strength)
        # One image more of each class: an absent one must not have an infinite offset.
        priors = (counts + 1) / (counts + 1).sum()
        offset = strength * np.log(priors) if kind == "logits" else np.zeros(n_classes)
        return cls(
            torch.tensor(weights if kind == "weights" else even, dtype=torch.float32),
            torch.tensor(offset, dtype=torch.float32),
            config.focal_gamma if kind == "focal" else 0.0,
            np.minimum(weights, _MOST_DRAWS) if kind == "oversample" else even,
            config.smoothing,
        )

    def loss(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss (), summed over images.

        Parameters
        ----------
        logits : (n, n_classes).
        labels : (n,).
        weights : (n,) factors of the images' losses, beside those of their classes; None for ones.
        """
        adjusted = logits + self.offset.to(logits.device)
        losses = functional.cross_entropy(
            adjusted, labels, label_smoothing=self.smoothing, reduction="none"
        )
        if self.gamma:
            own = adjusted.log_softmax(dim=1).gather(1, labels[:, None])[:, 0].exp()
            # At 0 an exponent below 1 has no finite slope.
            losses = losses * (1 - own).clamp_min(_LEAST) ** self.gamma
        losses = losses * self.weight.to(logits.device)[labels]
        return (losses if weights is None else losses * weights.to(logits.device)).sum()
