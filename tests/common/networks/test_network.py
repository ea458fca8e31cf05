"""A stage opens just the later part of a network, and both parts make up the whole."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.features.pretrained import DEFAULT_BACKBONE
from common.networks.network import ALL, HEAD, Network, build, open_stage, shared_network, trunk
from common.task import HAM10000
from tests.finetuning import write_network

# Residual, depthwise, with standardised weights, layer scales, and GroupNorms.
BACKBONES = ["test_resnet", "test_efficientnet", "test_nfnet", "test_convnext", "test_byobnet"]
BACKBONES += ["test_efficientnet_gn"]

Builder = Callable[[str], Network]


@pytest.fixture(scope="module")
def network_of(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Build each network once; tests leave its weights as they found them."""
    built: dict[str, Network] = {}

    def build_once(name: str) -> Network:
        if name not in built:
            file = write_network(tmp_path_factory.mktemp("weights") / "w.safetensors", name)
            built[name] = build(name, file, HAM10000.n_classes)
        return built[name]

    return build_once


def _images(n: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(n, 3, 64, 64, generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


def _stage_names(network: Network) -> list[str]:
    """Read the stages that the message about an unknown one offers, from the head on."""
    with pytest.raises(ConfigError, match=r"stage 'blocks\.99' names no part") as refusal:
        open_stage(network, "blocks.99")
    text = str(refusal.value)
    assert "\n" not in text
    return text.rpartition("choose from ")[2].split(", ")


def _parameters_in_order(network: Network) -> list[list[str]]:
    """Return the names of each module's own parameters, as the modules are entered."""
    order: list[list[str]] = []
    handles = []
    for name, module in network.backbone.named_modules():
        if own := [f"backbone.{name}.{p}" for p, _ in module.named_parameters(recurse=False)]:
            enter = lambda _m, _x, own=own: order.append(own)  # noqa: E731
            handles.append(module.register_forward_pre_hook(enter))
    network.backbone(_images(1))
    for handle in handles:
        handle.remove()
    return order


@pytest.mark.parametrize("backbone", BACKBONES)
def test_trunk_and_tail_are_the_whole_network_at_every_stage(network_of, backbone) -> None:
    network, images = network_of(backbone), _images()
    names = _stage_names(network)
    assert (names[0], names[-1]) == (HEAD, ALL)
    assert len(names) > 4
    names.remove(ALL)
    with torch.inference_mode():
        whole = network.backbone(images)
        cuts = trunk(network, names)(images)
        for name, activations in zip(names, cuts, strict=True):
            tail = open_stage(network, name).tail
            torch.testing.assert_close(tail(activations), whole, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(open_stage(network, ALL).tail(images), whole)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_stage_opens_all_parameters_from_its_first_module_on(network_of, backbone) -> None:
    network = network_of(backbone)
    order, head = _parameters_in_order(network), ["head.weight", "head.bias"]
    narrower: set[str] = set()
    for name in _stage_names(network):
        stage = open_stage(network, name)
        starts = [i for i, own in enumerate(order) if own[0].startswith(f"backbone.{name}.")]
        first = {HEAD: len(order), ALL: 0}[name] if name in (HEAD, ALL) else starts[0]
        expected = {p for own in order[first:] for p in own} | set(head)
        assert stage.trainable.keys() == expected
        assert list(stage.trainable)[-2:] == head
        assert stage.frozen == (name != ALL)
        assert narrower <= expected
        narrower = expected
    assert narrower == dict(network.named_parameters()).keys()


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_nfnet"])
def test_gradients_of_the_open_part_are_those_of_the_whole_network(network_of, backbone) -> None:
    network, images = network_of(backbone), _images()
    factors = torch.randn(7, network.n_features, generator=torch.Generator().manual_seed(2))
    for name in _stage_names(network)[1:-1]:
        stage = open_stage(network, name)
        with torch.no_grad():
            [activations] = trunk(network, [name])(images)
        open_part = [p for full, p in stage.trainable.items() if full.startswith("backbone.")]
        found = torch.autograd.grad((stage.tail(activations) @ factors.T).sum(), open_part)
        expected = torch.autograd.grad((network.backbone(images) @ factors.T).sum(), open_part)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_default_stages_cut_the_default_network() -> None:
    network, images = shared_network(DEFAULT_BACKBONE, None, HAM10000.n_classes), _images()
    sizes = {}
    with torch.inference_mode():
        for name in (HEAD, "blocks.5", ALL):
            stage = open_stage(network, name)
            inputs = images if name == ALL else trunk(network, [name])(images)[0]
            torch.testing.assert_close(stage.tail(inputs), network.backbone(images))
            sizes[name] = sum(p.numel() for p in stage.trainable.values())
    assert sizes[HEAD] == 7 * 1280 + 7
    assert sizes["blocks.5"] < 0.8 * sizes[ALL]
    assert sizes[ALL] == sum(p.numel() for p in network.parameters())


def test_layers_are_counted_from_the_head(network_of) -> None:
    depth = open_stage(network_of("test_resnet"), ALL).depth
    groups = {name.split(".")[1]: number for name, number in depth.items() if "backbone" in name}
    assert groups == {"layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4, "conv1": 5}
    assert {depth["head.weight"], depth["head.bias"]} == {0}


@torch.no_grad()
def test_a_new_network_says_nothing_yet(network_of) -> None:
    network = network_of("test_efficientnet")
    logits = network(_images())
    assert logits.shape == (2, len(HAM10000.codes))
    assert not logits.any()
    assert not any(getattr(module, "inplace", False) for module in network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any(module.training for module in network.modules())


def test_what_is_not_given_is_the_pretrained_weight(network_of) -> None:
    network = network_of("test_resnet")
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    kernels = "backbone.layer4.0.conv1.weight"
    given = np.random.default_rng(0).standard_normal(before[kernels].shape).astype(np.float32)
    network.load({kernels: given, "head.bias": np.arange(7, dtype=np.float32)})
    network.load({kernels: given})
    for name, parameter in network.named_parameters():
        expected = torch.from_numpy(given) if name == kernels else before[name]
        assert torch.equal(parameter, expected), name
        assert parameter.stride() == before[name].stride()
    network.load({})
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    # What the caller's array becomes later is not the network's business.
    given[:] = 0
    assert torch.equal(network.pretrained[kernels], before[kernels])


def test_a_network_whose_code_branches_cannot_be_cut() -> None:
    class Branching(nn.Module):
        num_features = 3

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Sequential(nn.Conv2d(3, 3, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3)) if x.sum() > 0 else x.mean((2, 3))

    with pytest.raises(ConfigError, match="cannot be cut into stages"):
        Network(Branching(), 7)


@pytest.mark.parametrize("name", ["blocks", "head ", "", "layer4.0.conv9", "layer"])
def test_odd_stage_names_are_refused(network_of, name: str) -> None:
    message = rf"stage '{re.escape(name)}' names no part of this network; choose from head, layer4"
    with pytest.raises(ConfigError, match=message):
        open_stage(network_of("test_resnet"), name)


def test_weights_of_another_network_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"none")
    with pytest.raises(Exception, match="holds no weights that can be read"):
        build("test_resnet", tmp_path / "w.safetensors", HAM10000.n_classes)
