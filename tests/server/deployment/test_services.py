"""Units of systemd by systemd's own judgement, Compose files by their schema and the image."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from common.operation.systemd_unit import systemd_unit
from server.deployment import operations
from simulations.cli.main import app
from tests.image_root import instructions

MOST = 20
"""Tenths of exposure by ``systemd-analyze security``, up to 100."""

CONTAINER = Path(__file__).parents[3] / "common" / "container"

by_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd is not installed, which judges its units"
)


def analyze(*arguments: object) -> tuple[int, str]:
    command = ["systemd-analyze", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def units(tmp_path: Path) -> dict[str, Path]:
    """Write the units of a coordinator and a hospital."""
    folder = tmp_path / "a folder"
    operations.init(folder, ["north", "south", "east"], ["127.0.0.1"])
    found = {}
    for room, name in (("site", "north"), ("deploy", "coordinator")):
        said = CliRunner().invoke(app, [room, "service", str(folder / name)])
        assert said.exit_code == 0
        found[name] = tmp_path / f"fedderm-{name}.service"
        found[name].write_text(said.stdout)
    return found


@by_systemd
@pytest.mark.parametrize("name", ["north", "coordinator"])
def test_systemd_accepts_a_unit_and_its_sandbox(units, name):
    assert analyze("verify", "--man=no", units[name]) == (0, "")
    judged = "security", "--offline=true", f"--threshold={MOST}", units[name]
    code, said = analyze(*judged)
    assert code == 0, said
    # Without what it may only read and write, or a lifted wall, it would not be accepted.
    text = units[name].read_text()
    units[name].write_text(re.sub(r"(?m)^(SystemCall|Restrict|Protect|Private).*\n", "", text))
    assert analyze(*judged)[0] == 1


@by_systemd
def test_odd_names_are_read_as_they_are(tmp_path):
    odd = tmp_path / 'of "100 %" $HOME'
    odd.mkdir()
    unit = tmp_path / "odd.service"
    unit.write_text(systemd_unit("Odd", ["site", "run", odd], [odd, odd / "state"], []))
    assert analyze("verify", "--man=no", unit) == (0, "")
    written = f'"{tmp_path}/of \\"100 %%\\" $$HOME"'
    lines = unit.read_text().splitlines()
    assert any(line.endswith(f'fedderm" "site" "run" {written}') for line in lines)
    assert f"ReadWritePaths={written.replace('$$', '$')}" in lines


@pytest.mark.parametrize("name", ["hospital", "coordinator"])
def test_a_compose_file_is_one_and_closes_the_image(name):
    file = CONTAINER / f"{name}.yaml"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [service] = yaml.safe_load(file.read_text())["services"].values()
    image = dict(instructions((CONTAINER / "Dockerfile").read_text()))  # the last of each counts
    assert service["user"] == image["USER"]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert not {"network_mode", "privileged"} & service.keys()
    # What it starts is a command of this program.
    folder = "${FOLDER"
    words = [word for word in service["command"] if not word.startswith(folder)]
    assert json.loads(image["ENTRYPOINT"]) == ["fedderm"]
    assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0


def test_what_the_image_copies_is_what_its_builder_gets():
    """The list of what is not left out, beside the Dockerfile, has all that it copies."""
    steps = instructions((CONTAINER / "Dockerfile").read_text())
    copied = {
        source
        for name, rest in steps
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    listed = (CONTAINER / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in listed if line.startswith("!")} == copied
    assert all((CONTAINER.parents[1] / source).exists() for source in copied)
