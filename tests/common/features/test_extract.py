"""Features do not depend on how they were computed, and are computed once."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

import common.features.extract
import common.features.inference_engine
from common.data.dataset import Dataset
from common.data.image import Image, Location
from common.errors import ConfigError, DataError
from common.features.augment import Augmentation
from common.features.backbone import PooledFeatures, load_backbone, load_pretrained
from common.features.extract import FeatureSpec, extract
from common.features.inference_engine import Engine, onnx_engine, torch_engine
from common.features.transform import Transform

IMAGES = 10
SPEC = FeatureSpec(size=64, views=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that has the exported network: the export takes seconds."""
    cache = tmp_path_factory.mktemp("exported")
    _onnx(cache)
    return cache


@pytest.fixture
def cache(tmp_path: Path, exported: Path) -> Path:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "networks").symlink_to(exported / "networks")
    return tmp_path / "cache"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        pixels = Pillow.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        pixels.resize((100, 75)).save(folder / f"image{i}.jpg")
    images = tuple(Image(f"image{i}", f"l{i}", "nv", "", None, "", "") for i in range(IMAGES))
    return Dataset(
        folder, images, {im.image_id: Location(folder, f"{im.image_id}.jpg") for im in images}
    )


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common.features.extract, "SHARD_IMAGES", 4)


def _network() -> PooledFeatures:
    return PooledFeatures(load_backbone(SPEC.backbone, None), SPEC.levels)


def _onnx(cache: Path) -> Engine:
    return onnx_engine(_network, SPEC.size, cache / "networks" / f"{SPEC.network_name}.onnx")


def _views(n: int) -> NDArray[np.float32]:
    shape = (n, 3, SPEC.size, SPEC.size)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def _shards(cache: Path) -> list[Path]:
    return sorted((cache / SPEC.key).iterdir())


def _forbid_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Engine:
        raise AssertionError("an engine was built")

    monkeypatch.setattr(common.features.inference_engine, "onnx_engine", fail)


def test_engines_agree_with_the_unfolded_network(cache: Path) -> None:
    views = _views(3)
    original = PooledFeatures(load_pretrained(SPEC.backbone, None), SPEC.levels)
    with torch.inference_mode():
        expected = original(torch.from_numpy(views)).numpy()
    for engine in (_onnx(cache), torch_engine(_network())):
        features = np.stack([engine(view) for view in views])
        error = np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)
        assert error.max() < 1e-4


def test_features_do_not_depend_on_neighbours_or_order(
    dataset: Dataset, tmp_path: Path, cache: Path
) -> None:
    everything = extract(dataset, SPEC, cache)
    some = np.array([7, 2, 5])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "networks").symlink_to(cache / "networks")
    few = extract(dataset.select(some), SPEC, tmp_path / "other")
    np.testing.assert_array_equal(few.views, everything.views[some])
    assert everything.train.shape == (IMAGES, 1, 1752)
    assert everything.predict.shape == (IMAGES, 2, 1752)
    assert len(np.unique(everything.views.reshape(-1, 1752), axis=0)) == 3 * IMAGES


def test_a_change_of_the_features_must_raise_their_version(dataset: Dataset, cache: Path) -> None:
    # If this fails on purpose: raise FEATURES_VERSION, or old caches count as the new features.
    assert common.features.extract.FEATURES_VERSION == 4
    views = extract(dataset, SPEC, cache).views[0]
    np.testing.assert_allclose(views.mean(axis=1), [0.4026, 0.4024, 0.5278], rtol=5e-3)


def test_without_augmented_views_training_sees_the_prediction_views(
    dataset: Dataset, cache: Path
) -> None:
    features = extract(dataset, replace(SPEC, views=0), cache)
    np.testing.assert_array_equal(features.train, features.predict)
    np.testing.assert_array_equal(features.predict, extract(dataset, SPEC, cache).predict)


