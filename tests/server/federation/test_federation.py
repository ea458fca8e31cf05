"""Whatever a site does wrong, the run names it and why, and is exact over those that are left."""

import gc
import json
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

import client.app
import common.wire.messages
import server.app
from common.config.run import RunConfig
from common.data.tables.ham10000 import METADATA_FILE
from common.errors import QuorumError
from common.formats import markdown
from common.models.linear import LinearModel
from common.statistics.sums import Sums
from common.task import HAM10000
from common.wire.messages import bind, digest, pack, unpack_arrays, unpack_values
from server.federation import transport
from server.federation.federation import Federation
from server.federation.question import LossPolicy, Question
from server.run.folder import CARD_FILE, MODEL_FILE, RunFolder
from simulations.runtimes.experiment import rounds, simulate
from simulations.runtimes.in_process import RUN_ID, SERVER_NODE_ID, InProcessGrid
from tests.sites import N_FEATURES, make_quick_sites, write_features

BAD, BAD_NODE = "site_01", 2
NODES = [{"partition-id": index} for index in range(3)]

Change = Callable[[dict[str, np.ndarray], dict[str, object]], RecordDict]


@pytest.fixture(scope="module")
def svm_config(synthetic_folder, tmp_path_factory) -> RunConfig:
    """Three good sites and a run in many rounds."""
    return make_quick_sites(synthetic_folder, tmp_path_factory.mktemp("three"), 3)


@pytest.fixture(scope="module")
def config(svm_config) -> RunConfig:
    """Ask the same sites in few rounds."""
    return svm_config.model_copy(update={"head": "ridge"})


def link_others(config: RunConfig, folder: Path, left_out: Collection[str] = (BAD,)) -> RunConfig:
    """Link the other sites into a new folder and configure a run over them."""
    (folder / "sites").mkdir()
    for site in config.sites.iterdir():
        if site.name not in left_out:
            (folder / "sites" / site.name).symlink_to(site)
    return config.model_copy(update={"sites": folder / "sites", "out": folder / "run"})


@pytest.fixture(scope="module")
def without_bad(config, tmp_path_factory) -> LinearModel:
    """Train over the sites that remain when the bad one is out."""
    run = link_others(config, tmp_path_factory.mktemp("two"))
    simulate(run)
    return LinearModel.load(run.out / MODEL_FILE)


def app_that(question: str, change: Change) -> ClientApp:
    """Return the real client app, whose bad site changes its answers to one question."""
    return app_where({BAD_NODE: question}, change)


def app_where(questions: dict[int, str], change: Change) -> ClientApp:
    """Return the real client app; each of these nodes changes its answers to its question."""
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        reply = client.app.app(message, context)
        asked = unpack_values(message.content)["question"]
        if questions.get(context.node_id) != asked:
            return reply
        content = change(unpack_arrays(reply.content), unpack_values(reply.content))
        return Message(bind(content, digest(message.content)), reply_to=message)

    return app


def train(config: RunConfig, app: ClientApp, grid_type: type[InProcessGrid] = InProcessGrid):
    grid = grid_type(app, NODES, config.flat())
    server.app.app(grid, Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), config.flat()))


def assert_bad_is_out(config: RunConfig, expected: LinearModel, who: str, reason: str) -> None:
    faults = [fault for entry in rounds(config.out) for fault in entry["faults"].items()]
    assert [name for name, _ in faults] == [who]
    assert reason in faults[0][1]
    metrics = json.loads((config.out / "metrics.json").read_text())
    assert metrics["data"]["left_out"] == dict(faults)
    assert sorted(metrics["data"]["sites"]) == ["site_00", "site_02"]
    assert markdown(reason) in (config.out / "MODEL_CARD.md").read_text()
    views = np.random.default_rng(0).standard_normal((50, 1, N_FEATURES))
    found = LinearModel.load(config.out / MODEL_FILE).scores(views)
    np.testing.assert_allclose(found, expected.scores(views), rtol=0, atol=1e-9)


def value(name: str, other: object) -> Change:
    return lambda arrays, values: pack(arrays, {**values, name: other})


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda arrays, values: pack({**arrays, name: change(arrays[name])}, values)


