"""A run that was killed, wherever, goes on and ends with the very same model."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import common.finetune.local_steps
import common.storage.whole_files
import server.app
import server.methods.finetune
from client.state import RoundArrays
from common.config.run import RunConfig
from common.errors import ConfigError, DataError, FedDermError, QuorumError
from common.finetune.local_steps import LocalSteps
from common.networks.network import HEAD
from server.run.checkpoint import Checkpoint
from server.run.folder import CHECKPOINT_FILE, METRICS_FILE, MODEL_FILE, RunFolder
from simulations.runtimes.experiment import simulate
from tests.finetuning import (
    SCAFFOLD,
    SITES,
    STAGE,
    changed,
    content_of,
    training_log,
)

HOWS: dict[str, dict[str, Any]] = {
    "adamw": {"rounds": (3, 2, 5), "moments_every": 2},
    "a robust rule": {**SCAFFOLD, "robust": "trimmed_mean", "hostile": 1, "norm_bound": 2},
    "scaffold": SCAFFOLD | {"clip": 1},
    "fedadam, momentum": {"strategy": "fedadam", "server_lr": 0.01, "optimizer": "sgd"},
    "fedyogi, some sites": {"strategy": "fedyogi", "server_lr": 0.01, "fraction": 0.6},
    "scaffold, some sites": {
        **SCAFFOLD,
        **{"fraction": 0.6, "imbalance": "oversample", "local_epochs": 0.5},
    },
}


class Interruptions:
    """Raise now and then where a coordinator or a site may be killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
        self.count, self.every, self.times = 0, every, 0
        for owner, name in (
            (LocalSteps, "step"),
            (RoundArrays, "save"),
            (Checkpoint, "save"),
            (server.methods.finetune._Training, "_validate"),
        ):
            monkeypatch.setattr(owner, name, self._around(getattr(owner, name)))

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def around(*arguments: Any, **named: Any) -> Any:
            self._tick()
            result = function(*arguments, **named)
            self._tick()
            return result

        return around

    def _tick(self) -> None:
        self.count += 1
        if self.count % self.every == 0:
            self.times += 1
            raise KeyboardInterrupt


@pytest.mark.parametrize("how", HOWS)
def test_a_run_that_is_interrupted_again_and_again_gives_the_same_model(
    base, tmp_path, monkeypatch, how
):
    finished = changed(base, tmp_path / "finished", **HOWS[how])
    simulate(finished)
    run = changed(base, tmp_path / "run", **HOWS[how])
    # More often than there are moments in a round, it would get nowhere.
    interruptions = Interruptions(monkeypatch, every=29)
    while not (run.out / MODEL_FILE).exists():
        try:
            simulate(run)
        except KeyboardInterrupt:
            assert interruptions.times < 30
    assert interruptions.times >= 2
    assert content_of(run) == content_of(finished)
    assert content_of(run, METRICS_FILE) == content_of(finished, METRICS_FILE)
    untimed = {"seconds": 0, "seconds_left": 0}
    one, other = ([line | untimed for line in training_log(each)] for each in (run, finished))
    assert one == other


KILLED = """
import os, signal, sys
from common.storage import whole_files
from common.config.run import RunConfig
from common.finetune.local_steps import LocalSteps
from simulations.runtimes.experiment import simulate

class Replacing:
    def __getattr__(self, name):
        return getattr(os, name)

    def replace(self, part, path):
        if str(path).endswith("checkpoint.safetensors"):
            tick()
        os.replace(part, path)

left = int(sys.argv[2])

def tick():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

step = LocalSteps.step

def killed(*arguments):
    tick()
    return step(*arguments)

if sys.argv[1] == "step":
    LocalSteps.step = killed
else:
    whole_files.os = Replacing()
simulate(RunConfig.model_validate_json(sys.argv[3]))
"""


def test_a_run_killed_at_any_moment_gives_the_same_model(base, tmp_path):
    finished = changed(base, tmp_path / "finished", fraction=0.7)
    simulate(finished)
    run = changed(base, tmp_path / "run", fraction=0.7)
    # In the middle of a site's steps; while a checkpoint is written; and late in the run.
    for moment in (("step", "8"), ("write", "2"), ("step", "11")):
        command = [sys.executable, "-c", KILLED, *moment, run.model_dump_json()]
        assert subprocess.run(command, check=False).returncode == -9
        assert (run.out / CHECKPOINT_FILE).exists()
        assert not (run.out / MODEL_FILE).exists()
    simulate(run)
    assert content_of(run) == content_of(finished)
    assert content_of(run, METRICS_FILE) == content_of(finished, METRICS_FILE)
    assert {file.name for file in run.out.iterdir()} == {f.name for f in finished.out.iterdir()}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's affinity")
