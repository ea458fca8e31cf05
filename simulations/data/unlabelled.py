"""Sites of which some lesions, or all, have no diagnosis."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from common.arrays import Ints
from common.data.dataset import Dataset
from common.data.splits import TEST
from common.errors import ConfigError


def read_shares(texts: Iterable[str], sites: Iterable[str]) -> dict[str, float]:
    """Read shares of lesions by site, as ``site=0.5``; one without a name is that of every site.

    Raises
    ------
    ConfigError
        If there is no such site, or a share is none.
    """
    known: list[str] = list(sites)
    shares: dict[str, float] = {}
    for text in texts:
        name, equals, share = text.rpartition("=")
        names = [name] if equals else known
        if unknown := [each for each in names if each not in known]:
            raise ConfigError(f"there is no site {unknown[0]!r}; the sites are {', '.join(known)}")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise ConfigError(f"'{text}' is no share of a site; write SITE=0.5, or 0.5 for all")
        shares |= dict.fromkeys(names, value)
    return shares


def without_labels(
    dataset: Dataset, parts: Mapping[str, Ints], shares: Mapping[str, float], seed: int
) -> Dataset:
    """Return a dataset with splits in which some training lesions have no diagnosis.

    Of each site and diagnosis the same share; test lesions keep theirs.

    Parameters
    ----------
    parts : numbers of images (n_images,) by site.
    shares : of the training lesions, in [0, 1], by site.
    """
    images = list(dataset.images)
    for site, share in sorted(shares.items()):
        rng = np.random.default_rng([seed, 6, *site.encode()])
        train = parts[site][dataset.splits[parts[site]] != TEST]
        lesions = np.unique(dataset.by_lesion.index[train])
        for label in np.unique(dataset.by_lesion.labels[lesions]):
            own = lesions[dataset.by_lesion.labels[lesions] == label]
            blank = rng.choice(own, round(len(own) * share), replace=False)
            for i in train[np.isin(dataset.by_lesion.index[train], blank)]:
                images[i] = replace(images[i], dx="")
    return replace(dataset, images=tuple(images))
