"""A model's evidence map lies on the upright picture, however a camera held the image."""

import io
import re
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image as Pillow

from client.predict.answerer import ModelAnswerer, chosen_prevalence
from client.predict.picture import small_picture
from client.predict.shown import ImageFile
from common.answers.answering import AnswerOptions
from common.answers.basis import AnswerBasis
from common.config.run import RunConfig
from common.data.metadata import UNKNOWN, About, width
from common.models.linear import LinearModel
from common.models.network import NetworkModel
from common.models.predictor import Predictor
from common.networks.network import build
from common.privacy.linear import public_map
from common.svm.feature_map import FeatureMap
from common.task import HAM10000
from tests.exif import ORIENTATION, STORED
from tests.finetuning import quick


@pytest.fixture(scope="module")
def predictor(network_file, tmp_path_factory) -> Predictor:
    config = quick(tmp_path_factory.mktemp("run"), network_file, size=64, predictions=4)
    shape = tuple(build(config.backbone, config.weights, HAM10000.n_classes).head.weight.shape)
    rng = np.random.default_rng(0)
    weights = {
        "head.weight": rng.normal(size=shape).astype(np.float32),
        "head.bias": np.zeros(HAM10000.n_classes, np.float32),
    }
    basis = AnswerBasis.of(
        HAM10000,
        np.array([np.ones(7), np.zeros(7)]),
        np.full(HAM10000.n_classes, 1 / HAM10000.n_classes),
    )
    return Predictor(NetworkModel(weights, basis, config))


@pytest.fixture(scope="module")
def answerer(predictor) -> ModelAnswerer:
    return ModelAnswerer(predictor, AnswerOptions())


def stored(image: Pillow.Image, orientation: int) -> bytes:
    exif, file = Pillow.Exif(), io.BytesIO()
    exif[ORIENTATION] = orientation
    turned = image.transpose(STORED[orientation]) if orientation in STORED else image
    turned.save(file, "PNG", exif=exif)
    return file.getvalue()


def test_a_turned_copy_has_the_map_of_the_upright_image(answerer):
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Pillow.fromarray(noise).resize((98, 70))
    files = [ImageFile(f"{n}.png", stored(image, n)) for n in (1, *STORED)]
    upright, *turned = (shown.evidence for shown in answerer.answer(files, evidence=True))
    drawn = Pillow.open(io.BytesIO(upright.png))
    assert drawn.size == image.size == small_picture(files[-1].data)[1:]
    assert np.asarray(drawn)[..., 3].std() > 0
    assert turned == [upright] * len(STORED)
    # Without its tag, a copy's map is another one: the test would see a map that was not turned.
    half = Pillow.open(io.BytesIO(files[2].data))
    (wrong,) = answerer.answer([ImageFile("raw.png", _raw(half))], evidence=True)
    assert wrong.evidence.png != upright.png


def test_a_large_copy_has_the_same_answer_and_map_and_a_small_one_a_note(answerer):
    """The map of a large copy is drawn on the working image, whose views the model saw."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    sizes = {"small": (98, 70), "working": (315, 225), "large": (1260, 900)}
    files = [
        ImageFile(name, _raw(Pillow.fromarray(noise).resize(size, Pillow.Resampling.BICUBIC)))
        for name, size in sizes.items()
    ]
    small, working, large = answerer.answer(files, evidence=True)
    assert [len(shown.answer.notes) for shown in (small, working, large)] == [1, 0, 0]
    assert "has 70 pixels on its short side, fewer than the 225" in small.answer.notes[0]
    known = working.answer.probabilities
    assert large.answer.probabilities == pytest.approx(known, abs=0.01)
    drawn = [np.asarray(Pillow.open(io.BytesIO(s.evidence.png))) for s in (working, large)]
    assert drawn[0].shape == drawn[1].shape
    assert np.corrcoef(drawn[0][..., 3].ravel(), drawn[1][..., 3].ravel())[0, 1] > 0.95


def test_frequencies_are_estimated_from_the_images_that_can_be_read(predictor, tmp_path):
    image = Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (70, 98, 3), np.uint8))
    image.save(tmp_path / "good.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    frequencies, source = chosen_prevalence(predictor, str(tmp_path))
    assert frequencies.sum() == pytest.approx(1)
    assert source.startswith("estimated from 1 images without labels")


class DrawnMaps(NamedTuple):
    """In place of a network: the same maps for each image."""

    maps: list[np.ndarray]

    def each(self, images, of_maps):
        return [of_maps(self.maps) for _ in images]


@pytest.mark.parametrize("how", ["as it is", "clipped", "private"])
def test_a_map_adds_up_to_the_answer_that_age_and_place_changed(how):
    """With a clipped norm too, which makes each view's share depend on the metadata."""
    rng, columns = np.random.default_rng(0), ("age", "localization")
    n, levels = 6, 2
    feature_map = FeatureMap(
        rng.uniform(0.1, 1, n + width(columns)), rng.normal(size=(n + width(columns), 5)),
        clip=2.0 * (how == "clipped"),
    )  # fmt: skip
    if how == "private":
        feature_map = public_map(n, 5, 0, columns, 0.5)
    basis = AnswerBasis.of(HAM10000, np.array([np.ones(7), np.zeros(7)]), np.full(7, 1 / 7))
    config = RunConfig(metadata=columns, levels=levels, resolution=64)
    model = LinearModel(feature_map, rng.normal(size=(7, feature_map.n_outputs + 1)), basis, config)
    predictor = Predictor(model)
    maps = [rng.uniform(size=(4, c, 3, 3)).astype(np.float32) for c in (2, 4)]
    vars(predictor)["_network"] = DrawnMaps(maps)
    picture = _raw(Pillow.fromarray(rng.integers(0, 256, (70, 98, 3), np.uint8)))
    patients = (About(30, "male", "face"), About(80), About(sex="male"), UNKNOWN)
    files = [ImageFile(f"{i}.png", picture, patient) for i, patient in enumerate(patients)]
    shown = ModelAnswerer(predictor, AnswerOptions()).answer(files, evidence=True)
    for each in shown:
        first, second, *_ = each.answer.probabilities.values()
        total = re.search(r"it comes to ([+-][\d.]+): ", each.evidence.text)[1]
        assert float(total) == pytest.approx(np.log(first / second), abs=0.006)
    without = [each.answer.probabilities for each in shown[2:]]
    assert without[0] == without[1] != shown[0].answer.probabilities
    assert [each.answer.metadata and each.answer.metadata.used for each in shown] == [
        {"age": 30, "localization": "face"}, {"age": 80}, None, None
    ]  # fmt: skip
    assert [each.answer.metadata.probabilities_without for each in shown[:2]] == without
    unused = ("The model does not use sex: it answers without.",)
    assert [each.answer.notes for each in shown] == [unused, (), unused, ()]


def _raw(image: Pillow.Image) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(np.asarray(image)).save(file, "PNG")
    return file.getvalue()
