"""Whether a model still shows that it was trained on lesions that were withdrawn from it.

The membership attacks of an audit, on real models: lesions that were withdrawn, beside lesions of
the same site and diagnosis that no run has seen. Without that pairing an attack would tell sites
apart, or frequent diagnoses from rare ones, and call it membership.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.site import Records
from common.arrays import Bools, Floats, Ints
from common.data.dataset import Dataset
from common.data.metadata import beside
from common.features.extract import extract
from common.methods import METHODS
from common.models.file import Model
from common.models.linear import LinearModel, decision_values
from common.privacy.linear import group_means
from server.run.folder import read_metrics
from simulations.audit.membership import SHADOWS, halves, likelihood_ratio, log_odds
from simulations.audit.shadows import svm_fit
from simulations.audit.withdrawn import Compared, FinishedRun
from simulations.evaluation.bounded import Bounded
from simulations.evaluation.intervals import interval, resample
from simulations.evaluation.measures import RocCurve

CONFIDENCE = "confidence"
"""The log-odds that a model gives to a lesion's diagnosis: more, if it was trained on it."""

RATIO = "likelihood ratio"
"""LiRA: these log-odds beside those of shadow classifiers with and without the lesion."""

BEFORE, AFTER, REFERENCE = "before", "after", "from nothing"
MINUS = "before minus after"
BOTH = "what was lost from before to after"
"""Who has both models sees by it who was withdrawn."""

LEAST = 10
"""Withdrawn lesions from which on an interval says anything."""

_REPEATS = 1000


@dataclass(frozen=True)
class Figure:
    """The AUC of one attack on one model, or a difference of two; chance is 0.5, or 0.

    Attributes
    ----------
    value : mean over sites and diagnoses, weighted by withdrawn lesions, with a 95 % interval that
        is bootstrapped over lesions; without one where there are fewer than ``LEAST``.
    """

    attack: str
    model: str
    value: Bounded


@dataclass(frozen=True)
class Unlearning:
    """What the attacks found.

    Attributes
    ----------
    withdrawn, unseen : lesions compared, those that were withdrawn and those that no run saw.
    by_site : withdrawn ones by the site that the data name.
    alone : withdrawn ones without an unseen one of the same site and diagnosis, left out.
    shadows : classifiers behind the likelihood ratio; 0 where none can be had.
    """

    synthetic: bool
    withdrawn: int
    unseen: int
    by_site: Mapping[str, int]
    alone: int
    shadows: int
    figures: tuple[Figure, ...]

    @property
    def told_apart(self) -> list[str]:
        """The attacks that find the withdrawn lesions in the model after, their intervals say."""
        after = (figure for figure in self.figures if figure.model == AFTER)
        return [figure.attack for figure in after if figure.value.low > 0.5]


def attack_withdrawn(
    data: Path,
    before: Path,
    after: Path,
    reference: Path | None,
    cache: Path,
    weights: Sequence[Path] = (),
    shadows: int = SHADOWS,
) -> Unlearning:
    """Attack the models before and after lesions were withdrawn, and one that never saw them.

    Parameters
    ----------
    data : pooled data with the withdrawn lesions and others that no run has seen.
    before, after, reference : folders of runs; the last was trained from nothing.
    cache : folder of frozen features.
    weights : files among which the models' pretrained weights are found.
    shadows : how many shadow classifiers are trained where the head can be.

    Raises
    ------
    ConfigError
        If nothing was withdrawn, or the models do not fit each other.
    DataError
        If a run, its sites, or lesions to compare are missing.
    """
    named = {BEFORE: before, AFTER: after, **({REFERENCE: reference} if reference else {})}
    runs = {name: FinishedRun.open(path, weights) for name, path in named.items()}
    compared = Compared.find(data, runs[BEFORE], runs[AFTER], list(runs.values())[2:])
    attacks = {CONFIDENCE: {n: _confidence(r.model, compared, cache) for n, r in runs.items()}}
    if heads := _heads(runs):
        attacks[RATIO] = _ratios(heads, _c(runs[AFTER]), compared, cache, shadows)
    dataset, gone = compared.dataset, compared.withdrawn
    sources = dataset.sources[np.unique(dataset.lesions, return_index=True)[1]][gone]
    names, counts = np.unique(sources, return_counts=True)
    return Unlearning(
        synthetic=dataset.synthetic,
        withdrawn=int(gone.sum()),
        unseen=int((~gone).sum()),
        by_site=dict(zip(map(str, names), map(int, counts), strict=True)),
        alone=compared.alone,
        shadows=shadows if heads else 0,
        figures=tuple(
            figure
            for attack, scores in attacks.items()
            for figure in figures(attack, scores, gone, compared.stratum)
        ),
    )


