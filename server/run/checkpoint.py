"""What the coordinator of a fine-tuning run knows after a round, on disk."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats32
from common.errors import DataError, reason
from common.storage.verified import DamagedError, read_arrays, write_arrays

Tensors = dict[str, Floats32]


@dataclass
class Checkpoint:
    """The state of a run between two rounds.

    Attributes
    ----------
    run : names the run to the sites; a new one for each.
    settings : digest of the run's configuration.
    next_round : number of the round that comes next.
    trained : rounds so far; patience skips some.
    counts : training images of each class over all sites.
    groups : training images of each class and group, (n_classes, n_groups); empty where no groups
        are balanced.
    claims : training images of each class by site, by their own word; empty where sites do not
        judge each other.
    suspects : sites that the others did not vouch for.
    weights : the tensors trained so far, by name, of the network's shapes.
    best : those of the best round, of the same shapes.
    moments : the averaged moments of the sites' optimiser, and SCAFFOLD's control variate, of the
        shapes that :func:`common.finetune.plan.shapes` returns.
    aggregation : state of the server's optimiser, of the shapes in `Aggregation.state`.
    best_score, best_round : macro AUC on the validation lesions, in [0, 1], and its round.
    waited : evaluations of this stage since then.
    bytes_sent, bytes_whole : bytes of weights to and from the sites; what they would be for whole
        networks.
    """

    run: str
    settings: str
    next_round: int = 0
    trained: int = 0
    counts: list[int] = field(default_factory=list)
    groups: list[list[int]] = field(default_factory=list)
    claims: dict[str, list[int]] = field(default_factory=dict)
    suspects: list[str] = field(default_factory=list)
    weights: Tensors = field(default_factory=dict)
    best: Tensors = field(default_factory=dict)
    moments: Tensors = field(default_factory=dict)
    aggregation: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    best_score: float = -1.0
    best_round: int = -1
    waited: int = 0
    bytes_sent: int = 0
    bytes_whole: int = 0

    def save(self, path: Path) -> None:
        """Write the state; the one before remains until this one is whole.

        Raises
        ------
        DataError
            If it cannot be written.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        groups = {name: value for name, value in values.items() if name in _GROUPS}
        plain = {name: value for name, value in values.items() if name not in _GROUPS}
        tensors = {
            f"{group}:{name}": array
            for group, arrays in groups.items()
            for name, array in arrays.items()
        }
        write_arrays(path, tensors, plain)

    @classmethod
    def load(cls, path: Path, settings: str) -> Self:
        """Read a state.

        Parameters
        ----------
        settings : digest of the configuration that it must be of.

        Raises
        ------
        DataError
            If the file is damaged, of another kind or of another configuration.
        """
        try:
            tensors, plain = read_arrays(path)
            values: dict[str, Any] = plain | {group: {} for group in _GROUPS}
            for flat, array in tensors.items():
                group, _, name = flat.partition(":")
                values[group][name] = array
            state = cls(**values)
        except (OSError, DamagedError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no checkpoint ({reason(error)}); remove it to begin the run anew"
            ) from error
        if state.settings != settings:
            raise DataError(f"{path} is of another configuration; remove it to begin the run anew")
        return state


_GROUPS = ("weights", "best", "moments", "aggregation")