def test_the_number_of_cores_changes_no_bit(base, tmp_path):
    cores, models = os.sched_getaffinity(0), []
    try:
        for name, some in (("all", cores), ("one", {min(cores)})):
            os.sched_setaffinity(0, some)
            run = changed(base, tmp_path / name, cache=tmp_path / f"cache-{name}")
            simulate(run)
            models.append((content_of(run), content_of(run, METRICS_FILE)))
    finally:
        os.sched_setaffinity(0, cores)
    assert models[0] == models[1]


def test_nothing_of_a_finished_run_stays_behind(base, tmp_path):
    how = SCAFFOLD
    run = changed(base, tmp_path / "run", cache=tmp_path / "cache", **how)
    simulate(run)
    assert not (run.out / CHECKPOINT_FILE).exists()
    assert not any((tmp_path / "cache" / "scratch").iterdir())
    again = changed(base, tmp_path / "again", cache=tmp_path / "cache", **how)
    simulate(again)
    assert content_of(again) == content_of(run)


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(base, tmp_path, monkeypatch):
    finished = changed(base, tmp_path / "finished", quorum=SITES, **SCAFFOLD)
    simulate(finished)
    run = changed(base, tmp_path / "run", quorum=SITES, **SCAFFOLD)
    real = os.replace

    def filled(after: int, only: str = "") -> Callable[[str, Path], None]:
        left = after

        def replace(part: str, path: Path) -> None:
            nonlocal left
            if only in Path(path).name:
                left -= 1
                if left < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(part, path)

        return replace

    # The coordinator's disk, later the sites', later that of all, at last just for the model.
    for after, only in ((3, CHECKPOINT_FILE), (4, "-"), (9, ""), (0, MODEL_FILE)):
        with monkeypatch.context() as patch:
            patch.setattr(common.storage.whole_files.os, "replace", filled(after, only))
            with pytest.raises(FedDermError, match="No space left on device") as refusal:
                simulate(run)
        assert isinstance(refusal.value, DataError | QuorumError)
        assert "\n" not in str(refusal.value)
        assert "cannot write to" in str(refusal.value)
        assert not (run.out / MODEL_FILE).exists()
    simulate(run)
    assert content_of(run) == content_of(finished)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_log_on_a_full_disk_is_one_line(base, tmp_path):
    folder = RunFolder(changed(base, tmp_path / "run"))
    (folder.path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"cannot write .*No space left on device") as refusal:
        folder.append("log.jsonl", {"round": 1})
    assert str(folder.path) in str(refusal.value)


def _start(config: RunConfig, monkeypatch: pytest.MonkeyPatch, after: int = 3) -> None:
    """Leave an unfinished run behind."""
    save, saved = Checkpoint.save, 0

    def stop(self: Checkpoint, path: Path) -> None:
        nonlocal saved
        save(self, path)
        saved += 1
        if saved == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            simulate(config)


def test_an_unfinished_run_of_another_configuration_is_refused(base, tmp_path, monkeypatch):
    run = changed(base, tmp_path / "run", stages=HEAD, rounds=4)
    _start(run, monkeypatch)
    message = r"unfinished run whose lr is \[0.01\], not \[0.02\]; start it as it was"
    with pytest.raises(ConfigError, match=message) as refusal:
        simulate(changed(run, run.out, lr=0.02))
    assert "\n" not in str(refusal.value)
    # A checkpoint of one run laid into another.
    other = changed(base, tmp_path / "other", stages=STAGE, rounds=4)
    _start(other, monkeypatch)
    foreign, own = run.out / CHECKPOINT_FILE, other.out / CHECKPOINT_FILE
    kept = own.read_bytes()
    own.write_bytes(foreign.read_bytes())
    with pytest.raises(DataError, match=f"{own} is of another configuration; remove it"):
        simulate(other)
    own.write_bytes(kept[:-7])
    with pytest.raises(
        DataError, match=f"{own} is no checkpoint .*; remove it to begin"
    ) as refusal:
        simulate(other)
    assert "\n" not in str(refusal.value)
    # What the message tells to do.
    own.unlink()
    simulate(other)
    anew = changed(other, tmp_path / "anew")
    simulate(anew)
    assert content_of(other) == content_of(anew)
