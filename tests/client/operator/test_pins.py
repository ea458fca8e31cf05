"""A hospital answers for the program, weights and network that its operator pinned, else not."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Message
from typer.testing import CliRunner

import client.operator.pins
from client.app import app
from client.open_site import SITE
from common.config.run import RunConfig
from common.errors import Reason
from common.methods import METHODS
from common.networks.network import shared_network
from common.task import HAM10000
from common.wire.messages import pack, stamp, unpack_values
from simulations.cli import main as cli
from simulations.runtimes.in_process import InProcessGrid
from tests.finetuning import BACKBONE, changed, dealt, quick, small_dataset, spread
from tests.sites import hospital_file

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def config(synthetic_folder, network_file, tmp_path_factory) -> RunConfig:
    """One hospital, and a run that fine-tunes a small network."""
    folder = tmp_path_factory.mktemp("pins")
    spread(small_dataset(synthetic_folder, images=20), folder, dealt(1))
    return quick(folder, network_file)


def printed(weights: Path) -> str:
    command = ["pins", "method=finetune", f"backbone={BACKBONE}", f"weights={weights}"]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0
    return result.output


@pytest.fixture(scope="module")
def pinned(network_file, tmp_path_factory) -> Path:
    """Write the operator's file, as the command prints it."""
    file = tmp_path_factory.mktemp("operator") / "pins"
    file.write_text(printed(network_file))
    return file


def refusal(config: RunConfig, pins: Path) -> str | None:
    """Ask a hospital to join a run; return why it does not."""
    folder = config.sites.parent / "hospital"
    data = config.sites / "site_00"
    rules = {"pins": str(pins), "methods": [config.method]}
    file = hospital_file(data, folder, config.cache, config.weights, **rules)
    grid = InProcessGrid(app, [{SITE: str(file)}], config.flat())
    [reply] = grid.send_and_receive([Message(stamp(pack({}, {"question": "join"})), 1, "query")])
    reason = unpack_values(reply.content).get("refused")
    assert "\n" not in str(reason)
    return None if reason is None else str(reason)


def test_what_is_pinned_is_answered_for(config, pinned):
    assert refusal(config, pinned) is None


def test_other_weights_are_refused(config, pinned, tmp_path, caplog):
    other = tmp_path / "weights.safetensors"
    shutil.copy(config.weights, other)
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    found = refusal(changed(config, tmp_path / "run", weights=other), pinned)
    assert found == Reason.PINS
    assert "the weights of this site, " in caplog.text


@pytest.mark.parametrize("name", ["finetune", "staged"])
def test_another_network_is_refused(config, pinned, monkeypatch, caplog, name):
    """It has the pinned weights under the pinned names, but does something else with them.

    So it is for any method that trains a network, whatever its name.
    """
    monkeypatch.setitem(METHODS, name, replace(METHODS["finetune"], name=name))
    run = config.model_copy(update={"method": name})
    network = client.operator.pins.network_digest(run)
    module = shared_network(run.backbone, run.weights, HAM10000.n_classes)
    monkeypatch.setattr(module.backbone.conv1[0], "stride", (1, 1))
    assert client.operator.pins.network_digest(run) != network
    assert refusal(run, pinned) == Reason.PINS
    assert "the network of this site, " in caplog.text


EDITED = """
import sys
sys.path.insert(0, sys.argv[1])
from client.operator.pins import code_digest
print(code_digest())
"""


def digest_of_code(root: Path) -> str:
    command = [sys.executable, "-I", "-c", EDITED, str(root)]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


def test_one_changed_character_of_the_program_is_another_program(tmp_path):
    for room in ("client", "common"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    assert digest_of_code(tmp_path) == client.operator.pins.code_digest()
    file = tmp_path / "client" / "egress" / "activity_gate.py"
    file.write_text(file.read_text().replace("_FOLD_SHARE = 1 / 3", "_FOLD_SHARE = 0 / 3"))
    edited = digest_of_code(tmp_path)
    assert edited != client.operator.pins.code_digest()
    file.rename(file.with_name("door.py"))
    renamed = digest_of_code(tmp_path)
    assert renamed != edited
    deep = tmp_path / "common" / "one" / "two" / "three.py"
    deep.parent.mkdir(parents=True)
    deep.touch()
    assert digest_of_code(tmp_path) != renamed


def test_another_program_is_refused(config, pinned, monkeypatch, caplog):
    monkeypatch.setattr(client.operator.pins, "code_digest", lambda: "0" * 64)
    assert refusal(config, pinned) == Reason.PINS
    assert "the code of this site, 000000000000, is not what its operator pinned" in caplog.text


@pytest.mark.parametrize("spoil", [lambda text: text[9:], lambda text: "", lambda text: text + "x"])
def test_a_file_of_something_else_is_no_permission(
    config, pinned, tmp_path, caplog, spoil: Callable[[str], str]
):
    (tmp_path / "pins").write_text(spoil(pinned.read_text()))
    for file in (tmp_path / "pins", tmp_path / "missing"):
        caplog.clear()
        assert "configuration cannot be used, which its log" in refusal(config, file)
        assert f"{file} is no file of hashes of code, weights and network" in caplog.text


def test_the_hashes_are_the_same_wherever_they_are_printed(network_file, pinned):
    command = [sys.executable, "-c", f"import sys; sys.argv[1:] = {ARGUMENTS!r}; {MAIN}"]
    command[-1] = command[-1].replace("WEIGHTS", str(network_file))
    found = subprocess.run(command, capture_output=True, check=True, text=True, cwd=ROOT)
    assert found.stdout == pinned.read_text()


MAIN = "from simulations.cli.main import main; main()"
ARGUMENTS = ["pins", "method=finetune", f"backbone={BACKBONE}", "weights=WEIGHTS"]
