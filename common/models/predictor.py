"""A model with its network loaded: it judges images one by one, on all cores, without PyTorch."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from common.answers.answer import Answer, Unreadable
from common.answers.answering import Answering
from common.arrays import Floats
from common.data.pictures import short_side
from common.errors import DataError
from common.models.file import Model, Prediction, load_model, network_folders
from common.networks.appearance_rows import LEVELS, appearance_of, stem_spec
from common.networks.spatial_maps import BLOCK, MapNetwork, Maps, map_network


@dataclass(frozen=True)
class Judged:
    """What a model computes of one image.

    Attributes
    ----------
    scores : (n_classes,) averaged over the prediction views.
    distance : from the training lesions, about 1 as a rule; nan where it is not known.
    maps : the network's maps, (P, channels, height, width) by level; None where not asked for.
    """

    scores: Floats
    distance: float
    maps: Maps | None


class Answered(NamedTuple):
    """An answer.

    Attributes
    ----------
    maps : what it was made of, (P, channels, height, width) by level; None where not asked for, or
        there is none.
    """

    answer: Answer | Unreadable
    maps: Maps | None


class Predictor:
    """Judges images by a model.

    Parameters
    ----------
    folders : where the exported network may be; it is kept in the first that can be written.
        Without any, PyTorch runs the network and nothing is exported.
    """

    def __init__(self, model: Model, folders: Sequence[Path] = ()) -> None:
        self.model = model
        self._folders = folders

    @cached_property
    def _network(self) -> MapNetwork:
        spec = self.model.config.feature_spec
        return map_network(spec, self._folders, self.model.trained)

    @cached_property
    def _stem(self) -> MapNetwork | None:
        """The pretrained network that tells how images look; None if the model's own does."""
        spec = self.model.config.feature_spec
        own = self.model.trained is None and spec.levels >= LEVELS
        if self.model.basis.appearance is None or own:
            return None
        return map_network(stem_spec(spec), self._folders)

    @classmethod
    def open(cls, file: Path, *weights: Path | None) -> Self:
        """Open a model file; its network is loaded when it is first needed.

        Parameters and errors are those of ``load_model``.
        """
        model = load_model(file, *weights)
        return cls(model, network_folders(file, model.config))

    def judge(
        self, images: Iterable[tuple[str, bytes]], keep_maps: bool = False
    ) -> Iterator[Judged | DataError]:
        """Yield what the model computes of each image; an error that names it if it cannot.

        The first call builds the network, and exports it if it is not kept yet.

        Parameters
        ----------
        images : names and bytes of image files.
        keep_maps : whether the network's maps are wanted too.

        Raises
        ------
        ConfigError
            If the model's network cannot be built.
        """
        files = iter(images)
        while block := list(islice(files, BLOCK)):
            judged = self._network.each(block, lambda maps: self._judged(maps, keep_maps))
            yield from judged if self._stem is None else self._with_distances(judged, block)

    def _judged(self, maps: Maps, keep_maps: bool) -> Judged:
        distance = math.nan
        if self._stem is None and self.model.basis.appearance is not None:
            distance = self._distance(maps, self.model.config.feature_spec.levels)
        return Judged(self.model.judge(maps), distance, maps if keep_maps else None)

    def _with_distances(
        self, judged: Iterable[Judged | DataError], block: Sequence[tuple[str, bytes]]
    ) -> Iterator[Judged | DataError]:
        """Add the distances by a pretrained network of their own."""
        assert self._stem is not None
        distances = self._stem.each(block, lambda maps: self._distance(maps, LEVELS))
        for each, distance in zip(judged, distances, strict=True):
            if isinstance(each, Judged) and isinstance(distance, float):
                each = replace(each, distance=distance)
            yield each

    def _distance(self, maps: Maps, levels: int) -> float:
        appearance = self.model.basis.appearance
        assert appearance is not None
        return float(appearance.distance(appearance_of(maps, levels)[None])[0])

    def answer(
        self, images: Sequence[tuple[str, bytes]], answering: Answering, keep_maps: bool = False
    ) -> list[Answered]:
        """Answer about images, in their order; one that cannot be decoded gets the reason.

        Parameters and errors are those of :meth:`judge`.
        """
        judged = list(self.judge(images, keep_maps))
        good = [each for each in judged if isinstance(each, Judged)]
        answers = iter(self._answers(images, judged, good, answering))
        return [
            Answered(_unreadable(name, each), None)
            if isinstance(each, DataError)
            else Answered(self._noted(next(answers), data), each.maps)
            for (name, data), each in zip(images, judged, strict=True)
        ]

    def _noted(self, answer: Answer, data: bytes) -> Answer:
        """Add that an image has fewer pixels than the model works at, if it has."""
        resolution = self.model.config.resolution
        if (side := short_side(data)) >= resolution:
            return answer
        note = (
            f"The image has {side} pixels on its short side, fewer than the {resolution} that the "
            "model works at; details may be missing that its training images had."
        )
        return replace(answer, notes=(*answer.notes, note))

    def _answers(
        self,
        images: Sequence[tuple[str, bytes]],
        judged: Sequence[Judged | DataError],
        good: Sequence[Judged],
        answering: Answering,
    ) -> list[Answer]:
        if not good:
            return []
        names = [n for (n, _), each in zip(images, judged, strict=True) if isinstance(each, Judged)]
        chances = self.model.basis.probabilities(np.stack([each.scores for each in good]))
        return answering.answers(names, chances, np.array([each.distance for each in good]))

    def predict(self, images: Mapping[str, bytes]) -> Prediction:
        """Diagnose image files, given as their bytes by name; at least one.

        Raises
        ------
        DataError
            If an image cannot be decoded, with its name, or the model gives no numbers.
        """
        rows: list[Judged] = []
        for judged in self.judge(images.items()):
            if isinstance(judged, DataError):
                raise judged
            rows.append(judged)
        chances = self.model.basis.probabilities(np.stack([row.scores for row in rows]))
        distance = np.array([row.distance for row in rows])
        known = not np.isnan(distance).any()
        return Prediction(chances.argmax(axis=1), chances, distance if known else None)


def _unreadable(name: str, error: DataError) -> Unreadable:
    return Unreadable(name, str(error).removeprefix(f"{name}: "))
