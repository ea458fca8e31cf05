"""Check the evidence maps of a run on its test images, one image a lesion."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from tqdm import tqdm

from common.arrays import Floats
from common.data.splits import TEST
from common.errors import DataError
from common.explanations.evidence import Evidence, PooledHead, log_odds
from common.explanations.overlay import place
from common.models.predictor import Judged, Predictor
from server.run.folder import model_file
from simulations.experiments.explanations.curves import Score, areas, orders
from simulations.experiments.explanations.heads import untrained
from simulations.experiments.explanations.measures import (
    Location,
    Part,
    locate,
    parts,
    rank_correlation,
    share,
    spread_evenly,
)
from simulations.experiments.explanations.photo import Photo, one_a_lesion
from simulations.runtimes.experiment import with_splits

ANOTHER = "map of another image"
"""What maps are compared with, beside those of other heads."""


@dataclass(frozen=True)
class Place:
    """What lies in one kind of place of an image; shares in [0, 1].

    Attributes
    ----------
    share : of the positive evidence; nan where there is none.
    expected : of evidence that is spread evenly over what the views see.
    """

    share: float
    expected: float


@dataclass(frozen=True)
class Checked:
    """What was measured of the map of one image.

    Attributes
    ----------
    diagnosis : code of the true one.
    site : where the image is from.
    right : whether the model's likeliest diagnosis is the true one.
    locations : by part of the map.
    places : by kind of place.
    curves : areas under the deletion and the insertion curve, by order of the fields.
    correlations : with other maps by their kind, with the sign and of the size, by part of the map.
    """

    diagnosis: str
    site: str
    right: bool
    locations: Mapping[str, Location]
    places: Mapping[str, Place]
    curves: Mapping[str, tuple[float, float]]
    correlations: Mapping[str, Mapping[str, tuple[float, float]]]


@dataclass(frozen=True)
class Mapped:
    """A photo and its maps.

    Attributes
    ----------
    label : the likeliest diagnosis, which the maps speak for against the next one.
    evidence : what the model finds.
    untrained : what heads find that have learned nothing, by their kind.
    """

    photo: Photo
    label: int
    evidence: Evidence
    untrained: Mapping[str, Sequence[Evidence]]

    @classmethod
    def of(cls, predictor: Predictor, head: PooledHead, photo: Photo, seed: int) -> Self:
        """Draw the maps of a photo.

        Raises
        ------
        DataError
            If the model gives no numbers.
        ConfigError
            If the model has no evidence maps.
        """
        (judged,) = predictor.judge([(photo.row.image_id, photo.png())], keep_maps=True)
        if not isinstance(judged, Judged) or judged.maps is None:
            raise DataError(f"{photo.row.image_id} cannot be judged ({judged})")
        basis, maps = predictor.model.basis, judged.maps
        chances = basis.probabilities(judged.scores[None])[0]
        label, rival = np.argsort(-chances, kind="stable")[:2].tolist()
        contrast = log_odds(basis.calibration, label, rival)
        evidence = head.evidence(maps, contrast)
        channels = [each.shape[1] for each in maps[-len(evidence.cells) :]]
        others = {
            name: [other.evidence(maps, contrast) for other in heads]
            for name, heads in untrained(head, channels, seed).items()
        }
        return cls(photo, label, evidence, others)


def check(data: Path, run: Path, number: int, seed: int) -> Iterator[Checked]:
    """Yield what is measured of each image.

    Parameters
    ----------
    data : the images that the run was trained on, with masks.
    run : its folder.
    number : of images, as many of each diagnosis as there are.

    Raises
    ------
    ConfigError
        If the model has no evidence maps, with the reason.
    DataError
        If there is no test image with a mask, or an image cannot be read.
    """
    predictor = Predictor.open(model_file(run))
    config, head = predictor.model.config, predictor.model.head()
    dataset = with_splits(data, config)
    tested = one_a_lesion(dataset.select(dataset.splits == TEST), number, seed)
    if not len(tested):
        raise DataError(f"{data} has no test image with a mask; name the folder with the masks")
    rows = tqdm(tested.images, "maps", disable=None)
    photos = (Photo.read(tested, row, config.resolution) for row in rows)
    mapped = [Mapped.of(predictor, head, photo, seed) for photo in photos]
    pairs = zip(mapped, mapped[-1:] + mapped[:-1], strict=True)
    for turn, (each, other) in enumerate(tqdm(pairs, "checks", len(mapped), disable=None)):
        yield _checked(predictor, each, other.evidence, (seed, turn))


def _checked(
    predictor: Predictor, mapped: Mapped, other: Evidence, seed: tuple[int, int]
) -> Checked:
    photo, evidence, task = mapped.photo, mapped.evidence, predictor.model.task
    width, height = photo.size
    pixels, even = (place(each, width, height) for each in (evidence, spread_evenly(evidence)))
    every = list(parts(evidence))
    compared = {**mapped.untrained, ANOTHER: [other]}
    return Checked(
        diagnosis=photo.row.dx,
        site=photo.row.source,
        right=task.codes[mapped.label] == task.mapped(photo.row.dx),
        locations={part.name: locate(part, evidence, other, photo.lesion) for part in every},
        places={n: Place(share(pixels, p), share(even, p)) for n, p in photo.places.items()},
        curves=areas(photo, orders(pixels, photo.size, seed), _score(predictor, mapped.label)),
        correlations={name: _correlations(every, mapped, o) for name, o in compared.items()},
    )


def _score(predictor: Predictor, label: int) -> Score:
    """Return what gives the probability of a diagnosis for images."""

    def score(files: Sequence[bytes]) -> Floats:
        judged = predictor.judge([("", data) for data in files])
        scores = [each.scores for each in judged if isinstance(each, Judged)]
        return predictor.model.basis.probabilities(np.stack(scores))[:, label]

    return score


def _correlations(
    every: Sequence[Part], mapped: Mapped, others: Sequence[Evidence]
) -> dict[str, tuple[float, float]]:
    """Return the mean correlations with other maps, by part."""
    found = {}
    for part in every:
        each = [
            rank_correlation(part.of(mapped.evidence), part.of(o), *mapped.photo.size)
            for o in others
        ]
        signed, size = np.mean(each, axis=0).tolist()
        found[part.name] = (signed, size)
    return found
