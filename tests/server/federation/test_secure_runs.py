"""With secure sums every method ends as without: the coordinator sees sums and nothing else."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

import client.app
import client.privacy.clipped
import server.app
from client.open_site import site_folders
from common.config.run import RunConfig
from common.errors import ConfigError, QuorumError
from common.models.linear import LinearModel
from common.models.network import NetworkModel
from common.wire.messages import unpack_arrays, unpack_values
from common.wire.secure_sums import KEY, PEERS, UNMASK
from server.run.folder import CARD_FILE, METRICS_FILE, MODEL_FILE
from simulations.runtimes.experiment import simulate
from simulations.runtimes.in_process import RUN_ID, SERVER_NODE_ID, InProcessGrid
from tests.documents import listed_records
from tests.finetuning import SCAFFOLD, changed, dealt, quick, small_dataset, spread
from tests.sites import N_FEATURES, make_quick_sites, with_changes

VIEWS = np.random.default_rng(0).standard_normal((50, 1, N_FEATURES))


@pytest.fixture(scope="module")
def quick_sites(synthetic_folder, tmp_path_factory) -> RunConfig:
    """Four sites with cached features."""
    return make_quick_sites(synthetic_folder, tmp_path_factory.mktemp("four"), 4)


def run_of(base: RunConfig, out: Path, **changes: Any) -> RunConfig:
    return with_changes(base, {"out": out, **changes})


def train(config: RunConfig, app: ClientApp = client.app.app) -> dict[str, Any]:
    nodes = [{"partition-id": index} for index in range(len(site_folders(config.sites)))]
    grid = InProcessGrid(app, nodes, config.flat())
    server.app.app(grid, Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), config.flat()))
    found: dict[str, Any] = json.loads((config.out / METRICS_FILE).read_text())
    return found


def failing(node: int, question: str) -> ClientApp:
    """Return the real app, but one node fails at a question."""
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        asked = unpack_values(message.content)["question"]
        if context.node_id == node and asked == question:
            raise OSError("power cut")
        return client.app.app(message, context)

    return app


def listening(seen: list[tuple[str, RecordDict]]) -> ClientApp:
    """Return the real app; all that leaves a site is kept."""
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        reply = client.app.app(message, context)
        seen.append((str(unpack_values(message.content)["question"]), reply.content))
        return reply

    return app


@pytest.mark.parametrize(
    "settings", [{}, {"kernel": "rbf", "fourier": 96, "components": 16}, {"head": "lda"}]
)
def test_an_svm_is_within_1e_6_of_its_plain_self(quick_sites, tmp_path, settings):
    plain = run_of(quick_sites, tmp_path / "plain", **settings)
    secure = run_of(quick_sites, tmp_path / "secure", secure=True, **settings)
    metrics = [train(plain), train(secure)]
    scores = [LinearModel.load(r.out / MODEL_FILE).scores(VIEWS) for r in (plain, secure)]
    assert np.abs(scores[0] - scores[1]).max() < 1e-6
    assert metrics[0]["overall"]["confusion"] == metrics[1]["overall"]["confusion"]
    assert metrics[1]["sites"] == {}
    card = (secure.out / CARD_FILE).read_text()
    assert "no site's share" in card
    assert "Of each site alone nothing is known" in card


def test_all_that_leaves_a_site_is_masked(quick_sites, tmp_path):
    seen: list[tuple[str, RecordDict]] = []
    train(run_of(quick_sites, tmp_path / "run", secure=True, head="ridge"), listening(seen))
    for question, content in seen:
        arrays = unpack_arrays(content) if "arrays" in content else {}
        if question in ("join", "close", "prepare", KEY, PEERS, UNMASK):
            assert not arrays
        else:
            assert arrays.keys() == {"masked"}
            assert unpack_values(content).keys() == {"envelopes", "seal"}
    assert {"moments", "evaluate"} <= {question for question, _ in seen}


def test_small_sites_take_part_where_the_gate_counts_over_the_sum(quick_sites, tmp_path):
    """Each alone has too few active lesions; the four together have enough."""
    plain = run_of(quick_sites, tmp_path / "plain", min_active=25, quorum=2)
    with pytest.raises(QuorumError, match="active in one of the problems"):
        train(plain)
    secure = run_of(quick_sites, tmp_path / "secure", min_active=25, secure=True)
    metrics = train(secure)
    assert metrics["data"]["left_out"] == {}
    strict = run_of(quick_sites, tmp_path / "strict", min_active=10**4, secure=True)
    with pytest.raises(QuorumError, match="fewer than 10000 lesions, or of one fold fewer"):
        train(strict)


def test_an_exact_svm_says_why_it_waits_for_a_site(quick_sites, tmp_path):
    run = run_of(quick_sites, tmp_path / "run", secure=True)
    with pytest.raises(QuorumError, match=r"site_01 failed.*would tell its share: start this run"):
        train(run, failing(2, "hinge"))


@pytest.fixture(scope="module")
def tuning(synthetic_folder, network_file, tmp_path_factory) -> RunConfig:
    """Fine-tune a small network over four sites."""
    folder = tmp_path_factory.mktemp("tuning")
    spread(small_dataset(synthetic_folder), folder, dealt(4))
    return quick(folder, network_file, rounds=2)


@pytest.mark.parametrize("settings", [{}, {**SCAFFOLD, "personal": 1}])
def test_fine_tuning_is_its_plain_self_but_for_rounding(tuning, tmp_path, settings):
    plain = changed(tuning, tmp_path / "plain", **settings)
    secure = changed(tuning, tmp_path / "secure", secure=True, **settings)
    metrics = [simulate(plain), simulate(secure)]
    models = [NetworkModel.load(run.out / MODEL_FILE, run.weights) for run in (plain, secure)]
    pairs = [(models[1].weights[name], tensor) for name, tensor in models[0].weights.items()]
    apart = np.concatenate([np.abs(a - b).ravel() for a, b in pairs])
    # AdamW divides by the root of mean squares: of gradients of 1e-8, rounding is no small part.
    assert apart.max() < (1e-5 if settings else 5e-3)
    assert np.mean(apart < 1e-5) > 0.98
    assert metrics[0]["overall"]["n"] == metrics[1]["overall"]["n"]
    assert metrics[1].get("personal", {}) == {}
    if settings:
        assert metrics[1]["overall_personal"]["n"] == metrics[0]["overall_personal"]["n"]


@pytest.fixture
def drawn(monkeypatch) -> None:
    """Give each site, by its records, and each question noise that is the same in every run."""
    real = client.privacy.clipped.Clipped.noisy

    def seeded(sums: client.privacy.clipped.Clipped, honest: int) -> Any:
        rng = np.random.default_rng(np.frombuffer(hashlib.sha256(sums.sums).digest(), np.uint32))
        with monkeypatch.context() as patch:
            patch.setattr("client.privacy.draws.randomness", rng.bytes)
            return real(sums, honest)

    monkeypatch.setattr(client.privacy.clipped.Clipped, "noisy", seeded)


def private(synthetic_folder: Path, folder: Path, **changes: Any) -> RunConfig:
    base = make_quick_sites(synthetic_folder, folder, 4)
    settings = {"method": "private", "components": 16, "steps": 4, "epsilon": 4.0}
    return run_of(base, folder / "run", **settings, **changes)


SHARED = {"trust": "distributed", "honest": 3}


def test_a_private_run_has_the_very_same_noisy_sums(synthetic_folder, tmp_path, drawn):
    plain = private(synthetic_folder, tmp_path / "plain", **SHARED)
    secure = private(synthetic_folder, tmp_path / "secure", secure=True, **SHARED)
    seen: list[tuple[str, RecordDict]] = []
    train(plain)
    train(secure, listening(seen))
    models = [LinearModel.load(run.out / MODEL_FILE) for run in (plain, secure)]
    np.testing.assert_array_equal(models[0].weights, models[1].weights)
    for _, content in seen:
        arrays = unpack_arrays(content) if "arrays" in content else {}
        assert {*arrays, *unpack_values(content)} <= listed_records()


def test_noise_that_all_must_share_survives_no_dropout(synthetic_folder, tmp_path):
    run = private(synthetic_folder, tmp_path, secure=True, **SHARED | {"honest": 4})
    with pytest.raises(QuorumError, match=r"3 sites .* 4 must"):
        train(run, failing(2, "gradient"))


def test_sums_over_some_sites_are_no_configuration():
    with pytest.raises(
        ConfigError, match="'fraction' is 0\\.5, but secure sums are over all sites"
    ):
        RunConfig.read({"method": "finetune", "secure": True, "fraction": 0.5})


def test_two_sites_have_no_secure_run(synthetic_folder, tmp_path):
    base = make_quick_sites(synthetic_folder, tmp_path, 2)
    with pytest.raises(QuorumError, match="secure sums need 3 sites or more, and there are 2"):
        train(run_of(base, tmp_path / "run", secure=True))
