"""A finished run under attack: its configuration, and its lesions as its method sees them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.methods.private import lesions_of
from client.open_site import site_folders
from client.site import Records, Site
from common.arrays import Floats, Ints
from common.config.run import RunConfig
from common.errors import ConfigError, DataError
from common.json_types import JsonObject
from common.privacy.linear import group_means, public_map
from server.run.folder import CONFIG_FILE, MODEL_FILE, RUN, read_metrics, refuse_statistics
from simulations.audit.recorded_training import AllSites

_LEAST_UNITS = 20


@dataclass(frozen=True)
class AuditedRun:
    """A finished run, as it lies on disk.

    Attributes
    ----------
    folder : the folder with its configuration and model.
    sites : the folders of its sites, or of pooled data in their place.
    pooled : whether the data are pooled; units then go in turn to as many sites as share the noise.
    """

    folder: Path
    config: RunConfig
    sites: Sequence[Path]
    pooled: bool = False

    def opened(self) -> Iterator[Site]:
        """Yield the sites one by one, so that not all features are in memory at once."""
        for folder in self.sites:
            yield Site(folder, self.config)

    @property
    def metrics(self) -> JsonObject:
        """What the run wrote of its training."""
        return read_metrics(self.folder)

    def private_units(self) -> AllSites:
        """Return the records as sites of method private make them, (n, d) of norm 1 at most.

        Each of a patient's lesions is attacked by itself, as if it were the only one, and with all
        that is known of it.
        """
        by_site = [lesions_of(site) for site in self.opened()]
        return self.units([(each.X, each.y) for each in by_site])

    def network_lesions(self, components: int) -> AllSites:
        """Return the lesions' features in the fine-tuned network, mapped as method private does.

        One view of each image, as it is at prediction.

        Parameters
        ----------
        components : dimensions to which they are mapped.
        """
        from common.features.inference_engine import one_thread_per_core
        from common.models.network import NetworkModel
        from common.networks.inference import prediction_features
        from common.networks.network import run_network

        config, parts = self.config, []
        network = run_network(config)
        network.load(NetworkModel.load(self.folder / MODEL_FILE, config.weights).weights)
        feature_map = public_map(network.n_features, components, config.seed)
        spec = replace(config.feature_spec, predictions=1)
        for site in self.opened():
            train = site.dataset.select(~site.held_out)
            files = (train.read(image.image_id) for image in train.images)
            with one_thread_per_core() as pool:
                features = prediction_features(network.backbone, files, spec, pool)
            lesions = train.by_lesion
            parts.append((group_means(feature_map.apply(features), lesions.index), lesions.labels))
        return self.units(parts)

    def site_records(self) -> Records:
        """Return all sites' training views, as those of method svm make them.

        The numbers of the lesions go on from one site to the next.
        """
        parts, lesions = [], 0
        for site in self.opened():
            part = site.training_records()
            _, number = np.unique(part.lesion, return_inverse=True)
            parts.append(replace(part, lesion=number + lesions))
            lesions += int(number.max(initial=-1)) + 1
        names = ("X", "y", "weight", "lesion", "fold")
        return Records(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def units(self, parts: Sequence[tuple[Floats, Ints]]) -> AllSites:
        """Join ``parts``, each site's records (n, d) and labels (n,).

        Raises
        ------
        DataError
            If there are too few.
        """
        X, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if len(y) < _LEAST_UNITS:
            raise DataError(
                f"{self.folder} was trained on {len(y)} lesions; an audit needs {_LEAST_UNITS}"
            )
        if self.pooled:
            sites = self.config.honest
            return AllSites(X, y, np.arange(len(y)) % sites, sites)
        sizes = [len(labels) for _, labels in parts]
        return AllSites(X, y, np.repeat(np.arange(len(parts)), sizes), len(parts))


def open_run(path: Path, data: Path | None = None) -> AuditedRun:
    """Find a run and its sites.

    Parameters
    ----------
    path : a run's folder, or the one given to ``--out``.
    data : pooled data in place of the run's sites.

    Raises
    ------
    DataError
        If there is no finished run, or its sites are gone.
    """
    folder = path / RUN if (path / RUN / CONFIG_FILE).is_file() else path
    file = folder / CONFIG_FILE
    if not (file.is_file() and (folder / MODEL_FILE).is_file()):
        refuse_statistics(path)
        raise DataError(f"{path} holds no finished run; name the folder given to --out of a run")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        config = RunConfig.read({key: values[key] for key in RunConfig.model_fields})
    except (OSError, ValueError, LookupError, TypeError, ConfigError) as error:
        raise DataError(f"{file} is no run's configuration ({error}); name another run") from error
    if data is not None:
        return AuditedRun(folder, config, [data], pooled=True)
    for sites in (folder.parent / "sites", config.sites):
        if sites is not None and sites.is_dir():
            return AuditedRun(folder, config, site_folders(sites))
    raise DataError(f"{path}: its sites are gone ({config.sites}); name their data with --data")
