"""Flower's SuperNode, whose log has the form that the operator asks for, and which does not hang.

Where Flower's own gives its server up, as for a certificate that is not valid, it stays as it is
for ever, neither connected nor ended. This one ends, and its service starts it again, until the
certificate is renewed.
"""

import logging
import os
import sys

from common.flower_inside import run_supernode
from common.logs import choose_form, tell


def main() -> None:
    """Run the command ``flower-supernode``; end with exit code 1 where it gives its server up."""
    choose_form()
    try:
        run_supernode()
    except Exception:
        sys.excepthook(*sys.exc_info())  # a record where the log is JSON
    tell(logging.ERROR, "the server was given up; this node ends, to be started anew")
    os._exit(1)  # threads of Flower's go on for ever


if __name__ == "__main__":
    main()