def spoil(number: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: np.concatenate([[number], a.ravel()[1:]]).reshape(a.shape)


def fail(arrays: object, values: object) -> RecordDict:
    raise ValueError("out of memory")


@dataclass(frozen=True)
class Ten(Sums):
    """Ten numbers."""

    x: np.ndarray


NODE = f"node {BAD_NODE}"
JOIN = {
    "number of features": (value("n_features", 5), BAD, "has 5 features"),
    "kind of features": (value("features", "ab" * 32), BAD, "another network, weights or views"),
    "classes": (value("classes", [True] * 8), NODE, "describes itself wrongly: classes"),
    "same name": (value("site", "site_00"), NODE, "second node that calls itself 'site_00'"),
    "name that is a path": (value("site", "../x"), NODE, "describes itself wrongly: site"),
    "name with a bar": (value("site", "a|b"), NODE, "describes itself wrongly: site"),
    "name of all": (value("site", "all sites"), NODE, "describes itself wrongly: site"),
    "no images": (value("images", 0), NODE, "describes itself wrongly: images"),
    "unknown fact": (value("age", 3), NODE, "describes itself wrongly: age"),
    "not introduced": (lambda a, v: RecordDict(), NODE, "no values"),
    "exception": (fail, NODE, "failed: <class 'ValueError'>"),
}
SUMS = {
    "moments: negative weight": (array("class_weight", np.negative), "'class_weight' is negative"),
    "moments: too much weight": (array("class_weight", lambda a: a + 1e12), "it has "),
    "moments: infinite": (array("gram", spoil(np.inf)), "array 'gram' holds NaN or infinite"),
    "moments: shape": (array("class_sum", lambda a: a[:1]), "array 'class_sum' is float64[1, 96]"),
    "moments: dtype": (array("gram", np.float32), "array 'gram' is float32"),
    "moments: other name": (lambda a, v: pack({"x": np.zeros(2)}, v), "arrays are ['x']"),
    "moments: no arrays": (lambda a, v: RecordDict({"values": ConfigRecord()}), "cannot be read"),
    "prepare: exception": (fail, "failed: <class 'ValueError'>"),
    "evaluate: too many counts": (array("confusion", lambda a: a + 99), "'confusion' adds up to"),
    "evaluate: negative count": (array("confusion", lambda a: a - 99), "'confusion' is negative"),
}


@pytest.mark.parametrize("fault", JOIN)
def test_a_site_that_does_not_fit_is_left_out_by_name(config, without_bad, tmp_path, fault):
    change, who, reason = JOIN[fault]
    run = config.model_copy(update={"out": tmp_path / "run", "quorum": 2})
    train(run, app_that("join", change))
    assert_bad_is_out(run, without_bad, who, reason)


@pytest.mark.parametrize("fault", SUMS)
def test_odd_sums_are_not_added(config, without_bad, tmp_path, fault):
    change, reason = SUMS[fault]
    run = config.model_copy(update={"out": tmp_path / "run", "quorum": 2})
    train(run, app_that(fault.split(":")[0], change))
    assert_bad_is_out(run, without_bad, BAD, reason)


def test_below_the_quorum_the_run_stops_and_keeps_what_it_had(svm_config, tmp_path):
    run = svm_config.model_copy(update={"out": tmp_path / "run", "quorum": 3})
    with pytest.raises(QuorumError, match=r"2 sites .*'hinge'.* is 3: site_01 array 'loss' .*NaN"):
        train(run, app_that("hinge", array("loss", spoil(np.nan))))
    questions = [entry["question"] for entry in rounds(run.out)]
    assert questions == ["join", "moments", "prepare", "hinge", "close"]
    assert not (run.out / MODEL_FILE).exists()
    assert not any((run.cache / "scratch").iterdir())


def test_a_site_with_nan_features_is_left_out(config, without_bad, tmp_path, synthetic_folder):
    table = (config.sites / BAD / METADATA_FILE).read_text().splitlines()[1:]
    run = config.model_copy(
        update={"out": tmp_path / "run", "cache": tmp_path / "cache", "quorum": 2}
    )
    write_features(synthetic_folder, run, spoiled={row.split(",")[1] for row in table})
    train(run, client.app.app)
    reason = f"({BAD}) refused: {run.sites / BAD}: features of some images are NaN"
    assert_bad_is_out(run, without_bad, "node 2", reason)


def test_a_site_without_data_is_left_out(config, without_bad, tmp_path):
    run = link_others(config, tmp_path).model_copy(update={"quorum": 2})
    (run.sites / BAD).mkdir()
    header = (config.sites / BAD / METADATA_FILE).read_text().splitlines()[0]
    (run.sites / BAD / METADATA_FILE).write_text(header + "\n")
    train(run, client.app.app)
    assert_bad_is_out(run, without_bad, NODE, "(site_01) refused")


def test_a_site_that_is_upgraded_between_two_questions_is_left_out(
    config, without_bad, tmp_path, monkeypatch
):
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        upgraded = unpack_values(message.content)["question"] != "join"
        with monkeypatch.context() as patch:
            if upgraded and context.node_id == BAD_NODE:
                patch.setattr(common.wire.messages, "shared_digest", lambda: "0" * 64)
            return client.app.app(message, context)

    run = config.model_copy(update={"out": tmp_path / "run", "quorum": 2})
    train(run, app)
    assert_bad_is_out(run, without_bad, BAD, "refused: the coordinator's program is not")


def test_the_same_data_count_once(config, tmp_path):
    run = link_others(config, tmp_path)
    (run.sites / "copy_of_00").symlink_to(config.sites / "site_00")
    train(run, client.app.app)
    # The first by name stays.
    assert rounds(run.out)[0]["faults"] == {"site_00": "has the same data as copy_of_00"}


class UnreachableGrid(InProcessGrid):
    """Cannot send to the bad site, as where a message is malformed."""

    def push_messages(self, messages):
        messages = list(messages)
        return [
            None if message.metadata.dst_node_id == BAD_NODE else message_id
            for message, message_id in zip(messages, super().push_messages(messages), strict=True)
        ]


def test_a_site_that_cannot_be_asked_is_left_out(config, without_bad, tmp_path):
    run = config.model_copy(update={"out": tmp_path / "run", "quorum": 2})
    train(run, client.app.app, UnreachableGrid)
    assert_bad_is_out(run, without_bad, NODE, "could not be sent")


class BackwardsGrid(InProcessGrid):
    """Delivers all answers at once, the last first."""

    def pull_messages(self, message_ids):
        ids = list(message_ids)
        replies = [reply for _ in ids for reply in super(BackwardsGrid, self).pull_messages(ids)]
        return replies[::-1]


def test_the_order_of_arrival_changes_no_bit(svm_config, tmp_path):
    models = []
    for number, grid_type in enumerate([InProcessGrid, BackwardsGrid]):
        run = svm_config.model_copy(update={"out": tmp_path / str(number)})
        train(run, client.app.app, grid_type)
        models.append((run.out / MODEL_FILE).read_bytes())
    assert models[0] == models[1]


def test_missing_sites_are_noted_and_the_quorum_decides(config, tmp_path):
    run = config.model_copy(update={"out": tmp_path / "run", "expected": 4, "timeout": 0.1})
    train(run, client.app.app)
    assert rounds(run.out)[0]["notes"] == ["3 of 4 expected sites connected within 0.1 s"]
    run = run.model_copy(update={"out": tmp_path / "other", "quorum": 4})
    with pytest.raises(QuorumError, match="3 of 4 expected sites connected"):
        train(run, client.app.app)


def test_a_node_that_is_gone_is_named_at_once(config, tmp_path):
    """Flower answers in the place of a node that is gone; nobody waits for the timeout."""

    class Gone(InProcessGrid):
        def pull_messages(self, message_ids):
            replies = super().pull_messages(message_ids)
            for reply in replies:
                if reply.has_error():
                    reply.metadata.__dict__["_src_node_id"] = SERVER_NODE_ID
            return replies

    run = config.model_copy(update={"out": tmp_path / "run", "quorum": 3, "timeout": 30})
    with pytest.raises(QuorumError, match=r"site_01 failed: .*out of memory"):
        train(run, app_that("moments", fail), Gone)


def test_sites_with_smaller_images_are_named_where_they_join(config, synthetic_folder, tmp_path):
    """Those here have 225 pixels on their short side."""
    for resolution, named in ((225, []), (226, ["site_00, site_01, site_02"])):
        places = {"resolution": resolution, "out": tmp_path / str(resolution)}
        run = config.model_copy(update=places)
        write_features(synthetic_folder, run)
        simulate(run)
        notes = rounds(run.out)[0]["notes"]
        assert [note.partition(": ")[2].partition(";")[0] for note in notes] == named
        card = (run.out / CARD_FILE).read_text()
        assert f"larger ones reduced to {resolution} pixels on the short side" in card
        assert card.count("- Smaller than 226 pixels") == 3 * len(named)


def test_few_answers_are_alive_at_once(config, tmp_path):
    """Large answers of many sites are added as they come."""
    alive: set[int] = set()
    most = 0
    large = ClientApp()

    @large.query()
    def answer(message: Message, context: Context) -> Message:
        nonlocal most
        if unpack_values(message.content)["question"] == "join":
            info = {
                "site": f"s{context.node_id:02}",
                "classes": [True] * HAM10000.n_classes,
                "n_features": 1,
            }
            facts = {
                "features": config.feature_spec.key,
                "images": 1,
                "lesions": 1,
                "synthetic": True,
            }
            content = pack({}, {**info, **facts, "fingerprint": str(context.node_id)})
        else:
            content = pack({"x": np.ones(10)}, {})
            alive.add(id(content))
            weakref.finalize(content, alive.discard, id(content))
            gc.collect()
            most = max(most, len(alive))
        return Message(bind(content, digest(message.content)), reply_to=message)

    run = config.model_copy(update={"out": tmp_path / "run"})
    grid = InProcessGrid(large, [{} for _ in range(20)], {})
    federation = Federation(grid, run, RunFolder(run))
    federation.join()
    total = federation.total(Question("x", Ten(np.zeros(10))), LossPolicy.RESTART)
    assert (total.x == 20).all()
    assert most <= 2


def test_a_simulation_with_many_sites_is_asked_in_parts_and_gives_the_same_model(
    svm_config, tmp_path, monkeypatch
):
    most = []

    class InMemoryGrid(InProcessGrid):  # as Flower's is called
        def push_messages(self, messages):
            ids = super().push_messages(messages)
            most.append(len(self._pending))
            return ids

    monkeypatch.setattr(transport, "SIMULATED_AT_ONCE", 2)
    models = []
    for grid_type in (InProcessGrid, InMemoryGrid):
        run = svm_config.model_copy(update={"out": tmp_path / grid_type.__name__})
        train(run, client.app.app, grid_type)
        models.append((run.out / MODEL_FILE).read_bytes())
    assert max(most) == 2
    assert models[0] == models[1]
    assert rounds(tmp_path / "InMemoryGrid")[0]["answered"] == ["site_00", "site_01", "site_02"]
