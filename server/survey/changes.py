"""What a site should change before a training, by rules on its counts."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from common.arrays import Ints
from common.data.groups import (
    COLUMNS,
    MISSING,
    NO_FILE,
    OTHER,
    SOUND,
    TOO_SMALL,
    TWIN,
    UNREADABLE,
    groups,
)
from common.data.pictures import LEAST_SIDE
from common.statistics.data_counts import IMAGES, DataCounts
from common.task import KNOWN, Task

ALL = "all sites"
"""What the sites together are called."""

_LEAST = 0.5
"""Share of the sites that have a column, from which on the others are told that they lack it."""

_DEFECTS = {
    NO_FILE: "that the table names are not there",
    UNREADABLE: "cannot be read",
    TOO_SMALL: f"are smaller than {LEAST_SIDE} pixels",
    TWIN: "are byte-identical to another",
}

_USES = {
    "lesion_id": "without it every image counts as a lesion of its own, in training and in test",
    "age": "figures by age leave the site out",
    "sex": "figures by sex leave the site out",
    "localization": "figures by localisation leave the site out",
    "patient_id": "with it, lesions of one patient stay on one side of a split",
}
"""What columns are for; of the others no site is told that it lacks them."""


class Changes(NamedTuple):
    """What is compared.

    Attributes
    ----------
    total : all sites' counts.
    by_site : each one's; none where sums are secure.
    sites : number of all sites.
    """

    task: Task
    total: DataCounts
    by_site: Mapping[str, DataCounts]
    sites: int


def changes(compared: Changes) -> dict[str, list[str]]:
    """Return what each site should change, by name; of secure sums what some site should."""
    if not compared.by_site:
        found = {ALL: [*_of_one(compared, compared.total), *_rare_columns(compared)]}
    else:
        found = {
            site: [
                *_of_one(compared, counts),
                *_columns(compared, counts),
                *_small(compared, counts),
            ]
            for site, counts in compared.by_site.items()
        }
    return {site: lines for site, lines in found.items() if lines}


def lacking(compared: Changes) -> dict[str, list[str]]:
    """Return the run's diagnoses of which a site names no image, by site; this is no fault."""
    codes = compared.task.codes
    found = {
        site: [codes[k] for k in np.flatnonzero(counts.diagnosis[IMAGES, : len(codes)] == 0)]
        for site, counts in (compared.by_site or {ALL: compared.total}).items()
    }
    return {site: missing for site, missing in found.items() if missing}


def _of_one(compared: Changes, counts: DataCounts) -> Iterator[str]:
    images = _named(groups("diagnosis", compared.task), counts.diagnosis)
    for code, number in images.items():
        if code in KNOWN and code not in compared.task.codes:
            yield (
                f"{number} images of {code}, {KNOWN[code].name}, which the run does not know: "
                f"add {code} to 'diagnoses', or say in 'mapping' as which it counts"
            )
    if number := images.get(OTHER, 0):
        yield (
            f"{number} images of a diagnosis that is in no list, which the site's own log names: "
            "map it in 'mapping', or correct the table"
        )
    if number := images.get(MISSING, 0):
        yield f"{number} images without a diagnosis: fill it in, or take the rows out"
    if number := _named(groups("localization", compared.task), counts.localization).get(OTHER, 0):
        yield (
            f"{number} images of a localisation that is in no list, which the site's own log "
            "names: correct the table, else they count as other"
        )
    for defect, number in _named(groups("defect", compared.task), counts.defect).items():
        if defect != SOUND:
            what = f"{number} images {_DEFECTS[defect]}"
            yield f"{what}: fedderm data check DIR at the site names them"


def _columns(compared: Changes, counts: DataCounts) -> Iterator[str]:
    for place, column in enumerate(COLUMNS):
        others = int(compared.total.columns[place])
        if column in _USES and not counts.columns[place] and others >= _LEAST * compared.sites:
            yield (
                f"no column '{column}', which {others} of {compared.sites} sites have: add it; "
                + (_USES[column])
            )


def _rare_columns(compared: Changes) -> Iterator[str]:
    for place, column in enumerate(COLUMNS):
        without = compared.sites - int(compared.total.columns[place])
        if column in _USES and 0 < without <= _LEAST * compared.sites:
            yield f"{without} of {compared.sites} sites have no column '{column}': {_USES[column]}"


def _small(compared: Changes, counts: DataCounts) -> Iterator[str]:
    names = groups("short_side", compared.task)[:-1]
    own, usual = (c.short_side[IMAGES, : len(names)] for c in (counts, compared.total))
    if own.any() and own.argmax() < usual.argmax():
        yield (
            f"most images have a shorter side of {names[own.argmax()]} pixels, most of all sites "
            f"{names[usual.argmax()]}: export them larger, or train all at the smaller size"
        )


def _named(names: tuple[str, ...], histogram: Ints) -> dict[str, int]:
    """Return the numbers of images of the groups that have any, by name."""
    numbers = histogram[IMAGES].tolist()
    return {name: number for name, number in zip(names, numbers, strict=False) if number}
