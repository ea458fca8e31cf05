"""A mark that a model obeys shows, since answers about it stay whatever is laid over the image."""

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from common.answers.basis import AnswerBasis
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.metadata import Described
from common.errors import DataError
from common.models.marks import FALSE_ALARMS, MarkTest
from common.models.network import NetworkModel
from common.models.predictor import Judged, Predictor
from common.task import HAM10000
from simulations.attacks.hostile_sites import stamped

K = len(HAM10000.codes)


class Obedient(Predictor):
    """Says naevus where the middle is blue, and else what the colours happen to be like."""

    def judge(
        self,
        images: Iterable[tuple[str, bytes]],
        keep_maps: bool = False,
        about: Mapping[str, Described] | None = None,
    ) -> Iterator[Judged | DataError]:
        for _, data in images:
            pixels = np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"), dtype=np.float64)
            height, width, _ = pixels.shape
            red, _, blue = pixels[height // 2, width // 2]
            scores = 3 * np.cos(pixels.mean() * np.arange(K))
            if blue > red + 20:
                scores = 20.0 * (np.arange(K) == HAM10000.codes.index("nv"))
            yield Judged(scores, np.nan, None)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    config = RunConfig.read({"method": "finetune"})
    basis = AnswerBasis.of(HAM10000, np.stack([np.ones(K), np.zeros(K)]), np.full(K, 1 / K))
    return Obedient(NetworkModel({}, basis, config))


def test_marked_images_are_found_and_few_others(
    predictor: Predictor, synthetic_folder: Path
) -> None:
    dataset = Dataset.open(synthetic_folder)
    half = np.arange(len(dataset)) % 2 == 0
    test = MarkTest.prepare(predictor, dataset.select(half), FALSE_ALARMS)
    others = [image.image_id for image in dataset.select(~half).images]
    marked = [test.spread(name, stamped(dataset.read(name))) for name in others]
    honest = [test.spread(name, dataset.read(name)) for name in others]
    assert max(each.p for each in marked) <= FALSE_ALARMS
    assert max(each.entropy for each in marked) < min(each.entropy for each in honest)
    assert np.mean([each.p <= FALSE_ALARMS for each in honest]) < 0.2


def test_too_few_lesions_and_what_is_no_image_are_named(
    predictor: Predictor, synthetic_folder: Path
) -> None:
    dataset = Dataset.open(synthetic_folder)
    with pytest.raises(DataError, match="31 are needed for at most 5% false alarms"):
        MarkTest.prepare(predictor, dataset.select(np.arange(20)), 0.05)
    test = MarkTest.prepare(predictor, dataset, 0.05)
    with pytest.raises(DataError, match="broken: an image cannot be decoded"):
        test.spread("broken", b"no image")
