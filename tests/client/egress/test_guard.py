"""What leaves a hospital is declared, allowed by its operator, and logged before it leaves."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict

import client.methods.svm
from client.app import app
from client.egress.allowlist import allowlist_of
from client.egress.answer import Answer
from client.egress.log import lines_of
from client.egress.log_files import FILE, EgressLog
from client.egress.records import MASKED, TENSORS, VALUES
from client.open_site import SITE
from client.operator.site_rules import Operator
from common.config.finetune import FAIRLY
from common.config.run import RunConfig
from common.data.balance import GROUP_COUNTS
from common.data.dataset import Dataset
from common.data.tables.ham10000 import METADATA_FILE
from common.errors import DataError, Reason
from common.statistics.sums import Sums
from common.svm.feature_map import FeatureMap
from common.task import HAM10000
from common.wire.messages import BOUND, pack, stamp, unpack_arrays, unpack_values
from common.wire.secure_sums import KEY, PEERS, UNMASK
from simulations.runtimes.in_process import InProcessGrid
from tests.documents import listed_records, records_of
from tests.sites import N_FEATURES, hospital_file, make_quick_sites, with_changes

Hospital = Callable[..., "Node"]


class Node:
    """A hospital that is asked questions as a coordinator does."""

    def __init__(self, config: RunConfig, folder: Path, **rules: Any) -> None:
        assert config.sites is not None
        self.data = sorted(config.sites.iterdir())[0]
        self.file = hospital_file(self.data, folder, config.cache, **rules)
        self._grid = InProcessGrid(app, [{SITE: str(self.file)}], config.flat())
        self.run = 1

    @property
    def operator(self) -> Operator:
        return Operator.read(self.file)

    def ask(self, question: str, arrays: dict | None = None, **values: Any) -> RecordDict:
        content = stamp(pack(arrays or {}, {"question": question, **values}))
        message = Message(content, 1, "query", group_id="5")
        self._grid._contexts[1].run_id = self.run
        return self._grid.send_and_receive([message])[0].content

    def refusal(self, question: str, arrays: dict | None = None, **values: Any) -> Reason:
        reply = self.ask(question, arrays, **values)
        assert not unpack_arrays(reply)
        return Reason(str(unpack_values(reply)["refused"]))

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.operator.state / FILE).open()]


@pytest.fixture
def config(synthetic_folder: Path, tmp_path: Path) -> RunConfig:
    """Configure an SVM over two sites."""
    base = make_quick_sites(synthetic_folder, tmp_path, 2)
    return base.model_copy(update={"out": tmp_path / "run"})


@pytest.fixture
def hospital(config: RunConfig, tmp_path: Path) -> Hospital:
    """Make a hospital of given rules, in a run of given settings."""

    def make(settings: dict | None = None, **rules: Any) -> Node:
        run = with_changes(config, settings or {})
        return Node(run, tmp_path / "hospital", **rules)

    return make


@dataclass(frozen=True)
class Loose(Sums):
    """Arrays of any names."""

    arrays: dict[str, np.ndarray]

    def to_record(self) -> dict[str, np.ndarray]:
        return dict(self.arrays)


def answers(monkeypatch: pytest.MonkeyPatch, **arrays: np.ndarray) -> None:
    monkeypatch.setattr(client.methods.svm, "answer", lambda *_: Loose(arrays))


ASKED = {
    "weights": np.zeros((1, 7, N_FEATURES + 1)),
    "calibration": np.ones((2, 7)),
    "base_rates": np.ones(7),
}
"""What comes with ``calibrate``."""

MAP = "0b" * 32

CALIBRATION = {
    "count": np.array(50),
    "loss": np.array(1.0),
    "gradient": np.ones((2, 7)),
    "curvature": np.ones((3, 7)),
}


def test_what_is_declared_leaves(hospital, monkeypatch):
    """Whether it is a number is the coordinator's to check: refusing would tell what is not."""
    for changed in ({}, {"loss": np.array(np.nan)}):
        answers(monkeypatch, **{**CALIBRATION, **changed})
        node = hospital()
        assert unpack_arrays(node.ask("calibrate", ASKED, map=MAP)).keys() == CALIBRATION.keys()
    assert [record["norm"] for record in node.logged()[-1]["records"]][1] is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"names": np.ones(3)}, "'names' is no record that may leave"),
        ({"gradient": np.ones((2, 7), np.float32)}, "'gradient' would leave as <f4"),
        ({"gradient": np.ones((7, 2))}, "'gradient' would leave as <f8[7, 2]"),
        ({"gradient": np.ones((60, 7))}, "'gradient' would leave as <f8[60, 7]"),
        ({"loss": np.array([1.0])}, "'loss' would leave as <f8[1]"),
    ],
)
def test_nothing_else_does(hospital, monkeypatch, caplog, changed, reason):
    answers(monkeypatch, **{**CALIBRATION, **changed})
    node = hospital()
    assert node.refusal("calibrate", ASKED, map=MAP) is Reason.UNDECLARED
    assert [line["refused"] for line in node.logged()] == [Reason.UNDECLARED]
    answers(monkeypatch, **{k: v for k, v in CALIBRATION.items() if k != "loss"})
    assert node.refusal("calibrate", ASKED, map=MAP) is Reason.UNDECLARED
    assert reason in caplog.text
    assert "'loss' is missing" in caplog.text


