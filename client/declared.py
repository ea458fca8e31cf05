"""Every record that may leave a site, by name, shape and type; nothing else does.

``docs/privacy.md`` and ``docs/deployment.md`` say what each tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from common.dataset import DIAGNOSES
from common.metrics import CALIBRATION_BINS, SCORE_BINS
from common.secure import KEY, PEERS, UNMASK

AS_ASKED = "as asked"
"""Name of the arrays that have names, shapes and types of the question's."""

MASKED = "masked"
"""Name of the arrays of which the coordinator can learn only a sum over sites."""


@dataclass(frozen=True)
class Array:
    """What an array must look like.

    Attributes
    ----------
    shape : sizes, or the names of those that differ between runs.
    dtype : as NumPy writes it.
    counts : whether it holds numbers of images.
    """

    shape: tuple[int | str, ...]
    dtype: Literal["<f8", "<f4", "<i8"] = "<f8"
    counts: bool = False


Arrays = Mapping[str, Array]
_K = len(DIAGNOSES)


def _moments(size: str) -> Arrays:
    return {
        "class_weight": Array((_K,), counts=True),
        "class_sum": Array((_K, size)),
        "gram": Array((f"triangle of {size}",)),
    }


_CALIBRATION: Arrays = {
    "count": Array((), "<i8", counts=True),
    "loss": Array(()),
    "gradient": Array((2, _K)),
    "curvature": Array((3, _K)),
}
_EVALUATION: Arrays = {
    "confusion": Array((_K, _K), "<i8", counts=True),
    "scores": Array((_K, 2, SCORE_BINS), "<i8", counts=True),
    "calibration": Array((2, CALIBRATION_BINS), "<i8", counts=True),
    "confidence": Array((CALIBRATION_BINS,)),
    "brier": Array((1,)),
    "log_loss": Array((1,)),
}
_WEIGHTS: Arrays = {"weight": Array((), counts=True), "loss": Array(())}
_UPDATE: Arrays = {**_WEIGHTS, AS_ASKED: Array((), "<f4")}


def _noisy(*shape: int | str) -> Arrays:
    return {"values": Array(shape, "<i8")}


SUMS: Mapping[str, Mapping[str, Arrays]] = {
    "svm": {
        "moments": _moments("features"),
        "prepare": {},
        "mapped_moments": _moments("outputs"),
        "hinge": {"loss": Array(("fits", _K)), "gradient": Array(("fits", _K, "outputs + 1"))},
        "calibrate": _CALIBRATION,
        "evaluate": _EVALUATION,
    },
    "finetune": {
        "counts": {"images": Array((_K,), "<i8", counts=True)},
        "train": _UPDATE,
        "calibrate": _CALIBRATION,
        "evaluate": _EVALUATION,
    },
    "private": {
        "overview": _noisy("classes and dimensions"),
        "gradient": _noisy(_K, "dimensions + 1"),
        "moments": _noisy("classes' sums and triangle of dimensions"),
        "evaluate": _EVALUATION,
    },
    "private_finetune": {
        "overview": _noisy(_K),
        "gradient": _noisy("weights"),
        "evaluate": _EVALUATION,
    },
}
"""The arrays of each question of each method."""

MASKS: Arrays = {MASKED: Array(("values",), "<i8")}
"""What leaves in their place in a secure sum."""

VALUES: Mapping[str, Mapping[str, type]] = {
    "join": {
        "site": str,
        "classes": list,
        "n_features": int,
        "features": str,
        "images": int,
        "lesions": int,
        "synthetic": bool,
        "test_counts": bool,
        "fingerprint": str,
    },
    KEY: {"key": bytes, "signature": bytes},
    PEERS: {"round": int, "members": list, "threshold": int},
    UNMASK: {"seed": bytes, "parts": list},
    MASKED: {"envelopes": list, "seal": bytes},
    "refused": {"refused": str, "site": str},
}
"""The plain values of each question; those of any other that is answered are none."""

COUNTED_VALUES = ("images", "lesions")
"""Plain values that are numbers of images; a private site leaves them empty."""


def names() -> set[str]:
    """Return the names of all records."""
    arrays = {name for method in SUMS.values() for each in method.values() for name in each}
    values = {name for each in VALUES.values() for name in each}
    return arrays | values | set(MASKS)
