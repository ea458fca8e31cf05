"""The rounds in which a linear classifier is fitted: how many are left, and how far it is."""

import hashlib

import numpy as np

from common.arrays import Floats
from common.config.run import RunConfig
from common.errors import ConfigError
from common.svm.feature_map import FeatureMap
from server.run.progress import Progress


class FitRounds:
    """Counts the rounds of a run, and tells of each.

    Sites answer half as many as a feature map has outputs: with as many as it has features,
    Hessians could be solved for, and records read off them.
    """

    def __init__(self, config: RunConfig, progress: Progress):
        self._config, self._progress = config, progress
        self._used, self._told = 0, 0
        self._known: set[str] = set()

    def begin(self) -> None:
        """Begin over other sites, which are asked again what was known."""
        self._known.clear()

    def spend(self, feature_map: FeatureMap, weights: Floats) -> None:
        """Count a round, unless its sum is known.

        Raises
        ------
        ConfigError
            If the sites will not answer it.
        """
        question = hashlib.sha256(weights.tobytes()).hexdigest() + feature_map.digest
        if question in self._known:
            return
        outputs = feature_map.n_outputs
        if self._used >= outputs // 2:
            key = "fourier" if self._config.kernel == "rbf" else "components"
            raise ConfigError(
                f"'{key}' is {getattr(self._config, key)}: of a feature map with {outputs} outputs "
                f"sites answer {outputs // 2} rounds in a run, and this one needs more; set more "
                f"{key}, fewer values of 'c' or a larger 'tolerance'"
            )
        self._known.add(question)
        self._used += 1

    def tell(self, stage: str, objectives: Floats, gradients: Floats) -> None:
        """Tell of a round that was answered.

        Parameters
        ----------
        stage : str
            What the fits are for.
        objectives : ndarray of float64, shape (n_problems,)
        gradients : ndarray of float64, shape (n_problems, n_variables)
            Of the objectives.
        """
        norm = np.linalg.norm(gradients, axis=1).max()
        facts = {"loss": float(objectives.mean()), "gradient_norm": float(norm)}
        self._progress.round(self._told, stage, facts)
        self._told += 1
