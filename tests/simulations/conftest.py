"""Finished runs on 120 synthetic images, and the command line."""

import sys
from pathlib import Path

import pytest

from common.config import RunConfig
from simulations import cli
from tests.commands import IID, TUNE, Type, process
from tests.sites import QUICK, write_features


@pytest.fixture
def fedderm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Type commands in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedderm", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return (end.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def cached(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Configure an SVM whose features lie in a cache already."""
    config = QUICK.model_copy(update={"cache": tmp_path_factory.mktemp("cache")})
    write_features(synthetic_folder, config)
    return config


@pytest.fixture(scope="session")
def settings(cached: RunConfig) -> list[str]:
    """Write what that configuration sets as arguments."""
    default = RunConfig().flat()
    return [f"{k}={v}" for k, v in cached.flat().items() if v != default[k]]


@pytest.fixture(scope="session")
def tune(cached: RunConfig) -> list[str]:
    """Write settings that fine-tune a head, in the same cache."""
    return [*TUNE, f"cache={cached.cache}"]


@pytest.fixture(scope="session")
def finished(
    synthetic_folder: Path, settings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Train an SVM over two sites; return the folder given to ``--out``."""
    return _simulated(synthetic_folder, tmp_path_factory.mktemp("finished") / "out", settings)


@pytest.fixture(scope="session")
def tuned(
    synthetic_folder: Path, tune: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Fine-tune over the same two sites; return the folder given to ``--out``."""
    return _simulated(synthetic_folder, tmp_path_factory.mktemp("tuned") / "out", tune)


def _simulated(data: Path, out: Path, settings: list[str]) -> Path:
    run = process("simulate", data, "--out", out, *IID, *settings)
    assert run.returncode == 0, run.stderr
    assert f"run folder: {out / 'run'}" in run.stdout
    return out
