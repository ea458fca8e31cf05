"""Pretrained convolutional backbones, ready to be frozen or fine-tuned: BatchNorm folded away."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import common.features.torchvision_ops  # noqa: F401  (before timm)
from common.errors import ConfigError, DataError, reason
from common.features.pretrained import DEFAULT_BACKBONE, weights_file
from common.features.tuned import TunedNetwork, read_tuned, tuned_settings

import timm  # isort: skip
from timm.layers.norm_act import BatchNormAct2d  # isort: skip

_FOLDING_TOLERANCE = 1e-3
"""Largest change of an output by folding, relative to the largest output; 1e-5 is usual."""

# What PyTorch, timm and safetensors raise on a file that is damaged or something else.
_READ_ERRORS = (
    *(OSError, RuntimeError, EOFError, AttributeError, TypeError, ValueError),
    *(pickle.UnpicklingError, SafetensorError),
)


def load_backbone(name: str, weights: Path | None) -> nn.Module:
    """Load a pretrained network that is ready to be frozen or fine-tuned.

    As :func:`load_pretrained`, its BatchNorms folded (:func:`fold_batchnorm`) and its activations
    not in place, so that Opacus can differentiate it record by record. ``weights`` may also be the
    model of a run that fine-tuned the network.
    """
    tuned = read_tuned(weights) if weights and tuned_settings(weights) is not None else None
    model = _before_tuning(name, tuned) if tuned else load_pretrained(name, weights)
    fold_batchnorm(model, example_images(model))
    if tuned:
        _set_tuned(model, tuned)
    for module in model.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010  (no type has the attribute)
    return model


def load_pretrained(name: str, weights: Path | None) -> nn.Module:
    """Build a timm network in evaluation mode, without its classifier, and load its weights.

    Parameters
    ----------
    name : a name that timm knows, such as "tf_efficientnet_lite0" or "resnet18.a1_in1k".
    weights : a ``.safetensors`` or ``.pth`` file with timm's tensor names; the classifier's are
        ignored. None takes those that a package brings for the backbone.

    Raises
    ------
    ConfigError
        If timm does not know the name, or there is no weights file.
    DataError
        If the weights file cannot be read or does not fit the network.
    """
    if not timm.is_model(name):
        raise ConfigError(f"timm knows no backbone '{name}'; see timm.list_models()")
    file = weights_file(name, weights)
    model = untrained(name)
    tensors = _read_tensors(file)
    if weights is None:
        # The package keeps timm's order under other names; the classifier stands last.
        tensors = dict(zip(model.state_dict(), tensors.values(), strict=False))
    try:
        model.load_state_dict(_without_classifier(tensors, model))
    except RuntimeError as error:
        misfits = " ".join(str(error).partition("\n")[2].split())
        raise DataError(f"{file} does not fit '{name}': {misfits[:300]}") from error
    return model.eval()


def input_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the channel means and standard deviations, on [0, 1], that a backbone expects."""
    config: Any = timm.get_pretrained_cfg(name)
    return config.mean, config.std


def example_images(model: nn.Module) -> Tensor:
    """Return two random images (2, 3, h, w) of the size that a timm network was trained on."""
    generator = torch.Generator().manual_seed(0)
    config: Any = model.pretrained_cfg
    return torch.randn(2, *config["input_size"], generator=generator)


@torch.no_grad()
def fold_batchnorm(model: nn.Module, example: Tensor) -> None:
    """Fold every BatchNorm of a network in evaluation mode into a convolution, in place.

    In evaluation mode BatchNorm is a fixed scale and shift of each channel [1]_, so the network
    remains the same function, up to rounding. A BatchNorm that does not read a convolution's
    output becomes a depthwise 1x1 convolution: no layer is left that mixes records or keeps
    statistics, which is what federated averaging and private training need.

    Parameters
    ----------
    model : any network of 2-d convolutions; timm's ``BatchNormAct2d`` leaves its activation behind.
    example : (n, 3, h, w) input for the two forward passes that find the pairs and check the
        result.

    Raises
    ------
    ConfigError
        If the outputs changed, because a convolution's output is read elsewhere too.

    References
    ----------
    .. [1] Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
       Internal Covariate Shift", ICML 2015, section 3.1.
    """
    before = model(example)
    for norm_name, conv_name in list(_norms_with_producers(model, example)):
        norm = model.get_submodule(norm_name)
        assert isinstance(norm, nn.BatchNorm2d)
        conv = model.get_submodule(conv_name) if conv_name else _identity(norm.num_features)
        fused = fuse_conv_bn_eval(conv, norm)  # type: ignore[type-var]
        # A convolution without bias gets one that is not trainable.
        fused.requires_grad_(norm.weight.requires_grad)
        activation = norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()
        if conv_name:
            model.set_submodule(conv_name, fused)
            model.set_submodule(norm_name, activation)
        else:
            model.set_submodule(norm_name, nn.Sequential(fused, activation))
    model.eval()  # the new modules too
    change = (model(example) - before).abs().max() / before.abs().max()
    if not change <= _FOLDING_TOLERANCE:
        raise ConfigError(f"BatchNorm cannot be folded: outputs change by {change:.1e}")


