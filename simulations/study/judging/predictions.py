"""A cell's predictions for its test images, and their file."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Floats, Ints
from common.data.dataset import Dataset
from common.errors import DataError
from common.models.file import Model
from common.storage.verified import read_verified, write_verified
from simulations.evaluation.answered import Answered


@dataclass(frozen=True)
class Predictions:
    """A cell's predictions for its fold's test images; arrays of n rows.

    Attributes
    ----------
    image, lesion, source : (n,) names.
    sex, localization : (n,) as the table has them.
    age : (n,) in years; nan where it is missing.
    label, predicted : (n,) true classes, and those by the rule ``balanced``.
    probabilities : (n, n_classes) in [0, 1].
    inside, inside_pooled, flagged, distance : (n, n_classes) twice, (n, targets) and (n,), as of
        :class:`simulations.evaluation.answered.Answered`.
    """

    image: NDArray[np.str_]
    lesion: NDArray[np.str_]
    source: NDArray[np.str_]
    sex: NDArray[np.str_]
    localization: NDArray[np.str_]
    age: Floats
    label: Ints
    predicted: Ints
    probabilities: Floats
    inside: Floats
    inside_pooled: Floats
    flagged: Floats
    distance: Floats

    @classmethod
    def of(cls, model: Model, test: Dataset, cache: Path) -> Self:
        """Return what a model says of test images.

        Parameters
        ----------
        cache : folder of features.
        """
        scores = model.dataset_scores(test, cache)
        probabilities = model.basis.probabilities(scores)
        ages = (image.age for image in test.images)
        return cls(
            image=np.array([image.image_id for image in test.images]),
            lesion=test.lesions,
            source=test.sources,
            sex=np.array([image.sex for image in test.images]),
            localization=np.array([image.localization for image in test.images]),
            age=np.array([np.nan if age is None else age for age in ages]),
            label=test.labels,
            predicted=model.basis.decide(scores),
            probabilities=probabilities,
            **vars(Answered.of(model, test, probabilities, cache)),
        )

    @property
    def answered(self) -> Answered:
        """The answers beside the diagnosis."""
        return Answered(self.inside, self.inside_pooled, self.flagged, self.distance)

    @property
    def share(self) -> Floats:
        """Share (n,) of each image in its lesion: 1 by the number of its images."""
        _, lesion, sizes = np.unique(self.lesion, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / sizes[lesion])

    def save(self, file: Path) -> None:
        """Write them.

        Raises
        ------
        DataError
            If they cannot be written.
        """
        content = io.BytesIO()
        np.savez(content, **vars(self))
        write_verified(file, content.getvalue())

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what a cell kept.

        Raises
        ------
        DamagedError
            If it is not what was written.
        DataError
            If an older version wrote it.
        """
        with np.load(io.BytesIO(read_verified(file)), allow_pickle=False) as arrays:
            found = dict(arrays)
        if "localization" not in found and "image" in found:  # a study that was trained before
            found["localization"] = np.full(len(found["image"]), "")
        if set(found) != {field.name for field in fields(cls)}:
            raise DataError(f"{file} is of another version; compare into a new folder")
        return cls(**found)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all folds."""
        names = vars(parts[0])
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})

    def select(self, rows: Bools | Ints) -> Self:
        """Return the rows that ``rows`` chooses, a mask (n,) or numbers (m,)."""
        return type(self)(**{name: array[rows] for name, array in vars(self).items()})
