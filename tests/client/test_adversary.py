"""No question tells two hospitals apart whose data differ by one lesion, but by sums it may see.

Deeper, 40 times as many attacks: ``make test-deep``.
"""

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from client.site import Site
from common.config import RunConfig
from common.dataset import METADATA_FILE, Dataset
from common.errors import Reason
from common.feature_map import FeatureMap
from tests.adversary import RUN, Asks, Attack, Hospital, K, attacks, distinguish, sent_config
from tests.sites import N_FEATURES, make_quick_sites

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
        both = self.hospitals(sent_config(attack.settings), folder, attack.rules)
        return distinguish(attack, both, exact="private" not in attack.settings["method"])

    def hospitals(
        self, config: Mapping[str, Any], folder: Path, rules: Mapping[str, Any]
    ) -> list[Hospital]:
        """Open both in a run, each with a state of its own."""
        return [
            Hospital([data, *self._others], folder / str(place), config, rules)
            for place, data in enumerate(self._both)
        ]


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


def ask_both(pair: Pair, folder: Path, method: str, asks: list[Asks], **settings: Any) -> list[Any]:
    """Ask both hospitals of a pair; return what left each, one answer after the other."""
    rules = settings.pop("rules", {"epsilon": 3.0})
    config = sent_config({**pair.fixed, "method": method, **settings})
    return [
        [hospital.ask(each) for each in asks] for hospital in pair.hospitals(config, folder, rules)
    ]


def test_what_is_too_large_for_a_secure_sum_names_no_count(frozen, tmp_path):
    """Class weights of 0 but for one class made a refusal quote that class's images."""
    feature_map = FeatureMap(np.zeros(N_FEATURES), np.eye(N_FEATURES)[:, :40])
    named = {"map": feature_map.digest}
    weights = {"weights": np.zeros((1, K, 41))}
    for k in range(K):
        class_weights = np.where(np.arange(K) == k, 1e9, 0.0)
        arrays = {**feature_map.to_record(), "class_weights": class_weights}
        both = ask_both(
            frozen,
            tmp_path / str(k),
            "svm",
            [Asks("prepare", arrays, named), Asks("calibrate", {**weights, **CALIBRATION}, named)],
            secure=True,
            components=40,
            min_active=1,
            rules={"least_sites": 3, "least_count": 5},
        )
        assert [left.refused for left in both[0]] == [None, None]
        assert both[0] == both[1]


CALIBRATION = {"calibration": np.full((2, K), 1e15)}


def test_errors_count_no_lesions(frozen, tmp_path):
    """A mean with a row for each lesion, a class weight too few, a delta of one lesion or so."""
    arrays = {
        "mean": np.zeros(12),
        "scale": np.array(1.0),
        "offset": np.zeros(K),
        "class_weight": np.ones(K),
        "weights": np.zeros((K, 13)),
    }
    overview = Asks("overview", {}, {"run": RUN, "step": 0})
    odd = [{"mean": np.zeros((m, 12))} for m in range(1, 60)]
    odd += [{"class_weight": np.ones(m)} for m in range(1, K)]
    asks = [Asks("gradient", {**arrays, **each}, {"run": RUN, "step": 1}) for each in odd]
    both = ask_both(
        frozen, tmp_path / "a", "private", [overview, *asks], projection=12, epsilon=2.0
    )
    for answers in both:
        assert [left.refused for left in answers] == [None, *[Reason.FORM] * len(odd)]
    for m in range(10, 60, 7):
        settings = {"projection": 12, "epsilon": 2.0, "delta": 1 / (m + 0.5)}
        both = ask_both(frozen, tmp_path / str(m), "private", [overview], **settings)
        # Some are no delta that any run may have.
        assert {left.refused for [left] in both} <= {Reason.UNIT, Reason.SETTINGS}
        assert both[0] == both[1]
