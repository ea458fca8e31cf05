"""A cell's predictions for its test images, and their file."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Floats, Ints
from common.verified import read_verified, write_verified


@dataclass(frozen=True)
class Predictions:
    """A cell's predictions for its fold's test images; arrays of n rows.

    Attributes
    ----------
    image, lesion, source : (n,) names.
    label, predicted : (n,) true and predicted classes.
    probabilities : (n, n_classes) in [0, 1].
    """

    image: NDArray[np.str_]
    lesion: NDArray[np.str_]
    source: NDArray[np.str_]
    label: Ints
    predicted: Ints
    probabilities: Floats

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
        """
        with np.load(io.BytesIO(read_verified(file)), allow_pickle=False) as arrays:
            return cls(**arrays)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all folds."""
        names = vars(parts[0])
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})

    def select(self, rows: Bools) -> Self:
        """Return the rows that the mask ``rows`` (n,) chooses."""
        return type(self)(**{name: array[rows] for name, array in vars(self).items()})
