"""An exported network gives what PyTorch gives, is exported once, and is never a stale one."""

import io
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import common.networks.spatial_maps
from common.errors import DataError
from common.features.augment import normalise, prediction_view
from common.features.backbone import input_statistics, load_pretrained
from common.features.extract import FeatureSpec
from common.networks.network import build
from common.networks.spatial_maps import BLOCK, map_network, pooled
from common.task import HAM10000
from tests.finetuning import BACKBONE, write_network

HEAVY = ("torch", "timm", "torchvision", "flwr", "scipy", "sklearn", "pandas", "matplotlib")


@pytest.fixture(scope="module")
def spec(network_file: Path) -> FeatureSpec:
    return FeatureSpec(BACKBONE, network_file, size=32, levels=2, predictions=5)


@pytest.fixture(scope="module")
def kept(spec: FeatureSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that has the exported network."""
    folder = tmp_path_factory.mktemp("kept")
    map_network(spec, [folder])
    return folder


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    """Draw one image more than are in memory at once."""
    return {f"image {number}": _file(number) for number in range(BLOCK + 1)}


def _file(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(pixels).resize((100, 80)).save(file, "PNG")
    return file.getvalue()


def _views(data: bytes, spec: FeatureSpec) -> torch.Tensor:
    statistics, image = input_statistics(spec.backbone), spec.transform.image(data)
    views = [prediction_view(image, number, spec.size) for number in range(spec.predictions)]
    return torch.from_numpy(np.stack([normalise(view, *statistics) for view in views]))


def _forbid_building(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common.networks.spatial_maps, "_built", lambda *_: pytest.fail("built"))


def _trained(spec: FeatureSpec) -> dict[str, np.ndarray]:
    """Move the last parameters of a network's backbone away from the pretrained ones."""
    pretrained = build(spec.backbone, spec.weights, HAM10000.n_classes).pretrained
    rng = np.random.default_rng(0)
    names = [name for name in pretrained if name.startswith("backbone.")][-2:]
    return {n: rng.normal(0, 0.1, pretrained[n].shape).astype(np.float32) for n in names}


@torch.inference_mode()
def test_maps_are_those_of_the_unfolded_network(spec, kept, images, monkeypatch):
    _forbid_building(monkeypatch)
    network = map_network(spec, [kept])
    original = load_pretrained(spec.backbone, spec.weights)
    for data in [*images.values()][:3]:
        final, levels = original.forward_intermediates(_views(data, spec), indices=2)
        maps = network.maps(data)
        assert len(maps) == 2  # the last level is the final map
        for ours, expected in zip(maps, (levels[0], final), strict=True):
            assert ours.shape == tuple(expected.shape)
            np.testing.assert_allclose(ours, expected, atol=1e-4 * float(expected.max()))


def test_features_are_pooled_in_the_order_of_the_images(spec, kept, images):
    network = map_network(spec, [kept])
    features = network.features(images)
    assert features.shape[:2] == (BLOCK + 1, 5)
    assert len(np.unique(features[:, 0], axis=0)) == BLOCK + 1
    for row, data in list(zip(features, images.values(), strict=True))[::16]:
        np.testing.assert_array_equal(row, pooled(network.maps(data)))


def test_an_image_that_cannot_be_decoded_is_named_and_the_others_go_on(spec, kept, images):
    files = [("a", images["image 1"]), ("b.png", b"no image"), ("c", images["image 2"])]
    network = map_network(spec, [kept])
    first, error, last = network.each(files, pooled)
    assert isinstance(error, DataError)
    assert str(error).startswith("b.png: an image cannot be decoded")
    np.testing.assert_array_equal([first, last], network.features(dict([files[0], files[2]])))
    with pytest.raises(DataError, match=r"^b\.png: an image cannot be decoded"):
        network.features(dict(files))


@pytest.mark.parametrize("backbone", [BACKBONE, "test_convnext"])
def test_a_fine_tuned_networks_pools_are_its_features(backbone, tmp_path, images):
    """The second normalises what it has pooled, so that its map is one cell."""
    weights = write_network(tmp_path / "w.safetensors", backbone)
    spec = FeatureSpec(backbone, weights, size=64, levels=0, predictions=2)
    trained = _trained(spec)
    reference = build(spec.backbone, spec.weights, HAM10000.n_classes)
    reference.load(trained)
    data = images["image 0"]
    with torch.inference_mode():
        expected = reference.backbone(_views(data, spec)).numpy()
    network = map_network(spec, [tmp_path], trained)
    (final,) = network.maps(data)
    np.testing.assert_allclose(pooled([final]), expected, atol=1e-4 * np.abs(expected).max())
    assert (final.shape[2:] == (1, 1)) == (backbone == "test_convnext")
    untrained = pooled(map_network(spec, [tmp_path], {}).maps(data))
    assert np.abs(untrained - expected).max() > 1e-2


def test_tensors_that_do_not_fit_the_network_are_refused_in_one_line(spec, tmp_path):
    with pytest.raises(DataError, match=r"tensors do not fit its network \(.*train it again$"):
        map_network(spec, [tmp_path], {"head.bias": np.ones((3, 3), np.float32)})


def test_a_name_says_all_that_an_exported_network_depends_on(spec, tmp_path, monkeypatch):
    names = []

    def runner(_build: object, _shape: object, files: list[Path]) -> Any:
        names.append(files[0].name)
        return None, {"mean": (), "std": ()}

    monkeypatch.setattr(common.networks.spatial_maps, "onnx_runner", runner)
    weights, ones = tmp_path / "w", np.ones((2, 3), np.float32)
    weights.write_bytes(b"one")
    map_network(spec, [tmp_path])
    changes = [{"weights": weights}, {"backbone": "resnet10t"}, {"size": 64}]
    for change in [*changes, {"levels": 1}, {"predictions": 4}]:
        map_network(replace(spec, **change), [tmp_path])
    for trained in ({}, {"a": ones}, {"b": ones}, {"a": 2 * ones}, {"a": ones.reshape(3, 2)}):
        map_network(spec, [tmp_path], trained)
    weights.write_bytes(b"other bytes")
    map_network(replace(spec, weights=weights), [tmp_path])
    assert len(set(names)) == len(names) == 12
    for other in (replace(spec, views=3, seed=4), spec):  # augmented views are no part of it
        map_network(other, [tmp_path])
    assert set(names[-2:]) == {names[0]}


def test_it_is_kept_in_the_first_folder_that_can_be_written(spec, tmp_path, images, monkeypatch):
    no_folder = tmp_path / "file"
    no_folder.touch()
    folders = [no_folder / "below", tmp_path / "cache"]
    first = map_network(spec, folders).maps(images["image 0"])
    _forbid_building(monkeypatch)
    second = map_network(spec, folders).maps(images["image 0"])
    for again, expected in zip(second, first, strict=True):
        np.testing.assert_array_equal(again, expected)
    assert len([*folders[1].iterdir()]) == 1


def test_what_cannot_be_kept_is_used_all_the_same(spec, tmp_path, images, caplog):
    (tmp_path / "file").touch()
    network = map_network(spec, [tmp_path / "file"])
    assert network.maps(images["image 0"])
    assert "the exported network cannot be kept" in caplog.text


def test_a_damaged_file_is_exported_again(spec, kept, tmp_path, images, caplog):
    (file,) = kept.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 64
    (tmp_path / file.name).write_bytes(content)
    maps = [map_network(spec, [folder]).maps(images["image 0"]) for folder in (tmp_path, kept)]
    assert f"{tmp_path / file.name} cannot be used" in caplog.text
    for again, expected in zip(*maps, strict=True):
        np.testing.assert_array_equal(again, expected)
    assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_without_a_folder_pytorch_runs_it(spec, kept, images, caplog):
    with caplog.at_level(logging.INFO):
        network = map_network(spec, [])
    assert "exporting" not in caplog.text
    expected = map_network(spec, [kept]).features(images)
    np.testing.assert_allclose(network.features(images), expected, atol=1e-4 * expected.max())


def test_what_was_kept_answers_without_pytorch(spec, kept, tmp_path, images):
    (tmp_path / "image.png").write_bytes(images["image 0"])
    script = f"""
import sys
from pathlib import Path
import simulations.cli.main
from common.features.extract import FeatureSpec
from common.networks.spatial_maps import map_network
spec = FeatureSpec({BACKBONE!r}, Path({str(spec.weights)!r}), size=32, levels=2, predictions=5)
network = map_network(spec, [Path({str(kept)!r})])
print(network.features({{"image": Path({str(tmp_path / "image.png")!r}).read_bytes()}}).shape)
print(sorted(set({HEAVY}) & sys.modules.keys()))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["(1, 5, 288)", "[]"]
