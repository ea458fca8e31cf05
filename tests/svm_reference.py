"""What an SVM's features are made of before it, in scikit-learn's terms."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def signed_root(X: NDArray[np.floating]) -> Floats:
    """Return features with roots of the last level's 1,280, what `power=0.5` makes of them."""
    last = X[:, -1280:].astype(np.float64)
    return np.asarray(np.hstack([X[:, :-1280], np.sign(last) * np.sqrt(np.abs(last))]))


def evening(variances: Floats, share: float, components: int) -> Floats:
    """Return factors of components: one over the root of their variance and a share of the mean.

    Of few records scikit-learn leaves out the components without variance.
    """
    factors = 1 / np.sqrt(variances + share * variances.sum() / components)
    return np.asarray(factors * np.sqrt(variances.sum() / (variances * factors**2).sum()))
