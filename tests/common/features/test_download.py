"""Weights come from a hub, here one of this machine, only if they are those that are expected."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.features.backbone import load_backbone

import timm  # isort: skip  (after common.features.backbone, which makes it importable)

BACKBONE = "resnet10t.c3_in1k"


class Hub(ThreadingHTTPServer):
    """Gives one file of one repository, as the hub does."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(self.server.content)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, content: bytes) -> None:
        known = self.path == f"/timm/{BACKBONE}/resolve/main/model.safetensors"
        self.send_response(200 if known else 404)
        if known:
            self.send_header("Content-Length", str(len(self.server.content)))
            self.send_header("ETag", f'"{hashlib.sha256(self.server.content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        self.wfile.write(content if known else b"")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("hub") / "model.safetensors"
    save_file(timm.create_model(BACKBONE, num_classes=0).state_dict(), file)
    server = Hub(file.read_bytes())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def download(hub: Hub, out: Path, backbone: str, digest: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: the hub's address is read once in a process."""
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "fedderm",
            "download",
            backbone,
            f"--out={out}",
            f"--sha256={digest}",
        ],
        env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(out.parent / "hub")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_weights_are_fetched_and_used(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "weights" / "model.safetensors"
    run = download(hub, out, BACKBONE, hashlib.sha256(hub.content).hexdigest().upper())
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"to use it: backbone={BACKBONE} weights={out}\n"
    assert out.read_bytes() == hub.content
    assert list(out.parent.iterdir()) == [out]
    load_backbone(BACKBONE, out)


@pytest.mark.parametrize(
    ("backbone", "digest", "name", "reason"),
    [
        (BACKBONE, "0" * 64, "a.safetensors", "not " + "0" * 64 + "; nothing was kept"),
        (BACKBONE, "12ab", "a.safetensors", "'12ab' is no SHA-256"),
        (BACKBONE, "0" * 64, "a.pth", "does not end with .safetensors"),
        (
            "resnet10t.of_mine",
            "0" * 64,
            "a.safetensors",
            "no weights of a backbone 'resnet10t.of_mine'",
        ),
        (
            "resnet18.a1_in1k",
            "0" * 64,
            "a.safetensors",
            "timm/resnet18.a1_in1k cannot be fetched: ",
        ),
    ],
)
def test_else_nothing_is_left(
    hub: Hub, tmp_path: Path, backbone: str, digest: str, name: str, reason: str
) -> None:
    run = download(hub, tmp_path / "new" / name, backbone, digest)
    assert run.returncode == 1
    assert reason in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not list((tmp_path / "new").glob("*a.*"))
