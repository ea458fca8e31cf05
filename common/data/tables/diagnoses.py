"""What published tables call a diagnosis, and which task the diagnoses of a table make.

Sources: the descriptions of HAM10000 (Sci Data 5:180161), of the ISIC challenges 2018 and 2019, of
PAD-UFES-20 (Data in Brief 32:106221), and the terms of the ISIC archive. HAM10000 counts Bowen's
disease as ``akiec``, and solar lentigo and lichenoid keratosis as ``bkl``; other tables' rows are
read alike.
"""

from collections.abc import Mapping
from types import MappingProxyType

from common.task import KNOWN

SYNONYMS: Mapping[str, str] = MappingProxyType(
    {
        **{code: code for code in KNOWN},
        **dict.fromkeys(
            (
                "ak",
                "ack",
                "actinic keratosis",
                "actinic keratoses",
                "solar or actinic keratosis",
                "bowen's disease",
                "bowen disease",
                "squamous cell carcinoma in situ",
                "squamous cell carcinoma in situ, bowen's disease",
            ),
            "akiec",
        ),
        **dict.fromkeys(("basal cell carcinoma",), "bcc"),
        **dict.fromkeys(
            (
                "sek",
                "benign keratosis",
                "seborrheic keratosis",
                "seborrhoeic keratosis",
                "pigmented benign keratosis",
                "solar lentigo",
                "lichenoid keratosis",
                "lichen planus like keratosis",
            ),
            "bkl",
        ),
        **dict.fromkeys(("dermatofibroma",), "df"),
        **dict.fromkeys(
            ("melanoma", "melanoma, nos", "melanoma in situ", "melanoma invasive"), "mel"
        ),
        **dict.fromkeys(
            (
                "nev",
                "nevus",
                "naevus",
                "melanocytic nevus",
                "melanocytic nevi",
                "melanocytic naevus",
            ),
            "nv",
        ),
        **dict.fromkeys(
            (
                "vascular lesion",
                "hemangioma",
                "angioma",
                "angiokeratoma",
                "pyogenic granuloma",
            ),
            "vasc",
        ),
        **dict.fromkeys(
            (
                "squamous cell carcinoma",
                "squamous cell carcinoma, nos",
                "squamous cell carcinoma, invasive",
            ),
            "scc",
        ),
    }
)
"""Codes by what tables call them, in lower case."""


def code_of(text: str, codes: Mapping[str, str] = SYNONYMS) -> str:
    """Return the code of a diagnosis as a table writes it, "" where none is known.

    Parameters
    ----------
    codes : codes by the words for them in lower case.
    """
    words = " ".join(text.replace("_", " ").replace("\u2019", "'").lower().split())
    return codes.get(words) or codes.get(text.strip().lower(), "")
