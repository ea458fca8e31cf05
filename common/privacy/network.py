"""Clipped gradients of the open part of a network, unit by unit, by Opacus.

A unit is drawn, then one of its images, then one of that image's views, and whether its metadata
are seen; the gradients of all open weights together are clipped (Abadi et al., "Deep learning with
differential privacy", CCS 2016, algorithm 1).
"""

import copy
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.arrays import Floats, Floats32, Ints
from common.config.run import RunConfig
from common.errors import ConfigError
from common.networks.fused_head import Late
from common.networks.fusion import GAIN, METADATA, Fusion, Kind, fusion_of
from common.networks.network import DEVICE, Network, Stage, open_stage, shared_network


class Batch(NamedTuple):
    """Images that are differentiated at once, one of each unit.

    Attributes
    ----------
    inputs : (n, ...) activations at the cut.
    about : (n, width) numbers of the patients; of no width without metadata.
    labels : (n,).
    """

    inputs: Floats32
    about: Floats32
    labels: Ints


CHUNK = 32
"""Images differentiated at once: each has gradients of its own for all open weights."""


class OpenPart(nn.Module):
    """The open part of a network on its own, with a head for features of a norm of about 1.

    Its weights are a copy, for Opacus leaves hooks on what it differentiates.

    Parameters
    ----------
    metadata_scale : size of the numbers of metadata beside such features.

    Attributes
    ----------
    names : the names of the open weights, in the order of the stage.
    pretrained : (size,) the open weights as they were, one after the other.

    Raises
    ------
    ConfigError
        If a layer mixes the images of a batch, or changes its input in place.
    """

    def __init__(self, network: Network, stage: Stage, metadata_scale: float = 0.0) -> None:
        super().__init__()
        # What the names of the stage are below in here.
        self.backbone = copy.deepcopy(stage.tail)
        self.head = copy.deepcopy(network.head)
        self.metadata = copy.deepcopy(network.metadata)
        self.scale = network.n_features**-0.5
        kind: Kind = "late" if isinstance(self.metadata, Late) else "gate"
        self.about_scale = metadata_scale / GAIN[kind]  # by which the fusion multiplies itself
        self.names = list(stage.trainable)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in stage.trainable)
        self.train()
        _refuse_unfit(self)
        self.pretrained = _vector(self.opened)

    def forward(self, activations: Tensor, about: Tensor) -> Tensor:
        """Map activations (n, ...) at the cut to logits (n, n_classes).

        Parameters
        ----------
        about : (n, width) numbers of the patients, which a part without metadata ignores.
        """
        features = self.backbone(activations)
        scale = features.new_tensor(self.scale)
        if self.metadata is None:
            logits: Tensor = self.head(features * scale)
            return logits
        fused: Tensor = self.metadata(self.head, features, scale, about * self.about_scale)
        return fused

    @property
    def opened(self) -> list[nn.Parameter]:
        """The open weights, in the order of the stage."""
        return [self.get_parameter(name) for name in self.names]

    @torch.no_grad()
    def load(self, weights: Floats) -> None:
        """Set the open weights from one vector (size,)."""
        parts = torch.split(torch.tensor(weights), [p.numel() for p in self.opened])
        for parameter, part in zip(self.opened, parts, strict=True):
            parameter.copy_(part.reshape(parameter.shape))

    def tensors(self, weights: Floats) -> dict[str, Floats32]:
        """Return the tensors of ``weights`` (size,) in their shapes, for unscaled features."""
        self.load(weights)
        tensors = {
            name: np.asarray(p.detach().cpu().contiguous().numpy(), np.float32)
            for name, p in zip(self.names, self.opened, strict=True)
        }
        factors = {name: self.about_scale for name in tensors if name.startswith(f"{METADATA}.")}
        factors["head.weight"] = self.scale
        return tensors | {n: tensors[n] * np.float32(factor) for n, factor in factors.items()}


def run_part(config: RunConfig) -> OpenPart:
    """Return the open part of a run's network, one for all sites of a process."""
    return open_part(
        config.backbone,
        config.weights,
        config.opens,
        config.task.n_classes,
        fusion_of(config.fusion, config.metadata),
        config.metadata_scale[0],
    )


