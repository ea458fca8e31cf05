"""The finished run that a run goes on from, and the lineage that the new one keeps."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from common.arrays import Floats32
from common.config.run import RunConfig, flat
from common.errors import ConfigError, DataError, reason
from common.features.pretrained import weights_digest
from common.json_types import JsonObject
from common.methods import METHODS
from common.models.file import Model, load_model
from common.storage.reading import read_bytes
from common.task import Task
from server.federation.site_info import SiteInfo
from server.run.folder import METRICS_FILE, model_file, read_metrics

LINEAGE = "lineage"
"""Its key in a run's metrics."""

Tensors = Mapping[str, Floats32]

JOINED, SAME, CHANGED, ABSENT, LEFT = "joined", "as before", "changed", "absent", "left"
"""What became of a site since the parent."""

_HEAD = ("head.weight", "head.bias")

_SEEN = ("backbone", "resolution", "colour", "metadata")
_SEEN_BY_FEATURES = (
    *("head", "kernel", "size", "levels", "predictions"),
    *("power", "components", "whitening"),
)


@dataclass(frozen=True)
class Parent:
    """A finished run, as the next one needs it.

    Attributes
    ----------
    folder : of its files.
    digest : SHA-256 of its model file, in hexadecimal.
    model : its model.
    metrics : as written into its folder.
    """

    folder: Path
    digest: str
    model: Model
    metrics: JsonObject

    @classmethod
    def of(cls, config: RunConfig) -> Self | None:
        """Open the run that a configuration goes on from; None if it goes on from none.

        Raises
        ------
        ConfigError
            If it trained another kind of model, saw images in another way, or told apart diagnoses
            that this one does not.
        DataError
            If its folder holds no finished run.
        """
        if config.parent is None:
            return None
        file = model_file(config.parent)
        model = load_model(file, config.weights)
        _check(config, model)
        try:
            metrics = read_metrics(file.parent)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{file.parent / METRICS_FILE} cannot be read ({reason(error)}); name the folder "
                "of a finished run, not its model alone"
            ) from error
        return cls(file.parent, hashlib.sha256(read_bytes(file)).hexdigest(), model, metrics)

    @property
    def sites(self) -> Mapping[str, JsonObject]:
        """What is known of the sites that its model was trained on, by name."""
        former: JsonObject = self.metrics.get(LINEAGE, {}).get("sites", {})
        own: JsonObject = self.metrics["data"]["sites"]
        kept = {name: site for name, site in former.items() if site["since"] in (SAME, ABSENT)}
        return {**kept, **own}

    def lineage(self, config: RunConfig, sites: Mapping[str, SiteInfo]) -> JsonObject:
        """Return where a model comes from: its ancestors, and what became of each site since.

        Parameters
        ----------
        config : of the new run.
        sites : those that take part in it.
        """
        return {
            "parent": str(config.parent),
            "ancestors": [self.digest, *self.metrics.get(LINEAGE, {}).get("ancestors", [])],
            "sites": self._since(sites, config),
        }

    def _since(self, sites: Mapping[str, SiteInfo], config: RunConfig) -> JsonObject:
        sums = config.head != "svm" and not config.secure
        keeps_absent = sums or METHODS[config.method].trains_network
        since: JsonObject = {}
        for name in sorted({*self.sites, *sites}):
            then, now = self.sites.get(name), sites.get(name)
            what = SAME
            if now is None:
                what = ABSENT if keeps_absent and name not in config.leaving else LEFT
            elif then is None:
                what = JOINED
            elif then["fingerprint"] != now.fingerprint:
                what = CHANGED
            size = now.model_dump() if now else then or {}
            kept = {key: size.get(key) for key in ("images", "lesions", "fingerprint")}
            since[name] = {"since": what, **kept}
        return since


def widened(weights: Tensors, task: Task, new: Task) -> dict[str, Floats32]:
    """Return a network's weights with a row of zeros in its head for each added diagnosis.

    Parameters
    ----------
    weights : by name; the head's are (n_classes, n_features) and (n_classes,).

    Returns
    -------
    By name; the head's are (n_new_classes, n_features) and (n_new_classes,).
    """
    if task.codes == new.codes:
        return dict(weights)
    places = [new.codes.index(code) for code in task.codes]
    wider = dict(weights)
    for name in _HEAD:
        wider[name] = np.zeros((new.n_classes, *weights[name].shape[1:]), dtype=np.float32)
        wider[name][places] = weights[name]
    return wider


def _check(config: RunConfig, model: Model) -> None:
    trained, run = model.config, config.parent
    if trained.method != config.method:
        raise ConfigError(
            f"{run} is a run of method {trained.method}, which one of method {config.method} "
            f"cannot go on from; set method={trained.method}"
        )
    names = [*_SEEN, *(["fusion"] if trained.metadata else [])]
    if not METHODS[config.method].trains_network:
        names += _SEEN_BY_FEATURES
    its = {name: getattr(trained, name) for name in names}
    other = [f"{n}={flat(value)}" for n, value in its.items() if value != getattr(config, n)]
    ours, theirs = (weights_digest(trained.backbone, c.weights) for c in (config, trained))
    if not other and ours != theirs:
        other = ["weights=FILE to those of its network"]
    if other:
        raise ConfigError(f"{run} was trained with other settings; set {' '.join(other)}")
    if unknown := [code for code in trained.task.codes if code not in config.task.codes]:
        raise ConfigError(
            f"{run} tells {', '.join(unknown)} apart, which this run does not: set diagnoses="
            f"{','.join(dict.fromkeys((*trained.task.codes, *config.task.codes)))}"
        )
