"""Which thresholds make which prediction sets, and what estimated frequencies are worth.

``python -m simulations.experiments.answers OUT`` reads the models and predictions of a finished
study in ``OUT`` and prints tables in Markdown, for each arm with prediction sets.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.answers.answering import Answering, AnswerOptions
from common.answers.basis import AnswerBasis
from common.answers.prediction_sets import sets
from common.answers.prevalence import disagreement, estimate, for_frequencies
from common.arrays import Floats, Ints
from common.errors import DataError
from common.formats import markdown_table
from common.models.file import load_model
from common.task import Task
from server.run.folder import MODEL_FILE
from simulations.study.cells import Arm
from simulations.study.judging.coverage import CROSSED, DIMENSIONS, coverage_by_group
from simulations.study.judging.predictions import Predictions
from simulations.study.report.tables.answers import least_covered
from simulations.study.training.schedule import finished
from simulations.study.training.train_cell import JOB_FILE, PREDICTIONS_FILE

_DRAWN = 400
"""Lesions that are drawn by class, to be as frequent as at a site."""

_KINDS = {
    "pooled": AnswerOptions(threshold="pooled"),
    "by class": AnswerOptions(threshold="class"),
    "by site": AnswerOptions(threshold="site"),
    "everywhere": AnswerOptions(threshold="everywhere"),
    "pooled, adaptive score": AnswerOptions(threshold="pooled", score="adaptive"),
    "by class, adaptive score": AnswerOptions(threshold="class", score="adaptive"),
    "everywhere, adaptive score": AnswerOptions(threshold="everywhere", score="adaptive"),
}
_OF_SITES = {"by site": "by site", "everywhere": "everywhere, site known"}
"""Thresholds that follow the site of an image, and what they are called then."""


@dataclass(frozen=True)
class Fold:
    """A model's answers rest on this basis, and it predicted these images."""

    basis: AnswerBasis
    kept: Predictions


def read(out: Path) -> dict[str, list[Fold]]:
    """Return the finished folds of a study by the names of its arms.

    Raises
    ------
    DataError
        If there are none.
    """
    arms: dict[str, list[Fold]] = defaultdict(list)
    for folder in sorted((out / "cells").glob("*")):
        if finished(folder):
            arm = Arm(*json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))["arm"])
            basis = load_model(folder / "run" / MODEL_FILE).basis
            arms[arm.name].append(Fold(basis, Predictions.load(folder / PREDICTIONS_FILE)))
    if not arms:
        raise DataError(f"{out} holds no finished cell of a study; name the folder of one")
    return arms


def thresholds_table(folds: Sequence[Fold]) -> str:
    """Return coverage and sizes of prediction sets by whose lesions their thresholds are from."""
    names = [*(name for name in _KINDS if name != "by site"), *_OF_SITES.values()]
    joined = {name: Predictions.join([_with_sets(fold, name) for fold in folds]) for name in names}
    smallest = _size(joined["pooled"])
    rows = (
        (name, *_set_cells(folds[0].basis.task, kept, smallest))
        for name, kept in joined.items()
        if not np.isnan(kept.inside).any()
    )
    header = ("thresholds", "coverage", "mean size", "times pooled", "one diagnosis only")
    return markdown_table((*header, *(f"least covered {d}" for d in (*DIMENSIONS, CROSSED))), rows)


def _set_cells(task: Task, kept: Predictions, smallest: float) -> Iterator[str]:
    share, size = kept.share / kept.share.sum(), _size(kept)
    covered = kept.inside[np.arange(len(share)), kept.label]
    single = share @ (kept.inside.sum(axis=1) == 1)
    yield from (f"{share @ covered:.3f}", f"{size:.2f}", f"{size / smallest:.2f}", f"{single:.0%}")
    yield from least_covered(task, coverage_by_group(task, kept))


def _size(kept: Predictions) -> float:
    return float(np.average(kept.inside.sum(axis=1), weights=kept.share))


