"""Runs Flower's own commands; imports nothing of Flower."""

import json
import os
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

ConfigValue = bool | float | int | str
"""What a value of a run configuration can be."""

COMPLETED = "finished:completed"
"""Status of a run whose server app returned."""


def flwr_environment(home: Path) -> dict[str, str]:
    """Return the environment of Flower's commands; :mod:`common.calls_home` has its part in it."""
    return {
        **os.environ,
        # `flwr run` starts `flower-superlink` by its name.
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
        "FLWR_HOME": str(home.resolve()),
    }


def run_config_toml(run_config: Mapping[str, ConfigValue]) -> str:
    """Write a run configuration as Flower reads it."""
    # A scalar in JSON is the same scalar in TOML. Options on the command line would not
    # do: Flower finds their ends with a regular expression that knows no escapes.
    return "".join(
        f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}\n"
        for key, value in run_config.items()
    )


def flwr(
    environment: Mapping[str, str],
    *arguments: str,
    patience: float | None = None,
    host: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a command of Flower and wait for it; standard error is in its output.

    Parameters
    ----------
    patience : seconds after which it is ended; None waits for ever.
    host : a command that starts others on another host; empty for this one.

    Raises
    ------
    TimeoutError
        If it was ended.
    """
    try:
        return subprocess.run(
            [*host, "flwr", *arguments],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Groups are ended as a whole: this process must not be in the same one.
            start_new_session=True,
            check=False,
            timeout=patience,
        )
    except subprocess.TimeoutExpired as error:
        command = " ".join(arguments)
        raise TimeoutError(f"'flwr {command}' took more than {patience:g} s") from error
