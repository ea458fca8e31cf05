"""No question tells two hospitals apart whose data differ by one lesion, but by sums it may see."""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from client.site import Site
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.tables.ham10000 import METADATA_FILE
from common.errors import Reason
from common.svm.feature_map import FeatureMap
from tests.adversary import (
    RUN,
    Asks,
    Attack,
    Hospital,
    K,
    distinguish,
    sent_config,
    used_by,
)
from tests.attacks import attacks
from tests.examples import examples
from tests.sites import N_FEATURES, make_quick_sites

EXAMPLES = {"svm": 25, "private": 25, "finetune": 5, "private_finetune": 5, "validate": 8}


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
        self.counts = sorted({n for each in self._both for n in _counts(Site(each, config))})
        names = ("cache", "backbone", "weights", "size", "views", "predictions", "folds")
        tuning = ("stages", "rounds", "local_epochs", "batch", "lr")
        flat = config.flat()
        self.fixed = {name: flat[name] for name in (*names, *tuning) if name in flat}

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


def _counts(site: Site) -> list[int]:
    """Count what a site has: images, lesions, training images and lesions, and their views."""
    train = site.dataset.select(~site.held_out)
    found = [len(each) for each in (site.dataset, train)]
    lesions = [len(each.by_lesion.sizes) for each in (site.dataset, train)]
    return [*found, *lesions, found[1] * site.config.views, K - 1]


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


@pytest.mark.hypothesis
@pytest.mark.parametrize("method", EXAMPLES)
def test_neighbours_refuse_alike_in_the_same_words(method, request, tmp_path_factory):
    pair = request.getfixturevalue("frozen" if method in ("svm", "private") else "tuned")

    @settings(
        examples(EXAMPLES[method]),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(attack=attacks(method, pair.fixed, pair.counts))
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
    config = sent_config({**used_by(method, pair.fixed), "method": method, **settings})
    return [
        [hospital.ask(each) for each in asks] for hospital in pair.hospitals(config, folder, rules)
    ]


def limit(hospital: Hospital, asks: Callable[[float, int], list[Asks]]) -> tuple[float, str]:
    """Find how large numbers may be: the exponent from which on the last ask is refused, and why.

    Parameters
    ----------
    asks : returns what is asked, given a factor and the number of the attempt.
    """
    low, high, reason = 0.0, 300.0, ""
    for attempt in range(20):
        middle = (low + high) / 2
        *before, last = asks(10.0**middle, attempt + 1)
        for each in before:
            hospital.ask(each)
        refused = hospital.ask(last).refused
        if refused in (None, Reason.FEW):
            low = middle
        else:
            high, reason = middle, refused
    return high, reason


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("name", ["class_weights", "matrix", "weights", "calibration"])
def test_how_large_numbers_may_be_depends_on_no_lesion_of_an_svm(frozen, tmp_path, name, secure):
    rng = np.random.default_rng(8)
    # As many rounds are answered as half of the components.
    matrix = rng.standard_normal((N_FEATURES, N_FEATURES))
    weights = rng.standard_normal((1, K, N_FEATURES + 1))

    def asks(factor: float, attempt: int) -> list[Asks]:
        scale = {name: factor}
        feature_map = FeatureMap(np.zeros(N_FEATURES), matrix * scale.get("matrix", 1.0))
        class_weights = np.ones(K) * scale.get("class_weights", 1.0)
        prepared = {**feature_map.to_record(), "class_weights": class_weights}
        arrays = {"weights": weights * scale.get("weights", 1.0)}
        named = {"map": feature_map.digest}
        calibrated = {
            **arrays,
            "calibration": np.full((2, K), scale.get("calibration", 1.0)),
            "base_rates": np.ones(K),
        }
        last = Asks("hinge", arrays, named, attempt)
        if name == "calibration":
            last = Asks("calibrate", calibrated, named, attempt)
        return [Asks("prepare", prepared, named, attempt), last]

    settings = {"method": "svm", "secure": secure, "min_active": 1}
    fixed = used_by(str(settings["method"]), frozen.fixed)
    config = sent_config({**fixed, **settings})
    found = [limit(each, asks) for each in frozen.hospitals(config, tmp_path, {})]
    assert found[0] == found[1]
    # Of a map that was refused as too large there are no sums.
    assert found[0][1] == (Reason.ORDER if name in ("class_weights", "matrix") else Reason.FORM)


@pytest.mark.parametrize("name", ["mean", "scale", "offset", "class_weight", "weights"])
def test_how_large_numbers_may_be_depends_on_no_lesion_of_a_private_site(frozen, tmp_path, name):
    arrays = {
        "mean": np.full(12, 1.0),
        "scale": np.array(1.0),
        "offset": np.ones(K),
        "class_weight": np.full(K, 1e-9),
        "weights": np.ones((K, 13)),
    }

    def asks(factor: float, attempt: int) -> list[Asks]:
        values = {"run": f"{attempt:x}", "step": 1}
        overview = Asks("overview", {}, {**values, "step": 0})
        return [overview, Asks("gradient", {**arrays, name: arrays[name] * factor}, values)]

    settings = {"method": "private", "epsilon": 1e-2, "components": 12, "steps": 1}
    fixed = used_by(str(settings["method"]), frozen.fixed)
    config = sent_config({**fixed, **settings})
    found = [limit(each, asks) for each in frozen.hospitals(config, tmp_path, {"epsilon": 1000.0})]
    assert found[0] == found[1]
    assert found[0][1] == Reason.FORM


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
            [Asks("prepare", arrays, named), Asks("hinge", weights, named)],
            secure=True,
            components=40,
            min_active=1,
            rules={"least_sites": 3, "least_count": 5},
        )
        assert [left.refused for left in both[0]] == [None, None]
        assert both[0] == both[1]


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
        frozen, tmp_path / "a", "private", [overview, *asks], components=12, epsilon=2.0
    )
    for answers in both:
        assert [left.refused for left in answers] == [None, *[Reason.FORM] * len(odd)]
    for m in range(10, 60, 7):
        settings = {"components": 12, "epsilon": 2.0, "delta": 1 / (m + 0.5)}
        both = ask_both(frozen, tmp_path / str(m), "private", [overview], **settings)
        # Some are no delta that any run may have.
        assert {left.refused for [left] in both} <= {Reason.UNIT, Reason.SETTINGS}
        assert both[0] == both[1]


