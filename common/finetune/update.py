"""What a site answers to a round of fine-tuning: changes that add up to their mean."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats, Floats32
from common.errors import ReplyError
from common.finetune.half_precision import dtype_of, from_wire, to_wire
from common.finetune.plan import SQUARES
from common.statistics.sums import Narrow, Sums

LARGEST_TENSOR = 1e6
"""Largest number that sites take in a network's weights and an optimiser's moments."""

_LARGEST = 16.0
"""Largest change in a secure sum; gradients are clipped to a norm of 5, and steps are short."""


@dataclass(frozen=True)
class Update(Sums):
    """Changes of weights, each site's times its weight in the average.

    Of one site a record holds the changes, in half precision; of several, their mean.

    Attributes
    ----------
    weight : () images seen by the sites, at most one for each that they have.
    loss : () mean training loss times weight.
    tensors : changes times weight, by name, of the shapes that
        :func:`common.finetune.plan.shapes` returns.
    most : what the weights of all sites may add up to, but for two images of each.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("weight", "loss")
    counted: ClassVar[str | None] = "weight"

    weight: Floats
    loss: Floats
    tensors: Mapping[str, Floats32]
    most: float

    @classmethod
    def of(
        cls, weight: float, loss: float, change: Mapping[str, Floats32], most: float = 1.0
    ) -> Self:
        """Weigh a site's mean loss and ``change``, by name, of the shapes that are known."""
        scaled = {name: np.asarray(np.float32(weight) * a) for name, a in change.items()}
        return cls(np.array(weight), np.array(weight * loss), scaled, most)

    @classmethod
    def zero(cls, shapes: Mapping[str, tuple[int, ...]], most: float = 1.0) -> Self:
        """Return the update of no sites."""
        zeros = {n: np.zeros(s, dtype=np.float32) for n, s in shapes.items()}
        return cls.of(0.0, 0.0, zeros, most)

    @property
    def share(self) -> Floats:
        """What the changes are times, ()."""
        return self.weight

    def __add__(self, other: Self) -> Self:
        theirs: dict[str, Any] = other.addends()
        return self._added({name: a + theirs[name] for name, a in self.addends().items()})

    def to_record(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by name: those of one number (), and changes of their own shapes."""
        return {**self._numbers(), **self._sent(self.changes())}

    def addends(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays that add up: those of one number (), and tensors of their shapes."""
        return {**self._numbers(), **self.tensors}

    def from_addends(self, addends: Mapping[str, NDArray[np.generic]]) -> Self:
        """Read ``addends``, in the same shapes."""
        self.check(addends, self.addends())
        return self._added(addends)

    def narrow(self, sites: int) -> Narrow:
        """Say how all tensors but mean squares go into a secure sum, by the round's size."""
        wide = (f"{SQUARES}/",)
        names = [name for name in self.tensors if dtype_of(name, wide) == "<f2"]
        most = _LARGEST * (self.most + 2 * sites)
        return Narrow(names, 30 - math.ceil(math.log2(most)), _LARGEST * float(self.share))

    def extra_bits(self, name: str) -> int:
        """Return 16 for mean squares, since steps divide by their roots, else 0."""
        return 16 if name.startswith(f"{SQUARES}/") else 0

    def changes(self) -> dict[str, Floats32]:
        """Return the weighted mean of the changes, in their own shapes; zeros without images."""
        if not self.share:
            return {name: np.zeros_like(a) for name, a in self.tensors.items()}
        return {name: self.change(name) for name in self.tensors}

    def change(self, name: str) -> Floats32:
        """Return a tensor's change in its own shape, not times the weight, which must not be 0."""
        return np.asarray(self.tensors[name] / self.share, np.float32)

    def mean(self) -> dict[str, Floats32]:
        """Return by how much the average moves, in their own shapes; zeros without images."""
        return self.changes()

    def _from_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        numbers, sent = self._split(arrays)
        none: Self = replace(self, tensors={}, **numbers)
        with np.errstate(over="ignore", invalid="ignore"):
            tensors = {n: np.float32(none.share) * a for n, a in self._received(sent).items()}
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise ReplyError(f"array '{name}' times the weight of {none.share:g} is no number")
        return replace(none, tensors=tensors)

    def _added(self, addends: Mapping[str, NDArray[np.generic]]) -> Self:
        numbers, tensors = self._split(addends)
        return replace(self, tensors=tensors, **numbers)

    def _sent(self, changes: Mapping[str, Floats32]) -> dict[str, NDArray[np.generic]]:
        return to_wire(changes)

    def _received(self, sent: Mapping[str, NDArray[np.generic]]) -> dict[str, Floats32]:
        return from_wire(sent)

    def _split(
        self, arrays: Mapping[str, NDArray[np.generic]]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Part what is one number, (), from what has the name of a tensor."""
        numbers = {name: arrays[name] for name in self._numbers()}
        return numbers, {n: a for n, a in arrays.items() if n not in numbers}

    def _numbers(self) -> dict[str, Floats]:
        """Return what is one number, (), by name."""
        others = ("tensors", "most")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in others}
