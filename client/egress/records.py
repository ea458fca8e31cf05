"""The arrays that may leave a site, by name, shape and type.

Those of each method are in :mod:`client.egress.allowlist`. ``docs/privacy.md`` and
``docs/deployment.md`` say what each tells.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from client.counts.group_weights import balanced_groups
from client.egress.questions import Question
from client.site import Site
from common.answers.appearance import SIZE, DistanceCounts
from common.answers.operating import targets_of
from common.answers.paired import Said
from common.statistics.metrics import CALIBRATION_BINS, SCORE_BINS
from common.wire.secure_sums import KEY, PEERS, UNMASK

TENSORS = "tensors"
"""Name of the function that declares the arrays whose names depend on settings and question."""

MASKED = "masked"
"""Name of the arrays of which the coordinator can learn only a sum over sites."""

Shape = Callable[[Site, Question], tuple[int, ...]]


@dataclass(frozen=True)
class Array:
    """What an array must look like.

    Attributes
    ----------
    shape : sizes, or the function that computes them from settings and question alone.
    dtype : as NumPy writes it.
    counts : whether it holds numbers of images.
    groups : whether these are of groups of lesions, none of which may be smaller than the
        operator's least number of lesions.
    by_group : whether the first axis is groups of lesions. The counts of each add up to that least
        number or to 0, and all is 0 in those of which the array of lesions, `groups`, has none.
    """

    shape: tuple[int, ...] | Shape
    dtype: Literal["<f8", "<f4", "<f2", "<i8"] = "<f8"
    counts: bool = False
    groups: bool = False
    by_group: bool = False

    def sizes(self, site: Site, question: Question) -> tuple[int, ...]:
        """Return the shape in numbers."""
        return self.shape(site, question) if callable(self.shape) else self.shape


Arrays = Mapping[str, Array]
Declared = Mapping[str, Array | Callable[[Site, Question], Arrays]]


def arrays_of(declared: Declared, site: Site, question: Question) -> Arrays:
    """Return all arrays that are declared for a question's answer."""
    arrays: dict[str, Array] = {}
    for name, each in declared.items():
        arrays |= {name: each} if isinstance(each, Array) else each(site, question)
    return arrays


def like_weights(dimensions: int) -> Shape:
    """Return the shape of the weights that came with a question, its first ``dimensions``."""
    return lambda _, question: question.arrays["weights"].shape[:dimensions]


def noisy(shape: tuple[int, ...] | Shape) -> Arrays:
    """Return the declaration of a sum of whole numbers with noise."""
    return {"values": Array(shape, "<i8")}


def by_class(shape: Callable[[int], tuple[int, ...]]) -> Shape:
    """Return a shape that depends on the number of classes of the run's task."""
    return lambda site, _: shape(site.config.task.n_classes)


def _screening(site: Site, _: Question) -> tuple[int, ...]:
    return (len(targets_of(site.config.task)), 2, SCORE_BINS)


def _grouped(shape: Shape) -> Shape:
    """Return a shape for each of the run's groups."""
    return lambda site, question: (site.config.counted_groups.size, *shape(site, question))


def _patient_groups(site: Site, _: Question) -> tuple[int, ...]:
    groups = site.config.patient_groups
    return (groups.counted.size if groups else 0,)


def _gate_groups(site: Site, _: Question) -> tuple[int, ...]:
    return (site.config.gate_groups.size,)


_SQUARE = by_class(lambda k: (k, k))
_HISTOGRAMS = by_class(lambda k: (k, 2, SCORE_BINS))

COUNTS: Arrays = {"images": Array(by_class(lambda k: (k,)), "<i8", counts=True)}
GROUP_IMAGES: Arrays = {
    "images": Array(
        lambda site, _: (site.config.task.n_classes, balanced_groups(site).size),
        "<i8",
        counts=True,
        groups=True,
    )
}
CALIBRATION: Arrays = {
    "count": Array((), "<i8", counts=True),
    "loss": Array(()),
    "gradient": Array(by_class(lambda k: (2, k))),
    "curvature": Array(by_class(lambda k: (3, k))),
}
EVALUATION: Arrays = {
    "confusion": Array(_SQUARE, "<i8", counts=True),
    "scores": Array(_HISTOGRAMS, "<i8", counts=True),
    "calibration": Array((2, CALIBRATION_BINS), "<i8", counts=True),
    "confidence": Array((CALIBRATION_BINS,)),
    "brier": Array((1,)),
    "log_loss": Array((1,)),
}
ANSWERS: Arrays = {
    "probability": Array(_HISTOGRAMS, "<i8", counts=True),
    "cumulative": Array(_HISTOGRAMS, "<i8", counts=True),
    "screening": Array(_screening, "<i8", counts=True),
    "confidence": Array((2, SCORE_BINS), "<i8", counts=True),
    "confusion": Array(_SQUARE, "<i8", counts=True),
}
GROUPS: Arrays = {
    "lesions": Array(_grouped(lambda *_: ()), "<i8", counts=True, groups=True, by_group=True),
    "confusion": Array(_grouped(_SQUARE), "<i8", counts=True, by_group=True),
    "screening": Array(_grouped(_screening), "<i8", counts=True, by_group=True),
    "calibration": Array(
        _grouped(lambda *_: (2, CALIBRATION_BINS)), "<i8", counts=True, by_group=True
    ),
    "confidence": Array(_grouped(lambda *_: (CALIBRATION_BINS,)), by_group=True),
}
SCREENING: Arrays = {
    "lesions": Array(_patient_groups, "<i8", counts=True, groups=True, by_group=True),
    "screening": Array(
        lambda site, question: (*_patient_groups(site, question), *_screening(site, question)),
        "<i8",
        counts=True,
        by_group=True,
    ),
}
_PAIRS = by_class(lambda k: (k, 2, 2))
PAIRS: Arrays = {name: Array(_PAIRS, "<i8", counts=True) for name in Said._fields}
GROUP_PAIRS: Arrays = {
    "lesions": Array(_gate_groups, "<i8", counts=True, groups=True, by_group=True),
    **{
        name: Array(
            lambda site, question: (*_gate_groups(site, question), *_PAIRS(site, question)),
            "<i8",
            counts=True,
            by_group=True,
        )
        for name in Said._fields
    },
}
APPEARANCE: Mapping[str, Arrays] = {
    "appearance": {
        "class_weight": Array((1,), counts=True),
        "class_sum": Array((1, SIZE)),
        "gram": Array((SIZE * (SIZE + 1) // 2,)),
    },
    "distances": {"counts": Array(DistanceCounts.zero().counts.shape, "<i8", counts=True)},
}


def masks(length: int) -> Arrays:
    """Return the declaration of the masked values that replace all arrays in a secure sum."""
    return {MASKED: Array((length,), "<i8")}


VALUES: Mapping[str, Mapping[str, type]] = {
    "join": {
        "site": str,
        "classes": list,
        "others": list,
        "n_features": int,
        "features": str,
        "images": int,
        "lesions": int,
        "synthetic": bool,
        "smaller_images": bool,
        "unknown_lesions": bool,
        "metadata": list,
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
