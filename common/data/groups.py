"""The groups that federated statistics count images in: closed lists, whatever a table holds.

No text of a table becomes the name of a group. What is in no list counts as "other", so that an
unknown word, which may be a name or a remark, stays at its site.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from common.arrays import Ints
from common.data.image import Image
from common.task import KNOWN, Task

OTHER, MISSING, NOT_READ = "other", "missing", "not read"
SMALL = "small groups together"
"""The last group of each list: those of too few lesions to leave a site by themselves."""

_SIDES = (64, 128, 224, 300, 450, 600, 1000, 2000)
_SHARPNESS = (1, 4, 16, 64, 256, 1024)
DECADES = tuple(range(10, 100, 10))
"""Ages in years at which a group begins, after the first."""
_BRIGHTNESS = tuple(round(0.1 * step, 1) for step in range(1, 10))

SEXES = ("female", "male")
# Those of HAM10000, of the ISIC archive and of PAD-UFES-20.
PLACES = (
    *("abdomen", "acral", "anterior torso", "arm", "back", "chest", "ear", "face", "foot"),
    *("forearm", "genital", "hand", "head/neck", "lateral torso", "lip", "lower extremity", "neck"),
    *("nose", "oral/genital", "palms/soles", "posterior torso", "scalp", "thigh", "torso"),
    *("trunk", "upper extremity"),
)
# Fitzpatrick's types as PAD-UFES-20 and the ISIC archive have them, I as 1; MILK10k's run from 0,
# very dark, to 5, very light. One scale is no other: they are counted side by side.
FITZPATRICK = tuple(f"fitzpatrick {number}" for number in range(1, 7))
MILK10K = tuple(f"milk10k {number}" for number in range(6))
# How a diagnosis was confirmed, in HAM10000's words; the ISIC archive's count as the same.
CONFIRMATIONS = ("confocal", "consensus", "follow_up", "histo")
_SAME: Mapping[str, str] = MappingProxyType(
    {
        "confocal microscopy with consensus dermoscopy": "confocal",
        "single image expert consensus": "consensus",
        "serial imaging showing no change": "follow_up",
        "histopathology": "histo",
    }
)
SOUND, NO_FILE, UNREADABLE, TOO_SMALL, TWIN = (
    "sound",
    "no file",
    "unreadable",
    "under 64 pixels",
    "byte-identical to another",
)
COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "lesion_id": "lesion_id",
        "patient_id": "patient_id",
        "dx": "dx",
        "dx_type": "dx_type",
        "age": "age",
        "sex": "sex",
        "localization": "localization",
        "dataset": "source",
        "split": "split",
        "skin_tone": "skin_tone",
    }
)
"""The columns of a table that are looked for, and the attribute of an image that holds each."""


def between(edges: Sequence[float], step: float = 0) -> tuple[str, ...]:
    """Name what lies between edges; whole numbers end one ``step`` below the next edge."""
    inside = (f"{low:g} to {high - step:g}" for low, high in pairwise(edges))
    return (f"under {edges[0]:g}", *inside, f"{edges[-1]:g} or more")


_LISTS: Mapping[str, tuple[str, ...]] = {
    "age": ("0 to 9", *(f"{a} to {a + 9}" for a in DECADES[:-1]), "90 or more", MISSING),
    "sex": (*SEXES, OTHER, MISSING),
    "localization": (*PLACES, OTHER, MISSING),
    "dx_type": (*CONFIRMATIONS, OTHER, MISSING),
    "skin_tone": (*FITZPATRICK, *MILK10K, MISSING),
    "short_side": (*between(_SIDES, 1), NOT_READ),
    "brightness": (*between(_BRIGHTNESS), NOT_READ),
    "sharpness": (*between(_SHARPNESS), NOT_READ),
    "defect": (SOUND, NO_FILE, UNREADABLE, TOO_SMALL, TWIN),
}


def listed(histogram: str) -> tuple[str, ...]:
    """Return the names of a histogram's groups that depend on no task, but for `SMALL`."""
    return _LISTS[histogram]


HISTOGRAMS: Mapping[str, str] = MappingProxyType(
    {
        "diagnosis": "Diagnosis",
        "age": "Age in years",
        "sex": "Sex",
        "localization": "Localisation",
        "skin_tone": "Skin tone, as the table has it",
        "short_side": "Shorter side in pixels",
        "brightness": "Brightness (mean grey value, 0 black to 1 white)",
        "sharpness": "Sharpness (variance of the Laplacian at 224 pixels)",
        "defect": "Defects of images",
    }
)
"""The histograms by name, with the title of each."""


def diagnoses(task: Task) -> tuple[str, ...]:
    """Return the diagnoses that are counted apart: a run's, then others that are known."""
    return (*task.codes, *(code for code in KNOWN if code not in task.codes), OTHER, MISSING)


def groups(histogram: str, task: Task) -> tuple[str, ...]:
    """Return the names of a histogram's groups, in order, but for the last, `SMALL`."""
    return diagnoses(task) if histogram == "diagnosis" else listed(histogram)


_EDGES: Mapping[str, tuple[float, ...]] = {
    "age": DECADES,
    "short_side": _SIDES,
    "brightness": _BRIGHTNESS,
    "sharpness": _SHARPNESS,
}


def group_of(histogram: str, value: str | float | None, task: Task) -> int:
    """Return the number of the group that a value is in.

    Parameters
    ----------
    value : a text of the table or a number, as the histogram's title says; None if there is none.
    """
    names = groups(histogram, task)
    if value is None or value in ("", "unknown"):
        return len(names) - 1
    if not isinstance(value, str):
        return int(np.searchsorted(_EDGES[histogram], value, side="right"))
    text = _SAME.get(value.lower(), value.lower())
    if histogram == "diagnosis":
        text = task.mapped(value) or task.mapped(text) or text
    listed = text in names and text not in (OTHER, MISSING)
    return names.index(text if listed else OTHER if OTHER in names else MISSING)


def table_values(image: Image) -> dict[str, str | float | None]:
    """Return what a row says, by the name of the histogram that counts it."""
    return {
        "diagnosis": image.dx,
        "age": image.age,
        "sex": image.sex,
        "localization": image.localization,
        "skin_tone": image.skin_tone,
    }


def filled(image: Image) -> list[bool]:
    """Tell for each of `COLUMNS` whether a row has a value in it."""
    return [getattr(image, name) not in (None, "", "unknown") for name in COLUMNS.values()]


def unlisted(images: Sequence[Image], task: Task) -> Counter[tuple[str, str]]:
    """Count the texts of a table that are in no list, by histogram and text: for its site alone."""
    return Counter(
        (histogram, str(value))
        for image in images
        for histogram, value in table_values(image).items()
        if groups(histogram, task)[group_of(histogram, value, task)] == OTHER
    )


def numbers(histogram: str, values: Sequence[str | float | None], task: Task) -> Ints:
    """Return the numbers (n,) of the groups of n values."""
    return np.array([group_of(histogram, value, task) for value in values], dtype=np.int64)
