"""An optimiser's moments at a site: from one averaging to the next it goes on with its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from common.arrays import Floats32
from common.finetune.plan import CONTROL, Round
from common.storage.verified import Array

Tensors = dict[str, Floats32]

_CYCLE = "cycle"
_START = "start/"


@dataclass(frozen=True)
class Moments:
    """Moments by kind and parameter, in the shapes of :func:`common.finetune.plan.shapes`.

    Attributes
    ----------
    now : those that the next steps start from, in their own shapes.
    start : those that the coordinator sent when the cycle began, in the same shapes.
    """

    now: Mapping[str, Floats32]
    start: Mapping[str, Floats32]

    @classmethod
    def at(cls, this: Round, sent: Mapping[str, Floats32], kept: Mapping[str, Array]) -> Self:
        """Return the moments before a round.

        A site that was not there when the cycle began has none, which is zeros.

        Parameters
        ----------
        sent : tensors of the round's question, in their own shapes.
        kept : what :meth:`to_keep` returned in an earlier round, in the same shapes.
        """
        if this.begins:
            moments = {n: a for n, a in sent.items() if "/" in n and not n.startswith(CONTROL)}
            return cls(moments, moments)
        if int(kept.get(_CYCLE, -1)) != this.cycle:
            return cls({}, {})
        start = {n.removeprefix(_START): a for n, a in kept.items() if n.startswith(_START)}
        return cls({name: kept[name] for name in start}, start)

    def after(self, now: Mapping[str, Floats32]) -> "Moments":
        """Return the moments after a round: ``now``, by all their names, in their own shapes."""
        start = {n: self.start[n] if n in self.start else np.zeros_like(a) for n, a in now.items()}
        return Moments(now, start)

    def to_keep(self, this: Round) -> dict[str, Array]:
        """Return what the cycle's next round needs, by name, in their own shapes."""
        start = {_START + name: a for name, a in self.start.items()}
        return {_CYCLE: np.array(this.cycle), **self.now, **start}

    def change(self) -> Tensors:
        """Return how far they have moved since the cycle began, in their own shapes."""
        return {
            name: np.asarray(now - self.start[name], np.float32, order="C")
            for name, now in self.now.items()
        }