def figures(
    attack: str, scores: Mapping[str, Floats], withdrawn: Bools, stratum: Ints
) -> list[Figure]:
    """Measure how well scores tell withdrawn lesions from the others of their stratum.

    Parameters
    ----------
    scores : by model, (m,); higher for lesions that seem to have been trained on.
    withdrawn : (m,) which lesions are; each stratum has some of both.
    stratum : (m,) number of each lesion's stratum.
    """
    # Both kinds are drawn within each stratum, so that all resamples have some of both.
    cell = 2 * stratum + withdrawn
    drawn = resample(cell, np.arange(len(cell)), seed=0, repeats=_REPEATS)
    weights = np.vstack([np.ones(len(cell)), drawn])
    areas = {name: _area(score, withdrawn, stratum, weights) for name, score in scores.items()}
    areas[MINUS] = areas[BEFORE] - areas[AFTER]
    if attack == CONFIDENCE:
        areas[BOTH] = _area(scores[BEFORE] - scores[AFTER], withdrawn, stratum, weights)
    sure = int(withdrawn.sum()) >= LEAST
    return [Figure(attack, name, _bounded(values, sure)) for name, values in areas.items()]


def _area(scores: Floats, withdrawn: Bools, stratum: Ints, weights: Floats) -> Floats:
    """Return the mean AUC (repeats,) over strata, weighted by their withdrawn lesions."""
    total = np.zeros(len(weights))
    for number in np.unique(stratum):
        own = stratum == number
        area = RocCurve.of(withdrawn[own], scores[own], weights[:, own]).area()
        total += withdrawn[own].sum() * area
    return np.asarray(total / withdrawn.sum())


def _bounded(values: Floats, sure: bool) -> Bounded:
    bounds = interval(values[1:]) if sure else (np.nan, np.nan)
    return Bounded(float(values[0]), *bounds)


def _confidence(model: Model, compared: Compared, cache: Path) -> Floats:
    lesions = compared.dataset.by_lesion
    scores = model.dataset_scores(compared.dataset, cache)
    return log_odds(group_means(scores, lesions.index), lesions.labels)


def _heads(runs: Mapping[str, FinishedRun]) -> dict[str, LinearModel]:
    """Return the models by name if shadows of all can be trained, else none.

    They can be of heads without noise, on the same features.
    """
    models = {name: run.model for name, run in runs.items()}
    noisy = any(METHODS[model.config.method].private for model in models.values())
    seen = {(model.config.feature_spec.key, model.config.metadata) for model in models.values()}
    heads = {name: model for name, model in models.items() if isinstance(model, LinearModel)}
    return heads if len(heads) == len(models) and len(seen) == 1 and not noisy else {}


def _ratios(
    heads: Mapping[str, LinearModel], c: float, compared: Compared, cache: Path, shadows: int
) -> dict[str, Floats]:
    """Return the likelihood ratios (m,) by model.

    The shadows are trained on what the later run rests on, and on half of the lesions compared.
    They have its feature map and ``c``, which have seen none of these.
    """
    after = heads[AFTER]
    own, kept = (_records(after, part, cache) for part in (compared.dataset, compared.kept))
    fit = svm_fit(after.config, after, _joined(own, kept), c)
    y, m = compared.dataset.by_lesion.labels, len(compared.withdrawn)
    members = halves(shadows, m, np.random.default_rng([after.config.seed, 6]))
    always = np.ones(len(compared.kept.by_lesion.sizes), dtype=np.bool_)
    margins = np.stack([log_odds(fit(np.append(half, always))[:m], y) for half in members])
    return {
        name: likelihood_ratio(members, margins, log_odds(_scores(model, own), y))
        for name, model in heads.items()
    }


def _c(run: FinishedRun) -> float:
    """Return the regularisation strength that a run chose; 0 for a head that has none."""
    if run.model.config.head != "svm":
        return 0.0
    return float(read_metrics(run.folder)["training"]["chosen"]["c"])


def _records(model: LinearModel, dataset: Dataset, cache: Path) -> Records:
    """Return the training views of all images, as sites make them but with all metadata."""
    features = extract(dataset, model.config.feature_spec, cache.expanduser(), progress=True)
    views = beside(features.train, model.numbers(dataset.images))
    n, each, size = views.shape
    index = dataset.by_lesion.index
    y, lesion, fold = (np.repeat(part, each) for part in (dataset.labels, index, np.zeros(n, int)))
    return Records(views.reshape(n * each, size), y, np.full(n * each, 1 / each), lesion, fold)


def _joined(first: Records, second: Records) -> Records:
    """Return both, the lesions of the second one numbered after those of the first."""
    moved = second.lesion + int(first.lesion.max()) + 1
    both = first, replace(second, lesion=moved)
    names = ("X", "y", "weight", "lesion", "fold")
    return Records(*(np.concatenate([getattr(part, name) for part in both]) for name in names))


def _scores(model: LinearModel, records: Records) -> Floats:
    """Return decision values (m, n_classes) of lesions, as shadows give them."""
    mapped = model.feature_map.apply(records.X)
    return decision_values(group_means(mapped, records.lesion), model.weights)
