"""A site's data: the only access to its images, labels and what is derived from them."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from client.operator.site_rules import Operator, Rules
from client.state import SiteState
from common.arrays import Floats32, Ints
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.duplicates import open_joined
from common.data.image import Scan
from common.data.metadata import UNKNOWN, as_unknown, beside, dropped, encode, forget, width
from common.data.splits import (
    TEST,
    fold_numbers,
    lasting_splits,
    lasting_test,
    one_image_a_lesion,
    site_splits,
)
from common.data.tables.scan import scan
from common.errors import DataError, Reason, RefusalError
from common.features.extract import Features, content_keys, extract
from common.methods import METHODS

T = TypeVar("T")

_NO_RULES = Rules()

_log = logging.getLogger(__name__)


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
    folder : the folder of the images and their table.
    config : the configuration of the run, which the coordinator chooses.
    operator : the file of a hospital's operator; None in a simulation.
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
    def least_group(self) -> int:
        """Fewest lesions of a group that is counted apart; 0 in secure sums and simulations.

        0 in private methods too: noise hides each lesion there, and what depends on how many others
        are alike would move with one of them.
        """
        private = METHODS[self.config.method].private
        if self.operator is None or self.config.secure or private:
            return 0
        return max(self.rules.least_lesions, self.rules.least_count)

    @property
    def own_folder(self) -> Path:
        """The folder of what must not be lost; in a simulation that of the images."""
        return self.folder if self.operator is None else self.operator.state

    @property
    def seals(self) -> Path:
        """The folder of the seals of logs; a simulated site's goes with its others."""
        return self.folder / "seals" if self.operator is None else self.operator.seals

    @cached_property
    def dataset(self) -> Dataset:
        """The site's images, with the splits that its table carries, else its own."""
        config, table = self.config, self._table
        if self.deployed and not table.splits.any():
            # Who may choose what is tested on may have every lesion counted, split by split.
            splits = lasting_splits(table, self.rules.test_fraction, config.folds)
        else:
            splits = site_splits(table, config.test_fraction, config.folds, config.seed)
        return table.with_splits(splits)

    @cached_property
    def _table(self) -> Dataset:
        """The images of the run's diagnoses, with the splits that their table carries, if any."""
        return self._whole.for_task(self.config.task)

    @cached_property
    def _whole(self) -> Dataset:
        """All images of the folder, whatever the run's diagnoses."""
        return open_joined(
            self.folder, self.config.cache, diagnosed=not self.config.unlabelled_weight
        )

    @cached_property
    def unlabelled(self) -> Dataset:
        """The images without a diagnosis that the run trains on; none where it has no use for them.

        Not those of lesions that are held out, or would be if they had a diagnosis.
        """
        whole, dataset = self._whole, self.dataset
        if not self.config.unlabelled_weight:
            return replace(whole, images=())
        held_out = {*dataset.lesions[self.held_out], *dataset.lesions[self.part("validation")]}
        images = (
            image
            for image in whole.undiagnosed
            if not (image.dx or image.split == TEST or image.lesion_id in held_out)
            and not (self.deployed and lasting_test(image.lesion_id, self.rules.test_fraction))
            and image.image_id in whole.files
        )
        return replace(whole, images=tuple(sorted(images, key=attrgetter("image_id"))))

    @cached_property
    def unlabelled_contents(self) -> list[str]:
        """The key of the bytes of each of these, in order."""
        return content_keys(self.unlabelled)

    @cached_property
    def scan(self) -> Scan:
        """What the site's folder holds, also where it cannot be trained on as it is."""
        return scan(self.folder)

    @cached_property
    def features(self) -> Features:
        """The frozen features of the images, in order; computed where not yet on disk."""
        cache = self.config.cache.expanduser()
        features = extract(self._table, self.config.feature_spec, cache, True, self.contents)
        if not np.isfinite(features.views).all():
            raise DataError(
                f"{self.folder}: features of some images are NaN or infinite; remove them from "
                f"{cache}, they are extracted again"
            )
        return features

    @cached_property
    def appearance(self) -> NDArray[np.float32]:
        """What the images look like to the pretrained network, (n, SIZE); computed where needed."""
        from common.networks.appearance_rows import appearances  # it imports ONNX Runtime

        config = self.config
        cache = config.cache.expanduser()
        return appearances(self._table, config.feature_spec, cache, self.contents)

    @property
    def n_features(self) -> int:
        """How many features an image has, with the numbers of metadata that the run uses."""
        return int(self.features.views.shape[2]) + width(self.config.metadata)

    @property
    def n_components(self) -> int:
        """How many numbers a feature map makes of them."""
        images = int(self.features.views.shape[2])
        return min(self.config.components, images) + width(self.config.metadata)

    @cached_property
    def metadata(self) -> Floats32:
        """The metadata of the images as the run uses them, (n, width).

        A category of fewer lesions than a group may have counts as unknown, and all where a model
        is judged without.
        """
        columns, table = self.config.metadata, self._table
        if self.config.without_metadata:
            return encode(columns, [UNKNOWN] * len(table))
        numbers = encode(columns, table.images)
        lesions = np.zeros((len(table.by_lesion.sizes), width(columns)), dtype=np.bool_)
        np.logical_or.at(lesions, table.by_lesion.index, numbers > 0)
        return as_unknown(columns, numbers, lesions.sum(axis=0) >= self.least_group)

    def known_metadata(self) -> list[bool]:
        """Log how much of the run's metadata is unknown; tell for each column if most is known.

        Where a site's counts are hidden in secure sums, it says yes.
        """
        columns, images = self.config.metadata, self._table.images
        if self.config.without_metadata:
            return [True] * len(columns)
        known = []
        for column in columns:
            unknown = int(encode([column], images)[:, -1].sum())
            known.append(self.config.secure or 2 * unknown <= len(images))
            if unknown:
                _log.warning(
                    "metadata '%s' is unknown in %d of %d images: missing, or a word that is in no "
                    "list (`fedderm data check` names them); the model sees them without it",
                    *(column, unknown, len(images)),
                )
        return known

    @property
    def prediction_views(self) -> Floats32:
        """The prediction views of the images with their metadata, (n, P, n_features)."""
        return beside(self.features.predict, self.metadata)

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which images are kept for testing, (n,)."""
        return np.asarray(self.dataset.splits == TEST)

    @cached_property
    def contents(self) -> list[str]:
        """The key of each image's bytes, in order."""
        return content_keys(self._table)

    @cached_property
    def smaller_images(self) -> int:
        """How many images have fewer pixels than the run's working resolution; logged here."""
        table, transform = self._table, self.config.feature_spec.transform
        smaller = sum(transform.lacks_pixels(table.read(i.image_id)) for i in table.images)
        if smaller:
            _log.warning(
                "%d of %d images have fewer than %d pixels on the short side, this run's "
                "'resolution': views of them are blurred enlargements",
                *(smaller, len(table), transform.resolution),
            )
        return smaller

    @cached_property
    def one_a_lesion(self) -> NDArray[np.bool_]:
        """Which images are their lesion's only one in the counts of answers, (n,)."""
        return one_image_a_lesion(self._table, self.contents)

    @property
    def fingerprint(self) -> str:
        """A digest of all images and their rows in the table.

        A run's splits and diagnoses are not in it: else a coordinator could have the same lesions
        counted as other data, with a budget of their own.
        """
        return _digest(self._whole, self._all_contents)

    @cached_property
    def _all_contents(self) -> list[str]:
        """The key of the bytes of each image of the folder, in order."""
        return content_keys(self._whole) if self._table.left_out else self.contents

    @property
    def data_name(self) -> str:
        """The name by which a coordinator sees whether the site's data are the same as before."""
        return self.keyed(self.fingerprint)

    def keyed(self, digest: str) -> str:
        """Return a digest of data as it may leave.

        A hospital's is keyed by its identity, so that nobody can test whether it has some images.
        """
        if self.operator is None:
            return digest
        from client.secure.identity import Identity  # it imports this module

        return Identity.begun(self.own_folder).keyed_digest(digest)

    @property
    def former_fingerprint(self) -> str:
        """The digest of older ledgers, which covered a run's splits too."""
        config = self.config
        splits = site_splits(self._whole, config.test_fraction, config.folds, config.seed)
        return _digest(self._whole.with_splits(splits), self._all_contents)

    def part(self, name: str) -> Ints:
        """Return the numbers (n,) of the images of a part, ascending.

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
            raise RefusalError(
                Reason.FORM, f"'{name}' is no part of the images; parts are {', '.join(masks)}"
            )
        return np.flatnonzero(masks[name])

    @property
    def training_images(self) -> Ints:
        """The numbers (n,) of the images that are not kept for testing, ascending."""
        return np.flatnonzero(~self.held_out)

    def training_records(self) -> Records:
        """Return every view of every image that is not kept for testing."""
        train = self.training_images
        X = self.features.train[train]
        n_views = X.shape[1]
        if self.config.metadata:
            X = beside(X, self._trained_metadata(train, n_views))
        return Records(
            X.reshape(len(train) * n_views, X.shape[2]),
            np.repeat(self.dataset.labels[train], n_views),
            np.full(len(train) * n_views, 1.0 / n_views),
            np.repeat(self.dataset.by_lesion.index[train], n_views),
            np.repeat(fold_numbers(self.dataset.splits[train]), n_views),
        )

    def _trained_metadata(self, images: Ints, n_views: int) -> Floats32:
        """Return the metadata (n, n_views, width) of training views, some of them dropped."""
        config, contents = self.config, [self.contents[i] for i in images]
        drawn = dropped(contents, n_views, config.metadata_dropped, config.seed)
        numbers = np.repeat(self.metadata[images], n_views, axis=0)
        kept = forget(config.metadata, numbers, drawn.ravel())
        return kept.reshape(len(images), n_views, width(config.metadata))

    @property
    def state(self) -> SiteState:
        """What is kept on disk between the messages of a run."""
        cache = self.config.cache.expanduser()
        return SiteState(
            self.folder, self.config.out, cache, self.own_folder, self.seals, self.deployed
        )

    def once(self, compute: Callable[["Site"], T]) -> T:
        """Return ``compute`` of this site; it is called once for each run in a process."""
        if compute not in self._made:
            self._made[compute] = compute(self)
        return cast("T", self._made[compute])

    def forget(self) -> None:
        """Let go of what :meth:`once` keeps in memory."""
        self._made.clear()

    @cached_property
    def _made(self) -> dict[Callable[["Site"], object], object]:
        return {}

    def close(self, run: int, finished: bool) -> None:
        """Forget what was kept for one run; features on disk stay.

        What an unfinished run needs to go on is kept.
        """
        self.state.close(run, finished)
        self.forget()
        self.__dict__.pop("features", None)


def _digest(dataset: Dataset, contents: list[str]) -> str:
    return hashlib.sha256(repr((dataset.images, contents)).encode()).hexdigest()
