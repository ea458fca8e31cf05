"""The README is short, and its commands do what it says, typed one after the other.

All run in one shell, in a copy of the repository, on the built-in images, of which there are fewer
than `make demo` makes. Two programs are not run, by rule:

- ``make``, which installs packages, tests or trains for minutes: the Makefile must have its target;
- ``flwr``, which starts servers that go on running: tests/simulations/runtimes runs `flwr run`.
"""

import os
import re
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from server.run.folder import CARD_FILE
from simulations.data.synthetic import write_synthetic
from tests.documents import README, ROOT, blocks

LONGEST = 150

IMAGES = 240

NOT_RUN = """
make() { command make --dry-run "$@" > /dev/null; }
flwr() { [ "$1" = run ]; }
"""

STOPS = """
set -eE -o pipefail
trap 'echo "failed: $BASH_COMMAND" >&2' ERR
"""

LOCAL = ("tests", "runs", "data", "build")
"""Of the repository's folders, those that no command of the README reads."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """Copy the repository, and do there what `make demo` does before its report."""
    folder = tmp_path_factory.mktemp("clone")
    for entry in ROOT.iterdir():
        if entry.name.startswith(".") or entry.name in LOCAL or entry.suffix == ".egg-info":
            continue
        if entry.is_dir():
            shutil.copytree(
                entry, folder / entry.name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(entry, folder)
    install(folder)
    write_synthetic(folder / "data" / "synthetic", images=IMAGES)
    return folder


def install(folder: Path) -> None:
    """Make a virtual environment of the copy that has the packages of the one that tests run in."""
    environment = folder / ".venv"
    venv.create(environment, symlinks=True)
    packages = sysconfig.get_path("purelib", "venv", {"base": str(environment)})
    found = (str(folder), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    (Path(packages) / "clone.pth").write_text("\n".join(dict.fromkeys(found)))
    program = environment / "bin" / "fedderm"
    program.write_text(
        f"#!{environment / 'bin' / 'python'}\nfrom simulations.cli.main import main\nmain()\n"
    )
    program.chmod(0o755)


@pytest.fixture(scope="module")
def typed(clone) -> "subprocess.CompletedProcess[str]":
    """Type all blocks of the README in one shell."""
    home = clone / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        ["bash", "-c", NOT_RUN + STOPS + "".join(blocks(README))],
        env={**environment, "HOME": str(home)},
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_its_commands_are_marked_as_such():
    """Others would not be run here."""
    text = README.read_text(encoding="utf-8")
    assert re.findall(r"(?m)^```(.*)$", text) == ["sh", ""] * len(blocks(README))


def test_its_commands_run(typed):
    assert typed.returncode == 0, typed.stdout + typed.stderr


def test_they_do_what_it_says(typed, clone):
    """The federated SVM is the pooled one, and each run ends with a model."""
    assert "| runs/svm " in typed.stdout
    row = next(line for line in typed.stdout.splitlines() if line.startswith("| runs/svm "))
    assert row.count("+0.000 (+0.000 to +0.000)") == 2, row
    trained = re.findall(r"fedderm (?:simulate|centralized) .*--out (\S+)", "".join(blocks(README)))
    assert len(trained) > 4
    assert all((clone / out / "run" / CARD_FILE).exists() for out in trained)


@pytest.mark.parametrize("line", ["make no-such-target", "fedderm simulate x", "flwr build"])
def test_a_command_that_does_not_exist_fails(clone, line):
    """So what is not run is looked at."""
    script = f"{NOT_RUN}{STOPS}. .venv/bin/activate\n{line}"
    ended = subprocess.run(
        ["bash", "-c", script], cwd=clone, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
