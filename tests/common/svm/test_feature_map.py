"""Which features a run takes roots of."""

import numpy as np

from common.config.run import RunConfig
from common.data.metadata import width
from common.svm.feature_map import powers_of, raised


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