def test_nor_does_a_record_beside_the_declared_ones(hospital, monkeypatch):
    """Nor a value; an answer has room for nothing else."""
    monkeypatch.setattr("client.app._answer", lambda *_: Answer(CALIBRATION))
    assert set(hospital().ask("calibrate")) == {"arrays", "values", BOUND}
    monkeypatch.setattr("client.app._answer", lambda *_: Answer(CALIBRATION, {"more": 3}))
    assert hospital().refusal("calibrate") is Reason.UNDECLARED
    with pytest.raises(TypeError):
        Answer(CALIBRATION, more=ArrayRecord([np.ones(3)]))


def test_masks_hide_what_was_checked_and_nothing_else(hospital, monkeypatch):
    """An array of that name is no way around, nor one with more values."""
    answers(monkeypatch, masked=np.zeros(9, np.int64))
    assert hospital().refusal("calibrate", ASKED, map=MAP) is Reason.UNDECLARED

    def masked(*_: object) -> Answer:
        return Answer({"masked": np.zeros(size, np.int64)}, hidden=sums)

    monkeypatch.setattr("client.app._answer", masked)
    sums = dict(CALIBRATION)
    size = 1 + 1 + 14 + 21 + 1  # the last says whether a value was too large
    assert "refused" not in unpack_values(hospital().ask("calibrate"))
    size += 1
    assert hospital().refusal("calibrate") is Reason.UNDECLARED
    size -= 1
    for odd in ({"more": np.ones(0)}, {"gradient": np.ones((7, 2))}):
        sums = CALIBRATION | odd
        assert hospital().refusal("calibrate") is Reason.UNDECLARED


def test_nor_does_an_array_of_another_length_than_settings_and_question_make(hospital, monkeypatch):
    """Such as one with a value for each image; lengths that are allowed do not depend on it."""
    node = hospital()

    def moments(length: int) -> dict[str, np.ndarray]:
        gram = np.ones(length * (length + 1) // 2)
        sums = {"class_sum": np.ones((7, length)), "gram": gram}
        return {"class_weight": np.full(7, 30.0), **sums}

    answers(monkeypatch, **moments(N_FEATURES))
    assert unpack_arrays(node.ask("mapped_moments", map=MAP))
    for length in (len(Dataset.open(node.data)), N_FEATURES - 1, N_FEATURES + 1):
        answers(monkeypatch, **moments(length))
        assert node.refusal("mapped_moments", map=MAP) is Reason.UNDECLARED
    answers(monkeypatch, **{**moments(N_FEATURES), "gram": np.ones(9)})
    assert node.refusal("mapped_moments", map=MAP) is Reason.UNDECLARED


def test_small_counts_leave_in_secure_sums_only(hospital, monkeypatch):
    answers(monkeypatch, **{**CALIBRATION, "count": np.array(4)})
    assert hospital(least_count=5).refusal("calibrate", ASKED, map=MAP) is Reason.FEW
    assert unpack_arrays(hospital(least_count=4).ask("calibrate", ASKED, map=MAP))
    answers(monkeypatch, **{**CALIBRATION, "count": np.array(0)})
    assert unpack_arrays(hospital(least_count=5).ask("calibrate", ASKED, map=MAP))
    monkeypatch.undo()
    assert hospital(least_count=5).refusal("moments") is Reason.FEW
    assert hospital(least_count=1000).refusal("join") is Reason.FEW
    secure = hospital({"secure": True}, least_count=5)
    # It gets as far as the protocol, which knows no such run.
    assert secure.refusal(UNMASK, run="ab", round=1, envelopes=[]) is Reason.ORDER


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({"methods": ["finetune", "private"]}, Reason.METHOD),
        ({"least_sites": 3}, Reason.SECURE),
        ({"min_active": 20}, Reason.MIN_ACTIVE),
    ],
)
def test_the_operators_rules_hold_for_every_question(hospital, rules, reason):
    node = hospital(**rules)
    for question in ("join", "moments", "hinge", KEY, PEERS, "magic"):
        assert node.refusal(question) is reason
    assert not unpack_values(node.ask("close", finished=True))


