"""Every record that may leave a site, by name, shape and type; nothing else does.

``docs/privacy.md`` and ``docs/deployment.md`` say what each tells.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from client.egress.questions import Asked
from client.site import Site
from common.data.dataset import DIAGNOSES
from common.privacy.lda import moments_size
from common.statistics.metrics import CALIBRATION_BINS, SCORE_BINS
from common.wire.secure_sums import KEY, PEERS, UNMASK

AS_ASKED = "as asked"
"""Name of the arrays that have names, shapes and types of the question's."""

MASKED = "masked"
"""Name of the arrays of which the coordinator can learn only a sum over sites."""

Shape = Callable[[Site, Asked], tuple[int, ...]]


@dataclass(frozen=True)
class Array:
    """What an array must look like.

    Attributes
    ----------
    shape : sizes, or the function that makes them of settings and question alone.
    dtype : as NumPy writes it.
    counts : whether it holds numbers of images.
    """

    shape: tuple[int, ...] | Shape
    dtype: Literal["<f8", "<f4", "<i8"] = "<f8"
    counts: bool = False

    def sizes(self, site: Site, asked: Asked) -> tuple[int, ...]:
        """Return the shape in numbers."""
        return self.shape(site, asked) if callable(self.shape) else self.shape


Arrays = Mapping[str, Array]
_K = len(DIAGNOSES)


def _features(site: Site, _: Asked) -> int:
    return site.n_features


def _outputs(site: Site, _: Asked) -> int:
    return site.config.fourier if site.config.kernel == "rbf" else site.n_components


def _dimensions(site: Site, _: Asked) -> int:
    return min(site.config.projection, site.n_features)


def _sized(size: Callable[[Site, Asked], int], shape: Callable[[int], tuple[int, ...]]) -> Shape:
    return lambda site, asked: shape(size(site, asked))


def _like_weights(dimensions: int) -> Shape:
    """Return the shape of the weights that came with a question, its first ``dimensions``."""
    return lambda _, asked: asked.arrays["weights"].shape[:dimensions]


def _moments(size: Callable[[Site, Asked], int]) -> Arrays:
    return {
        "class_weight": Array((_K,), counts=True),
        "class_sum": Array(_sized(size, lambda n: (_K, n))),
        "gram": Array(_sized(size, lambda n: (n * (n + 1) // 2,))),
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


def _noisy(shape: tuple[int, ...] | Shape) -> Arrays:
    return {"values": Array(shape, "<i8")}


SUMS: Mapping[str, Mapping[str, Arrays]] = {
    "svm": {
        "moments": _moments(_features),
        "prepare": {},
        "mapped_moments": _moments(_outputs),
        "hinge": {"loss": Array(_like_weights(2)), "gradient": Array(_like_weights(3))},
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
        "overview": _noisy(_sized(_dimensions, lambda d: (_K + d,))),
        "gradient": _noisy(_like_weights(2)),
        "moments": _noisy(_sized(_dimensions, lambda d: (moments_size(d, _K),))),
        "evaluate": _EVALUATION,
    },
    "private_finetune": {
        "overview": _noisy((_K,)),
        "gradient": _noisy(_like_weights(1)),
        "evaluate": _EVALUATION,
    },
}
"""The arrays of each question of each method."""


def masks(length: int) -> Arrays:
    """Return what leaves in their place in a secure sum."""
    return {MASKED: Array((length,), "<i8")}


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
    return arrays | values | {MASKED}
