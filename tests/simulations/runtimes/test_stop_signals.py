"""Stops, at the moment in which a process is started too."""

import signal
import subprocess
import sys

import pytest

from common.config.run import RunConfig
from common.data.dataset import Dataset
from simulations.runtimes.loopback import Loopback
from simulations.runtimes.stop_signals import sigterm_raises, stops_deferred
from simulations.study.cells import plan
from simulations.study.definition import DEFAULT_STUDY, Study
from simulations.study.training.schedule import run_cells

STOPS = pytest.mark.parametrize(
    ("stop", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)


@pytest.fixture(autouse=True)
def interrupts():
    """Let SIGINT interrupt, as at a terminal: who is started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@STOPS
def test_a_stop_waits_until_a_process_is_known(stop, error):
    known = []

    def start():
        with stops_deferred():
            signal.raise_signal(stop)
            known.append("process")
        known.append("work")

    with pytest.raises(error), sigterm_raises():
        start()
    assert known == ["process"]


@pytest.fixture
def started(stop, monkeypatch):
    """Start processes that only sleep; the stop comes right after each."""
    processes = []

    class Sleeping(subprocess.Popen):
        def __init__(self, _, **options):
            super().__init__([sys.executable, "-c", "import time; time.sleep(600)"], **options)
            processes.append(self)
            signal.raise_signal(stop)

    monkeypatch.setattr(subprocess, "Popen", Sleeping)
    yield processes
    for process in processes:
        process.kill()


@STOPS
def test_a_federation_stopped_while_a_node_starts_ends_the_node(stop, error, started, tmp_path):
    federation = Loopback(
        tmp_path / "federation",
        dict.fromkeys(("east", "north", "south"), tmp_path),
        RunConfig(),
    )
    with pytest.raises(error), sigterm_raises(), federation:
        federation.start_node("north")
    assert [process.poll() is not None for process in started] == [True]


@STOPS
def test_a_study_stopped_while_a_cell_starts_ends_the_cell(
    stop, error, started, tmp_path, synthetic_folder
):
    study = Study.read(DEFAULT_STUDY)
    folders = {tmp_path / cell.name: cell for cell in plan(study, Dataset.open(synthetic_folder))}
    with pytest.raises(error):
        run_cells(study, tmp_path, tmp_path, folders, 1)
    assert [process.poll() is not None for process in started] == [True]
