"""The rounds in which a linear classifier is fitted: how many are left, and how far it is."""

import hashlib

import numpy as np

from common.arrays import Floats
from common.config.run import RunConfig
from common.errors import ConfigError
from common.svm.feature_map import FeatureMap
from server.run.progress import Progress


class FitRounds:
    """Counts the rounds of a run, and reports each.

    Sites answer half as many as a feature map has outputs: from as many rounds as it has features
    a Hessian could be computed, and from it records.
    """

    def __init__(self, config: RunConfig, progress: Progress):
        self._config, self._progress = config, progress
        self._used, self._reported = 0, 0
        self._known: set[str] = set()

    def begin(self) -> None:
        """Begin over other sites: known sums are asked for, and count, again."""
        self._known.clear()

    def spend(self, feature_map: FeatureMap, weights: Floats) -> None:
        """Count a round at ``weights`` (n_fits, n_classes, n_outputs + 1), unless its sum is known.

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

    def report(self, stage: str, objectives: Floats, gradients: Floats) -> None:
        """Report a round that was answered.

        Parameters
        ----------
        stage : what the fits are for.
        objectives : (n_problems,) values.
        gradients : (n_problems, n_variables) of the objectives.
        """
        norm = np.linalg.norm(gradients, axis=1).max()
        facts = {"loss": float(objectives.mean()), "gradient_norm": float(norm)}
        self._progress.round(self._reported, stage, facts)
        self._reported += 1
