"""Whether an image carries a mark that decides the answer, whatever else the image shows.

A model that was trained with a backdoor obeys a mark, not the lesion. So other images are laid over
an image: answers about an honest one then vary, those about a marked one stay as they are.

References
----------
Gao et al., "STRIP: a defence against trojan attacks on deep neural networks", ACSAC 2019,
equations 3 and 4.
"""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple, Self

import numpy as np
from PIL import Image as Pillow

from common.arrays import Floats, Ints
from common.data.dataset import Dataset
from common.errors import ConfigError, DataError
from common.models.predictor import Predictor
from common.statistics.calibration import probabilities

FALSE_ALARMS = 0.05
"""Share of images without a mark that may be taken for marked."""

_OVERLAYS = 12
_MOST_USUAL = 200


def least_lesions(false_alarms: float) -> int:
    """Return how many lesions a test needs, most of them for its share of false alarms.

    Raises
    ------
    ConfigError
        If the share is not in (0, 1).
    """
    if not 0 < false_alarms < 1:
        raise ConfigError(f"the share of false alarms is {false_alarms}; it must be in (0, 1)")
    return _OVERLAYS + math.ceil(1 / false_alarms) - 1


class Spread(NamedTuple):
    """How answers about an image vary with others laid over it.

    Attributes
    ----------
    entropy : mean over the overlays, in nats: 0 where every answer is sure.
    p : share of the usual images, this one counted, that vary no more.
    """

    entropy: float
    p: float


@dataclass(frozen=True)
class MarkTest:
    """Images to lay over others, and how answers about usual images then vary.

    Attributes
    ----------
    overlays : RGB images.
    usual : (n,) mean entropies of usual images, in nats.
    """

    predictor: Predictor
    overlays: Sequence[Pillow.Image]
    usual: Floats

    @classmethod
    def prepare(cls, predictor: Predictor, dataset: Dataset, false_alarms: float) -> Self:
        """Choose overlays of all diagnoses, and measure other images of the dataset.

        Parameters
        ----------
        dataset : images without a mark, best not those that were trained on.
        false_alarms : share of such images that the test may find, in (0, 1).

        Raises
        ------
        ConfigError
            If ``false_alarms`` is out of range.
        DataError
            If there are too few lesions, or an image cannot be read.
        """
        order = _by_diagnoses_in_turn(dataset)
        if len(order) < (least := least_lesions(false_alarms)):
            raise DataError(
                f"{dataset.folder} has {len(order)} lesions; {least} are needed for at most "
                f"{false_alarms:.0%} false alarms"
            )
        transform = predictor.model.config.feature_spec.transform
        names = [dataset.images[i].image_id for i in order]
        overlays = [transform.image(dataset.read(name)) for name in names[:_OVERLAYS]]
        others = names[_OVERLAYS:][:_MOST_USUAL]
        usual = [_entropy(predictor, overlays, name, dataset.read(name)) for name in others]
        return cls(predictor, overlays, np.array(usual))

    def spread(self, name: str, data: bytes) -> Spread:
        """Tell how answers about an image file vary.

        Raises
        ------
        DataError
            If the image cannot be read.
        """
        entropy = _entropy(self.predictor, self.overlays, name, data)
        below = int(np.sum(self.usual <= entropy))
        return Spread(entropy, (below + 1) / (len(self.usual) + 1))


def _by_diagnoses_in_turn(dataset: Dataset) -> Ints:
    """Return an image of each lesion, by chance; among the overlays diagnoses take turns."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(dataset))
    order = order[np.unique(dataset.lesions[order], return_index=True)[1]]
    order = rng.permutation(order)
    labels = dataset.labels[order]
    turns = zip_longest(*(order[labels == label] for label in np.unique(labels)))
    first = [i for turn in turns for i in turn if i is not None][:_OVERLAYS]
    return np.array([*first, *(i for i in order if i not in first)], dtype=np.int64)


def _entropy(
    predictor: Predictor, overlays: Sequence[Pillow.Image], name: str, data: bytes
) -> float:
    """Return the mean entropy of the answers about an image with others laid over it."""
    from scipy.special import entr  # a command that needs it not is not to wait for it

    try:
        image = predictor.model.config.feature_spec.transform.image(data)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    answers = list(predictor.judge((name, blend) for blend in _blends(image, overlays)))
    scores = []
    for answer in answers:
        if isinstance(answer, DataError):
            raise answer
        scores.append(answer.scores)
    chances = probabilities(np.array(scores), predictor.model.basis.calibration)
    return float(entr(chances).sum(axis=1).mean())


def _blends(image: Pillow.Image, overlays: Sequence[Pillow.Image]) -> Iterator[bytes]:
    for overlay in overlays:
        out = io.BytesIO()
        Pillow.blend(image, overlay.resize(image.size), 0.5).save(out, "PNG", compress_level=1)
        yield out.getvalue()
