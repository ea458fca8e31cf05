"""The process in which a hospital's node answers a message: with the hospital's own program.

Flower's node runs whatever app the coordinator sends. Then the coordinator, not the operator,
would decide what leaves. So at a hospital this stands in the place of the command that Flower
starts for a message: it is Flower's, but for the app, which is the one that is installed here.
Of what was sent only the settings are read. Flower's other kinds of tasks are not run at all.
"""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from common.errors import FedDermError
from common.files import write_atomically
from common.logs import log_lines

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

_HELPER = "flower-superexec"
"""What starts the commands; it finds them by their names."""

_NOT_CALLED = {
    "flwr.supernode.cli.flower_supernode": ["flower_supernode"],
    "flwr.supercore.error.http": ["BearerAuthenticationError", "http_error_translator"],
}
"""Modules of Flower with what others import from them: a node's own, and of its servers."""


def make_commands(folder: Path) -> None:
    """Write the commands that a hospital's node may start, to be the only ones on its path.

    Raises
    ------
    FedDermError
        If Flower is not installed beside this program.
    """
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND, TaskType

    helper = Path(sys.executable).with_name(_HELPER)
    if not helper.exists():
        raise FedDermError(f"{helper} is missing; install Flower beside this program")
    commands = dict.fromkeys(TASK_TYPE_TO_COMMAND.values(), "exit 1")
    commands[TASK_TYPE_TO_COMMAND[TaskType.CLIENT_APP]] = f"exec {sys.executable} -P -m {__name__}"
    commands[_HELPER] = f"exec {helper}"
    for name, line in commands.items():
        file = folder / name
        write_atomically(file, f'#!/bin/sh\n{line} "$@"\n'.encode())
        os.chmod(file, 0o700)


def main() -> None:
    """Answer one message."""
    _skip_imports()
    from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp

    from client.app import app

    def installed(**_: object) -> "Callable[..., ClientApp]":
        return lambda *_: app

    log_lines(logging.WARNING, "%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("client").setLevel(logging.INFO)
    assert hasattr(run_clientapp, "get_load_client_app_fn"), "this version of Flower is not known"
    run_clientapp.get_load_client_app_fn = installed
    flwr_clientapp()


def _skip_imports() -> None:
    """Keep what Flower imports and does not call here from taking longer than many an answer.

    Its commands import each other, and what its servers do with errors, which is a web framework.
    """
    from starlette import status

    for name, contents in _NOT_CALLED.items():
        vars(empty := ModuleType(name)).update(dict.fromkeys(contents))
        sys.modules[name] = empty
    vars(web := ModuleType("fastapi")).update(status=status)
    sys.modules["fastapi"] = web


if __name__ == "__main__":
    main()
