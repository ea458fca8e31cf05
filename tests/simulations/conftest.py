"""Finished runs on 120 synthetic images, and the command line."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import common.models.predictor
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.tables.ham10000 import write_metadata
from common.features.extract import FeatureSpec, extract
from common.networks.spatial_maps import map_network
from simulations.cli import main as cli
from simulations.data.synthetic import write_synthetic
from simulations.runtimes.experiment import with_splits
from tests.commands import IID, TUNE, Type, process
from tests.sites import QUICK, write_features


@pytest.fixture
def fedderm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Type commands in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedderm", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return (end.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def cached(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Configure an SVM whose features lie in a cache already."""
    config = QUICK.model_copy(update={"cache": tmp_path_factory.mktemp("cache")})
    write_features(synthetic_folder, config)
    return config


@pytest.fixture(scope="session")
def settings(cached: RunConfig) -> list[str]:
    """Write what that configuration sets as arguments."""
    default = RunConfig().flat()
    return [f"{k}={v}" for k, v in cached.flat().items() if v != default.get(k)]


@pytest.fixture(scope="session")
def tune(cached: RunConfig) -> list[str]:
    """Write settings that fine-tune a head, in the same cache."""
    return [*TUNE, f"cache={cached.cache}"]


@pytest.fixture(scope="session")
def finished(
    synthetic_folder: Path, settings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Train an SVM over two sites; return the folder given to ``--out``."""
    return simulated(synthetic_folder, tmp_path_factory.mktemp("finished") / "out", settings)


class CachedFeatures(NamedTuple):
    """In place of a network: an image's features as maps of one cell."""

    known: dict[bytes, np.ndarray]

    def each(self, images: Iterable[tuple[str, bytes]], of_maps: Callable[[Any], Any]) -> Any:
        # Three levels and the final map, as a network gives them.
        ends = (10, 20, 30)
        maps = (np.split(self.known[data][:, :, None, None], ends, axis=1) for _, data in images)
        return [of_maps(each) for each in maps]


@pytest.fixture
def features_at_hand(synthetic_folder, cached, monkeypatch):
    """Let models of frozen features find those that the cache was made with."""
    dataset = with_splits(synthetic_folder, cached)
    features = extract(dataset, cached.feature_spec, cached.cache).predict
    known = {dataset.read(i.image_id): row for i, row in zip(dataset.images, features, strict=True)}

    def network(spec: FeatureSpec, folders: Sequence[Path], trained: Any = None) -> Any:
        return CachedFeatures(known) if trained is None else map_network(spec, folders, trained)

    monkeypatch.setattr(common.models.predictor, "map_network", network)


@pytest.fixture(scope="session")
def other(cached: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images that no run has seen; two of their lesions have an eighth diagnosis."""
    folder = tmp_path_factory.mktemp("other") / "data"
    write_synthetic(folder, images=90, seed=2)
    write_features(folder, cached)
    rows = Dataset.open(folder).images
    changed = list(dict.fromkeys(row.lesion_id for row in rows if row.dx == "nv"))[:2]
    write_metadata(folder, (replace(r, dx="scc") if r.lesion_id in changed else r for r in rows))
    return folder


METADATA = "metadata=age,sex,localization"


@pytest.fixture(scope="session")
def informed(
    synthetic_folder: Path, settings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Train an SVM with metadata over two sites; return the folder given to ``--out``."""
    own = [*settings, METADATA, "metadata_scale=0.3"]
    return simulated(synthetic_folder, tmp_path_factory.mktemp("informed") / "out", own)


@pytest.fixture(scope="session")
def tuned(
    synthetic_folder: Path, tune: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Fine-tune over the same two sites; return the folder given to ``--out``."""
    return simulated(synthetic_folder, tmp_path_factory.mktemp("tuned") / "out", tune)


STUDY = """
folds = 2
views = 1
scales = [0.5, 1.0]
margin = 0.1
resamples = 200
[routes.svm]
size = 64
levels = 0
components = 100
c = [1e-4, 1e-3]
folds = 2
predictions = 1
min_active = 1
[routes.net]
method = "finetune"
size = 64
stages = ["head"]
rounds = [4]
local_epochs = [3]
lr = [0.01]
batch = 16
predictions = 1
folds = 2
[spreads]
pooled = { scheme = "pooled" }
natural = { scheme = "natural" }
dirichlet = { scheme = "dirichlet", sites = 3, alpha = 2.0 }
few = { scheme = "dirichlet", sites = 3, alpha = 2.0, unlabelled = 0.25 }
alone = { scheme = "alone" }
[[arms]]
route = "svm"
spreads = ["pooled", "natural", "dirichlet", "few", "alone"]
curve = ["pooled"]
[[arms]]
route = "net"
spreads = ["pooled"]
"""


@dataclass(frozen=True)
class Studied:
    """A finished study: its data, its file, and what it wrote."""

    data: Path
    file: Path
    cache: Path
    out: Path

    def arguments(self, out: Path) -> list[object]:
        """Return the command for the same study in another folder."""
        study = ("--study", self.file, "--cache", self.cache)
        return ["compare", self.data, "--out", out, *study]


@pytest.fixture(scope="session")
def studied(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Studied:
    """Run a small study."""
    folder = tmp_path_factory.mktemp("study")
    found = Studied(synthetic_folder, folder / "study.toml", folder / "cache", folder / "out")
    found.file.write_text(STUDY)
    run = process(*found.arguments(found.out))
    assert run.returncode == 0, run.stderr
    return found


def simulated(data: Path, out: Path, settings: list[str]) -> Path:
    """Train over the sites of IID; return the folder given to ``--out``."""
    run = process("simulate", data, "--out", out, *IID, *settings)
    assert run.returncode == 0, run.stderr
    assert f"run folder: {out / 'run'}" in run.stdout
    return out
