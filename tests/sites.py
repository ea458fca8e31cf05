"""Sites whose features lie in the cache already, so that no test waits for a network."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.answers.appearance import SIZE
from common.config.run import RunConfig, settings_of
from common.data.dataset import Dataset
from common.data.splits import site_splits
from common.features.store import write_shard
from common.methods import METHODS
from common.networks.appearance_rows import appearance_key
from common.site_folder import FILE
from common.task import HAM10000
from simulations.data.partition import partition, write_sites

N_FEATURES = 96

QUICK = RunConfig(
    views=1, predictions=1, c=(1e-4, 1e-3), folds=2, test_fraction=0.3, min_active=1, tolerance=1e-9
)
"""A run of about a second; to be given `sites`, `cache` and `out`."""


def make_quick_sites(data: Path, folder: Path, sites: int, views: int = 1) -> RunConfig:
    """Write sites and their features below `folder`; return the configuration of a run."""
    folders = {"sites": folder / "sites", "cache": folder / "cache"}
    config = QUICK.model_copy(update={**folders, "views": views})
    dataset = Dataset.open(data)
    dataset = dataset.with_splits(site_splits(dataset, config.test_fraction, config.folds, 0))
    write_sites(dataset, partition(dataset, "iid", sites, 1.0, 0), folder / "sites", link=True)
    write_features(data, config)
    return config


def write_features(data: Path, config: RunConfig, spoiled: Collection[str] = ()) -> None:
    """Put features into the cache: the class and noise, or NaN for the images `spoiled`."""
    dataset, spec = Dataset.open(data), config.feature_spec
    centres = np.random.default_rng(0).standard_normal(
        (max(dataset.task.n_classes, HAM10000.n_classes), N_FEATURES)
    )
    rows = {}
    for image, label in zip(dataset.images, dataset.labels, strict=True):
        content = hashlib.sha256(dataset.read(image.image_id)).hexdigest()
        rng = np.random.default_rng(int(content[:16], 16))
        noise = rng.standard_normal((spec.views + spec.predictions, N_FEATURES))
        row = (
            np.full_like(noise, np.nan) if image.image_id in spoiled else centres[label] + 2 * noise
        )
        rows[content] = row.astype(np.float32)
    write_shard(config.cache / spec.key, rows)
    looks = {
        content: np.random.default_rng(int(content[:16], 16)).random(SIZE, dtype=np.float32)
        for content in rows
    }
    write_shard(config.cache / appearance_key(spec), looks)


def hospital_file(
    data: Path, folder: Path, cache: Path | None = None, weights: Path | None = None, **rules: Any
) -> Path:
    """Write the file of a hospital's operator, who is called after the folder of the data.

    It allows sums over few lesions, as which the tests' sites have no others.
    """
    rules = {"min_active": 1, "least_lesions": 0, **rules}
    places = {"data": data.resolve(), "cache": cache or folder / "cache", "seals": folder / "seals"}
    if weights is not None:
        places["weights"] = weights
    lines = [f'{key} = "{path}"' for key, path in places.items()]
    lines += [f'name = "{data.name}"', 'superlink = "127.0.0.1:9092"', "[rules]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in rules.items()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text("\n".join(lines))
    return folder / FILE


def with_changes(base: RunConfig, values: Mapping[str, object]) -> RunConfig:
    """Change settings; of another method, what it does not use or chooses itself is left out."""
    used = settings_of(METHODS[str(values.get("method", base.method))])
    usual = RunConfig(method=base.method).flat()
    chosen = {key: value for key, value in base.flat().items() if value != usual[key]}
    kept = {key: value for key, value in {"method": base.method, **chosen}.items() if key in used}
    return RunConfig.read({**kept, **values})
