"""The mean of the sites' changes, where some sites may be hostile.

Everything that is averaged is defended, each kind by itself: the weights, SGD's momentum,
SCAFFOLD's controls. In one vector for all, the largest kind alone would decide which sites are near
each other. If the weights decided for all, false momenta would pass.
"""

from collections.abc import Iterable

import numpy as np
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, MultiKrum

from common.arrays import Floats, Floats32, Ints
from common.config.robust import CROSSCHECK, RobustConfig
from common.data.balance import GroupImages
from common.errors import QuorumError
from common.finetune.imbalance import ClassCounts
from common.finetune.update import LARGEST_TENSOR, Update
from server.federation.question import Answers
from server.strategies.aggregation import only_warnings, reply

Tensors = dict[str, Floats32]


class Defence:
    """The defence of a coordinator that sees each site's answer against ``hostile`` sites.

    The rules are Flower's: the coordinate-wise median and trimmed mean (Yin et al., "Byzantine-
    robust distributed learning", ICML 2018), Krum and Multi-Krum (Blanchard et al., "Machine
    learning with adversaries", NIPS 2017), the latter of as many sites as Damaskinos et al.,
    "AggregaThor", SysML 2019, n - f - 2. Under ``crosscheck`` it averages what others vouched for
    (:mod:`server.strategies.crosscheck`).

    Attributes
    ----------
    found : hostile sites that are out already.
    """

    def __init__(self, config: RobustConfig) -> None:
        self._config, self.found = config, 0

    @property
    def hostile(self) -> int:
        """How many more sites may be hostile."""
        return max(self._config.hostile - self.found, 0)

    def check(self, sites: int) -> None:
        """Refuse a rule whose theorem needs more sites.

        Raises
        ------
        QuorumError
            If there are too few.
        """
        rule, hostile = self._config.robust, self.hostile
        if sites < (needed := least_sites(rule, hostile)):
            raise QuorumError(
                f"'robust' is {rule} against {hostile} hostile sites, which needs {needed} sites "
                f"that train, and there are {sites}; lower 'hostile' or add sites"
            )

    def mean(self, updates: Answers[Update]) -> Tensors:
        """Return the sites' changes of all tensors by name, averaged, in the tensors' shapes.

        Raises
        ------
        QuorumError
            If too few sites trained.
        """
        if not self._config.defended or not updates.total.weight:
            return updates.total.mean()
        trained = [update for update in updates.by_site.values() if update.weight > 0]
        self.check(len(trained))
        weights = self._capped(np.array([float(update.weight) for update in trained]))
        averaged: Tensors = {}
        for names in _kinds(updates.total.tensors):
            changes = {name: np.stack([u.change(name) for u in trained]) for name in names}
            averaged |= self._aggregate(changes, weights)
        return averaged

    def counts(self, answers: Answers[ClassCounts] | Answers[GroupImages]) -> Ints:
        """Return the images of each class over all sites: pace, and class weights.

        With f hostile sites, no site counts for more of a class, nor for more in all, than the site
        with the (f+1)-th most; some honest site then has as many, whichever sites lie. The same
        holds for groups of each class.

        Returns
        -------
        (n_classes,) or (n_classes, n_groups).

        Raises
        ------
        QuorumError
            If too few sites answered.
        """
        if not self.hostile:
            return answers.total.images
        self.check(len(answers.by_site))
        each = np.stack([answer.images for answer in answers.by_site.values()])
        parts = self._truncated(each).sum(axis=0)
        images = self._truncated(each.reshape(len(each), -1).sum(axis=1)).sum()
        return np.asarray(np.rint(parts * (images / max(parts.sum(), 1))), np.int64)

    def candidates(self, updates: Answers[Update], weights: Tensors) -> Tensors:
        """Return the weights that each site would have, in the order of the answers.

        Parameters
        ----------
        weights : those that the round began with, by name, of the updates' shapes.

        Returns
        -------
        By name, (n, ...) of the tensor's shape.
        """
        trained = updates.by_site.values()
        changes = {name: np.stack([u.change(name) for u in trained]) for name in weights}
        norms = np.sqrt(np.diag(sum(_products(change) for change in changes.values())))
        factors = bound_norms(norms, self._config.norm_bound).astype(np.float32)
        return {
            name: np.clip(
                weights[name] + factors.reshape(-1, *[1] * weights[name].ndim) * change,
                -LARGEST_TENSOR,
                LARGEST_TENSOR,
            )
            for name, change in changes.items()
        }

    def _truncated(self, counts: Ints) -> Ints:
        """Lower counts (n, ...) that are above those of the site with the (f+1)-th most."""
        most: Ints = np.sort(counts, axis=0)[-(self.hostile + 1)]
        return np.asarray(np.minimum(counts, most))

    def _capped(self, weights: Floats) -> Floats:
        """Return the weights (n,) of sites, under a rule none above the median.

        Sites report their own numbers of images. The median of the reports lies among honest sites'
        numbers as long as most are honest. Truncation before a robust rule is due to Portnoy,
        Tirosh, Hendler, "Towards federated learning with Byzantine-robust client weighting",
        Applied Sciences 2022.
        """
        return np.minimum(weights, np.median(weights)) if self._config.hostile else weights

    def _aggregate(self, changes: Tensors, weights: Floats) -> Tensors:
        """Average changes (n, ...) of one kind of tensors."""
        products = sum(_products(change) for change in changes.values())
        factors = bound_norms(np.sqrt(np.diag(products)), self._config.norm_bound)
        how = np.diag(factors)
        mixes = self._config.mixing and self._config.robust != CROSSCHECK
        if self._config.hostile and mixes:
            how = mixing(products * np.outer(factors, factors), weights, self._config.hostile) @ how
        votes = {
            name: (how @ change.reshape(len(change), -1)).astype(np.float32).reshape(change.shape)
            for name, change in changes.items()
        }
        return self._vote(votes, weights)

    def _vote(self, votes: Tensors, weights: Floats) -> Tensors:
        replies = [
            reply({name: np.asarray(vote[i]) for name, vote in votes.items()}, float(weight))
            for i, weight in enumerate(weights)
        ]
        with only_warnings():
            arrays, _ = _flower(self._config, len(weights)).aggregate_train(0, replies)
        assert arrays is not None
        return {name: np.asarray(arrays[name].numpy(), np.float32) for name in votes}


