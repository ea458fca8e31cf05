"""No question tells two hospitals apart whose data differ by one lesion, but by sums it may see.

Deeper, 40 times as many attacks: ``make test-deep``.
"""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from client.site import Site
from common.config import RunConfig
from common.dataset import METADATA_FILE, Dataset
from tests.adversary import Attack, Hospital, attacks, distinguish, sent_config
from tests.sites import make_quick_sites

EXAMPLES = {"svm": 25, "private": 25, "finetune": 5, "private_finetune": 5}
DEEPER = 40


class Pair:
    """Two hospitals alike but for a lesion, and the others of their federation.

    Parameters
    ----------
    config : of a run over three sites.
    """

    def __init__(self, config: RunConfig, folder: Path) -> None:
        assert config.sites is not None
        whole, *self._others = sorted(config.sites.iterdir())
        self._both = whole, folder / "neighbour" / whole.name
        shutil.copytree(*self._both)
        _drop(self._both[1] / METADATA_FILE, _lone_lesion(whole, config))
        assert len(Dataset.open(self._both[1])) < len(Dataset.open(whole))
        names = ("cache", "backbone", "weights", "size", "views", "predictions", "folds")
        tuning = ("stages", "rounds", "local_epochs", "batch", "lr")
        flat = config.flat()
        self.fixed = {name: flat[name] for name in (*names, *tuning)}

    def tell_apart(self, attack: Attack, folder: Path) -> str | None:
        """Return what tells them apart."""
        config = sent_config(attack.settings)
        both = [
            Hospital([data, *self._others], folder / str(place), config, attack.rules)
            for place, data in enumerate(self._both)
        ]
        return distinguish(attack, both, exact="private" not in attack.settings["method"])


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
def frozen(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    return Pair(make_quick_sites(synthetic_folder, folder, 3), folder)


@pytest.fixture(scope="module")
def tuned(synthetic_folder, network_file, tmp_path_factory) -> Pair:
    from tests.finetuning import dealt, quick, small_dataset, spread  # it imports PyTorch

    folder = tmp_path_factory.mktemp("pair")
    spread(small_dataset(synthetic_folder), folder, dealt(3))
    return Pair(quick(folder, network_file), folder)


@pytest.mark.parametrize("method", EXAMPLES)
def test_neighbours_refuse_alike_in_the_same_words(method, request, tmp_path_factory):
    pair = request.getfixturevalue("tuned" if "finetune" in method else "frozen")
    deep = settings.get_current_profile_name() == "deep"

    @settings(
        max_examples=EXAMPLES[method] * (DEEPER if deep else 1),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(attack=attacks(method, pair.fixed))
    def attacked(attack: Attack) -> None:
        folder = tmp_path_factory.mktemp("attack")
        try:
            assert pair.tell_apart(attack, folder) is None
        finally:
            shutil.rmtree(folder)

    attacked()
