"""Ages, sexes, places and skin tones as people write them, in the words that are counted.

A word is read as another only where its meaning is clear; all others stay as they are, and are
named. What cannot be told from one cell, the whole column decides.
"""

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from common.data.groups import FITZPATRICK, MILK10K, PLACES, SEXES
from common.data.tables.cells import present, word
from common.data.tables.findings import (
    AGE_IN_MONTHS,
    LOOSE_WORD,
    NOT_YEARS,
    ODD_TONE,
    UNLISTED_WORD,
    Findings,
)
from common.data.tables.layout import Record

SEX_WORDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("f", "w", "woman", "weiblich", "feminino", "femenino", "femme"), "female"),
        **dict.fromkeys(("man", "männlich", "maennlich", "masculino", "homme"), "male"),
    }
)
"""Sexes by the words for them in lower case; ``m`` depends on the other words of its column."""

PLACE_WORDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("head neck", "head and neck", "head & neck", "head neck face"), "head/neck"
        ),
        **dict.fromkeys(("palms soles", "palms and soles", "acral palms or soles"), "palms/soles"),
        **dict.fromkeys(("oral genital", "oral or genital", "oral and genital"), "oral/genital"),
        **dict.fromkeys(("upper limb", "upper extremities"), "upper extremity"),
        **dict.fromkeys(("lower limb", "lower extremities", "leg", "bein"), "lower extremity"),
        **dict.fromkeys(("genitalia", "genitals"), "genital"),
        **dict.fromkeys(("rumpf", "stamm"), "trunk"),
        **dict.fromkeys(("fuß", "fuss"), "foot"),
        "acral nos": "acral",
        "rücken": "back",
        "ruecken": "back",
        "gesicht": "face",
        "bauch": "abdomen",
        "brust": "chest",
        "hals": "neck",
        "kopfhaut": "scalp",
        "nase": "nose",
        "ohr": "ear",
        "lippe": "lip",
        "unterarm": "forearm",
        "oberschenkel": "thigh",
    }
)
"""Places by other words for them in lower case, with blanks for ``/``, ``-`` and ``_``.

After the terms of the ISIC archive and of MILK10k, and the German ones."""

# In Spanish, m is mujer and h is hombre.
_M_MAY_BE_A_WOMAN = frozenset(("h", "hombre", "mujer", "v", "varón", "varon"))
_ELDEST_MEDIAN = 120
"""In years: no table has older patients in the median, so it counts in something else."""
_LEAST_AGES = 3
_NUMBER = re.compile(r"\d{1,6}([.,]\d{1,6})?", re.ASCII)
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6"}
_TONE = re.compile(
    r"(?:fitzpatrick|fst|type|typ|skin type)?[ _-]*([0-9]|[ivx]+)(?:[.,]0+)?", re.ASCII
)


def legible(records: Iterable[Record], findings: Findings) -> list[Record]:
    """Return records with ages in years and with the words that are counted, as far as is clear."""
    rows = _in_years(list(records), findings)
    sex = _sexes(Counter(word(row.sex) for row in rows), findings)
    place = _places(Counter(word(row.localization) for row in rows), findings)
    return [
        row._replace(
            sex=sex.get(word(row.sex), row.sex),
            localization=place.get(word(row.localization), row.localization),
        )
        for row in rows
    ]


def skin_tone(record: Record, findings: Findings) -> str:
    """Return a record's skin tone as it is counted, "" where there is none or an unknown one."""
    scales = (
        (record.fitzpatrick, "fitzpatrick", FITZPATRICK),
        (record.skin_tone_class, "milk10k", MILK10K),
    )
    for cell, scale, tones in scales:
        text = present(cell).lower()
        match = _TONE.fullmatch(text)
        tone = f"{scale} {_ROMAN.get(match[1], match[1])}" if match else ""
        if tone in tones:
            return tone
        if text:
            findings.add(ODD_TONE, f"{cell} ({record.place})")
    return ""


def _in_years(rows: list[Record], findings: Findings) -> list[Record]:
    """Return rows with ages in years; where a column cannot hold years, none of its ages."""
    numbers = [
        float(text.replace(",", ".")) for row in rows if _NUMBER.fullmatch(text := present(row.age))
    ]
    if len(numbers) >= _LEAST_AGES and (median := statistics.median(numbers)) > _ELDEST_MEDIAN:
        findings.add(NOT_YEARS, f"{len(numbers)} ages with a median of {median:g}")
        rows = [row._replace(age="") for row in rows]
    return [_from_months(row, findings) for row in rows]


def _from_months(row: Record, findings: Findings) -> Record:
    text = present(row.age_months)
    if not text or present(row.age):
        return row
    if not _NUMBER.fullmatch(text):
        return row._replace(age=text)  # named as an age that is none
    findings.add_once(AGE_IN_MONTHS, "age_months")
    return row._replace(age=f"{float(text.replace(',', '.')) / 12:.2f}")


def _sexes(counts: Counter[str], findings: Findings) -> dict[str, str]:
    """Return what sexes of a column are read as, by the word for them."""
    clear_m = not _M_MAY_BE_A_WOMAN & counts.keys()
    known = {**SEX_WORDS, **({"m": "male"} if clear_m else {})}
    return _read_as("sex", counts, known, SEXES, findings)


def _places(counts: Counter[str], findings: Findings) -> dict[str, str]:
    """Return what places of a column are read as, by the word for them."""
    known = {text: place for text in counts if (place := _place(text))}
    return _read_as("localisation", counts, known, PLACES, findings)


def _place(text: str) -> str:
    words = " ".join(re.sub(r"[/_-]", " ", text).split())
    listed = {place.replace("/", " "): place for place in PLACES}
    return listed.get(words) or PLACE_WORDS.get(words, "")


def _read_as(
    what: str,
    counts: Counter[str],
    known: Mapping[str, str],
    listed: tuple[str, ...],
    findings: Findings,
) -> dict[str, str]:
    read = {text: known[text] for text in counts if text in known and text not in listed}
    findings.add(LOOSE_WORD, *(f"{what} {text} as {to}" for text, to in sorted(read.items())))
    unclear = sorted(counts.keys() - read.keys() - {*listed, "", "unknown", "other"})
    findings.add(UNLISTED_WORD, *(f"{what} {text} ({counts[text]} rows)" for text in unclear))
    return read
