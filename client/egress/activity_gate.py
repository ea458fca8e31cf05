"""A site's rule on a sum: how many lesions must be active in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import Reason, RefusalError
from common.statistics.sums import Sums

_FOLD_SHARE = 1 / 3


@dataclass(frozen=True)
class Gate:
    """Least numbers of active lesions.

    Under secure sums each site compares the counts summed over all sites; the coordinator does not
    see them.

    Attributes
    ----------
    size : number of counts.
    fits : how many counts, from the first, are of a whole fit; the others are of one fold in a fit.
    min_active : least number of lesions of a fit; of a fold a third as many must be active,
        because fits with and without it can be subtracted.
    """

    size: int = 0
    fits: int = 0
    min_active: int = 0

    def check(self, counts: Sequence[int]) -> None:
        """Compare counts.

        Raises
        ------
        RefusalError
            If one is too small.
        """
        in_fit = min(counts[: self.fits], default=self.min_active)
        # A fold of which none are active adds nothing, and nothing is found by taking it away.
        in_fold = min((count for count in counts[self.fits :] if count), default=in_fit)
        least = math.ceil(self.min_active * _FOLD_SHARE)
        if in_fit < self.min_active or in_fold < least:
            # How many there are is not for the coordinator, who may ask until it knows whose.
            raise RefusalError(
                Reason.FEW,
                f"fewer than {self.min_active} lesions, or of one fold fewer than {least}, are "
                "active in one of the problems; their sum would not hide each of them",
            )


OPEN = Gate()
"""A gate that everything passes."""


@dataclass(frozen=True)
class Gated:
    """Sums that may leave only where counts pass a gate.

    Attributes
    ----------
    counts : numbers of active lesions of this site.
    """

    sums: Sums
    gate: Gate = OPEN
    counts: tuple[int, ...] = ()
