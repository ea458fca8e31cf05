"""The process in which a hospital's node answers a message: with the hospital's own program.

Flower's node runs whatever app the coordinator sends. Then the coordinator, not the operator,
would decide what leaves. So at a hospital this stands in the place of the command that Flower
starts for a message: it is Flower's, but for the app, which is the one that is installed here.
Of what was sent only the settings are read. Flower's other kinds of tasks are not run at all.
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import FedDermError
from common.flower_inside import TASK_STARTER, answer_one_message, task_commands
from common.logs import log_lines
from common.storage.whole_files import write_atomically

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp


def make_commands(folder: Path) -> None:
    """Write the commands that a hospital's node may start, to be the only ones on its path.

    Raises
    ------
    FedDermError
        If Flower is not installed beside this program.
    """
    helper = Path(sys.executable).with_name(TASK_STARTER)
    if not helper.exists():
        raise FedDermError(f"{helper} is missing; install Flower beside this program")
    names, of_client_app = task_commands()
    commands = dict.fromkeys(names, "exit 1")
    commands[of_client_app] = f"exec {sys.executable} -P -m {__name__}"
    commands[TASK_STARTER] = f"exec {helper}"
    for name, line in commands.items():
        file = folder / name
        write_atomically(file, f'#!/bin/sh\n{line} "$@"\n'.encode())
        os.chmod(file, 0o700)


def main() -> None:
    """Answer one message."""
    log_lines(logging.WARNING, "%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("client").setLevel(logging.INFO)
    answer_one_message(_app)


def _app() -> "ClientApp":
    from client.app import app

    return app


if __name__ == "__main__":
    main()
