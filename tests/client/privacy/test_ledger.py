"""A ledger never lets more leave than its limit, and notices whatever is done to it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.privacy.ledger import FILE, Ledger, Release
from common.errors import ConfigError, DataError, FedDermError, RefusalError
from common.privacy.accounting import SampledGaussian, epsilon
from tests.examples import examples

DATA, UNIT, DELTA = "ab" * 32, "lesion_id", 1e-5
COST = SampledGaussian(5.0, 1.0)  # epsilon 0.73; without sampling, it is accounted for at once
LIMIT = 2.0
FIT = 6  # that many fit


class Place:
    """Folders of a ledger and its seal."""

    def __init__(self, root: Path) -> None:
        self.folder, self.state = root / "ledger", root / "state"
        self.file = self.folder / FILE

    def open(self, **changes: object) -> Ledger:
        arguments = {"fingerprint": DATA, "unit": UNIT, "epsilon": LIMIT, "delta": DELTA}
        return Ledger.open(self.folder, **{**arguments, "state": self.state, **changes})

    @property
    def seal(self) -> Path:
        (file,) = self.state.glob("*.json")
        return file


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def reserve_until_refused(ledger: Ledger, cost: SampledGaussian = COST) -> int:
    for count in range(1000):
        try:
            ledger.reserve(Release(cost, "round"))
        except RefusalError:
            return count
    raise AssertionError


def test_what_was_reserved_is_spent_until_nothing_fits(place):
    ledger = place.open()
    assert ledger.account().spent == 0
    first = ledger.reserve(Release(COST, "round 1 of run a"))[0]
    ledger.settle(first)
    assert ledger.account().spent == epsilon([COST], DELTA)
    assert 1 + reserve_until_refused(place.open()) == FIT
    account = Ledger(place.folder, place.state).account()
    assert account.spent == epsilon([COST] * FIT, DELTA) <= LIMIT
    assert account.spent + account.left == pytest.approx(LIMIT)
    assert (len(account.entries), account.settled) == (FIT, {first})


def test_a_refusal_says_what_is_left_and_what_would_fit(place):
    ledger = place.open()
    ledger.reserve(Release(COST, "round 1"))
    before = place.file.read_bytes()
    with pytest.raises(RefusalError) as refusal:
        ledger.reserve(Release(SampledGaussian(5.0, 1.0, 40), "rounds 2 to 41"))
    assert str(refusal.value) == (
        "the privacy budget does not allow 'rounds 2 to 41' (40 steps): epsilon 0.7255 of 2 is "
        "spent, 1.274 is left; with noise multiplier 5 and sampling rate 1 at most 5 steps fit"
    )
    assert place.file.read_bytes() == before
    ledger.reserve(Release(SampledGaussian(5.0, 1.0, 5), "five steps"))
    with pytest.raises(RefusalError, match="at most 0 steps fit"):
        ledger.reserve(Release(COST, "one more"))


def test_sampled_steps_are_accounted_for_together(place):
    ledger, steps = place.open(), SampledGaussian(1.0, 0.01, 200)
    ledger.reserve(Release(steps, "epoch 1"))
    ledger.reserve(Release(COST, "standardisation"))
    ledger.reserve(Release(steps, "epoch 2"))
    assert ledger.account().spent == epsilon([SampledGaussian(1.0, 0.01, 400), COST], DELTA)


@examples(20)
@given(
    costs=st.lists(
        st.builds(
            SampledGaussian, noise=st.floats(1, 50), rate=st.just(1.0), steps=st.integers(1, 9)
        ),
        max_size=6,
    )
)
def test_what_is_spent_grows_and_never_passes_the_limit(tmp_path_factory, costs):
    place = Place(tmp_path_factory.mktemp("place"))
    ledger, spent, accepted = place.open(), 0.0, []
    for cost in costs:
        try:
            ledger.reserve(Release(cost, "round"))
        except RefusalError:
            assert epsilon([*accepted, cost], DELTA) > LIMIT
        else:
            accepted.append(cost)
        now = ledger.account().spent
        assert spent <= now <= LIMIT
        assert now == epsilon(accepted, DELTA)
        spent = now


def test_the_same_release_is_paid_once(place):
    ledger = place.open()
    first = ledger.reserve(Release(COST, "round 1", key="run a, round 1"))[0]
    other = ledger.reserve(Release(COST, "round 1", key="run b, round 1"))[0]
    assert first != other
    reserve_until_refused(ledger)
    before = place.file.read_bytes()
    assert place.open().reserve(Release(COST, "round 1", key="run a, round 1"))[0] == first
    assert place.file.read_bytes() == before
    for cost, what in ((SampledGaussian(6.0, 1.0), "round 1"), (COST, "round 2")):
        with pytest.raises(RefusalError, match="which is another release"):
            ledger.reserve(Release(cost, what, key="run a, round 1"))


def test_it_is_settled_once_and_only_what_was_reserved(place):
    ledger = place.open()
    number = ledger.reserve(Release(COST, "round 1"))[0]
    ledger.settle(number)
    before = place.file.read_bytes()
    ledger.settle(number)
    assert place.file.read_bytes() == before
    for wrong in (1, number + 1, 99):
        with pytest.raises(RefusalError, match=f"has no reservation {wrong}"):
            ledger.settle(wrong)


def test_a_change_of_the_limit_is_an_entry(place):
    ledger = place.open()
    reserve_until_refused(ledger)
    with pytest.raises(
        ConfigError, match="has the limit 2, not 3; note a new one by `fedderm priv"
    ):
        place.open(epsilon=3.0)
    ledger.change_limit(3.0)
    ledger = place.open(epsilon=3.0)
    ledger.reserve(Release(COST, "after"))
    ledger.change_limit(1.0)
    ledger.change_limit(1.0)
    account = ledger.account()
    assert (account.limit, account.left) == (1.0, 0.0)
    assert account.spent > 2
    with pytest.raises(RefusalError, match="0 is left"):
        ledger.reserve(Release(SampledGaussian(1000.0, 1.0), "little"))
    changes = [entry.what for entry in account.entries if entry.cost is None]
    assert changes == ["limit changed from 2 to 3", "limit changed from 3 to 1"]


def test_a_change_of_delta_is_an_entry_and_counts_for_what_is_spent(place):
    ledger = place.open()
    ledger.reserve(Release(COST, "round"))
    ledger.change_delta(DELTA / 10)
    assert ledger.account().spent == epsilon([COST], DELTA / 10) > epsilon([COST], DELTA)
    with pytest.raises(ConfigError, match="--delta"):
        place.open()
    assert place.open(delta=DELTA / 10).account().delta == DELTA / 10


def test_it_describes_itself(place):
    ledger = place.open()
    ledger.settle(ledger.reserve(Release(COST, "round 1"))[0])
    ledger.reserve(Release(COST, "round 2"))
    ledger.change_limit(4)
    header, first, second, change, last = ledger.account().lines()
    assert header == "data abababababababab, privacy unit lesion_id, delta 1e-05"
    assert first.endswith("  round 1  noise 5  rate 1  steps 1  (sent)")
    assert second.endswith("  round 2  noise 5  rate 1  steps 1  (reserved, counts as spent)")
    assert change.endswith("  limit changed from 2 to 4")
    assert last == "epsilon 1.061 is spent of 4; 2.939 is left"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fingerprint": "cd"}, r"is the ledger of other data: .* lowered by the 0\.7255"),
        ({"unit": "patient_id"}, "has the unit lesion_id, not patient_id"),
        ({"delta": 1e-6}, "has the delta 1e-05, not 1e-06"),
        ({"fingerprint": ""}, "the fingerprint of the data is empty"),
        ({"unit": ""}, "the privacy unit is empty"),
        ({"epsilon": 0}, "the limit of epsilon is 0;"),
        ({"epsilon": float("inf")}, "the limit of epsilon is inf;"),
        ({"delta": 1}, "delta is 1;"),
    ],
)
def test_other_data_or_another_promise_is_refused(place, changes, reason):
    place.open().reserve(Release(COST, "round"))
    before = place.file.read_bytes()
    assert_refused(place, reason, ConfigError, **changes)
    assert place.file.read_bytes() == before


def assert_refused(
    place: Place, reason: str, kind: type[FedDermError] = DataError, **changes: object
) -> None:
    with pytest.raises(kind, match=reason) as refusal:
        place.open(**changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_edited_line_is_noticed(place, number):
    for _ in range(2):
        place.open().reserve(Release(COST, "round"))
    lines = place.file.read_text().splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace("5.0", "9.0").replace("2.0", "8.0")
    place.file.write_text("".join(lines))
    assert_refused(place, "what was spent is unknown")
    with pytest.raises(DataError, match="what was spent is unknown"):
        Ledger(place.folder, place.state).account()


def test_an_edited_line_is_noticed_even_after_the_seal(place):
    ledger = place.open()
    seal = place.seal.read_bytes()
    for _ in range(2):
        ledger.reserve(Release(COST, "round"))
    place.seal.write_bytes(seal)
    place.file.write_text(place.file.read_text().replace("5.0", "9.0", 1))
    assert_refused(place, "was changed at or before line 3")


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_an_older_copy_is_noticed(place, kept):
    ledger = place.open()
    for _ in range(2):
        ledger.reserve(Release(COST, "round"))
    lines = place.file.read_text().splitlines(keepends=True)
    place.file.write_text("".join(lines[:kept]))
    assert_refused(place, "an older copy was put back.* knows 3 other lines")


def test_a_ledger_that_is_gone_is_not_begun_anew(place):
    place.open().reserve(Release(COST, "round"))
    place.file.unlink()
    assert_refused(place, "put the newest file back")


def test_a_copy_elsewhere_is_refused(place, tmp_path):
    place.open().reserve(Release(COST, "round"))
    copy = tmp_path / "copy"
    shutil.copytree(place.folder, copy)
    with pytest.raises(DataError, match=f"the ledger of this data is {place.file}, not {copy}"):
        Ledger(copy, place.state).account()
    # Nor may a second one be begun, of the same data.
    with pytest.raises(DataError, match="use that one, or, if it was moved and none is left there"):
        Ledger.open(tmp_path / "new", DATA, "patient_id", LIMIT, DELTA, place.state)
    with pytest.raises(DataError, match=r"has no seal .*: it is a copy, or the seal was lost"):
        Ledger(copy, tmp_path / "other").account()
    # Moved on purpose, the operator says so in the seal.
    seal = json.loads(place.seal.read_text())
    place.seal.write_text(json.dumps({**seal, "path": str(copy / FILE)}))
    assert Ledger(copy, place.state).account().spent > 0


@pytest.mark.parametrize("content", ["", "{", "3", '{"path": 3}'])
def test_a_seal_that_cannot_be_read_is_named(place, content):
    place.open()
    place.seal.write_text(content)
    assert_refused(place, f"the seal {place.seal} cannot be read")


@pytest.mark.parametrize("content", [None, "", "text\n", "3\n", "{}\n"])
def test_what_is_no_ledger_is_named(place, content):
    place.folder.mkdir()
    if content is not None:
        place.file.write_text(content)
    with pytest.raises(DataError, match=f"{FILE} is no privacy ledger"):
        Ledger(place.folder, place.state)


def test_a_ledger_of_a_later_version_is_refused(place, monkeypatch):
    monkeypatch.setattr("client.privacy.account.SCHEMA", 2)
    Ledger.open(place.folder, DATA, UNIT, LIMIT, DELTA, place.state).reserve(Release(COST, "round"))
    monkeypatch.undo()
    assert_refused(place, "is of another version of this program .schema 2, not 1.; use that")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("begun", [False, True])
def test_a_line_that_was_never_finished_is_dropped(place, share, begun, caplog):
    ledger = place.open()
    before, seal = place.file.read_bytes() if begun else b"", place.seal.read_bytes()
    ledger.reserve(Release(COST, "round"))
    line = place.file.read_bytes()[len(before) :].splitlines()[0]
    place.file.write_bytes(before + line[: int(share * len(line)) + 1])
    empty = json.dumps({"path": str(place.file), "lines": 0, "head": ""}).encode()
    place.seal.write_bytes(seal if begun else empty)
    ledger = place.open()
    assert f"{place.file}: dropped a last line" in caplog.text
    assert ledger.account().spent == 0
    assert reserve_until_refused(ledger) == FIT


def test_a_line_that_is_not_yet_sealed_counts(place):
    ledger = place.open()
    seal = place.seal.read_bytes()
    ledger.reserve(Release(COST, "round"))
    place.seal.write_bytes(seal)  # as if killed between the two
    assert place.open().account().spent == epsilon([COST], DELTA)
    assert reserve_until_refused(place.open()) == FIT - 1


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("function", ["write", "fsync", "half", "replace"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_full_disk_reserves_nothing(place, function, begun, monkeypatch):
    if begun:
        place.open().reserve(Release(COST, "round 1"))
    before = place.file.read_bytes() if begun else b""
    write, room = os.write, [20]

    def half(file: int, content: bytes) -> int:
        return write(file, content[: room.pop()]) if room else full()

    with monkeypatch.context() as patch:
        if function == "half":
            patch.setattr(os, "write", half)
        else:
            patch.setattr(os, function, full)
        with pytest.raises(DataError, match="No space left on device") as refusal:
            place.open().reserve(Release(COST, "round 2"))
    assert "\n" not in str(refusal.value)
    assert place.file.read_bytes() == before
    ledger = place.open()
    assert len(ledger.account().entries) == begun
    assert begun + reserve_until_refused(ledger) == FIT


def test_a_folder_that_cannot_be_made_is_one_line(place):
    place.folder.write_text("a file")
    assert_refused(place, "cannot (read|write)")


JOB = """
import os, signal, sys
from pathlib import Path
from client.privacy.ledger import Ledger, Release
from common.privacy.accounting import SampledGaussian
from common.errors import RefusalError

