"""The command that a user typed, and how it ends: an error for the user is one line."""

import logging
import shlex
import sys
from collections.abc import Callable

from common.errors import ConfigError, FedDermError, described
from common.logs import tell
from common.text import printable


def command() -> str:
    """Return the command line that is running, for a shell."""
    return printable(shlex.join(["fedderm", *sys.argv[1:]]))


def run(app: Callable[[], object]) -> None:
    """Run a command of ``sys.argv``; exit with code 1 and a line on standard error if it fails."""
    try:
        if any("\0" in argument for argument in sys.argv):
            raise ConfigError("an argument holds a NUL character; no file or setting has one")
        app()
    except (FedDermError, OSError) as error:  # a full disk is no defect of this program
        tell(logging.ERROR, described(error))
        sys.exit(1)
