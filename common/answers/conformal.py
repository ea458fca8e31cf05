"""Conformal prediction: thresholds of prediction sets, from histograms that add.

Sites count their calibration lesions by the score of their own diagnosis. From the added counts
follow thresholds, and from a threshold the set of an image: at least the stated share of new
lesions has its diagnosis in its set, whatever the model, if new lesions come as the calibration
lesions did. Scores are rounded to their bins in calibration and prediction alike, so that the
promise is exact; the sets are larger than without rounding, by at most one bin of scores.
"""

import math
from dataclasses import replace

import numpy as np

from common.answers.prediction_sets import Score, Thresholds, widest
from common.arrays import Floats, Ints
from common.errors import ConfigError
from common.statistics.metrics import score_edges

SITE_PRIOR, CLASS_PRIOR = 50.0, 20.0
"""Pooled lesions that count beside a site's own, and beside a class's, as `everywhere` measures."""

_ROUNDING = 1e-12


def lesions_needed(coverage: float) -> int:
    """Return the least number of calibration lesions that can promise a coverage: 19 for 95 %.

    With fewer, new lesions score worse than all of them more often than the coverage allows.

    Raises
    ------
    ConfigError
        If the coverage is not between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"the coverage is {coverage:g}; choose one above 0 and below 1")
    return math.ceil(coverage / (1 - coverage) * (1 - _ROUNDING))


def pooled(histograms: Ints, coverage: float, score: Score) -> Thresholds:
    """Return one threshold for all classes, which holds over all lesions together.

    Parameters
    ----------
    histograms : (n_classes, SCORE_BINS) calibration lesions by the score of their class.
    coverage : share of new lesions whose set is to hold their diagnosis, in (0, 1).
    score : which score was counted.

    Raises
    ------
    ConfigError
        If the coverage is not between 0 and 1, or there are too few lesions for it.

    References
    ----------
    Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005: n lesions and the new
    one are exchangeable, so that the new one's score is among the best (n + 1) coverage of them
    with at least that probability.
    """
    n_classes, n = len(histograms), int(histograms.sum())
    _refuse_impossible(n, coverage)
    value = strictest_threshold(histograms.sum(axis=0), coverage * (n + 1), n_classes, score)
    return Thresholds(
        score,
        np.full(n_classes, value),
        coverage,
        np.full(n_classes, n),
        np.zeros(n_classes, dtype=np.bool_),
    )


def by_class(histograms: Ints, coverage: float, score: Score, prior: float = 0.0) -> Thresholds:
    """Return a threshold for each class, which holds among the lesions of that class.

    A class with too few lesions has the pooled threshold, and no guarantee of its own.

    Parameters
    ----------
    histograms : (n_classes, SCORE_BINS) calibration lesions by the score of their class.
    coverage, score : as for `pooled`.
    prior : how many pooled lesions count beside a class's own, at least 0. Then a class with n is
        promised ``coverage - (1 - coverage) * prior / n``, and rare classes have smaller sets.

    Raises
    ------
    ConfigError
        As for `pooled`.

    References
    ----------
    Vovk, "Conditional validity of inductive conformal predictors", ACML 2012 (label-conditional).
    """
    whole, lesions = pooled(histograms, coverage, score), histograms.sum(axis=1)
    few = lesions < lesions_needed(coverage)
    own = _shrunk(histograms, histograms, prior, coverage, score)
    return Thresholds(
        score,
        np.where(few, whole.values, own),
        coverage,
        np.where(few, whole.lesions, lesions),
        few,
    )


def by_site(
    site: Ints, histograms: Ints, coverage: float, score: Score, prior: float = SITE_PRIOR
) -> Thresholds:
    """Return a threshold for one site, shrunk towards the pooled one.

    A site with n lesions has n / (n + prior) of the say, and is promised ``coverage -
    (1 - coverage) * prior / n``; one without lesions has the pooled threshold.

    Parameters
    ----------
    site : (SCORE_BINS,) the site's calibration lesions, of all classes.
    histograms : (n_classes, SCORE_BINS) those of all sites, this one too.
    coverage, score : as for `pooled`.
    prior : how many pooled lesions count beside the site's own, at least 0.

    Raises
    ------
    ConfigError
        As for `pooled`.
    """
    whole, n_classes, n = pooled(histograms, coverage, score), len(histograms), int(site.sum())
    if not n:
        return whole
    value = _shrunk(site, histograms, prior, coverage, score)
    return replace(whole, values=np.full(n_classes, value), lesions=np.full(n_classes, n))


def everywhere(
    histograms: Ints, coverage: float, score: Score, site: Ints | None = None
) -> Thresholds:
    """Return thresholds that cover each class and, besides, all lesions or those of a site.

    Classes and site are shrunk by `CLASS_PRIOR` and `SITE_PRIOR`; a set holds what is in either's.
    docs/predict.md has what this costs and reaches.

    Parameters
    ----------
    histograms : (n_classes, SCORE_BINS) calibration lesions by the score of their class.
    coverage, score : as for `pooled`.
    site : (SCORE_BINS,) those of the site that asks; None where it is not known.

    Raises
    ------
    ConfigError
        As for `pooled`.
    """
    of_classes = by_class(histograms, coverage, score, CLASS_PRIOR)
    if site is None:
        return widest(of_classes, pooled(histograms, coverage, score))
    return widest(of_classes, by_site(site, histograms, coverage, score))


def for_prevalence(
    histograms: Ints, prevalence: Floats, coverage: float, score: Score
) -> Thresholds:
    """Return thresholds that hold where classes have other frequencies.

    They are compared with the model's own probabilities, not with those moved to the new
    frequencies. A class is always in the set where the place of use has it and no calibration
    lesion does; it then has no guarantee that could be measured.

    Parameters
    ----------
    histograms : (n_classes, SCORE_BINS) calibration lesions by the score of their class.
    prevalence : (n_classes,) frequencies where the model is used, which sum to 1. The lesions of a
        class must look the same there.
    coverage, score : as for `pooled`.

    Returns
    -------
    Thresholds that differ by class, since a new lesion has the weight of the class that it might
    be; ``lesions`` is the effective number (Kish).

    Raises
    ------
    ConfigError
        If the coverage is not between 0 and 1, or there are no calibration lesions for it.

    References
    ----------
    Tibshirani, Barber, Candes, Ramdas, "Conformal prediction under covariate shift", NeurIPS 2019,
    lemma 3; Podkopaev, Ramdas, "Distribution-free uncertainty quantification for classification
    under label shift", UAI 2021.
    """
    n_classes, lesions = len(histograms), histograms.sum(axis=1)
    _refuse_impossible(int(lesions.sum()), coverage)
    absent = (lesions == 0) & (prevalence > 0)
    # A lesion of its class weighs so much, be it a calibration lesion or the new one.
    weight = np.where(lesions > 0, prevalence, 0.0) / np.maximum(lesions, 1)
    total = float(weight @ lesions)
    needed = np.where(absent, np.inf, coverage * (total + weight))
    weighted = np.broadcast_to(weight @ histograms, histograms.shape)
    effective = total**2 / (weight**2 @ lesions) if total else 0.0
    return Thresholds(
        score,
        strictest_threshold(weighted, needed, n_classes, score),
        coverage,
        np.full(n_classes, int(effective * (1 + _ROUNDING))),
        absent,
    )


def _refuse_impossible(n: int, coverage: float) -> None:
    if n < lesions_needed(coverage):
        raise ConfigError(
            f"a coverage of {100 * coverage:g} % needs {lesions_needed(coverage)} calibration "
            f"lesions and there are {n}; "
            + (f"ask for at most {math.floor(1000 * n / (n + 1)) / 10:g} %" if n else "add some")
        )


def _shrunk(own: Ints, histograms: Ints, prior: float, coverage: float, score: Score) -> Floats:
    """Return thresholds (...) of lesions that ``prior`` ones from all are added to.

    Parameters
    ----------
    own : (..., SCORE_BINS) counts.
    histograms : (n_classes, SCORE_BINS) counts of all lesions.
    """
    everyone = histograms.sum(axis=0)
    joined = own + prior * everyone / everyone.sum()
    # The new lesion counts as one of these, and as one of all in the prior's share.
    needed = coverage * (own.sum(axis=-1) + 1 + prior * (1 + 1 / everyone.sum()))
    return strictest_threshold(joined, needed, len(histograms), score)


def strictest_threshold(
    histograms: Ints | Floats, needed: Floats | float, n_classes: int, score: Score
) -> Floats:
    """Return the strictest thresholds (...) that keep a weight, the loosest where none does.

    Parameters
    ----------
    histograms : (..., SCORE_BINS) weight of the lesions by score.
    needed : (...) weight that has to be kept.
    n_classes : number of classes, which the bins depend on.
    score : which score was counted.
    """
    edges = score_edges(n_classes)
    if score == "probability":
        best_first, limits = histograms[..., ::-1], np.append(edges[::-1], 0.0)
    else:
        # A bin does not hold its upper edge.
        best_first, limits = histograms, np.append(np.nextafter(edges, 0.0), 1.0)
    kept = np.cumsum(best_first, axis=-1)
    enough = kept >= np.asarray(needed)[..., None] * (1 - _ROUNDING)
    return np.asarray(limits[np.where(enough.any(axis=-1), enough.argmax(axis=-1), -1)])
