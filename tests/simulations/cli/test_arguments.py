"""Whatever number or path a command is given, it ends with a result or with one line."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from client.operator.cli import identity_line
from client.privacy.ledger import SEAL_FOLDER, Ledger
from common.errors import FedDermError
from common.operation.status import Level
from server.deployment import operations
from server.run.folder import CONFIG_FILE
from simulations.cli import main as cli

NUMBERS = ("0", "-1", "nan", "inf", "-inf", "1e-300", "1e308", str(10**18), str(10**400))
NEVER_GOOD = {"nan", "inf", "-inf", "NUL", "pipe"}
SECONDS = 30

HEAVY = (
    "common.features.download._fetch",
    "common.features.extract.extract",
    "common.models.predictor.map_network",
    "simulations.cli.predict.serve_answers",
    "simulations.cli.main.extract",
    "simulations.runtimes.experiment.run_in_process",
    "simulations.study.comparison.run_cells",
    "simulations.evaluation.exported.parts_of",
    "simulations.study.comparison._warm_up",
    "simulations.evaluation.replacement.changes_by_group",
    "simulations.audit.audit.AuditedRun.opened",
    "simulations.audit.unlearning._confidence",
    "simulations.bench.all.bench_features",
    "simulations.cli.deploy_demo.Loopback",
    "server.deployment.nodes.flwr",
    "server.deployment.operations.flwr",
    "simulations.data.synthetic._draw_lesion",
    "subprocess.Popen",
    "os.execve",
)
"""What a command does with arguments that are good."""


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield all commands with what is typed for them."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(cli.app)))
CASES = [
    (path, parameter.name)
    for path, command in COMMANDS.items()
    for parameter in command.params
    if isinstance(
        parameter.type, click.types.IntParamType | click.types.FloatParamType | click.Path
    )
]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_each_argument_and_option_has_help_that_is_shown(path, fedderm, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # each help on a line
    code, shown, _ = fedderm(*path, "--help")
    assert code == 0
    for parameter in COMMANDS[path].params:
        help_text = getattr(parameter, "help", None)
        assert help_text, parameter.name
        assert help_text in shown, parameter.name


@pytest.fixture(scope="module")
def good(
    synthetic_folder: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[object]]:
    """Return arguments that are good, by the names of parameters that must be given."""
    folder = tmp_path_factory.mktemp("good")
    operations.init(folder / "all", ["north", "south", "east"], ["127.0.0.1"])
    image = next(synthetic_folder.glob("*/*.jpg"))
    hospital, coordinator = folder / "all" / "north", folder / "all" / "coordinator"
    ledger = folder / "ledger"
    Ledger.open(ledger, "ab" * 32, "lesion_id", 2.0, 1e-5, ledger / SEAL_FOLDER)
    (hospital / "peers").write_text(identity_line(hospital))
    return {
        "data": [synthetic_folder],
        "data folder": [synthetic_folder],
        "deploy folder": [coordinator],
        "deploy name": ["north"],
        "deploy signed": [coordinator / "server.crt"],
        "site folder": [hospital],
        "status folder": [hospital],
        "site folders": [hospital],
        "privacy folder": [ledger],
        "models": [folder / "models"],
        "paths": [image],
        "run": [finished],
        "old": [finished],
        "new": [shutil.copytree(finished, folder / "newer")],
        "before": [finished],
        "after": [_without_a_site(finished, folder / "fewer")],
        "runs": [finished],
        "steps": [3],
        "site": ["north", "--site", "south", "--site", "east"],
        "host": ["127.0.0.1"],
        "backbone": ["resnet18.a1_in1k"],
        "sha256": ["0" * 64],
    }


def _without_a_site(run: Path, folder: Path) -> Path:
    """Copy a run as if one of its sites had never been there."""
    shutil.copytree(run, folder, symlinks=True)
    shutil.rmtree(folder / "sites" / "site_01")
    file = folder / "run" / CONFIG_FILE
    file.write_text(file.read_text().replace(str(run / "sites"), str(folder / "sites")))
    return folder


MORE: dict[tuple[str, ...], list[str]] = {
    ("simulate",): ["--scheme", "dirichlet", "--sites", "3"],
    ("data", "partition"): ["--scheme", "dirichlet", "--sites", "3"],
    ("attack",): ["method=finetune", "robust=median", "optimizer=sgd", "lr=0.1", "patience=0"],
}


def more(path: tuple[str, ...], name: str) -> list[str]:
    """Return options without which the argument of a name would not be looked at."""
    if path != ("privacy", "plan"):
        return MORE.get(path, [])
    noise = [] if name in ("noise", "wanted") else ["--noise", "2"]
    rate = {"batch": ["--units", "10"], "rate": []}.get(name, ["--rate", "1"])
    return [*noise, *rate, "--delta", "1e-5", "--sites", "4", "--honest", "2"]


def line_of(
    path: tuple[str, ...], name: str, bad: object, good: dict[str, list[object]], out: Path
) -> list[object]:
    """Return a command with one bad argument, the others good."""
    line: list[object] = [*path, *more(path, name)]
    arguments: list[object] = []
    for parameter in COMMANDS[path].params:
        if parameter.name == name:
            given = [bad]
        elif not parameter.required:
            continue
        elif parameter.name == "out":
            given = [out]
        else:
            key = f"{path[0]} {parameter.name}"
            given = good[key if key in good else str(parameter.name)]
        if isinstance(parameter, click.Argument):
            arguments += given
        else:
            line += [parameter.opts[0], *given]
    return [*line, "--", *arguments] if "-" in str(bad)[:1] else [*line, *arguments]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, good: object) -> Iterator[None]:
    """Let commands end where the work would begin, and fail where one waits."""

    def went_on(*_: object, **__: object) -> None:
        raise FedDermError("the arguments are good")

    for place in HEAVY:
        monkeypatch.setattr(place, went_on)
    monkeypatch.setattr(operations, "_PATIENCE", 0.0)

    def waits(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, waits)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def odd_paths(folder: Path) -> dict[str, str]:
    """Make what is no folder, or no file, of the kind that any command reads."""
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "text").write_text("text")
    paths = {name: str(folder / name) for name in ("empty", "pipe", "text")}
    return {**paths, "missing": str(folder / "none" / "there"), "NUL": f"{folder}/a\0b"}


@pytest.mark.usefixtures("ends")
@pytest.mark.parametrize(("path", "name"), CASES, ids=[f"{' '.join(p)} {n}" for p, n in CASES])
def test_a_bad_argument_is_one_line(fedderm, good, tmp_path, path, name):
    parameter = next(each for each in COMMANDS[path].params if each.name == name)
    numeric = not isinstance(parameter.type, click.Path)
    values = {each: each for each in NUMBERS} if numeric else odd_paths(tmp_path)
    for number, (kind, bad) in enumerate(values.items()):
        out = tmp_path / f"out{number}"
        signal.alarm(SECONDS)
        code, shown, err = fedderm(*line_of(path, name, bad, good, out))
        signal.alarm(0)
        told = (kind, code, shown, err)
        assert "Traceback" not in err, told
        # A status says by its code that nothing answers in this folder.
        assert code in (0, 1, 2) or (path, code) == (("status",), Level.ALARM), told
        if code == 1 and path[-1] != "check":  # a check lists what it found
            assert err.startswith("error: "), told
            assert err.count("\n") == 1, told
        if kind in NEVER_GOOD:
            assert code != 0, told


def test_all_kinds_of_arguments_are_tried():
    assert {"data", "out", "cache", "run", "html", "folders", "noise", "port", "alpha"} <= {
        name for _, name in CASES
    }
