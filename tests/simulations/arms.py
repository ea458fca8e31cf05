"""Arms whose quality is chosen, for what is said of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.task import HAM10000
from simulations.study.cells import Arm
from simulations.study.comparison import compared
from simulations.study.cost import RouteCost
from simulations.study.definition import Study
from simulations.study.findings import Findings
from simulations.study.judging.judge import Judge
from simulations.study.judging.judged import JudgedArm
from simulations.study.judging.predictions import Predictions

N_CLASSES = len(HAM10000.codes)

STUDY = {
    "scales": [0.1, 1.0],
    "margin": 0.05,
    "realtime": 0.1,
    "routes": {
        "svm": {},
        "net": {"method": "finetune"},
        "secret": {"method": "private", "epsilon": 3},
    },
    "spreads": {
        "pooled": {"scheme": "pooled"},
        "natural": {"scheme": "natural"},
        "alone": {"scheme": "alone"},
    },
    "arms": [{"route": "svm", "spreads": ["pooled", "natural", "alone"]}],
}


def _predictions(seed: int, hits: float, lesions: int, classes: int, answers: bool) -> Predictions:
    """Draw lesions of one or two images, the same for every `hits`, and what is said of them."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 3, lesions)
    lesion = np.repeat(np.arange(lesions), sizes)
    label = (np.arange(lesions) % classes)[lesion]
    luck = rng.random(len(label))
    predicted = np.where(luck < hits, label, (label + 1) % classes)
    chances = np.full((len(label), N_CLASSES), 0.05)
    chances[np.arange(len(label)), predicted] += 1 - 0.05 * N_CLASSES
    names, none = lesion.astype(str), np.full(len(label), np.nan)
    inside = (chances > 0.05).astype(float)
    return Predictions(
        image=names,
        lesion=names,
        source=np.full(len(label), "a"),
        sex=np.where(lesion % 2, "female", "male"),
        localization=np.full(len(label), "back"),
        age=none,
        label=label,
        predicted=predicted,
        probabilities=chances,
        inside=inside if answers else np.full_like(inside, np.nan),
        inside_pooled=inside,
        flagged=np.full((len(label), 2), np.nan),
        distance=np.full(len(label), 1.0) if answers else none,
    )


def make_arm(
    route: str,
    hits: float,
    lesions: int = 120,
    folds: int = 2,
    spread: str = "pooled",
    site: str = "",
    scale: float = 1.0,
    seconds: float = 1.0,
    classes: int = 3,
    answers: bool = True,
) -> JudgedArm:
    """Return an arm that is right about a share of its images, and trained for some seconds.

    Its sets hold what it predicts; without ``answers`` it has none.
    """
    judge = Judge(HAM10000, 0, 400)
    found = {fold: _predictions(fold, hits, lesions, classes, answers) for fold in range(folds)}
    resampled = {fold: judge.measure(fold, said) for fold, said in found.items()}
    cells = {fold: _cell(seconds) for fold in found}
    arm = Arm(route, spread, site, scale)
    return JudgedArm(arm, HAM10000, cells, found, resampled, {}, {}, [])


def make_findings(arms: Sequence[JudgedArm], latency: Mapping[str, float]) -> Findings:
    """Return what a study would find with these arms."""
    study = Study.model_validate(STUDY)
    costs = {
        route: RouteCost(0.01, {1: seconds, 32: 20 * seconds}, 10**6, 10**7)
        for route, seconds in latency.items()
    }
    about = {
        "data": "data",
        "images": 100,
        "lesions": 80,
        "synthetic": False,
        "fingerprint": "0",
        "versions": {"python": "3"},
        "machine": "a machine",
    }
    return Findings(study, about, [arm.result() for arm in arms], compared(study, arms), costs)


def _cell(seconds: float) -> dict[str, Any]:
    spent = {"wall": seconds, "reading": 0.0, "training": seconds, "waiting": 0.0}
    return {
        "training": {"images": 100, "lesions": 80},
        "sites": 1,
        "cores": 1,
        "left_out": {},
        "seconds": spent,
        "peak_memory": 10**8,
        "rounds": 10,
        "bytes_up": 1000,
        "bytes_down": 2000,
    }