def _with_sets(fold: Fold, name: str) -> Predictions:
    """Return a fold's predictions with the sets of other thresholds."""
    kind = next((kind for kind, known in _OF_SITES.items() if known == name), "")
    if not kind:
        return replace(fold.kept, inside=_inside(fold, _KINDS[name]))
    inside = np.zeros_like(fold.kept.inside)
    for site in np.unique(fold.kept.source):
        rows = fold.kept.source == site
        inside[rows] = _inside(fold, replace(_KINDS[kind], site=str(site)))[rows]
    return replace(fold.kept, inside=inside)


def _inside(fold: Fold, options: AnswerOptions) -> Floats:
    thresholds = Answering(fold.basis, options).thresholds()
    if thresholds is None:
        return np.full_like(fold.kept.inside, np.nan)
    return sets(fold.kept.probabilities, thresholds).astype(np.float64)


def prevalence_table(folds: Sequence[Fold], seed: int = 0) -> str:
    """Return how far estimated frequencies are from the true ones, and what they do to accuracy.

    Means over folds; one image of each lesion, by chance.
    """
    rng = np.random.default_rng(seed)
    alone = [Fold(f.basis, f.kept.select(_one_a_lesion(f.kept, rng))) for f in folds]
    sites = [str(site) for site in np.unique(alone[0].kept.source) if site]
    rows = [("all sites", *_judged([(f, np.arange(len(f.kept.label))) for f in alone]))]
    for site in sites:
        drawn = [(f, _as_frequent(f.kept, site, rng)) for f in alone]
        rows.append((f"all sites, drawn by class as frequent as at {site}", *_judged(drawn)))
    for site in sites:
        own = [(f, np.flatnonzero(f.kept.source == site)) for f in alone]
        rows.append((f"{site} itself", *_judged(own)))
    header = (
        "images",
        "training's frequencies are off by",
        "the estimate is off by",
        "the two estimates differ by",
        "accuracy before",
        "accuracy after",
    )
    return markdown_table(header, rows)


def _judged(chosen: Sequence[tuple[Fold, Ints]]) -> Iterator[str]:
    values = np.array([_estimated(fold, rows) for fold, rows in chosen])
    base, off, _, before, after = values.mean(axis=0)
    apart = values[:, 2]
    yield from (f"{base:.2f}", f"{off:.2f}", f"{apart.min():.2f} to {apart.max():.2f}")
    yield from (f"{before:.3f}", f"{after:.3f}")


def _estimated(fold: Fold, rows: Ints) -> tuple[float, float, float, float, float]:
    """Estimate the frequencies of some images, and judge that by their labels."""
    labels, p = fold.kept.label[rows], fold.kept.probabilities[rows]
    lesions = fold.basis.lesions
    base = lesions.lesions / lesions.lesions.sum()
    n_classes = len(base)
    true = np.bincount(labels, minlength=n_classes) / len(labels)
    found = estimate(p, base)
    called = np.bincount(p.argmax(axis=1), minlength=n_classes) / len(labels)
    adapted = for_frequencies(p, base, found.frequencies)
    return (
        _total_variation(base, true),
        _total_variation(found.frequencies, true),
        disagreement(found, called, lesions.confusion),
        float((p.argmax(axis=1) == labels).mean()),
        float((adapted.argmax(axis=1) == labels).mean()),
    )


def _total_variation(first: Floats, second: Floats) -> float:
    return float(np.abs(first - second).sum() / 2)


def _one_a_lesion(kept: Predictions, rng: np.random.Generator) -> Ints:
    order = rng.permutation(len(kept.lesion))
    return np.asarray(order[np.unique(kept.lesion[order], return_index=True)[1]])


def _as_frequent(kept: Predictions, site: str, rng: np.random.Generator) -> Ints:
    """Draw lesions of all sites whose diagnoses are as frequent as at one."""
    n_classes = kept.probabilities.shape[1]
    wanted = np.bincount(kept.label[kept.source == site], minlength=n_classes)
    there = np.maximum(np.bincount(kept.label, minlength=n_classes), 1)
    weight = (wanted / there)[kept.label]
    return rng.choice(len(kept.label), _DRAWN, p=weight / weight.sum())


def main(out: Path) -> None:
    """Print the tables of a study's arms."""
    for name, folds in read(out).items():
        if all(fold.basis.lesions.lesions.sum() for fold in folds):
            print(f"## {name}\n\n{thresholds_table(folds)}\n\n{prevalence_table(folds)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
