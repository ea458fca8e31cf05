"""A hospital's side: the only door to its images, labels and what is derived from them."""

import hashlib
import shutil
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from numpy.typing import NDArray

from client.operator import Operator, Rules
from common.config import RunConfig
from common.dataset import Dataset
from common.errors import ConfigError, RefusalError
from common.features import Features, content_keys, extract
from common.splits import TEST, site_splits

Ints = NDArray[np.int64]

SITE = "site"
"""Key of a hospital's file in the configuration of its node."""

_NO_RULES = Rules()


@dataclass(frozen=True)
class Records:
    """Training records of a site; a record is one view of one image.

    Attributes
    ----------
    X : (n, n_features) raw features.
    y : (n,) labels.
    weight : (n,) one over the number of views, so that views add no weight to a lesion.
    lesion : (n,) number of the record's lesion at this site.
    fold : (n,) fold of the lesion.
    """

    X: NDArray[np.float32]
    y: Ints
    weight: NDArray[np.float64]
    lesion: Ints
    fold: Ints


@dataclass(frozen=True)
class Site:
    """One data folder under one run's configuration.

    Attributes
    ----------
    folder : of the images and their table.
    config : of the run; the coordinator's word.
    operator : of a hospital; None for a part of a simulation.
    """

    folder: Path
    config: RunConfig
    operator: Operator | None = None

    @property
    def name(self) -> str:
        """The site's name; in a simulation that of its folder."""
        return self.folder.name if self.operator is None else self.operator.name

    @property
    def deployed(self) -> bool:
        """Whether it is a hospital's, not a part of a simulation."""
        return self.operator is not None

    @property
    def rules(self) -> Rules:
        """What may leave; in a simulation there are no rules but the run's."""
        return _NO_RULES if self.operator is None else self.operator.rules

    @property
    def own_folder(self) -> Path:
        """The folder of what must not be lost; in a simulation that of the images."""
        return self.folder if self.operator is None else self.operator.state

    @cached_property
    def dataset(self) -> Dataset:
        """The site's images, with the splits that its table carries, else its own."""
        dataset = Dataset.open(self.folder)
        config = self.config
        splits = site_splits(dataset, config.test_fraction, config.folds, config.seed)
        return dataset.with_splits(splits)

    @cached_property
    def features(self) -> Features:
        """The frozen features of the images, in order; computed where not yet on disk."""
        cache = self.config.cache.expanduser()
        return extract(self.dataset, self.config.feature_spec, cache, True, self.contents)

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which images are kept for testing, (n,)."""
        return np.asarray(self.dataset.splits == TEST)

    @cached_property
    def contents(self) -> list[str]:
        """The key of each image's bytes, in order."""
        return content_keys(self.dataset)

    @property
    def fingerprint(self) -> str:
        """A digest of the images and their rows in the table."""
        facts = repr((self.dataset.images, self.contents))
        return hashlib.sha256(facts.encode()).hexdigest()

    @cached_property
    def memory(self) -> dict[str, Any]:
        """What a method keeps in memory, for as long as it wants and a run at most."""
        return {}

    def part(self, name: str) -> Ints:
        """Return the numbers of the images of a part.

        The parts are "test"; "validation", the first fold of the others; "train", the rest.

        Raises
        ------
        RefusalError
            If there is no such part.
        """
        validation = self.dataset.splits == "0"
        masks = {
            "train": ~self.held_out & ~validation,
            "validation": validation,
            "test": self.held_out,
        }
        if name not in masks:
            raise RefusalError(f"'{name}' is no part of the images; parts are {', '.join(masks)}")
        return np.flatnonzero(masks[name])

    def training_records(self) -> Records:
        """Return every view of every image that is not kept for testing."""
        train = np.flatnonzero(~self.held_out)
        X = self.features.train[train]
        n_views = X.shape[1]
        return Records(
            X.reshape(len(train) * n_views, -1),
            np.repeat(self.dataset.labels[train], n_views),
            np.full(len(train) * n_views, 1.0 / n_views),
            np.repeat(self.dataset.by_lesion.index[train], n_views),
            np.repeat(self.dataset.splits[train].astype(np.int64), n_views),
        )

    def scratch(self, run_id: int) -> Path:
        """Return the folder that keeps this site's arrays between the messages of one run."""
        return self._folder(str(run_id))

    @property
    def state_folder(self) -> Path:
        """The folder of what a run needs that goes on after an interruption, under a new id."""
        return self._folder("state")

    def _folder(self, kind: str) -> Path:
        run = f"{self.folder.resolve()}\n{self.config.out}\n{kind}"
        name = hashlib.sha256(run.encode()).hexdigest()[:32]
        return self.config.cache.expanduser() / "scratch" / name

    def close(self, run_id: int, finished: bool) -> None:
        """Forget what was kept for one run; features on disk stay.

        What an unfinished run needs to go on is kept.
        """
        shutil.rmtree(self.scratch(run_id), ignore_errors=True)
        if finished:
            shutil.rmtree(self.state_folder, ignore_errors=True)
        for name in ("features", "memory"):
            self.__dict__.pop(name, None)


def open_site(context: Context) -> Site:
    """Return the site that a message is meant for.

    A hospital is configured by the file that its node's configuration names as ``site``; a
    simulated site is the one at its ``partition-id`` among the folders in ``sites``.

    Raises
    ------
    ConfigError
        If neither names a folder, or the hospital's file is wrong.
    RefusalError
        If what the coordinator configured is.
    """
    if SITE in context.node_config:
        return _hospital(Operator.read(Path(str(context.node_config[SITE]))), context)
    config = RunConfig.read(context.run_config)
    if config.sites is None or "partition-id" not in context.node_config:
        raise ConfigError("no data folder: set 'site' in the node or 'sites' in the run")
    index = int(context.node_config["partition-id"])
    folders = site_folders(config.sites)
    if index >= len(folders):
        raise ConfigError(f"{config.sites} has {len(folders)} site folders, none for site {index}")
    return _site(folders[index], config)


@lru_cache(maxsize=4)
def site_folders(sites: Path) -> list[Path]:
    """Return the folders in ``sites``, sorted by name.

    Raises
    ------
    ConfigError
        If it is no folder of folders.
    """
    folders = sorted(sites.iterdir()) if sites.is_dir() else []
    if found := [path for path in folders if path.is_dir()]:
        return found
    raise ConfigError(f"{sites} has no folders; set 'sites' to a folder with one for each site")


def _hospital(operator: Operator, context: Context) -> Site:
    """Return a hospital's site; no path on its disks is the coordinator's word."""
    try:
        config = RunConfig.read(context.run_config)
    except ConfigError as error:
        raise RefusalError(str(error)) from error
    places = {"cache": operator.cache, "weights": operator.weights}
    return _site(operator.data, config.model_copy(update=places), operator)


@lru_cache(maxsize=1024)
def _site(folder: Path, config: RunConfig, operator: Operator | None = None) -> Site:
    """Remember sites, since a process may answer many messages for many of them."""
    return Site(folder, config, operator)
