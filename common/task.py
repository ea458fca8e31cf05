"""The diagnoses that models tell apart: their codes and full names."""

FULL_NAMES = {
    "akiec": "actinic keratosis or Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic naevus",
    "vasc": "vascular lesion",
}
"""By the codes of HAM10000."""

DIAGNOSES = tuple(FULL_NAMES)
"""The codes; a label is an index into this tuple."""

N_CLASSES = len(DIAGNOSES)

MALIGNANT = ("akiec", "bcc", "mel")
"""Codes of what is malignant; akiec, a precancer or a carcinoma in situ, is counted so too."""