@pytest.mark.parametrize("settings", [{"metadata": "sex"}, {"balance_groups": "sex"}])
@pytest.mark.parametrize("rules", [{"least_count": 5}, {"least_lesions": 1}])
def test_sums_by_groups_are_secure_where_an_operator_has_a_least_count(hospital, settings, rules):
    for question in ("join", "moments", GROUP_COUNTS):
        assert hospital(settings, **rules).refusal(question) is Reason.SECURE
    secure = hospital({**settings, "secure": True}, **rules)
    assert "refused" not in unpack_values(secure.ask("join"))


def test_groups_are_counted_only_where_a_run_balances_them(hospital):
    counts = unpack_arrays(hospital({"balance_groups": "sex"}).ask(GROUP_COUNTS))["images"]
    assert counts.shape == (7, 3)
    assert counts[:, :2].sum() > 0
    assert hospital().refusal(GROUP_COUNTS) is Reason.FORM


def test_what_leaves_for_groups_and_for_sites_is_in_the_table_of_the_document():
    listed = records_of("What leaves where groups or sites are to count alike")
    sums = allowlist_of("finetune").SUMS
    assert listed == {*sums[GROUP_COUNTS], *sums[FAIRLY]} - {TENSORS}


def test_an_answer_obeys_one_reading_of_the_operators_file(hospital, monkeypatch):
    """A change of it meanwhile holds from the next answer on."""
    node, real = hospital(), Operator.read
    after = node.file.read_text() + '\nmethods = ["private"]'

    def changed_behind(file: Path) -> Operator:
        operator = real(file)
        node.file.write_text(after)
        return operator

    with monkeypatch.context() as patch:
        patch.setattr(Operator, "read", changed_behind)
        assert unpack_arrays(node.ask("moments"))
    assert node.refusal("moments") is Reason.METHOD


def test_few_lesions_of_a_class_leave_in_secure_sums_only(hospital):
    """Those of one would be a patient's features, and a class alone has none to hide among."""
    for node in (hospital(least_lesions=1000), hospital(least_lesions=20)):
        for question in ("join", "moments"):
            assert node.refusal(question) is Reason.FEW
    assert "refused" not in unpack_values(hospital(least_lesions=1).ask("join"))
    secure = hospital({"secure": True}, least_lesions=1000)
    assert "refused" not in unpack_values(secure.ask("join"))


def test_a_site_of_one_class_answers_in_secure_sums_only(config, tmp_path):
    config = config.model_copy(update={"cache": tmp_path / "cache"})
    node = Node(config, tmp_path / "hospital", least_lesions=1)
    table = node.data / METADATA_FILE
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *(row for row in rows if ",nv," in row)]))
    assert node.refusal("moments") is Reason.FEW


def test_a_day_has_so_many_answers_and_bytes(hospital, monkeypatch):
    answers(monkeypatch, **CALIBRATION)
    node = hospital(rounds_a_day=2)
    for _ in range(2):
        node.ask("calibrate", ASKED, map=MAP)
    assert node.refusal("calibrate", ASKED, map=MAP) is Reason.QUOTA
    monkeypatch.setattr("client.egress.quota._day_ago", lambda: "2999-01-01T00:00:00+00:00")
    assert unpack_arrays(node.ask("calibrate", ASKED, map=MAP))
    large = hospital({"kernel": "rbf", "fourier": 999}, megabytes_a_day=1)
    answers(monkeypatch, class_weight=np.full(7, 30.0), class_sum=np.ones((7, 999)), gram=GRAM)
    assert large.refusal("mapped_moments", map=MAP) is Reason.QUOTA