folder, state, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
ledger = Ledger.open(folder, "ab" * 32, "lesion_id", 2.0, 1e-5, state)
write, count = os.write, 0

def killed(file, content):
    write(file, content[:30])
    os.kill(os.getpid(), signal.SIGKILL)

if mode == "write":
    os.write = killed
for _ in range(20):
    try:
        ledger.reserve(Release(SampledGaussian(5.0, 1.0), f"job {os.getpid()}"))
    except RefusalError:
        break
    count += 1
    if mode == "reserve":
        os.kill(os.getpid(), signal.SIGKILL)
print(count)
"""


def start(place: Place, mode: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", JOB, str(place.folder), str(place.state), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_jobs_at_once_never_pass_the_limit(place):
    jobs = [start(place, "all") for _ in range(3)]
    counts = [int(job.communicate(timeout=120)[0]) for job in jobs]
    assert sum(counts) == FIT
    assert len(place.open().account().entries) == FIT


@pytest.mark.parametrize(("mode", "spent"), [("reserve", 1), ("write", 0)])
def test_what_a_killed_job_had_reserved_is_spent(place, mode, spent):
    job = start(place, mode)
    assert job.wait(timeout=120) == -signal.SIGKILL
    job.communicate()
    account = place.open().account()
    assert (len(account.entries), account.settled) == (spent, set())
    assert spent + reserve_until_refused(place.open()) == FIT
