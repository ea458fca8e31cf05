"""q-FedAvg: sites that a network serves worse pull more, by sums that sites make themselves.

Li, Sanjabi, Beirami, Smith, "Fair resource allocation in federated learning", ICLR 2020, algorithm
2. There the coordinator gets each device's loss F and change; here a site sends the terms of both
sums, of which no more than the totals is needed::

    w  +=  sum F^q (w_k - w)  /  sum (F^q + q F^(q-1) L |w_k - w|^2)

That is the algorithm's step with L, which is in every term, divided out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats, Floats32
from common.finetune.update import Update
from common.statistics.sums import Narrow

_LEAST_LOSS = 1e-10
"""As in the authors' program: a power below 0 of no loss at all is infinite."""


class Pull(NamedTuple):
    """How much a site's change counts, F^q, and how much it shortens the step of all."""

    pull: float
    damping: float

    @classmethod
    def of(cls, q: float, loss: float, lipschitz: float, squared_length: float) -> Self:
        """Compute a site's terms.

        Parameters
        ----------
        q : at least 0; with 0 all sites pull alike, and nothing is shortened.
        loss : F, mean over the site's images before its steps; at least 0.
        lipschitz : L, one over the learning rate, where a step is the rate times the gradient.
        squared_length : of the site's change.
        """
        loss = max(loss, _LEAST_LOSS)
        return cls(loss**q, q * loss ** (q - 1) * lipschitz * squared_length)


@dataclass(frozen=True)
class FairUpdate(Update):
    """Changes of tensors, each site's times its pull.

    They stay in single precision: pulls have any size.

    Attributes
    ----------
    pull : () sum of F^q.
    damping : () sum of q F^(q-1) L |change|^2.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("weight", "loss", "pull", "damping")

    pull: Floats
    damping: Floats

    @classmethod
    def pulled(
        cls, weight: float, loss: float, change: Mapping[str, Floats32], pull: Pull
    ) -> "FairUpdate":
        """Return a site's update.

        Parameters
        ----------
        weight : images seen; a site without any pulls nothing.
        loss : mean training loss.
        change : by name, of the shapes in :func:`common.finetune.plan.shapes`.
        """
        strength = pull.pull if weight else 0.0
        tensors = {name: np.asarray(np.float32(strength) * a) for name, a in change.items()}
        damping = pull.damping if weight else 0.0
        return cls(
            weight=np.array(weight),
            loss=np.array(weight * loss),
            tensors=tensors,
            most=0.0,
            pull=np.array(strength),
            damping=np.array(damping),
        )

    @classmethod
    def zero(cls, shapes: Mapping[str, tuple[int, ...]], most: float = 0.0) -> "FairUpdate":
        """Return the update of no sites."""
        zeros = {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}
        return cls.pulled(0.0, 0.0, zeros, Pull(0.0, 0.0))

    @property
    def share(self) -> Floats:
        """What the changes are times, ()."""
        return self.pull

    def mean(self) -> dict[str, Floats32]:
        """Return the step of the weights, and the mean of moments, by name and in their shapes.

        Moments are no steps: they are averaged by pull, which keeps mean squares positive.
        """
        shortened = self.pull / (self.pull + self.damping) if self.pull else 0.0
        return {
            name: np.asarray(a if "/" in name else a * np.float32(shortened))
            for name, a in self.changes().items()
        }

    def narrow(self, sites: int) -> Narrow:
        """Say that no array has fewer bits in a secure sum."""
        return Narrow()

    def _sent(self, changes: Mapping[str, Floats32]) -> dict[str, NDArray[np.generic]]:
        return dict(changes)

    def _received(self, sent: Mapping[str, NDArray[np.generic]]) -> dict[str, Floats32]:
        return {name: np.asarray(a, np.float32) for name, a in sent.items()}
