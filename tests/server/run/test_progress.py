"""Each round of a long run is told of once, where the user looks: terminal, log, files."""

import contextlib
import io
import json
import logging
import math
import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from common.config.run import RunConfig
from server.federation.transport import RoundRecord
from server.run.folder import RunFolder
from server.run.progress import TENSORBOARD_FOLDER, TRAINING_FILE, Progress

FACTS = {"loss": 0.4123, "balanced_accuracy": 0.66}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(RunConfig(out=tmp_path / "run"))


@pytest.fixture
def logged(caplog) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "server.run.progress")
    return caplog


@contextlib.contextmanager
def terminal() -> Iterator[io.StringIO]:
    """Make standard error a terminal, and show the log on it as the command line does."""
    shown = io.StringIO()
    shown.isatty = lambda: True
    handlers = [*logging.root.handlers, logging.StreamHandler(shown)]
    with contextlib.redirect_stderr(shown), mock.patch.object(logging.root, "handlers", handlers):
        yield shown


def rounds(folder: RunFolder) -> list[dict[str, object]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = (folder.path / TRAINING_FILE).read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def let_rounds_last(monkeypatch: pytest.MonkeyPatch, seconds: Sequence[float]) -> None:
    times = accumulate(chain([1000.0], seconds))
    clock = SimpleNamespace(monotonic=lambda: next(times))
    monkeypatch.setattr("server.run.progress.time", clock)


def test_each_round_is_a_line_of_json(folder, monkeypatch):
    let_rounds_last(monkeypatch, [1.5, 0.25])
    with Progress(folder, 5, tensorboard=False) as progress:
        folder.log_round(RoundRecord("train", bytes_down=4, bytes_up=3), 0.0)
        folder.log_round(RoundRecord("evaluate", bytes_down=3, bytes_up=2), 0.0)
        progress.round(0, "head", FACTS)
        progress.round(1, "all", {"loss": math.nan, "balanced_accuracy": math.inf, "x": None})
    assert rounds(folder) == [
        {
            "round": 1,
            "stage": "head",
            "rounds": 5,
            "seconds_left": 6.0,
            "seconds": 1.5,
            "bytes_down": 7,
            "bytes_up": 5,
            **FACTS,
        },
        {
            "round": 2,
            "stage": "all",
            "rounds": 5,
            "seconds_left": 0.8,
            "seconds": 0.25,
            "bytes_down": 0,
            "bytes_up": 0,
            "loss": None,
            "balanced_accuracy": None,
            "x": None,
        },
    ]
    assert not (folder.path / TENSORBOARD_FOLDER).exists()


def test_a_resumed_run_keeps_each_round_once(folder):
    with Progress(folder, 5, tensorboard=False) as progress:
        for number in range(3):
            progress.round(number, "killed", FACTS)
    with (folder.path / TRAINING_FILE).open("a") as file:
        file.write('{"round": 4, "sta')
    # Killed between the line of the third round and its checkpoint.
    with Progress(folder, 5, tensorboard=False, done=2) as progress:
        progress.round(2, "resumed", FACTS)
    found = [(line["round"], line["stage"]) for line in rounds(folder)]
    assert found == [(1, "killed"), (2, "killed"), (3, "resumed")]


def test_a_round_is_a_line_of_the_log(folder, logged, monkeypatch):
    let_rounds_last(monkeypatch, [8.1, 9])
    with Progress(folder, 72, tensorboard=False, done=10) as progress:
        progress.round(10, "blocks.5", {"loss": None})
        progress.round(11, "all", FACTS)
    assert logged.messages == [
        "round 11 of 72, stage blocks.5: 8.1 s, about 494 s left",
        "round 12 of 72, stage all: loss 0.412, balanced accuracy 0.66, 9.0 s, about 540 s left",
    ]


def test_quick_rounds_of_an_unknown_number_share_lines(folder, logged, monkeypatch):
    let_rounds_last(monkeypatch, [0.5, 0.5, 0.25, 0.25, 8])
    with terminal() as shown, Progress(folder, None, tensorboard=False) as progress:
        for number in range(5):
            progress.round(number, "fit", {"gradient_norm": 10.0**-number})
    assert logged.messages == [
        "round 1, stage fit: gradient norm 1, 0.5 s",
        "round 4, stage fit: gradient norm 0.001, 0.2 s",
        "round 5, stage fit: gradient norm 0.0001, 8.0 s",
    ]
    assert shown.getvalue().splitlines() == logged.messages  # and no bar
    assert len(rounds(folder)) == 5


def test_time_left_is_that_of_the_last_rounds_of_this_stage(folder, logged, monkeypatch):
    # The first round of a stage fills a cache; ten rounds later that is forgotten.
    let_rounds_last(monkeypatch, [50, 100, *[2] * 10])
    with Progress(folder, 20, tensorboard=False) as progress:
        progress.round(0, "head", {})
        for number in range(1, 12):
            progress.round(number, "all", {})
    left = [message.split("about ")[1] for message in logged.messages]
    assert left[:3] == ["950 s left", "1800 s left", "867 s left"]
    assert left[-1] == "16 s left"


def test_a_terminal_shows_a_bar_that_goes_on_where_the_run_did(folder, logged):
    with terminal() as shown, Progress(folder, 5, tensorboard=False, done=2) as progress:
        begun = shown.getvalue()
        progress.round(2, "head", FACTS)
        progress.round(3, "all", {"loss": 0.3, "macro_auc": 0.9})
    assert begun.strip().startswith("2/5 |")
    last = shown.getvalue().strip().split("\r")[-1]
    assert last.startswith("4/5 |")
    assert "| stage all, " in last
    # The balanced accuracy is the last one known.
    assert last.endswith(" s left, loss 0.3, balanced accuracy 0.66")


def test_lines_of_the_log_do_not_tear_the_bar(folder, logged):
    with terminal() as shown:
        handlers = logging.root.handlers
        with Progress(folder, 5, tensorboard=False) as progress:
            progress.round(0, "head", FACTS)
            logging.getLogger("server.other").warning("a site is lost")
        assert logging.root.handlers == handlers
    assert "1/5 |" in shown.getvalue()
    lines = shown.getvalue().replace("\r", "\n").split("\n")
    assert set(lines) > {*logged.messages, "a site is lost"}


def test_without_a_terminal_there_is_no_bar(folder, capsys):
    with Progress(folder, 5, tensorboard=False) as progress:
        progress.round(0, "head", FACTS)
    assert capsys.readouterr() == ("", "")


def scalars(file: Path) -> Iterator[tuple[int, str, float]]:
    """Read an event file: records of a length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data = io.BytesIO(file.read_bytes())
    while header := data.read(12):
        event = Event.FromString(data.read(struct.unpack_from("<Q", header)[0]))
        data.read(4)
        if event.HasField("session_log"):
            yield event.step, "begin", 0.0
        for value in event.summary.value:
            yield event.step, value.tag, round(value.simple_value, 4)


def test_tensorboard_shows_each_round_once(folder):
    with Progress(folder, 5, tensorboard=True) as progress:
        progress.round(0, "head", FACTS)
        progress.round(1, "head", {"loss": 0.3, "balanced_accuracy": None})
    with Progress(folder, 5, tensorboard=True, done=1) as progress:
        progress.round(1, "head", {"loss": 0.3})
    first, second = (
        [(step, name) if name == "seconds" else (step, name, value) for step, name, value in each]
        for each in map(scalars, sorted((folder.path / TENSORBOARD_FOLDER).iterdir()))
    )
    once = [(2, "seconds"), (2, "bytes_down", 0), (2, "bytes_up", 0), (2, "loss", 0.3)]
    assert first == [
        (1, "begin", 0),
        (1, "seconds"),
        (1, "bytes_down", 0),
        (1, "bytes_up", 0),
        (1, "loss", 0.4123),
        (1, "balanced_accuracy", 0.66),
        *once,
    ]
    # TensorBoard drops what earlier files say of the rounds from where a session begins.
    assert second == [(2, "begin", 0), *once]
