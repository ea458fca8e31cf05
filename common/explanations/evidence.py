"""How much each place of an image speaks for a diagnosis: exact, where a classifier is linear.

A linear classifier on pooled maps adds up over the cells of these maps. So a score is a sum over
all levels, prediction views and cells, and nothing is estimated: class activation maps [1]_, here
for several levels and views at once, with scaler and principal components absorbed into the
weights. On a network's last map they are Grad-CAM [2]_ up to a constant. Where a classifier takes
roots of the pools, each is shared among its cells in proportion to what they hold of the pool, and
all still adds up.

References
----------
.. [1] Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.
.. [2] Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.arrays import Floats, Floats32
from common.data.metadata import beside as put_beside
from common.errors import ConfigError
from common.networks.spatial_maps import Maps, pooled
from common.svm.feature_map import FeatureMap, raised

_NOTHING = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class Contrast:
    """A linear function of scores whose evidence is wanted.

    Attributes
    ----------
    direction : (n_classes,) factors of the scores.
    constant : is added.
    """

    direction: Floats
    constant: float


@dataclass(frozen=True)
class Evidence:
    """What each cell of each map adds to a contrast of scores.

    Attributes
    ----------
    cells : by level, the final one last, (P, height, width) over the image's P views, in the units
        of the contrast.
    rest : what no place of the image adds: intercepts and constant.
    """

    cells: Sequence[Floats]
    rest: float

    @property
    def total(self) -> float:
        """The contrast of the scores: all cells and the rest."""
        return float(sum(each.sum() for each in self.cells)) + self.rest


@dataclass(frozen=True)
class PooledHead:
    """A classifier that is linear in raised pools, but for a positive factor of each view.

    A score is the mean over the views of ``factor * (raised - baseline) @ weights``, and an
    intercept. So a place whose maps are as the baseline says nothing.

    Attributes
    ----------
    weights : (n_classes, n_features).
    baseline : (n_features,) raised features that add nothing.
    intercepts : (n_classes,).
    feature_map : its power raises the pools, its norms make the factor of a view; None for pools as
        they are and a factor of 1.
    beside : (width,) numbers that follow the features in the feature map, the same for all views.
    beside_scores : (n_classes,) what they add to the scores, times the mean factor.
    """

    weights: Floats
    baseline: Floats
    intercepts: Floats
    feature_map: FeatureMap | None = None
    beside: Floats32 = field(default_factory=lambda: _NOTHING)
    beside_scores: Floats | float = 0.0

    def evidence(self, maps: Maps, contrast: Contrast) -> Evidence:
        """Return the evidence in an image's maps, (P, channels, height, width) by level.

        Of more levels than the classifier reads, the last ones are taken.

        Raises
        ------
        ConfigError
            If every map is a single cell, so that no place can be told from another.
        """
        maps = self._own(maps)
        if all(each.shape[2:] == (1, 1) for each in maps):
            raise ConfigError(
                "there is no evidence map: the network does more than pool its last map, or this "
                "map is a single cell"
            )
        weights = contrast.direction @ self.weights
        pools = pooled(maps)
        slopes = self._slopes(pools) * weights
        factors = self._factors(pools) / len(pools)
        constants = self.intercepts + factors.sum() * self.beside_scores
        ends = np.cumsum([each.shape[1] for each in maps])
        cells = []
        for each, end in zip(maps, ends, strict=True):
            part = slice(end - each.shape[1], end)
            values = np.einsum("pchw,pc->phw", each, slopes[:, part], dtype=np.float64)
            values -= self.baseline[part] @ weights[part]
            cells.append(factors[:, None, None] * values / values[0].size)
        rest = float(contrast.direction @ constants) + contrast.constant
        return Evidence(cells, rest)

    def _own(self, maps: Maps) -> Maps:
        """Return the last maps that have as many channels as there are features."""
        channels = np.cumsum([each.shape[1] for each in maps[::-1]])
        return maps[len(maps) - 1 - int(np.searchsorted(channels, self.weights.shape[1])) :]

    def _slopes(self, pools: Floats32) -> Floats:
        """Return what the feature map makes of each pool (P, D), as a share of it; 0 of nothing."""
        if self.feature_map is None:
            return np.ones(pools.shape)
        powers = self.feature_map.exponents[: pools.shape[1]]
        found = np.zeros(pools.shape)
        return np.divide(raised(pools, powers), pools, out=found, where=pools != 0)

    def _factors(self, pools: Floats32) -> Floats:
        """Return by how much the feature map scales each view's raised features (P,)."""
        if self.feature_map is None:
            return np.ones(len(pools))
        rows = put_beside(pools[None], self.beside[None])[0]
        known = raised(rows, self.feature_map.powers)
        linear = (known - self.feature_map.mean) @ self.feature_map.matrix
        lengths = np.linalg.norm(linear, axis=1)
        mapped = np.linalg.norm(self.feature_map.apply(rows), axis=1)
        return np.asarray(mapped / np.maximum(lengths, np.finfo(np.float64).tiny))


def linear_head(
    feature_map: FeatureMap, weights: Floats, beside: Floats32 = _NOTHING
) -> PooledHead:
    """Return the classifier of mapped features, with ``weights`` (n_classes, n_outputs + 1).

    Its baseline is the map's mean, the mean over the training views: what an image shares with all
    others adds nothing.

    Parameters
    ----------
    beside : (width,) an image's last features, which are of no place in it.

    Raises
    ------
    ConfigError
        If the map is not linear: then there is no such evidence.
    """
    if feature_map.fourier is not None:
        raise ConfigError(
            "there is no evidence map: the RBF kernel's Fourier features mix all places of an "
            "image, so that none has a share of its own in a score; a linear kernel has one"
        )
    absorbed, mean = weights[:, :-1] @ feature_map.matrix.T, feature_map.mean
    n = len(mean) - len(beside)
    added = absorbed[:, n:] @ (beside - mean[n:])
    if feature_map.unit and feature_map.beside:  # a view's norm is of the image alone
        own, intercepts = feature_map.of_images, weights[:, -1] + added
        return PooledHead(absorbed[:, :n], mean[:n], intercepts, own)
    return PooledHead(
        absorbed[:, :n],
        mean[:n],
        weights[:, -1],
        feature_map,
        beside,
        added,
    )


def network_head(weights: NDArray[np.floating], bias: NDArray[np.floating]) -> PooledHead:
    """Return a fine-tuned network's last layer, of weights (n_classes, n_features), as a head.

    Its baseline is zero: a place without activations adds nothing.

    Parameters
    ----------
    bias : (n_classes,).
    """
    exact = weights.astype(np.float64)
    return PooledHead(exact, np.zeros(exact.shape[1]), bias.astype(np.float64))


def log_odds(calibration: Floats, label: int, rival: int) -> Contrast:
    """Return the contrast that is the logarithm of how much likelier one class is than another.

    A score alone says little: all seven may be high together. What decides is how far the class
    lies above the next, and that is what the printed probabilities of the two differ by.

    Parameters
    ----------
    calibration : (2, n_classes) scales and biases of the probabilities.
    label, rival : indices of the two classes; as a rule the two likeliest.
    """
    scale, bias = calibration
    direction = np.zeros(len(scale))
    direction[label], direction[rival] = scale[label], -scale[rival]
    return Contrast(direction, float(bias[label] - bias[rival]))
