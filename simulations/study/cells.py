"""The cells of a study: an arm on one fold and one share of the training lesions."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common.arrays import Bools, Ints
from common.data.dataset import Dataset
from common.data.splits import folds
from common.errors import ConfigError
from common.features.extract import content_keys
from simulations.data.partition import partition
from simulations.data.unlabelled import without_labels
from simulations.study.definition import ALONE, POOLED, Spread, Study


class Arm(NamedTuple):
    """A way to train.

    Attributes
    ----------
    spread : its name in the study file.
    site : the only source that trains, "" where all do.
    scale : share of the training lesions, in (0, 1].
    """

    route: str
    spread: str
    site: str
    scale: float

    @property
    def data(self) -> str:
        """How its training data lie, in words."""
        return f"{self.site} alone" if self.site else self.spread

    @property
    def name(self) -> str:
        """Names it in reports and folders."""
        share = "" if self.scale == 1 else f" {self.scale:.0%}"
        return f"{self.route} {self.data}{share}"


@dataclass(frozen=True)
class Cell:
    """An arm and the number of the fold that tests it."""

    arm: Arm
    fold: int

    @property
    def name(self) -> str:
        """Names its folder."""
        return _as_folder(f"{self.arm.name} fold {self.fold}")


class Cut(NamedTuple):
    """What a cell trains on, by site, and what it is tested on.

    Attributes
    ----------
    training : with the folds in which a run makes its choices.
    parts : numbers (n_images,) of the images of ``training`` by site.
    test : lesions that no site of the cell holds.
    """

    training: Dataset
    parts: Mapping[str, Ints]
    test: Dataset


def folders_of(arm: str) -> str:
    """Return the pattern of the folders of an arm's cells, of which the arm's name is ``arm``."""
    return _as_folder(f"{arm} fold *")


def _as_folder(name: str) -> str:
    return name.replace(" ", "_").replace("%", "pc")


def arms(study: Study, dataset: Dataset) -> list[Arm]:
    """Return the arms of a study on some data, in its order."""
    sources = list(partition(dataset, "natural", None, 1.0, study.seed)) if _natural(study) else []
    listed = []
    for group in study.arms:
        for spread in group.spreads:
            sites = sources if study.spreads[spread].scheme == ALONE else [""]
            scales = study.scales if spread in group.curve else (1.0,)
            listed += [
                Arm(group.route, spread, site, scale) for scale in scales[::-1] for site in sites
            ]
    return listed


def plan(study: Study, dataset: Dataset) -> list[Cell]:
    """Return all cells, one fold after the other, so that an unfinished study has whole folds.

    Raises
    ------
    ConfigError
        If there are more folds than lesions of a diagnosis.
    DataError
        If natural sites are asked for and the table names no sources, or too few lesions are
        there for the Dirichlet sites.
    """
    counts = np.bincount(dataset.by_lesion.labels, minlength=dataset.task.n_classes)
    rarest = np.where(counts > 0, counts, counts.max()).argmin()
    if counts[rarest] < study.folds:
        raise ConfigError(
            f"'folds' is {study.folds}, but {dataset.folder} has {counts[rarest]} lesions of "
            f"{dataset.task.codes[rarest]}; ask for at most {counts[rarest]}"
        )
    for name, spread in study.spreads.items():
        _unlabelled(study, name, _spread(dataset, spread, study.seed))
    return [Cell(arm, fold) for fold in range(study.folds) for arm in arms(study, dataset)]


def cut(study: Study, dataset: Dataset, cell: Cell) -> Cut:
    """Return the data of a cell.

    The test lesions are the fold's; every arm has the same. What is left is spread over sites
    as a whole, then thinned: the training lesions of a smaller scale are some of a larger one's,
    at the same sites.
    """
    test = folds(dataset, study.folds, study.seed) == cell.fold
    kept = ~test & _thinned(dataset, ~test, cell.arm.scale, [study.seed, 3, cell.fold])
    parts = _spread(dataset, study.spreads[cell.arm.spread], study.seed)
    shares = _unlabelled(study, cell.arm.spread, parts)
    if cell.arm.site:
        kept[np.setdiff1d(np.arange(len(dataset)), parts[cell.arm.site])] = False
        parts = {cell.arm.site: parts[cell.arm.site]}
    training = dataset.select(kept)
    inner = folds(training, study.config(cell.arm.route).folds, study.seed)
    training = training.with_splits(inner.astype(np.str_))
    number = np.cumsum(kept) - 1
    parts = {name: number[rows[kept[rows]]] for name, rows in parts.items()}
    shares = {site: share for site, share in shares.items() if site in parts}
    return Cut(without_labels(training, parts, shares, study.seed), parts, dataset.select(test))


def fingerprint(dataset: Dataset) -> str:
    """Return the SHA-256 of all images and their rows in the table."""
    facts = repr((dataset.images, content_keys(dataset)))
    return hashlib.sha256(facts.encode()).hexdigest()


def _natural(study: Study) -> bool:
    return any(spread.scheme == ALONE for spread in study.spreads.values())


def _spread(dataset: Dataset, spread: Spread, seed: int) -> dict[str, Ints]:
    if spread.scheme == POOLED:
        return {POOLED: np.arange(len(dataset))}
    if spread.scheme == "dirichlet":
        return partition(dataset, "dirichlet", spread.sites, spread.alpha or 0.0, seed)
    return partition(dataset, "natural", None, 1.0, seed)


def _unlabelled(study: Study, spread: str, sites: Collection[str]) -> dict[str, float]:
    """Return the share of lesions without a diagnosis of each site that has some."""
    shares = study.spreads[spread].unlabelled
    if not isinstance(shares, dict):
        return dict.fromkeys(sites, shares) if shares else {}
    if unknown := shares.keys() - set(sites):
        raise ConfigError(
            f"spread {spread}: 'unlabelled' names {min(unknown)!r}; the sites are "
            f"{', '.join(sites)}"
        )
    return shares


def _thinned(dataset: Dataset, among: Bools, scale: float, seed: list[int]) -> Bools:
    """Choose a share of the lesions of each class, at least one; mask of images (n,)."""
    rng = np.random.default_rng(seed)
    lesions = dataset.by_lesion
    chosen = np.zeros(len(lesions.sizes), dtype=np.bool_)
    for members in _classes(lesions.labels, np.unique(lesions.index[among])):
        order = rng.permutation(members)
        chosen[order[: max(1, round(scale * len(order)))]] = True
    return np.asarray(chosen[lesions.index])


def _classes(labels: Ints, lesions: Ints) -> Iterator[Ints]:
    for label in np.unique(labels[lesions]):
        yield lesions[labels[lesions] == label]