@lru_cache(maxsize=1)
def open_part(
    backbone: str,
    weights: Path | None,
    stage: str,
    n_classes: int,
    fusion: Fusion | None = None,
    metadata_scale: float = 0.0,
) -> OpenPart:
    """Return the open part of a pretrained network, one for all sites of a process.

    Parameters
    ----------
    stage : first module that is open.
    fusion : how metadata enter; None if they do not.
    metadata_scale : size of the numbers of metadata beside features of a norm of about 1.

    Raises
    ------
    ConfigError
        If the network cannot be loaded or trained privately, or has no such module.
    """
    network = shared_network(backbone, weights, n_classes, fusion)
    network.load({})
    return OpenPart(network, open_stage(network, stage), metadata_scale)


def clipped_sum(
    part: OpenPart,
    weights: Floats,
    batches: Iterator[Batch],
    offset: Floats,
    class_weight: Floats,
    clip_norm: float,
) -> Floats:
    """Return the sum (size,) of clipped gradients of the cross-entropy.

    Parameters
    ----------
    weights : (size,) of the open part.
    batches : one image of each unit that was drawn.
    offset : (n_classes,) added to the logits.
    class_weight : (n_classes,) in [0, 1], factors of the clipped gradients.
    """
    from opacus import GradSampleModule

    part.load(weights)
    # Opacus's own rule for convolutions is wrong in the layout channels_last, without a word, and
    # many times slower for depthwise ones.
    module = GradSampleModule(part, loss_reduction="sum", force_functorch=True)
    total = [torch.zeros_like(p, dtype=torch.float64) for p in part.opened]
    # TF32 rounds an image's gradient by more than the noise counts, as the batch lies.
    whole = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    try:
        with warnings.catch_warnings(), whole:
            # Activations are given, and need no gradient.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            for inputs, about, labels in batches:
                logits = module(*(torch.tensor(each, device=DEVICE) for each in (inputs, about)))
                shifted = logits + torch.tensor(offset).to(logits)
                targets = torch.tensor(labels, device=DEVICE)
                torch.autograd.backward(functional.cross_entropy(shifted, targets, reduction="sum"))
                weight = torch.tensor(class_weight[labels]).to(logits)
                clipped = _clipped(part.opened, weight, clip_norm)
                for sum_, gradient in zip(total, clipped, strict=True):
                    sum_ += gradient
                module.zero_grad(set_to_none=True)
    finally:
        module.to_standard_module()
    return _vector(total)


def _clipped(parameters: list[nn.Parameter], weight: Tensor, clip_norm: float) -> Iterator[Tensor]:
    """Yield each parameter's sum of gradients, every image's clipped over all, then weighted.

    An image adds nothing where weights that somebody crafted make its gradient no number.
    """
    samples = [p.grad_sample for p in parameters]  # type: ignore[attr-defined]
    norms = torch.stack([s.flatten(1).norm(dim=1) for s in samples]).norm(dim=0)
    finite = norms.isfinite()
    factors = torch.where(finite, weight * clip_norm / norms.clamp(min=clip_norm), 0)
    for sample in samples:
        numbers = sample if finite.all() else sample.nan_to_num(0, 0, 0)
        yield torch.einsum("n,n...->...", factors, numbers)


def _vector(tensors: Iterable[Tensor]) -> Floats:
    flat = [t.detach().double().flatten().cpu() for t in tensors]
    return np.asarray(torch.cat(flat).numpy())


def _refuse_unfit(module: nn.Module) -> None:
    from opacus.validators import ModuleValidator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reasons = [str(error) for error in ModuleValidator.validate(module, strict=False)]
    for name, each in module.named_modules():
        # Opacus looks at what is trained only; a frozen one mixes images too.
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            reasons.append(f"{name} is a BatchNorm")
        if getattr(each, "inplace", False):
            reasons.append(f"{name} changes its input in place")
    if reasons:
        raise ConfigError(
            f"this backbone cannot be trained privately ({reasons[0]}); choose one without "
            "normalisation over the batch and without layers in place"
        )
