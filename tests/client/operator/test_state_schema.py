"""A hospital's state of the version before goes through an upgrade; a newer one is refused."""

import json
import shutil
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from client.egress.log import lines_of
from client.egress.log_files import EgressLog
from client.open_site import operator_of
from client.operator.cli import node_command
from client.operator.node_key import public_key
from client.operator.readiness import check
from client.operator.site_rules import Operator
from client.privacy.ledger import Ledger, Release
from client.secure.identity import Identity
from client.state import STATE, RoundCount
from common.errors import DataError, RefusalError
from common.privacy.accounting import SampledGaussian
from common.storage.schema import FILE

BEFORE = Path(__file__).with_name("state_0")
"""As version 0 wrote it in a folder PLACE: four messages, a private step, two rounds."""

PUBLIC = (BEFORE / "state" / "identity" / "public").read_text()


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Put the folder here; where logs lie is part of their seals."""
    folder = shutil.copytree(BEFORE, tmp_path / "north")
    for seal in (folder / "seals").iterdir():
        seal.write_text(seal.read_text().replace("PLACE", str(folder)))
    [egress] = (folder / "seals").glob("egress-*.json")
    egress.rename(EgressLog.of(operator(folder)).seal)
    return folder


def operator(folder: Path) -> Operator:
    return Operator.read(folder / "site.toml")


def answering(folder: Path) -> None:
    """Begin to answer a message."""
    config = {"site": str(folder / "site.toml")}
    operator_of(Context(1, 2, config, RecordDict(), {}))


def starting(folder: Path) -> None:
    """Begin to start the node."""
    public_key(folder)
    node_command(folder)


@pytest.mark.parametrize("begin", [answering, starting])
def test_state_of_the_version_before_is_carried_over_whole(hospital, begin):
    before = {path: path.read_bytes() for path in hospital.rglob("*") if path.is_file()}
    begin(hospital)
    state = operator(hospital).state
    assert (state / FILE).read_text() == str(STATE.version) != "0"
    begin(hospital)
    assert all(path.read_bytes() == content for path, content in before.items())
    # All of it still counts.
    *_, last = lines_of(operator(hospital))
    assert last.startswith("verified: 4 messages, 43295 bytes")
    ledger = Ledger(state / "ledger", operator(hospital).seals)
    account = ledger.account()
    assert account.spent == pytest.approx(0.3237, abs=1e-4)
    assert (account.limit, account.settled, account.answered) == (4, {2}, {"ef" * 16: 0})
    cost = SampledGaussian(noise=8.0, rate=0.5, steps=2)
    assert ledger.reserve(Release(cost, "training", "cd" * 32))[0] == 2  # paid for, and not again
    assert Identity(state).public().hex() == PUBLIC
    count = RoundCount(state / "rounds" / "17.count")
    count.add(3)
    with pytest.raises(RefusalError, match="3 rounds were answered"):
        count.add(3)


@pytest.mark.parametrize("begin", [answering, starting])
@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (str(STATE.version + 1), f"of version {STATE.version + 1}, and this program knows "),
        ("", "schema holds no version"),
    ],
)
def test_state_that_this_program_does_not_know_is_left_alone(hospital, begin, schema, says):
    state = operator(hospital).state
    (state / FILE).write_text(schema)
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=says) as refused:
        begin(hospital)
    assert "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before


def test_the_check_names_a_newer_state(hospital):
    state = operator(hospital).state
    (state / FILE).write_text(json.dumps(STATE.version + 1))
    [found] = [each for each in check(hospital, operator(hospital)) if each.what == "log"]
    assert not found.good
    assert "install the newer program again" in found.says
