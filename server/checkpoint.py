"""What the coordinator of a fine-tuning run knows after a round, on disk."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common.errors import DataError
from common.shards import write_atomically

Tensors = dict[str, NDArray[np.float32]]

_ABOUT = "fedderm"


@dataclass
class Checkpoint:
    """The state of a run between two rounds.

    Attributes
    ----------
    run : names the run to the sites; a new one for each.
    next_round : number of the round that comes next.
    counts : training images of each class over all sites.
    weights : the tensors trained so far.
    best : those of the best round.
    moments : of the sites' optimiser, averaged, and SCAFFOLD's control variate.
    aggregation : state of the server's optimiser.
    best_score, best_round : macro AUC on the validation lesions, and where it was.
    waited : evaluations of this stage since then.
    bytes_sent, bytes_whole : of weights to and from the sites; had all been sent each time.
    """

    run: str
    next_round: int = 0
    counts: list[int] = field(default_factory=list)
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
            f"{group}:{name}": np.ascontiguousarray(array)
            for group, arrays in groups.items()
            for name, array in arrays.items()
        }
        write_atomically(path, save(tensors, metadata={_ABOUT: json.dumps(plain)}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a state.

        Raises
        ------
        DataError
            If the file is damaged or of another kind.
        """
        try:
            with safe_open(path, "numpy") as file:
                values: dict[str, Any] = json.loads(file.metadata()[_ABOUT])
                values |= {group: {} for group in _GROUPS}
                for flat in file.keys():  # noqa: SIM118
                    group, _, name = flat.partition(":")
                    values[group][name] = file.get_tensor(flat)
            return cls(**values)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} is no checkpoint ({error}); remove it to begin the run anew"
            ) from error


_GROUPS = ("weights", "best", "moments", "aggregation")
