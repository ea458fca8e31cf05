"""How every command ends that a user types: an error that a user can act on is one line."""

import sys
from collections.abc import Callable

from common.errors import ConfigError, FedDermError, described
from common.text import printable


def run(command: Callable[[], object]) -> None:
    """Run a command of ``sys.argv``; exit with code 1 and a line on standard error if it fails."""
    try:
        if any("\0" in argument for argument in sys.argv):
            raise ConfigError("an argument holds a NUL character; no file or setting has one")
        command()
    except (FedDermError, OSError) as error:  # a full disk is no defect of this program
        print(f"error: {printable(described(error))}", file=sys.stderr)
        sys.exit(1)
