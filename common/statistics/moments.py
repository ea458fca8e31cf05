"""Class-wise counts, sums and the Gram matrix: all that scaling, PCA, ridge and LDA need."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats, Ints
from common.statistics.sums import Sums

_CHUNK = 4096  # rows converted to float64 at a time, so that memory stays flat
_RESOLUTION = 1e-10  # of a variance, relative to the mean's square or to the largest


@dataclass(frozen=True)
class Moments(Sums):
    """First and second moments of weighted records.

    Attributes
    ----------
    class_weight : (n_classes,) total weight of each class's records.
    class_sum : (n_classes, n_features) weighted sum of each class's features.
    gram : (n_features * (n_features + 1) / 2,) upper triangle of the weighted
        sum of ``x x^T``, row by row (symmetric, so half the bytes suffice).
    """

    nonnegative: ClassVar[tuple[str, ...]] = ("class_weight",)
    counted: ClassVar[str | None] = "class_weight"

    class_weight: Floats
    class_sum: Floats
    gram: Floats

    @classmethod
    def zero(cls, n_classes: int, n_features: int) -> Self:
        """Return the moments of no records."""
        return cls(
            np.zeros(n_classes),
            np.zeros((n_classes, n_features)),
            np.zeros(n_features * (n_features + 1) // 2),
        )

    @classmethod
    def measure(cls, X: NDArray[np.floating], y: Ints, weights: Floats, n_classes: int) -> Self:
        """Sum over records ``X`` (n, n_features) with labels ``y`` (n,) and ``weights`` (n,)."""
        n_features = X.shape[1]
        class_sum = np.zeros((n_classes, n_features))
        gram = np.zeros((n_features, n_features))
        for start in range(0, len(X), _CHUNK):
            rows = slice(start, start + _CHUNK)
            x = X[rows].astype(np.float64)
            one_hot = np.eye(n_classes)[y[rows]] * weights[rows, None]
            class_sum += one_hot.T @ x
            x *= np.sqrt(weights[rows, None])
            gram += x.T @ x
        class_weight = np.bincount(y, weights=weights, minlength=n_classes).astype(np.float64)
        return cls(class_weight, class_sum, gram[np.triu_indices(n_features)])

    @property
    def weight(self) -> float:
        """Total weight of all records."""
        return float(self.class_weight.sum())

    @property
    def mean(self) -> Floats:
        """Weighted mean of the features, (n_features,)."""
        return np.asarray(self.class_sum.sum(axis=0) / self.weight)

    def second(self) -> Floats:
        """Return the weighted sum of ``x x^T``, (n_features, n_features)."""
        n_features = self.class_sum.shape[1]
        upper = np.zeros((n_features, n_features))
        upper[np.triu_indices(n_features)] = self.gram
        return np.asarray(upper + np.triu(upper, 1).T)

    def scatter(self) -> Floats:
        """Return the weighted sum of ``(x - mean)(x - mean)^T``, (n_features, n_features)."""
        return self.second() - self.weight * np.outer(self.mean, self.mean)

    def mapped(self, mean: Floats, matrix: Floats) -> Self:
        """Return the moments of ``z = (x - mean) @ matrix`` without seeing the records.

        Parameters
        ----------
        mean : (n_features,); it must be this object's own mean.
        matrix : (n_features, n_mapped).
        """
        class_sum = (self.class_sum - np.outer(self.class_weight, mean)) @ matrix
        second = matrix.T @ self.scatter() @ matrix
        return type(self)(self.class_weight, class_sum, second[np.triu_indices(len(second))])


def standard_deviation(moments: Moments) -> Floats:
    """Return each feature's standard deviation, (n_features,), 1 where it is constant.

    As scikit-learn's ``StandardScaler``, but a feature is constant where its deviation is
    below 1e-5 of its mean: sums of squares over 40,000 records resolve no less.
    """
    variance = np.diag(moments.scatter()) / moments.weight
    constant = variance <= _RESOLUTION * moments.mean**2
    return np.where(constant, 1.0, np.sqrt(np.maximum(variance, 0.0)))


def ridge(moments: Moments, alpha: float) -> tuple[Floats, Floats]:
    """Solve ridge regression onto targets -1 and +1, one problem a class.

    Equals ``sklearn.linear_model.RidgeClassifier(alpha)`` on the same records.

    Returns
    -------
    coefficients (n_classes, n_features) and intercepts (n_classes,).
    """
    scatter = moments.scatter()
    scatter[np.diag_indices_from(scatter)] += alpha
    # sum of (x - mean) * target: the targets' mean drops out because x is centred.
    covariance = 2 * (moments.class_sum - np.outer(moments.class_weight, moments.mean))
    coefficients = np.linalg.solve(scatter, covariance.T).T.astype(np.float64)
    target_mean = 2 * moments.class_weight / moments.weight - 1
    return coefficients, target_mean - coefficients @ moments.mean


def lda(moments: Moments) -> tuple[Floats, Floats]:
    """Solve linear discriminant analysis with the classes' frequencies as priors.

    Equals ``LinearDiscriminantAnalysis(solver="lsqr")`` on the same records (Hastie,
    Tibshirani, Friedman, The Elements of Statistical Learning, eq. 4.10). A class without
    records has zeros: scikit-learn has no row for it.

    Returns
    -------
    coefficients (n_classes, n_features) and intercepts (n_classes,).
    """
    present = moments.class_weight > 0
    count = moments.class_weight[present]
    means = moments.class_sum[present] / count[:, None]
    centred = means - moments.mean
    within = (moments.scatter() - (centred * count[:, None]).T @ centred) / moments.weight
    coefficients = np.zeros_like(moments.class_sum)
    coefficients[present] = np.linalg.lstsq(within, means.T, rcond=_RESOLUTION)[0].T
    intercepts = np.zeros_like(moments.class_weight)
    halves = 0.5 * np.sum(means * coefficients[present], axis=1)
    intercepts[present] = np.log(count / moments.weight) - halves
    return coefficients, intercepts
