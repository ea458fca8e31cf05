"""A fine-tuned network is the same after it was a file, and a file that does not fit is refused."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn

from common.answers.basis import AnswerBasis
from common.config.run import RunConfig
from common.data.metadata import About, width
from common.errors import DataError
from common.explanations.evidence import Contrast
from common.features.augment import normalise, prediction_view
from common.features.backbone import input_statistics
from common.models.file import load_model
from common.models.linear import LinearModel
from common.models.network import NetworkModel
from common.models.predictor import Predictor
from common.networks.inference import BLOCK
from common.networks.network import Network, run_network, shared_network
from common.statistics.calibration import probabilities
from common.task import HAM10000

N_CLASSES = len(HAM10000.codes)
DEEP = "backbone.conv_head.weight"


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return RunConfig.read({"method": "finetune", "size": 32, "predictions": 2, "seed": 3})


@pytest.fixture(scope="module")
def network(config: RunConfig) -> Network:
    return shared_network(config.backbone, config.weights, HAM10000.n_classes)


@pytest.fixture(scope="module")
def model(config: RunConfig, network: Network) -> NetworkModel:
    """Move the head and one layer of the backbone away from the pretrained weights."""
    rng = np.random.default_rng(0)
    names = ("head.weight", "head.bias", DEEP)
    weights = {
        name: network.pretrained[name].numpy()
        + rng.normal(0, 0.02, network.pretrained[name].shape).astype(np.float32)
        for name in names
    }
    calibration = rng.uniform(0.5, 2, (2, N_CLASSES))
    base_rates = rng.dirichlet(np.ones(N_CLASSES))
    return NetworkModel(weights, AnswerBasis.of(HAM10000, calibration, base_rates), config)


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    """Draw one image more than are in memory at once."""
    rng, files = np.random.default_rng(1), {}
    for number in range(BLOCK + 1):
        pixels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        file = io.BytesIO()
        Pillow.fromarray(pixels).resize((100, 80)).save(file, "PNG")
        files[f"image {number}"] = file.getvalue()
    return files


def test_a_model_comes_back_bit_for_bit(tmp_path: Path, model: NetworkModel) -> None:
    model.save(tmp_path / "a")
    loaded = load_model(tmp_path / "a")
    assert isinstance(loaded, NetworkModel)
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert loaded.config == model.config
    assert tuple(loaded.task.codes) == HAM10000.codes
    with pytest.raises(DataError, match="its method is finetune, not svm"):
        LinearModel.load(tmp_path / "a")


def test_prediction_is_the_forward_pass_averaged_over_the_views(
    model: NetworkModel, network: Network, images: dict[str, bytes]
) -> None:
    labels, p, distance = Predictor(model).predict(images)
    with torch.no_grad():
        for parameter in network.parameters():  # whatever was there before is not the model's
            parameter.zero_()
    np.testing.assert_array_equal(Predictor(model).predict(images).probabilities, p)
    network.load(model.weights)
    expected = _logits(network, images, model.config)
    np.testing.assert_allclose(p, probabilities(expected, model.basis.calibration), atol=1e-4)
    np.testing.assert_array_equal(labels, p.argmax(axis=1))
    assert distance is None
    assert len(set(labels)) > 1


def _logits(network: nn.Module, images: dict[str, bytes], config: RunConfig) -> Any:
    mean, std = input_statistics(config.backbone)
    working = [config.feature_spec.transform.image(data) for data in images.values()]
    views = [
        normalise(prediction_view(image, k, config.size), mean, std)
        for image in working
        for k in range(config.predictions)
    ]
    with torch.inference_mode():
        logits = network(torch.from_numpy(np.stack(views))).double().numpy()
    return logits.reshape(len(images), config.predictions, -1).mean(axis=1)


def test_an_image_that_cannot_be_decoded_is_named(
    model: NetworkModel, images: dict[str, bytes]
) -> None:
    with pytest.raises(DataError, match=r"^last\.jpg: an image cannot be decoded"):
        Predictor(model).predict({**images, "last.jpg": b"no image"})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"backbone.none.weight": np.zeros(3, np.float32)},
            "array 'backbone.none.weight' is unknown",
        ),
        ({DEEP: np.zeros((2, 2))}, f"array '{DEEP}' has the shape [2, 2], expected [1280, 320, 1"),
        ({"head.bias": None}, "array 'head.bias' is missing"),
        ({"head.bias": np.zeros(N_CLASSES)}, "array 'head.bias' is F64, expected F32"),
        (
            {"head.bias": np.full(N_CLASSES, np.inf, np.float32)},
            "array 'head.bias' has values that are no finite numbers",
        ),
        (
            {"base_rates": np.zeros(N_CLASSES)},
            "array 'base_rates' has values that no frequencies have",
        ),
        ({"base_rates": np.ones(6)}, "array 'base_rates' has the shape [6], expected [7]"),
        ({"calibration": np.zeros(2)}, "array 'calibration' has the shape [2], expected [2, 7]"),
    ],
)
def test_a_file_that_does_not_fit_the_network_is_refused_in_one_line(
    tmp_path: Path, model: NetworkModel, changes: dict[str, Any], reason: str
) -> None:
    rule = {"calibration": model.basis.calibration, "base_rates": model.basis.base_rates}
    arrays = {**model.weights, **rule, **changes}
    basis = replace(model.basis, **{name: arrays.pop(name) for name in rule})
    kept = {name: array for name, array in arrays.items() if array is not None}
    replace(model, weights=kept, basis=basis).save(tmp_path / "model")
    with pytest.raises(DataError) as caught:
        load_model(tmp_path / "model")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'model'} is no FedDerm model ({reason}")
    assert "\n" not in text


COLUMNS = ("sex", "age")
KNOWN = About(age=47.0, sex="female")


@pytest.fixture(scope="module", params=["late", "gate"])
def told(request: pytest.FixtureRequest, model: NetworkModel) -> NetworkModel:
    """Give the model weights for metadata, but none for the last decade: no training had it."""
    config = RunConfig.read(
        {"method": "finetune", "size": 32, "predictions": 2, "fusion": request.param}
        | {"metadata": COLUMNS}
    )
    rng, added = np.random.default_rng(2), {}
    for name, tensor in run_network(config).pretrained.items():
        if name.startswith("metadata."):
            added[name] = rng.normal(0, 0.3, tensor.shape).astype(np.float32)
            added[name][:, -2] = 0
    return replace(model, weights={**model.weights, **added}, config=config)


def test_numpy_and_pytorch_say_the_same_with_metadata(
    told: NetworkModel, model: NetworkModel, images: dict[str, bytes]
) -> None:
    name, data = next(iter(images.items()))
    judged = next(Predictor(told).judge([(name, data)], keep_maps=True))
    assert not isinstance(judged, DataError)
    assert judged.maps is not None
    found = {}
    for about in (KNOWN, About(), About(age=90.0), About(sex="other")):
        found[about] = told.judge(judged.maps, about)
        expected = told.scores([(name, data)], [about])[0]
        np.testing.assert_allclose(found[about], expected, rtol=0, atol=1e-4)
    assert np.abs(found[KNOWN] - found[About()]).max() > 0.01
    # Nothing said, a decade that no training had, and a sex that is not listed are all unknown.
    np.testing.assert_array_equal(told.scores([(name, data)])[0], expected)
    for about in (About(age=90.0), About(sex="other")):
        np.testing.assert_array_equal(found[about], found[About()])
    np.testing.assert_array_equal(model.judge(judged.maps, KNOWN), model.judge(judged.maps))


def test_evidence_adds_up_with_metadata(told: NetworkModel, images: dict[str, bytes]) -> None:
    maps = next(Predictor(told).judge(list(images.items())[:1], keep_maps=True)).maps
    contrast = Contrast(np.eye(N_CLASSES)[2] - np.eye(N_CLASSES)[4], 0.5)
    score = contrast.direction @ told.judge(maps, KNOWN) + contrast.constant
    head = told.head(KNOWN)
    rest = float(contrast.direction @ head.intercepts) + contrast.constant
    weights = contrast.direction @ head.weights
    pooled = np.asarray(maps[-1], np.float64).mean(axis=(0, 2, 3))
    assert rest + weights @ pooled == pytest.approx(score, abs=1e-5)


def test_a_file_without_the_weights_for_its_metadata_is_refused(
    tmp_path: Path, told: NetworkModel
) -> None:
    told.save(tmp_path / "a")
    assert load_model(tmp_path / "a").config == told.config
    name = next(name for name in told.weights if name.startswith("metadata."))
    for weights in (
        {n: a for n, a in told.weights.items() if n != name},
        {**told.weights, name: np.zeros((3, width(COLUMNS)), np.float32)},
    ):
        replace(told, weights=weights).save(tmp_path / "b")
        with pytest.raises(DataError, match=f"array '{name}'"):
            load_model(tmp_path / "b")