class SpatialMaps(nn.Module):
    """The maps of a backbone's last levels and its final map, unpooled.

    Parameters
    ----------
    backbone : a convolutional timm network without classifier.
    levels : how many of the last levels to give beside the final map, from 0 to all. A last level
        that is the final map counts but is not repeated.

    Attributes
    ----------
    channels : how many channels each map has, the final one last.

    Raises
    ------
    ConfigError
        If there are fewer levels, or the maps are not (n, channels, h, w).
    """

    def __init__(self, backbone: nn.Module, levels: int) -> None:
        super().__init__()
        network: Any = backbone
        self.backbone = network
        self.levels = levels
        most = len(network.feature_info)
        if not 0 <= levels <= most:
            raise ConfigError(f"levels is {levels}; this backbone has 0 to {most}")
        with torch.no_grad():
            maps = self(example_images(backbone))
        if maps[-1].ndim != 4 or maps[-1].shape[1] != network.num_features:
            raise ConfigError("the backbone gives no (n, channels, h, w); choose a convolutional")
        self.channels = tuple(each.shape[1] for each in maps)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map normalised images (n, 3, h, w) to maps of shapes (n, channels, h, w)."""
        # timm has no way to ask for no level.
        final, maps = self.backbone.forward_intermediates(images, indices=max(self.levels, 1))
        wanted = maps[len(maps) - self.levels :]
        return (*(each for each in wanted if each is not final), final)


class PooledFeatures(nn.Module):
    """Global average pools of a backbone's :class:`SpatialMaps`, side by side.

    Parameters and errors are those of :class:`SpatialMaps`.

    Attributes
    ----------
    size : number of features D.
    """

    def __init__(self, backbone: nn.Module, levels: int) -> None:
        super().__init__()
        self.maps = SpatialMaps(backbone, levels)
        self.size = sum(self.maps.channels)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w) to features (n, D)."""
        return torch.cat([each.mean(dim=(2, 3)) for each in self.maps(images)], dim=1)


class FeaturesAsMap(nn.Module):
    """A backbone's features as a map of one cell, for those that do more than pool a map."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map normalised images (n, 3, h, w) to one map (n, D, 1, 1)."""
        return (self.backbone(images)[:, :, None, None],)


@torch.no_grad()
def pools_final_map(backbone: nn.Module) -> bool:
    """Tell whether a backbone's features are the global average pool of its final map."""
    images = example_images(backbone)
    try:
        pooled, features = PooledFeatures(backbone, 0)(images), backbone(images)
    except ConfigError:
        return False
    return pooled.shape == features.shape and torch.allclose(pooled, features, atol=1e-5)


def untrained(name: str) -> nn.Module:
    """Build a timm network without its classifier, with random weights.

    Raises
    ------
    ConfigError
        If timm does not know the name.
    """
    try:
        model: nn.Module = timm.create_model(name, num_classes=0)
    except RuntimeError as error:  # of a known network, weights that nobody knows
        raise ConfigError(f"timm knows no backbone '{name}' ({reason(error)})") from error
    return model


def _before_tuning(name: str, tuned: TunedNetwork) -> nn.Module:
    """Return the network as it was before a run fine-tuned some or all of it."""
    if (trained := tuned.settings.get("backbone")) != name:
        raise ConfigError(f"the weights are of a fine-tuned '{trained}'; set backbone={trained}")
    # Of other networks nobody has the pretrained weights here: all of them must be in the file.
    return load_pretrained(name, None) if name == DEFAULT_BACKBONE else untrained(name).eval()


@torch.no_grad()
def _set_tuned(model: nn.Module, tuned: TunedNetwork) -> None:
    """Set the weights of a folded network to those that a run has trained."""
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in tuned.tensors.items()}
    name, whole = str(tuned.settings["backbone"]), dict(model.named_parameters()).keys()
    if name != DEFAULT_BACKBONE and whole - tensors.keys():
        raise ConfigError(
            f"the run trained a part of '{name}' and its file has no more; name the model of a run "
            "whose stages open all of it"
        )
    try:
        model.load_state_dict({**model.state_dict(), **tensors})
    except RuntimeError as error:
        raise DataError(f"the fine-tuned weights do not fit '{name}'; train it again") from error


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = timm.models.load_state_dict(str(file), weights_only=True)
    except _READ_ERRORS as error:
        raise DataError(f"{file} holds no weights that can be read: {reason(error)}") from error
    return tensors


def _without_classifier(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    config: Any = model.pretrained_cfg
    kept = model.state_dict()
    return {k: v for k, v in tensors.items() if k in kept or not k.startswith(config["classifier"])}


def _identity(channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, kernel_size=1, groups=channels, bias=False).eval()
    nn.init.ones_(conv.weight)
    return conv


def _norms_with_producers(model: nn.Module, example: Tensor) -> Iterator[tuple[str, str | None]]:
    """Yield each BatchNorm's name with that of the convolution whose output it reads, or None."""
    outputs: list[tuple[str, Tensor]] = []
    inputs: list[tuple[str, Tensor]] = []
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            hook = lambda _m, _x, output, name=name: outputs.append((name, output))  # noqa: E731
            handles.append(module.register_forward_hook(hook))
        elif isinstance(module, nn.BatchNorm2d):
            pre = lambda _m, args, name=name: inputs.append((name, args[0]))  # noqa: E731
            handles.append(module.register_forward_pre_hook(pre))
    model(example)
    for handle in handles:
        handle.remove()
    # The lists keep every tensor alive, so that no two have the same id.
    producers = {id(tensor): name for name, tensor in outputs}
    for name, tensor in inputs:
        yield name, producers.get(id(tensor))