GRAM = np.ones(999 * 500)


def test_rounds_and_questions_are_counted_over_all_runs(hospital):
    """Refusals are answers too; who the site is may be asked without end."""
    weights = {"weights": ASKED["weights"]}
    node = hospital(rounds=2, questions=4)
    for run in range(2):
        node.run = 100 + run
        assert node.refusal("hinge", weights, map=MAP) is Reason.ORDER
    assert node.refusal("hinge", weights, map=MAP) is Reason.QUOTA
    node.run = 999
    assert unpack_arrays(node.ask("moments"))
    assert node.refusal("moments") is Reason.QUOTA
    assert "refused" not in unpack_values(node.ask("join"))


def test_quotas_go_on_where_old_files_of_the_log_were_moved_away(hospital, monkeypatch):
    monkeypatch.setattr("client.egress.log_files.SIZE", 1)  # two messages a file
    node = hospital(questions=3, rounds_a_day=4)
    for question in ("join", "moments", "moments"):
        node.ask(question)
    (node.operator.state / FILE).unlink()
    assert unpack_arrays(node.ask("moments"))
    assert node.refusal("moments") is Reason.QUOTA
    assert node.refusal("join") is Reason.QUOTA
    missing, *there, last = lines_of(node.operator)
    assert missing == "missing: egress-log.jsonl, messages 1 to 2"
    assert [line.split()[0] for line in there] == ["3", "4", "5", "6"]
    assert last.startswith("verified: 4 messages, ")
    assert last.endswith("; not here: egress-log.jsonl, messages 1 to 2")


def test_each_message_is_logged_before_it_leaves(hospital):
    node = hospital()
    node.ask("join")
    feature_map = FeatureMap(np.zeros(N_FEATURES), np.eye(N_FEATURES)[:, :40])
    moments = unpack_arrays(node.ask("moments"))
    arrays = {**feature_map.to_record(), "class_weights": np.ones(len(HAM10000.codes))}
    node.ask("prepare", arrays, map=feature_map.digest)
    node.ask("magic")
    join, sums, prepare, magic = node.logged()
    assert [line["question"] for line in node.logged()] == ["join", "moments", "prepare", "magic"]
    assert {line["round"] for line in node.logged()} == {"5"}
    assert [record["record"] for record in sums["records"]] == list(moments)
    for record in sums["records"]:
        array = moments[record["record"]]
        assert (record["shape"], record["bytes"]) == (list(array.shape), array.nbytes)
        assert record["norm"] == pytest.approx(np.linalg.norm(array))
    assert sums["bytes"] == sum(array.nbytes for array in moments.values())
    assert (join["records"], prepare["records"], sums["spent"]) == ([], [], None)
    assert magic["refused"] == Reason.FORM
    *lines, last = lines_of(node.operator)
    assert len(lines) == 4
    assert last == f"verified: 4 messages, {sum(line['bytes'] for line in node.logged())} bytes"


def test_the_coordinators_words_forge_no_line(hospital, caplog):
    node = hospital()
    node.ask("x\nverified: 7 messages\x1b[2K")
    [line, last] = lines_of(node.operator)
    assert "verified: 7 messages" not in line
    assert last.startswith("verified: 1 messages")
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_what_cannot_be_logged_does_not_leave(hospital, monkeypatch):
    node = hospital()
    node.ask("join")
    before = node.logged()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert node.refusal("moments") is Reason.UNLOGGED
        assert node.refusal("magic") is Reason.UNLOGGED
    assert node.logged() == before
    assert unpack_arrays(node.ask("moments"))


