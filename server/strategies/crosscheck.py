"""Which sites' changes the other sites vouch for: the rule for sites that are not alike.

Where sites differ, an honest change looks as odd as a false one, so distances between changes tell
little. What a change does at other sites tells more. Each site's weights after a round go to all
sites without a name. A site counts how well each tells apart the diagnoses of its own images,
two at a time. Only diagnoses that the change's site says it has are compared, since nobody learns
what it has never seen. The coordinator divides by what the median site's change does on the same
pairs and takes the median over the sites that count.

That other sites judge a change is due to Zhao et al., "Shielding collaborative learning: mitigating
poisoning attacks through client-side detection", IEEE Transactions on Dependable and Secure
Computing 2021.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.arrays import Bools, Floats, Ints
from common.errors import ReplyError
from common.finetune.crosscheck import MOST_IMAGES, PairCounts

LEAST_SKILL = 0.5
"""Of a change that is trusted, as a share of the median one's: half of it."""

_LEAST_CLAIM = 3
"""Fewest training images of a class that a change must have learnt something of."""

_TOLD_APART = 0.6
"""Least share that the median change tells apart of a pair of classes that is compared."""


@dataclass(frozen=True)
class Verdict:
    """What the sites say of each other's changes, by site.

    Attributes
    ----------
    skill : what each tells apart beyond chance, over what the median one does; NaN where fewer
        sites can say so than the rule needs.
    """

    skill: Mapping[str, float]

    @property
    def suspects(self) -> list[str]:
        """The sites whose changes tell apart too little."""
        return [site for site, skill in self.skill.items() if skill < LEAST_SKILL]

    @property
    def unjudged(self) -> list[str]:
        """The sites of whose changes too few could say anything; none if that is most of them.

        A hostile site that claims a single class is among them. At a run's begin all may be.
        """
        found = [site for site, skill in self.skill.items() if np.isnan(skill)]
        return found if 2 * len(found) < len(self.skill) else []


def check_counts(answer: PairCounts, images: int) -> None:
    """Refuse counts that no site with so many images has.

    Raises
    ------
    ReplyError
        If candidates have other images, or more of them are right than there are.
    """
    of_class = np.diagonal(answer.right, axis1=1, axis2=2)
    if (of_class != of_class[:1]).any() or of_class[0].sum() > images:
        raise ReplyError("array 'right' is not of the same images for all candidates")
    if of_class.max() > MOST_IMAGES or (answer.right > of_class[:, :, None]).any():
        raise ReplyError("array 'right' counts more images than there are")


def judge(
    names: Sequence[str],
    claims: Mapping[str, Ints],
    counts: Mapping[str, PairCounts],
    hostile: int,
) -> Verdict:
    """Judge changes by what sites count about them.

    Parameters
    ----------
    names : the sites of the changes, in the order of the counts.
    claims : each site's training images of each class, (n_classes,), by its own word.
    counts : by the site that counted.
    hostile : how many sites may lie; one more than twice as many others must have counted.
    """
    rates = np.stack([answer.rates() for answer in counts.values()], axis=1)
    for i, name in enumerate(names):
        claimed = claims[name] >= _LEAST_CLAIM
        rates[i, :, ~claimed] = np.nan
        rates[i, :, :, ~claimed] = np.nan
        if name in counts:
            rates[i, list(counts).index(name)] = np.nan  # nobody judges itself
    skill = _skill(rates)
    voters = (~np.isnan(skill)).sum(axis=1)
    median = _median(skill, axis=1)
    found = np.where(voters > 2 * hostile, median, np.nan)
    return Verdict(dict(zip(names, found.tolist(), strict=True)))


def _skill(rates: Floats) -> Floats:
    """Return each site's word (n_changes, n_sites) on each change; NaN where it has none.

    Parameters
    ----------
    rates : (n_changes, n_sites, n_classes, n_classes) shares that are told apart.
    """
    typical = _median(rates, axis=0)
    weight = np.where(typical >= _TOLD_APART, typical - 0.5, 0.0)
    known: Bools = ~np.isnan(rates)
    own = np.where(known, weight * (rates - 0.5), 0).sum(axis=(2, 3))
    whole = np.where(known, weight**2, 0).sum(axis=(2, 3))
    return np.asarray(np.divide(own, whole, out=np.full_like(own, np.nan), where=whole > 0))


def _median(values: Floats, axis: int) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of what is NaN throughout
        return np.asarray(np.nanmedian(values, axis=axis))
