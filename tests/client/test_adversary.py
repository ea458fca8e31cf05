"""No question tells two hospitals apart whose data differ by one lesion, but by sums it may see."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from client.site import Site
from common.config import RunConfig
from common.dataset import METADATA_FILE, Dataset
from tests.adversary import Attack, Hospital, attacks, base_config, distinguish
from tests.sites import make_quick_sites

SETTINGS = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Pair:
    """Two hospitals alike but for a lesion, and the others of their federation."""

    def __init__(self, synthetic: Path, folder: Path) -> None:
        self.config = make_quick_sites(synthetic, folder, 3)
        assert self.config.sites is not None
        whole, *self.others = sorted(self.config.sites.iterdir())
        self.whole, self.less = whole, folder / "neighbour" / whole.name
        shutil.copytree(whole, self.less)
        _drop(self.less / METADATA_FILE, _lone_lesion(whole, self.config))

    def tell_apart(self, attack: Attack, folder: Path) -> str | None:
        """Return what tells them apart."""
        fixed = {"cache": str(self.config.cache), "views": 1, "predictions": 1}
        config = base_config(attack.settings, fixed)
        both = [
            Hospital([data, *self.others], folder / kind, config, attack.rules)
            for kind, data in (("whole", self.whole), ("less", self.less))
        ]
        return distinguish(attack, both, exact=attack.settings["method"] == "svm")


def _lone_lesion(folder: Path, config: RunConfig) -> str:
    """Return a training lesion of the rarest class."""
    site = Site(folder, config)
    train = site.dataset.select(~site.held_out)
    counts = Counter(train.labels.tolist())
    rarest = min(counts, key=lambda label: counts[label])
    return str(train.lesions[np.flatnonzero(train.labels == rarest)[0]])


def _drop(table: Path, lesion: str) -> None:
    content = table.read_text().splitlines(keepends=True)
    table.unlink()
    table.write_text("".join(line for line in content if not line.startswith(f"{lesion},")))


@pytest.fixture(scope="module")
def pair(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    pair = Pair(synthetic_folder, tmp_path_factory.mktemp("pair"))
    assert len(Dataset.open(pair.less)) < len(Dataset.open(pair.whole))
    return pair


@pytest.mark.parametrize("method", ["svm", "private"])
def test_neighbours_refuse_alike_in_the_same_words(pair, tmp_path_factory, method):
    @SETTINGS
    @given(attack=attacks(method))
    def attacked(attack: Attack) -> None:
        folder = tmp_path_factory.mktemp("attack")
        try:
            assert pair.tell_apart(attack, folder) is None
        finally:
            shutil.rmtree(folder)

    attacked()
