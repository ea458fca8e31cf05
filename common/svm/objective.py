"""The one-vs-rest linear SVM: its objective as a sum over records, and its solver.

For each class k, with targets t = +1 for its records and -1 for the others, sample
weights s, and an intercept that is regularised as one more weight (Fan et al.,
LIBLINEAR, JMLR 9, 2008, eq. 2; ``sklearn.svm.LinearSVC(dual=False)``)::

    f_k(w) = 1/2 |w|^2 + C sum_i s_i max(0, 1 - t_i w.[x_i, 1])^2

The sum and its gradient are all that leaves a site. Hessians do not leave a site: near convergence
two of them differ by one record, and the difference shows its features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from common.arrays import Bools, Floats, Ints
from common.statistics.lbfgs import Solution, minimise
from common.statistics.moments import Moments
from common.statistics.sums import Sums


@dataclass(frozen=True)
class HingeSums(Sums):
    """Squared hinge losses and gradients, summed over records.

    Attributes
    ----------
    loss : (n_fits, n_classes).
    gradient : (n_fits, n_classes, n_features + 1), the intercept's last.
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("loss",)

    loss: Floats
    gradient: Floats

    @classmethod
    def zero(cls, shape: tuple[int, int, int]) -> Self:
        """Return the sums over no records for weights of ``shape``."""
        return cls(np.zeros(shape[:2]), np.zeros(shape))


def with_intercept(X: Floats) -> Floats:
    """Append a column of ones to ``X`` (n, n_features): (n, n_features + 1)."""
    return np.hstack([X, np.ones((len(X), 1))])


def hinge_sums(
    X1: Floats, y: Ints, sample_weight: Floats, weights: Floats
) -> tuple[HingeSums, Bools]:
    """Evaluate several one-vs-rest fits on one site's records.

    Parameters
    ----------
    X1 : (n, n_features + 1) features with the column of ones.
    y : (n,) labels.
    sample_weight : (n_fits, n); zero leaves a record out of a fit.
    weights : (n_fits, n_classes, n_features + 1).

    Returns
    -------
    The sums, and which records are active, (n_fits, n, n_classes): inside the margin,
    with a weight, and so part of the gradient.
    """
    n_fits, n_classes, n_columns = weights.shape
    scores = (X1 @ weights.reshape(-1, n_columns).T).reshape(len(X1), n_fits, n_classes)
    targets = np.where(np.arange(n_classes) == y[:, None], 1.0, -1.0)[None]
    slack = np.maximum(1.0 - targets * scores.transpose(1, 0, 2), 0.0)
    weighted = sample_weight[:, :, None] * slack
    pull = (-2.0 * targets * weighted).transpose(0, 2, 1).reshape(n_fits * n_classes, len(X1))
    sums = HingeSums((weighted * slack).sum(axis=1), (pull @ X1).reshape(weights.shape))
    return sums, weighted > 0.0


def balanced_weights(class_weight: Floats) -> Floats:
    """Return the weight (n_classes,) of a record of each class that makes classes count alike.

    scikit-learn's ``class_weight="balanced"``, ``n / (n_classes n_k)``, meant for
    ``sample_weight``, so that it weighs a record in every one-vs-rest problem; classes
    without records get 0.

    Parameters
    ----------
    class_weight : (n_classes,) total weight of the records of each class.
    """
    present = class_weight > 0
    total = class_weight.sum() / present.sum()
    weights: Floats = np.divide(total, class_weight, out=np.zeros_like(class_weight), where=present)
    return weights


class Preconditioner:
    """The Hessian if every record were active, from the pooled moments alone.

    With balanced weights s_k the within-class scatter is taken as the pooled one; the
    classes' means, and so the scatter between them, are known exactly.

    Parameters
    ----------
    moments : the moments of all records.
    class_weights : (n_classes,) weight of a record of each class.
    """

    def __init__(self, moments: Moments, class_weights: Floats):
        count, total = moments.class_weight, moments.class_sum
        present = count > 0
        means = np.divide(total, count[:, None], out=np.zeros_like(total), where=present[:, None])
        centred = means - moments.mean
        within = moments.scatter() - (centred * count[:, None]).T @ centred
        balanced = count * class_weights
        within *= balanced.sum() / count.sum()
        means1 = with_intercept(means)
        hessian = (means1 * balanced[:, None]).T @ means1
        hessian[:-1, :-1] += within
        self._eigenvalues, self._basis = np.linalg.eigh(hessian)
        one_vs_rest = 2.0 * np.eye(len(count)) - 1.0
        self._pull = 2.0 * (one_vs_rest * balanced) @ means1

    def solve(self, gradients: Floats, c: float) -> Floats:
        """Return Newton steps for ``gradients`` (n, n_features + 1) at ``c``, in the same shape."""
        curvature = 1.0 + 2.0 * c * np.maximum(self._eigenvalues, 0.0)
        return np.asarray(((gradients @ self._basis) / curvature) @ self._basis.T)

    def start(self, c: float) -> Floats:
        """Return the least-squares solution, (n_classes, n_features + 1): a warm start."""
        return self.solve(c * self._pull, c)


def solve(
    ask: Callable[[Floats], HingeSums],
    start: Floats,
    preconditioner: Preconditioner,
    c: float,
    tolerance: float,
    max_rounds: int,
    report: Callable[[Floats, Floats], object] = lambda objectives, gradients: None,
) -> Solution:
    """Minimise the objective of every fit and class; each evaluation asks for sums once.

    Parameters
    ----------
    ask : maps weights (n_fits, n_classes, n_features + 1) to their sums over all records.
    start : weights of that shape.
    c : regularisation strength, the C of the objective.
    tolerance, max_rounds : as for :func:`common.statistics.lbfgs.minimise`.
    report : given the objectives (n_fits * n_classes,) and their gradients (n_fits * n_classes,
        n_features + 1) of each evaluation.
    """
    shape = start.shape

    def evaluate(flat: Floats) -> tuple[Floats, Floats]:
        sums = ask(flat.reshape(shape))
        value = 0.5 * np.einsum("ij,ij->i", flat, flat) + c * sums.loss.ravel()
        gradient = flat + c * sums.gradient.reshape(flat.shape)
        report(value, gradient)
        return value, gradient

    return minimise(
        evaluate,
        start.reshape(-1, shape[-1]),
        lambda g: preconditioner.solve(g, c),
        tolerance,
        max_rounds,
        turning=True,  # sums at dependent points give records away: client/egress refuses them
    )