@pytest.mark.parametrize("tampering", ["edit", "cut", "remove"])
def test_tampering_shows(hospital, tampering):
    node = hospital()
    for _ in range(3):
        node.ask("join")
    file = node.operator.state / FILE
    lines = file.read_text().splitlines(keepends=True)
    if tampering == "edit":
        file.write_text("".join(lines).replace("join", "none", 1))
    elif tampering == "cut":
        file.write_text("".join(lines[:2]))
    else:
        file.unlink()
    with pytest.raises(DataError, match="was changed"):
        list(lines_of(node.operator))
    assert node.refusal("join") is Reason.UNLOGGED
    assert EgressLog.of(node.operator).seal.parent == file.parents[1] / "seals"


def secrets_of(node: Node) -> set[bytes]:
    """Return what must never be in a message: names of images and lesions, and of folders."""
    rows = (node.data / METADATA_FILE).read_text().splitlines()[1:]
    names = {cell for row in rows for cell in row.split(",")[:2] if cell}
    folders = {str(node.data), str(node.operator.state), str(node.file.parent), str(Path.home())}
    return {text.encode() for text in names | folders}


def everything(reply: RecordDict) -> bytes:
    arrays = b"".join(a.tobytes() for a in unpack_arrays(reply).values())
    return repr(unpack_values(reply)).encode() + arrays


def test_exact_sums_with_metadata_are_secure_or_of_a_hospital_that_counts_anybody(hospital):
    """Where an operator hides small groups; a private sum hides each lesion by its noise."""
    exact = [{"metadata": "age"}, {"method": "validate", "metadata": "age"}]
    for settings in exact:
        assert hospital(settings, least_lesions=5).refusal("join") is Reason.SECURE
        assert hospital(settings, least_count=5).refusal("join") is Reason.SECURE
    private = {"method": "private", "epsilon": 2.0, "components": 12, "metadata": "age"}
    for settings in (private, {**exact[1], "without_metadata": True}):
        told = hospital(settings, least_lesions=1, least_count=5, epsilon=2.0).ask("join")
        assert "refused" not in unpack_values(told)
    assert "metadata" not in unpack_values(hospital(private, epsilon=2.0).ask("join"))


def spoil_image(node: Node) -> None:
    image = next(node.data.rglob("*.jpg"))
    image.unlink()
    image.write_bytes(b"no image")


def spoil_table(node: Node) -> None:
    table = node.data / METADATA_FILE
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*lines, lines[-1]]))


def remove_table(node: Node) -> None:
    (node.data / METADATA_FILE).rename(node.data / "elsewhere.csv")


def spoil_image_folder(node: Node) -> None:
    next(node.data.rglob("*.jpg")).unlink()


def break_rules(node: Node) -> None:
    node.file.write_text(node.file.read_text() + '\nmethods = ["magic"]')


def spoil_ledger(node: Node) -> None:
    ledger = node.operator.state / "ledger" / "privacy-ledger.jsonl"
    ledger.parent.mkdir(parents=True)
    ledger.write_text("no ledger\n")


def nothing(node: Node) -> None:
    """Leave the hospital as it is."""


@pytest.mark.parametrize("method", ["svm", "private"])
@pytest.mark.parametrize(
    "spoil",
    [
        nothing,
        spoil_image,
        spoil_table,
        remove_table,
        spoil_image_folder,
        break_rules,
        spoil_ledger,
    ],
)
def test_no_name_of_an_image_lesion_or_folder_leaves(hospital, spoil, method):
    settings = {"svm": {}, "private": {"method": "private", "epsilon": 2.0, "components": 12}}
    node = hospital(settings[method], epsilon=2.0)
    secrets = secrets_of(node)
    spoil(node)
    sent = [
        node.ask(question, run="0a", step=0, map="0b" * 32, round=1, envelopes=[])
        for question in ("join", "moments", "prepare", "overview", "hinge", "evaluate", KEY, "x")
    ]
    refused = ["refused" in unpack_values(reply) for reply in sent]
    assert all(refused) if spoil in (remove_table, break_rules) else True
    for reply in sent:
        assert not [secret for secret in secrets if secret in everything(reply)]


def test_every_record_of_a_private_or_secure_run_is_in_the_table_of_the_document():
    questions = {**allowlist_of("private").SUMS, **allowlist_of("private_finetune").SUMS}
    sums = {
        name for question in ("overview", "gradient", "moments") for name in questions[question]
    }
    values = {name for each in VALUES.values() for name in each}
    assert sums | values | {MASKED, BOUND} == listed_records() - questions.keys()