def test_nothing_but_a_model_of_the_runs_own_kind_is_judged(tuned, tmp_path):
    """Wrong shapes, numbers and questions, in another order, or more than the operator allows."""
    from common.networks.network import shared_network  # it imports PyTorch

    config = RunConfig.read({"method": "validate", **used_by("validate", tuned.fixed)})
    network = shared_network(config.backbone, config.weights, K)
    head = {n: t.numpy() for n, t in network.pretrained.items() if n.startswith("head.")}
    rule = {"calibration": np.ones((2, K)), "base_rates": np.full(K, 1 / K)}
    odd = [
        {"head.bias": np.ones(K + 1, np.float32)},
        {"head.bias": np.ones((1, K), np.float32)},
        {"head.bias": np.ones(K)},
        {"head.bias": np.full(K, np.nan, np.float32)},
        {"head.bias": np.full(K, 2e6, np.float32)},
        {"head.more": np.ones(K, np.float32)},
        rule,
    ]
    asks = [
        Asks("evaluate", rule),
        *[Asks("network", {**head, **each}) for each in odd],
        Asks("network", head, {"views": 8}),
        Asks("linear", head),
        *[Asks(name, rule) for name in ("train", "calibrate", "network")],
        Asks("evaluate", {**rule, **head}),
        Asks("network", head),
        Asks("evaluate", rule),
        Asks("answers", rule),
        Asks("evaluate", rule),
        Asks("close", values={"finished": True}),
    ]
    # Another run than the attacks' above, which may leave scores in the same cache.
    asks = [replace(each, run=3) for each in asks]
    for secure in (False, True):
        rules = {"questions": len(asks) - 2, "least_sites": 3 * secure}
        both = ask_both(tuned, tmp_path / str(secure), "validate", asks, secure=secure, rules=rules)
        refused = [left.refused for left in both[0]]
        forms = [Reason.FORM] * (len(asks) - 6)
        assert refused == [Reason.ORDER, *forms, None, None, None, Reason.QUOTA, None]
        assert both[0] == both[1]
    forbidden = {"methods": ["svm", "finetune"]}
    for answers in ask_both(tuned, tmp_path / "no", "validate", asks, rules=forbidden):
        assert {left.refused for left in answers[:-1]} == {Reason.METHOD}