def least_sites(rule: str, hostile: int) -> int:
    """Return how many sites a rule needs against so many: 2f + 3 for Krum's Proposition 1.

    2f + 2 for the cross-check, so that 2f + 1 others judge each; else 2f + 1.
    """
    if rule == "none":
        return 1
    return 2 * hostile + (3 if rule.endswith("krum") else 2 if rule == CROSSCHECK else 1)


def bound_norms(norms: Floats, bound: float) -> Floats:
    """Return the factors (n,) that shrink changes with ``norms`` (n,) to the bound.

    Parameters
    ----------
    bound : largest norm, as a multiple of the median of ``norms``; 0 for any.

    References
    ----------
    Sun et al., "Can you really backdoor federated learning?", arXiv:1911.07963 (2019), section 4.
    A fixed bound would be too large for late rounds or too small for early ones.
    """
    limit = bound * np.median(norms)
    if not bound:
        return np.ones_like(norms)
    return np.divide(limit, norms, out=np.ones_like(norms), where=norms > limit)


def mixing(products: Floats, weights: Floats, hostile: int) -> Floats:
    """Return the matrix (n, n) that averages each site's change with its n - f - 1 nearest ones.

    Parameters
    ----------
    products : (n, n) inner products of the changes.
    weights : (n,) of the sites in these averages. The theorem is for equal ones.

    References
    ----------
    Allouah et al., "Fixing by mixing: a recipe for optimal Byzantine ML under heterogeneity",
    AISTATS 2023, algorithm 2 (nearest-neighbour mixing).
    """
    norms = np.diag(products)
    distances = norms[:, None] + norms[None, :] - 2 * products
    np.fill_diagonal(distances, -np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : len(products) - hostile]
    matrix = np.zeros_like(products)
    np.put_along_axis(matrix, nearest, weights[nearest], axis=1)
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))


def _kinds(tensors: Iterable[str]) -> Iterable[list[str]]:
    """Return the names of the weights, of the momentum and of the controls."""
    kinds: dict[str, list[str]] = {}
    for name in tensors:
        kinds.setdefault(name.rpartition("/")[0], []).append(name)
    return kinds.values()


def _products(change: Floats32) -> Floats:
    """Return the inner products (n, n) of n tensors, in double precision."""
    flat = change.reshape(len(change), -1).astype(np.float64)
    return np.asarray(flat @ flat.T)


def _flower(config: RobustConfig, sites: int) -> FedAvg:
    hostile = config.hostile
    match config.robust:
        case "median":
            return FedMedian()
        case "trimmed_mean":
            # Of which Flower takes the whole part: exactly f on each side.
            return FedTrimmedAvg(beta=(hostile + 0.25) / sites)
        case "krum":
            return MultiKrum(num_malicious_nodes=hostile)
        case "multikrum":
            chosen = sites - hostile - 2
            return MultiKrum(num_malicious_nodes=hostile, num_nodes_to_select=chosen)
        case _:
            return FedAvg()
