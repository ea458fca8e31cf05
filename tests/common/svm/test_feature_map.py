"""Which features a run takes roots of, and what evens out variances."""

import numpy as np
import pytest

from common.config.run import RunConfig
from common.data.metadata import width
from common.svm.feature_map import evened, powers_of, raised


def test_the_pools_of_the_last_level_alone_are_raised():
    """Lite0 has 1,280; what stands before them is of earlier levels, behind them of the patient."""
    config = RunConfig.read({"metadata": "age,sex", "power": 0.25})
    about = width(config.metadata)
    X = np.random.default_rng(0).normal(size=(3, 472 + 1280 + about))
    found = raised(X, powers_of(config, X.shape[1]))
    own = slice(472, 472 + 1280)
    np.testing.assert_array_equal(np.delete(found, own, axis=1), np.delete(X, own, axis=1))
    np.testing.assert_allclose(found[:, own], np.sign(X[:, own]) * np.abs(X[:, own]) ** 0.25)


def test_no_powers_and_a_power_of_one_raise_nothing():
    X = np.random.default_rng(0).normal(size=(3, 1752))
    np.testing.assert_array_equal(raised(X, powers_of(RunConfig.read({"power": 1}), 1752)), X)
    np.testing.assert_array_equal(raised(X, None), X)


def test_evened_variances_keep_their_sum_and_no_variance_stays_none():
    variances = np.array([4.0, 1.0, 0.25, 0.0])
    kept = variances * evened(variances, 0.1) ** 2
    assert kept.sum() == pytest.approx(variances.sum())
    assert kept[0] / kept[2] < variances[0] / variances[2]
    np.testing.assert_array_equal(evened(np.zeros(3), 0.1), 1)
