"""Shadow classifiers: a run's method and settings, on some of its lesions."""

import numpy as np

from client.site import Records
from common.arrays import Bools, Floats, Ints
from common.config.run import RunConfig
from common.models.linear import LinearModel
from common.privacy.linear import group_means
from common.statistics.moments import Moments, lda, ridge
from common.svm.objective import (
    HingeSums,
    Preconditioner,
    balanced_weights,
    hinge_sums,
    solve,
    with_intercept,
)
from simulations.audit.membership import Fit
from simulations.audit.recorded_training import AllSites, rehearse

_TOLERANCE = 1e-3
"""Gradient norm that ends a shadow's solver: that at which a run chooses C."""


def private_fit(config: RunConfig, units: AllSites) -> Fit:
    """Return how classifiers of method private are trained on some of the units."""
    X1 = with_intercept(units.X)

    def fit(members: Bools) -> Floats:
        learned, _ = rehearse(config, units.select(members))
        return np.asarray(X1 @ learned.weights.T + learned.offset)

    return fit


def svm_fit(config: RunConfig, model: LinearModel, records: Records, c: float) -> Fit:
    """Return how classifiers of method svm are trained on some of the lesions.

    The feature map is the run's own, made from all lesions: shadows are of the head alone.

    Parameters
    ----------
    records : views of the lesions, which are numbered from 0.
    c : regularisation strength, where the head is an SVM.
    """
    Z = model.feature_map.apply(records.X)
    lesions = with_intercept(group_means(Z, records.lesion))

    def fit(members: Bools) -> Floats:
        own = members[records.lesion]
        X, y, weight = Z[own], records.y[own], records.weight[own]
        return np.asarray(lesions @ _head(config, X, y, weight, c).T)

    return fit


def _head(config: RunConfig, X: Floats, y: Ints, weight: Floats, c: float) -> Floats:
    """Return the weights (n_classes, d + 1) of a classifier, the intercepts last."""
    moments = Moments.measure(X, y, weight, config.task.n_classes)
    if config.head != "svm":
        solved = ridge(moments, config.penalty) if config.head == "ridge" else lda(moments)
        return np.hstack([solved[0], solved[1][:, None]])
    classes = balanced_weights(moments.class_weight)
    X1, sample_weight = with_intercept(X), (classes[y] * weight)[None]

    def ask(weights: Floats) -> HingeSums:
        return hinge_sums(X1, y, sample_weight, weights)[0]

    preconditioner = Preconditioner(moments, classes)
    start = preconditioner.start(c)[None]
    return solve(ask, start, preconditioner, c, _TOLERANCE, config.max_rounds).x
