"""What a hospital tells before any training: counts of large groups, and no word of its table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import client.methods.statistics
import client.open_site
from client.egress.allowlist import allowlist_of
from client.operator.site_rules import Rules
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.groups import HISTOGRAMS, groups
from common.data.tables.ham10000 import METADATA_FILE
from common.errors import Reason
from common.statistics.data_counts import IMAGES, LESIONS, DataCounts
from common.task import HAM10000
from common.wire.messages import unpack_arrays, unpack_values
from simulations.data.partition import write_site
from tests.client.egress.test_guard import Node, everything, secrets_of
from tests.documents import records_of

SECRET = "mrs miller left knee"

Hospital = Callable[..., Node]


@pytest.fixture
def hospital(synthetic_folder: Path, tmp_path: Path) -> Hospital:
    """Make a hospital of given rules that has all 120 images, in copies."""

    def make(settings: dict[str, Any] | None = None, **rules: Any) -> Node:
        write_site(Dataset.open(synthetic_folder), tmp_path / "sites" / "site", link=False)
        folders = {"sites": tmp_path / "sites", "cache": tmp_path / "cache", "out": tmp_path}
        config = RunConfig.read({**folders, "method": "statistics", **(settings or {})})
        return Node(config, tmp_path / "hospital", **rules)

    return make


def change_rows(node: Node, old: str, new: str, most: int = -1) -> None:
    table = node.data / METADATA_FILE
    header, rows = table.read_text().split("\n", 1)
    table.write_text(f"{header}\n{rows.replace(old, new, most)}")


def count(node: Node, name: str, group: str) -> tuple[int, int]:
    array = unpack_arrays(node.ask("statistics"))[name]
    place = groups(name, HAM10000).index(group)
    return int(array[IMAGES, place]), int(array[LESIONS, place])


def test_unknown_words_of_a_table_stay_at_the_site(hospital, caplog):
    node = hospital()
    change_rows(node, ",back", f",{SECRET}", 9)
    change_rows(node, ",nv,", ",porokeratosis,", 7)  # no training could read this
    secrets = {*secrets_of(node), SECRET.encode(), b"porokeratosis"}
    sent = [node.ask(question) for question in ("join", "statistics", "moments", "evaluate")]
    assert ["refused" in unpack_values(reply) for reply in sent] == [False, False, True, True]
    for reply in sent:
        assert not [secret for secret in secrets if secret in everything(reply)]
    assert SECRET in caplog.text
    assert "porokeratosis" in caplog.text
    log = (node.operator.state / "egress-log.jsonl").read_text()
    assert SECRET not in log
    assert count(node, "localization", "other")[IMAGES] == 9
    assert count(node, "diagnosis", "other")[IMAGES] == 7


def test_files_that_cannot_be_used_are_counted_and_named_to_the_site(hospital, caplog):
    node = hospital()
    first, second, third, *_ = sorted(node.data.rglob("*.jpg"))
    first.write_bytes(b"no image")
    second.unlink()
    third.write_bytes(sorted(node.data.rglob("*.jpg"))[-1].read_bytes())
    found = [count(node, "defect", name)[IMAGES] for name in groups("defect", HAM10000)]
    assert found == [116, 1, 1, 0, 2]
    assert count(node, "short_side", "not read")[IMAGES] == 2
    for file in (first, second, third):
        assert file.stem in caplog.text


@pytest.mark.parametrize("rules", [{"least_lesions": 12}, {"least_count": 12}])
def test_groups_under_the_operators_least_count_do_not_leave(hospital, rules):
    node = hospital(**rules)
    arrays = unpack_arrays(node.ask("statistics"))
    for name in HISTOGRAMS:
        assert ((arrays[name][LESIONS] == 0) | (arrays[name][LESIONS] >= 12)).all()
        assert arrays[name][IMAGES].sum() == 120
    small = np.bincount(Dataset.open(node.data).by_lesion.labels, minlength=7) < 12
    assert small.any()
    assert not arrays["diagnosis"][:, :7][:, small].any()


def test_a_hospital_with_few_lesions_tells_no_numbers(hospital):
    node = hospital(least_lesions=5000)
    joined = unpack_values(node.ask("join"))
    assert (joined["images"], joined["lesions"]) == ("", "")
    assert not any(array.any() for array in unpack_arrays(node.ask("statistics")).values())


def test_by_default_twenty_lesions_are_the_least(hospital):
    node = hospital(least_lesions=Rules().least_lesions)
    assert unpack_arrays(node.ask("statistics"))["sex"][LESIONS].max() >= 20
    assert Rules().least_lesions == 20


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"names": np.ones(3, np.int64)}, Reason.UNDECLARED),
        ({"age": np.zeros((2, 120), np.int64)}, Reason.UNDECLARED),
        ({"age": np.zeros((2, 12))}, Reason.UNDECLARED),
        ({"sex": np.full((2, 5), 11)}, Reason.FEW),
        ({"filled": np.full((10, 2, 3), 11)}, Reason.FEW),
    ],
)
def test_the_guard_lets_nothing_else_out_whatever_the_method_answers(
    hospital, monkeypatch, changed, reason
):
    sums = {**DataCounts.zero(HAM10000).to_record(), **changed}
    loose = type("Loose", (DataCounts,), {"to_record": lambda _: sums})
    answer = loose(**DataCounts.zero(HAM10000).to_record())
    monkeypatch.setattr(client.methods.statistics, "answer", lambda *_: answer)
    assert hospital(least_lesions=12).refusal("statistics") is reason


def test_every_record_is_in_the_table_of_the_document(hospital):
    listed = records_of("What leaves in a run of statistics")
    node = hospital()
    sent = {*unpack_values(node.ask("join")), *unpack_arrays(node.ask("statistics"))}
    assert listed == sent | allowlist_of("statistics").SUMS["statistics"].keys()


def test_an_operator_may_not_allow_it(hospital):
    assert hospital(methods=["svm"]).refusal("join") is Reason.METHOD


def test_two_hospitals_that_differ_in_a_lesion_of_a_small_group_answer_alike_there(hospital):
    """A lesion of another age moves nothing but the totals and the small groups together."""
    node = hospital(least_lesions=12)
    before = unpack_arrays(node.ask("statistics"))["diagnosis"]
    rare = int(np.bincount(Dataset.open(node.data).by_lesion.labels, minlength=7).argmin())
    code = HAM10000.codes[rare]
    table = node.data / METADATA_FILE
    lines = table.read_text().splitlines(keepends=True)
    gone = next(line.split(",")[0] for line in lines if f",{code}," in line)
    table.write_text("".join(line for line in lines if not line.startswith(f"{gone},")))
    client.open_site._sites_of.cache_clear()  # as in a process of its own
    after = unpack_arrays(node.ask("statistics"))["diagnosis"]
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])
    assert before[LESIONS, -1] == after[LESIONS, -1] + 1
