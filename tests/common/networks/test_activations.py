"""Activations are what the pretrained trunk makes of a view, and are computed once."""

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import common.features.extract
import common.networks.activations
import common.storage.whole_files
from common.data.dataset import Dataset
from common.errors import DataError
from common.features.extract import FeatureSpec, content_keys
from common.finetune.plan import Item
from common.networks.activations import Views, activations
from common.networks.network import HEAD, Network, build, trunk
from common.task import HAM10000
from tests.finetuning import BACKBONE, SIZE, STAGE

IMAGES, VIEWS, STAGES = 6, 2, (HEAD, STAGE)

Compute = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def network(network_file: Path) -> Network:
    return build(BACKBONE, network_file, HAM10000.n_classes)


@pytest.fixture(scope="module")
def spec(network_file: Path) -> FeatureSpec:
    return FeatureSpec(BACKBONE, network_file, size=SIZE, views=VIEWS)


@pytest.fixture(scope="module")
def dataset(synthetic_folder: Path) -> Dataset:
    return Dataset.open(synthetic_folder).select(np.arange(IMAGES))


@pytest.fixture
def compute(network, spec, dataset, tmp_path) -> Compute:
    """Ask for the activations of some images, all unless told, from one cache."""

    def ask(images=range(IMAGES), stages=STAGES, spec=spec, network=network):
        some = dataset.select(np.array(images))
        return activations(network, stages, some, content_keys(some), spec, tmp_path / "cache")

    return ask


@pytest.fixture(scope="module")
def expected(network, spec, dataset) -> dict[str, np.ndarray]:
    """Compute them one view at a time, in single precision."""
    network.load({})
    views, frozen = Views(dataset, content_keys(dataset), spec), trunk(network, STAGES)
    found = []
    with torch.inference_mode():
        for item in (Item(image, view) for image in range(IMAGES) for view in range(VIEWS)):
            found.append([a[0].numpy() for a in frozen(torch.from_numpy(views.load(item)[None]))])
    stacked = (np.stack(each) for each in zip(*found, strict=True))
    return {
        stage: a.reshape(IMAGES, VIEWS, *a.shape[1:])
        for stage, a in zip(STAGES, stacked, strict=True)
    }


def _count_views(monkeypatch: pytest.MonkeyPatch, fail_at: float = np.inf) -> list[str]:
    """Note which images' views are made; be interrupted at one of them."""
    made: list[str] = []
    view_of = Views.of

    def counted(self: Views, data: bytes, content: str, number: int):
        if len(made) >= fail_at:
            raise KeyboardInterrupt
        made.append(content)
        return view_of(self, data, content, number)

    monkeypatch.setattr(Views, "of", counted)
    return made


def _shards(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def test_they_are_the_direct_computation_in_half_precision(compute, expected) -> None:
    found = compute()
    assert list(found) == list(STAGES)
    for stage, direct in expected.items():
        assert found[stage].dtype == np.float16
        np.testing.assert_allclose(found[stage], direct, rtol=2**-10, atol=1e-5)


def test_a_second_call_computes_nothing(compute, monkeypatch) -> None:
    first = compute()
    made = _count_views(monkeypatch)
    second = compute(images=[4, 0, 4])
    assert not made
    for stage in STAGES:
        np.testing.assert_array_equal(second[stage], first[stage][[4, 0, 4]])
        np.testing.assert_array_equal(compute(stages=[stage])[stage], first[stage])


def test_only_what_is_new_is_computed(compute, expected, dataset, monkeypatch) -> None:
    compute(images=[0, 1, 2])
    made = _count_views(monkeypatch)
    found = compute(images=[5, 1])
    assert set(made) == {content_keys(dataset)[5]}
    np.testing.assert_allclose(found[STAGE], expected[STAGE][[5, 1]], rtol=2**-10, atol=1e-5)


def test_a_computation_that_was_killed_goes_on(compute, expected, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(common.features.extract, "SHARD_IMAGES", 2)
    with monkeypatch.context() as patch:
        _count_views(patch, fail_at=VIEWS * 4)
        with pytest.raises(KeyboardInterrupt):
            compute()
    kept = len(_shards(tmp_path)) // len(STAGES)
    assert kept >= 1
    made = _count_views(monkeypatch)
    found = compute()
    assert len(made) == VIEWS * (IMAGES - 2 * kept)
    for stage in STAGES:
        np.testing.assert_allclose(found[stage], expected[stage], rtol=2**-10, atol=1e-5)


def test_a_damaged_shard_is_computed_again(compute, monkeypatch, tmp_path, caplog) -> None:
    monkeypatch.setattr(common.features.extract, "SHARD_IMAGES", 2)
    first = compute()
    shard = _shards(tmp_path)[0]
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    made = _count_views(monkeypatch)
    with caplog.at_level(logging.WARNING):
        second = compute()
    assert f"{shard} is damaged" in caplog.text
    assert len(made) == VIEWS * 2
    for stage in STAGES:
        np.testing.assert_array_equal(second[stage], first[stage])


def test_what_a_later_stage_trained_is_never_kept(compute, network, expected) -> None:
    """A site that was not asked in the first stage comes with trained weights."""
    trained = np.random.default_rng(0).standard_normal((96, 96, 3, 3)).astype(np.float32)
    network.load({f"backbone.{STAGE}.0.conv2.weight": trained})
    found = compute()
    for stage in STAGES:
        np.testing.assert_allclose(found[stage], expected[stage], rtol=2**-10, atol=1e-5)


def test_they_depend_on_the_views_and_on_nothing_of_prediction(compute, spec, monkeypatch) -> None:
    compute()
    made = _count_views(monkeypatch)
    compute(spec=replace(spec, levels=1, predictions=3))
    assert not made
    for other in (replace(spec, seed=1), replace(spec, size=64), replace(spec, views=1)):
        made.clear()
        assert compute(spec=other)[HEAD].shape[:2] == (IMAGES, other.views)
        assert len(made) == IMAGES * other.views


def test_an_image_that_cannot_be_read_is_named(network, spec, tmp_path, dataset) -> None:
    broken = tmp_path / "images"
    broken.mkdir()
    for image in dataset.images:
        (broken / f"{image.image_id}.jpg").write_bytes(dataset.read(image.image_id))
    bad = dataset.images[3].image_id
    (broken / f"{bad}.jpg").write_bytes(b"no image")
    files = {
        i.image_id: dataset.files[i.image_id]._replace(container=broken) for i in dataset.images
    }
    damaged = replace(dataset, files=files)
    with pytest.raises(DataError, match=f"1 images cannot be used: {bad}") as refusal:
        activations(network, STAGES, damaged, content_keys(damaged), spec, tmp_path / "cache")
    assert "\n" not in str(refusal.value)


def test_a_full_disk_is_said_in_one_line(compute, expected, monkeypatch, tmp_path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(common.storage.whole_files.os, "fsync", full)
        with pytest.raises(DataError, match="No space left on device") as refusal:
            compute()
    assert str(tmp_path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    np.testing.assert_allclose(compute()[HEAD], expected[HEAD], rtol=2**-10, atol=1e-5)
