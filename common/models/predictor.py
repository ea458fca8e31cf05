"""A model with its network loaded: it judges images one by one, on all cores, without PyTorch."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np

from common.answers.answer import Answer, Metadata, Unreadable
from common.answers.answering import Answering
from common.arrays import Floats
from common.data.metadata import BLOCKS, UNKNOWN, Described, as_used
from common.data.patients import known, unlisted
from common.data.pictures import short_side
from common.errors import DataError
from common.models.file import Model, Prediction, load_model, network_folders
from common.networks.appearance_rows import LEVELS, appearance_of, stem_spec
from common.networks.spatial_maps import BLOCK, MapNetwork, Maps, map_network
from common.storage.reading import read_bytes

_NOTHING: Mapping[str, Described] = MappingProxyType({})

_NAMES = {"age": ("Age", "ages"), "sex": ("Sex", "sexes"), "localization": ("Place", "places")}
"""What a person calls a column's value, and several."""


@dataclass(frozen=True)
class Judged:
    """What a model computes of one image.

    Attributes
    ----------
    scores : (n_classes,) averaged over the prediction views.
    distance : from the training lesions, about 1 as a rule; nan where it is not known.
    maps : the network's maps, (P, channels, height, width) by level; None where not asked for.
    scores_without : (n_classes,) as if nothing was known of the patient; None where nothing is, or
        the model does not use it.
    """

    scores: Floats
    distance: float
    maps: Maps | None
    scores_without: Floats | None = None


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
    digest : SHA-256 of the model's file, which answers name; "" where it was not read from one.
    """

    def __init__(self, model: Model, folders: Sequence[Path] = (), digest: str = "") -> None:
        self.model, self.digest = model, digest
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
        digest = hashlib.sha256(read_bytes(file)).hexdigest()
        return cls(model, network_folders(file, model.config), digest)

    def judge(
        self,
        images: Iterable[tuple[str, bytes]],
        keep_maps: bool = False,
        about: Mapping[str, Described] = _NOTHING,
    ) -> Iterator[Judged | DataError]:
        """Yield what the model computes of each image; an error that names it if it cannot.

        The first call builds the network, and exports it if it is not kept yet.

        Parameters
        ----------
        images : names and bytes of image files.
        keep_maps : whether the network's maps are wanted too.
        about : what is known of the patients, by the images' names.

        Raises
        ------
        ConfigError
            If the model's network cannot be built.
        """
        files = iter(images)
        while block := list(islice(files, BLOCK)):
            keep = keep_maps or any(self._known(about.get(name)) for name, _ in block)
            judged = self._network.each(block, partial(self._judged, keep_maps=keep))
            if self._stem is not None:
                judged = self._with_distances(judged, block)
            for (name, _), each in zip(block, judged, strict=True):
                yield self._with_metadata(each, name, about.get(name), keep_maps)

    def _known(self, about: Described | None) -> dict[str, float | str]:
        """Return what is known of a patient and the model uses, by column."""
        columns, row = self.model.config.metadata, about or UNKNOWN
        used = as_used(columns, self.model.numbers([row])[0])
        return {column: value for column, value in known(columns, row).items() if used[column]}

    def _with_metadata(
        self, judged: Judged | DataError, name: str, about: Described | None, keep_maps: bool
    ) -> Judged | DataError:
        """Judge an image again by what is known of its patient."""
        if isinstance(judged, DataError):
            return judged
        maps = judged.maps if keep_maps else None
        if about is None or not self._known(about):
            return replace(judged, maps=maps)
        assert judged.maps is not None
        try:
            scores = self.model.judge(judged.maps, about)
        except DataError as error:
            return DataError(f"{name}: {error}")
        return replace(judged, scores=scores, maps=maps, scores_without=judged.scores)

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
        self,
        images: Sequence[tuple[str, bytes]],
        answering: Answering,
        keep_maps: bool = False,
        about: Mapping[str, Described] = _NOTHING,
    ) -> list[Answered]:
        """Answer about images, in their order; one that cannot be decoded gets the reason.

        Parameters and errors are those of :meth:`judge`.
        """
        judged = list(self.judge(images, keep_maps, about))
        pairs = zip(images, judged, strict=True)
        good = {i: each for i, each in enumerate(judged) if isinstance(each, Judged)}
        patients = [about.get(name) or UNKNOWN for name, _ in images]
        answers = self._answers(images, good, patients, answering)
        return [
            Answered(_unreadable(name, each), None)
            if isinstance(each, DataError)
            else Answered(self._noted(answers[i], data, about.get(name)), each.maps)
            for i, ((name, data), each) in enumerate(pairs)
        ]

    def _noted(self, answer: Answer, data: bytes, about: Described | None) -> Answer:
        """Add what must be said of an image and of what is known of its patient."""
        notes = (*self._small(data), *self._unused(about), *self._unheard(about))
        return replace(answer, notes=(*answer.notes, *notes), model=self.digest)

    def _small(self, data: bytes) -> Iterator[str]:
        """Say that an image has fewer pixels than the model works at, if it has."""
        resolution = self.model.config.resolution
        if (side := short_side(data)) < resolution:
            yield lacking_pixels(side, resolution)

    def _unused(self, about: Described | None) -> Iterator[str]:
        """Say which of what is known the model does not use."""
        given = known(tuple(BLOCKS), about or UNKNOWN)
        used = {*self.model.config.metadata, self.model.config.screening_column}
        if unused := [column for column in given if column not in used]:
            yield f"The model does not use {' and '.join(unused)}: it answers without."

    def _unheard(self, about: Described | None) -> Iterator[str]:
        """Say which of what the model would use counts as not known, because it never saw it."""
        columns, row = self.model.config.metadata, about or UNKNOWN
        given = known(columns, row)
        unseen = {c: given[c] for c in given.keys() - self._known(row).keys()}
        for column, value in sorted({**unlisted(columns, row), **unseen}.items()):
            one, several = _NAMES[column]
            shown = f"'{value}'" if isinstance(value, str) else f"{value:g}"
            yield f"{one} {shown} is none of the model's {several} and counts as not known."

    def _answers(
        self,
        images: Sequence[tuple[str, bytes]],
        good: Mapping[int, Judged],
        patients: Sequence[Described],
        answering: Answering,
    ) -> dict[int, Answer]:
        """Return the answers about the images that were judged, by their places."""

        def answered(
            rows: Mapping[int, Floats], patients: Sequence[Described] = ()
        ) -> dict[int, Answer]:
            if not rows:
                return {}
            names = [images[i][0] for i in rows]
            chances = self.model.basis.probabilities(np.stack([*rows.values()]))
            distances = np.array([good[i].distance for i in rows])
            found = answering.answers(names, chances, distances, patients)
            return dict(zip(rows, found, strict=True))

        answers = answered(
            {i: each.scores for i, each in good.items()}, [patients[i] for i in good]
        )
        alone = {i: w for i, each in good.items() if (w := each.scores_without) is not None}
        for i, other in answered(alone).items():
            flagged = tuple(rule.target for rule in other.screening if rule.flagged)
            used = self._known(patients[i])
            metadata = Metadata(used, other.diagnosis, other.probabilities, flagged)
            answers[i] = replace(answers[i], metadata=metadata)
        return answers

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


def lacking_pixels(side: float, resolution: int) -> str:
    """Say that an image has fewer pixels than the model works at, on its short side."""
    return (
        f"The image has {side} pixels on its short side, fewer than the {resolution} that "
        "the model works at; details may be missing that its training images had."
    )


def _unreadable(name: str, error: DataError) -> Unreadable:
    return Unreadable(name, str(error).removeprefix(f"{name}: "))
