"""What a table says of a patient and a place, as numbers beside an image's features.

Each column becomes a block of numbers in [0, 1] that add to 1: an age is shared between the two
decades that it lies between, a category is its own number, and the last number of a block says
that nothing is known. So a classifier bends with age, and learns what to say without a value.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from common.arrays import Bools, Floats, Floats32
from common.data.groups import MISSING, OTHER, listed
from common.text import suggestion


class Described(Protocol):
    """Whose age in years (None where unknown), sex and place on the body are known."""

    @property
    def age(self) -> float | None:
        """Age in years."""

    @property
    def sex(self) -> str:
        """One of the closed list of sexes, else it counts as unknown."""

    @property
    def localization(self) -> str:
        """One of the closed list of places, else it counts as unknown."""


class About(NamedTuple):
    """What is known of a patient beside an image; nothing by default."""

    age: float | None = None
    sex: str = ""
    localization: str = ""


UNKNOWN = About()

OLDEST = 120.0
"""Years; no patient is older."""

_KNOTS = np.arange(0.0, 100.0, 10.0)


def _categories(column: str) -> tuple[str, ...]:
    return tuple(name for name in listed(column) if name not in (OTHER, MISSING))


BLOCKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "age": (*(f"age near {knot:g}" for knot in _KNOTS), "age unknown"),
        "sex": (*_categories("sex"), "sex unknown"),
        "localization": (*_categories("localization"), "localization unknown"),
    }
)
"""The columns that may be inputs, and the names of the numbers that each becomes."""

_REFUSED = {
    "dx_type": "it says how the diagnosis was confirmed, and lesions that look malignant are cut "
    "out",
    "biopsed": "whether a lesion was cut out follows from what it was taken for",
    "biopsied": "whether a lesion was cut out follows from what it was taken for",
    "dataset": "it names the site, and a model of sites does not carry over to another",
    "source": "it names the site, and a model of sites does not carry over to another",
    "site": "it names the site, and a model of sites does not carry over to another",
    "dx": "it is the diagnosis",
    "diagnosis": "it is the diagnosis",
}


def check_columns(columns: Sequence[str]) -> None:
    """Refuse columns that are no inputs, or would give the diagnosis away.

    Raises
    ------
    ValueError
        One line that says why.
    """
    for column in columns:
        if column in BLOCKS:
            continue
        why = _REFUSED.get(
            column, f"it is no column that is known before a diagnosis{suggestion(column, BLOCKS)}"
        )
        raise ValueError(f"{column} cannot be an input: {why}; take from {', '.join(BLOCKS)}")
    if len(set(columns)) < len(columns):
        raise ValueError("a column is named twice")


def width(columns: Sequence[str]) -> int:
    """Return how many numbers the columns become."""
    return sum(len(BLOCKS[column]) for column in columns)


def encode(columns: Sequence[str], rows: Sequence[Described]) -> Floats32:
    """Return the numbers (n, width) of n rows, in [0, 1], each column's adding to 1."""
    blocks = [_block(column, rows) for column in columns]
    return np.hstack(blocks) if blocks else np.zeros((len(rows), 0), dtype=np.float32)


def _block(column: str, rows: Sequence[Described]) -> Floats32:
    names = BLOCKS[column]
    block = np.zeros((len(rows), len(names)), dtype=np.float32)
    for row, number in zip(rows, block, strict=True):
        value = getattr(row, column)
        if isinstance(value, str):
            known = value.lower() in names[:-1]
            number[names.index(value.lower()) if known else -1] = 1.0
        elif value is None or not 0 <= value <= OLDEST:
            number[-1] = 1.0
        else:
            number[:-1] = np.maximum(1 - np.abs(min(value, _KNOTS[-1]) - _KNOTS) / 10, 0)
    return block


def even(columns: Sequence[str]) -> Floats:
    """Return numbers (width,) whose shares of each column are the same, in (0, 1]."""
    sizes = [len(BLOCKS[column]) for column in columns]
    return np.repeat(1 / np.array(sizes, dtype=np.float64), sizes)


def forget(columns: Sequence[str], numbers: Floats32, forgotten: Bools) -> Floats32:
    """Return ``numbers`` (n, width) with the rows of ``forgotten`` (n,) as if nothing was known."""
    return np.where(forgotten[:, None], encode(columns, [UNKNOWN]), numbers)


def as_unknown(columns: Sequence[str], numbers: Floats32, seen: Bools) -> Floats32:
    """Return ``numbers`` as (n, width) with what was never seen counted as unknown.

    Parameters
    ----------
    numbers : (n, width), as of :func:`encode`.
    seen : (width,) whether each number was above 0 often enough.
    """
    numbers, start = numbers.copy(), 0
    for column in columns:
        block = slice(start, start := start + len(BLOCKS[column]))
        unseen = np.where(seen[block], 0, numbers[:, block])
        unseen[:, -1] = 0
        numbers[:, block] -= unseen
        numbers[:, start - 1] += unseen.sum(axis=1)
    return numbers


def as_used(columns: Sequence[str], numbers: Floats32) -> dict[str, bool]:
    """Tell for each column whether ``numbers`` (width,) say more than that it is unknown."""
    ends = np.cumsum([len(BLOCKS[column]) for column in columns], dtype=np.int64)
    return {c: bool(numbers[end - 1] < 1) for c, end in zip(columns, ends, strict=True)}


def dropped(contents: Sequence[str], n_views: int, share: float, seed: int) -> Bools:
    """Return which views (n, n_views) are trained on as if nothing was known of the patient.

    The draw is named after the image, so it is the same wherever the image lies.

    Parameters
    ----------
    contents : keys of the n images' bytes, in hexadecimal.
    share : of the views that are drawn, in [0, 1).
    """
    draws = [np.random.default_rng([seed, int(key, 16), 2]).random(n_views) for key in contents]
    return np.asarray(np.reshape(draws, (len(contents), n_views)) < share)


def beside(views: NDArray[np.float32], numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features with the numbers beside them, (n, P, n_features + width).

    Parameters
    ----------
    views : (n, P, n_features).
    numbers : (n, P, width), or (n, width) if they are the same for all views.
    """
    if not numbers.shape[-1]:
        return views
    if numbers.ndim == 2:
        numbers = np.repeat(numbers[:, None], views.shape[1], axis=1)
    return np.concatenate([views, numbers], axis=2)


GIVES_AWAY = 0.2
"""A column's share of the information in the diagnoses from which it is suspected.

In HAM10000 that of age and of the place is 0.12, of the sex 0.00, of ``dx_type`` 0.23.
"""


def information(columns: Sequence[str], sums: Floats) -> dict[str, float]:
    """Return how much of the diagnoses' entropy each column tells, in [0, 1].

    Mutual information over the records whose value is known, divided by the entropy of their
    diagnoses (Cover and Thomas, Elements of Information Theory, 2nd ed., section 2.3).

    Parameters
    ----------
    sums : (n_classes, width) each class's sum of the numbers.
    """
    found, start = {}, 0
    for column in columns:
        table = sums[:, start : (start := start + len(BLOCKS[column])) - 1]
        found[column] = _shared(np.maximum(table, 0))
    return found


def _shared(table: Floats) -> float:
    """Return the mutual information of a contingency table's axes by the entropy of its rows."""
    from scipy.special import entr  # a command that needs it not is not to wait for it

    if not (total := table.sum()):
        return 0.0
    joint = table / total
    rows, columns, cells = (
        entr(shares).sum() for shares in (joint.sum(axis=1), joint.sum(axis=0), joint)
    )
    return float((rows + columns - cells) / rows) if rows else 0.0
