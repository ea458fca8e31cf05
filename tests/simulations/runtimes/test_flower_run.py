"""``flwr run`` gives what the in-process grid gives, and leaves no process behind."""

import json
import socket
from pathlib import Path

import pytest

from simulations.runtimes import flower_run
from simulations.runtimes.flower_run import flwr_run, free_ports
from simulations.runtimes.in_process import run_in_process
from tests.simulations.tiny_app import app
from tests.watch import processes_of

APP_DIR = Path(app.__file__).parent
# Everything that quoting could get wrong.
TEXT = "a 'single' and a \"double\" quote = \\ä"


def test_a_server_app_that_raises_is_a_failed_run_and_gave_what_it_gives_in_process(
    tmp_path, monkeypatch
):
    configs = [{"partition-id": i, "num-partitions": 2} for i in range(2)]
    result = tmp_path / "result.json"
    config = {"rounds": 2, "sites": 2, "rate": 1e-05, "fail": True, "text": TEXT}
    config["result"] = str(result)
    with pytest.raises(RuntimeError, match="told to fail"):
        run_in_process(app.server_app, app.client_app, configs, config)
    in_process = json.loads(result.read_text())
    result.unlink()
    # At the first start another process has the port; the next is made at others.
    ports = [flower_run.local_superlink_ports() for _ in range(2)]
    taken = int(ports[0]["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"])
    monkeypatch.setattr(flower_run, "local_superlink_ports", lambda: ports.pop(0))
    with socket.create_server(("127.0.0.1", taken)):
        run = flwr_run(APP_DIR, config, sites=2, home=tmp_path / "home")
    assert ports == []
    assert run.returncode != 0
    assert "RuntimeError: told to fail" in run.stdout
    assert json.loads(result.read_text()) == in_process
    assert processes_of(tmp_path) == []


def test_free_ports_are_none_that_the_system_gives_to_connections():
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = free_ports(200)
    assert len(set(ports)) == 200
    assert not [port for port in ports if first <= port <= last]