def test_cached_features_are_not_computed_again(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract(dataset, SPEC, cache)
    _forbid_computing(monkeypatch)
    np.testing.assert_array_equal(extract(dataset, SPEC, cache).views, first.views)
    shuffled = dataset.select(np.arange(IMAGES)[::-1])
    np.testing.assert_array_equal(extract(shuffled, SPEC, cache).views, first.views[::-1])


@pytest.mark.usefixtures("small_shards")
def test_goes_on_after_a_kill(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _onnx(cache)
    calls = 0

    def limited(view: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal calls
        calls += 1
        if calls > limit:
            raise KeyboardInterrupt
        return engine(view)

    # Shards of four images with three views each: the third shard is never finished.
    limit = 26
    monkeypatch.setattr(common.features.inference_engine, "onnx_engine", lambda *_: limited)
    with pytest.raises(KeyboardInterrupt):
        extract(dataset, SPEC, cache)
    assert len(_shards(cache)) == 2
    calls, limit = 0, 6
    resumed = extract(dataset, SPEC, cache)
    assert calls == 6
    monkeypatch.undo()
    np.testing.assert_array_equal(
        resumed.predict, extract(dataset, replace(SPEC, views=0), cache).predict
    )


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
    "damage", [lambda b: b[:100], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""]
)
def test_a_damaged_shard_is_computed_again(
    dataset: Dataset,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    first = extract(dataset, SPEC, cache)
    shards = _shards(cache)
    shards[1].write_bytes(damage(shards[1].read_bytes()))
    with caplog.at_level(logging.WARNING):
        again = extract(dataset, SPEC, cache)
    np.testing.assert_array_equal(again.views, first.views)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        f"{shards[1]} is damaged: removed, its features are computed again"
    ]
    # Written again: same content, same name.
    assert _shards(cache) == shards


@pytest.mark.usefixtures("small_shards")
def test_two_that_begin_at_once_fill_one_cache(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, read = Barrier(2), common.features.extract.read_rows

    def found_nothing(*arguments: Any) -> Any:
        rows = read(*arguments)
        both.wait(60)
        return rows

    monkeypatch.setattr(common.features.extract, "read_rows", found_nothing)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda data: extract(data, SPEC, cache), [dataset, dataset])
    monkeypatch.undo()
    np.testing.assert_array_equal(first.views, second.views)
    assert len(_shards(cache)) in (1, 3)  # equal rows have one name
    _forbid_computing(monkeypatch)
    np.testing.assert_array_equal(extract(dataset, SPEC, cache).views, first.views)


def test_a_network_with_flipped_bits_is_exported_again(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"networks/{SPEC.network_name}.onnx"
    content = bytearray((exported / name).read_bytes())
    for place in np.random.default_rng(0).integers(len(content) // 2, len(content) - 99, 20):
        content[place] ^= 64
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(content)
    view = _views(1)[0]
    np.testing.assert_array_equal(_onnx(tmp_path)(view), _onnx(exported)(view))
    assert "it is not what was written" in caplog.text


def test_pytorch_runs_what_cannot_be_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("unsupported")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with caplog.at_level(logging.WARNING):
        features = _onnx(tmp_path)(_views(1)[0])
    assert features.shape == (1752,)
    assert "PyTorch does, slower: unsupported" in caplog.text


def test_the_key_says_all_that_features_depend_on(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"one")
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"backbone": "resnet10t", "weights": tmp_path / "w"},
        {"weights": tmp_path / "w"},
        {"size": 96},
        {"levels": 2},
        {"views": 2},
        {"predictions": 1},
        {"seed": 1},
        {"augmentation": Augmentation(contrast=0.3)},
        {"transform": Transform(112)},
        {"transform": Transform(colour="grey-world")},
    )
    keys = {replace(SPEC, **change).key for change in changes}
    (tmp_path / "w").write_bytes(b"other bytes")
    assert len(keys | {replace(SPEC, weights=tmp_path / "w").key}) == len(changes) + 1
    # Without augmented views the seed is nothing they depend on.
    assert FeatureSpec(seed=1).key == FeatureSpec(seed=2).key


@pytest.mark.parametrize(
    "change", [{"size": 8}, {"levels": -1}, {"views": -1}, {"predictions": 0}, {"predictions": 9}]
)
def test_refuses_impossible_values(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(change))} is "):
        FeatureSpec(**change)


def test_an_unreadable_image_is_refused_before_anything_is_computed(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dataset.folder / "image3.jpg").write_bytes(b"no image")
    _forbid_computing(monkeypatch)
    with pytest.raises(DataError, match=r"1 images cannot be used: image3 \(an image cannot"):
        extract(dataset, SPEC, cache)


def test_a_full_disk_is_one_line_and_keeps_what_was_finished(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch, small_shards: None
) -> None:
    answers: Iterator[OSError | None] = iter([None, OSError(28, "No space left on device")])

    def replace_file(source: str, target: Path) -> None:
        if error := next(answers):
            raise error
        Path(source).rename(target)

    monkeypatch.setattr(os, "replace", replace_file)
    with pytest.raises(DataError, match=f"cannot write to {cache / SPEC.key} .No space left"):
        extract(dataset, SPEC, cache)
    assert len(_shards(cache)) == 1


def test_reading_the_cache_imports_nothing_heavy(dataset: Dataset, cache: Path) -> None:
    extract(dataset, SPEC, cache)
    script = f"""
import sys
from pathlib import Path
from common.data.dataset import Dataset
from common.data.image import Image, Location
from common.features.extract import FeatureSpec, extract
folder = Path({str(dataset.folder)!r})
image = Image("image0", "l0", "nv", "", None, "", "")
dataset = Dataset(folder, (image,), {{"image0": Location(folder, "image0.jpg")}})
extract(dataset, FeatureSpec(size=64, views=1), Path({str(cache)!r}))
print(sorted({{"torch", "torchvision", "timm", "onnxruntime"}} & sys.modules.keys()))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
