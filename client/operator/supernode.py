"""Flower's SuperNode, whose log has the form that the operator asks for, and which does not hang.

A node whose server shows a certificate that is not valid may stay as it is for ever, neither
connected nor ended. So it is looked at from beside, and ends: its service starts it again until the
certificate is renewed.
"""

import logging
import os
import ssl
import sys
import threading
import time
from pathlib import Path

from client.operator.server_certificate import server_certificate
from client.operator.site_rules import Operator
from common.flower_inside import run_supernode
from common.logs import choose_form, tell
from common.site_folder import FILE

_PERIOD = 60.0
"""Seconds between two looks at the server's certificate."""


def main() -> None:
    """Run the command ``flower-supernode`` of the hospital whose folder is the first argument."""
    choose_form()
    folder = Path(sys.argv.pop(1))
    looks = threading.Thread(target=end_if_refused, args=(folder, _PERIOD), daemon=True)
    looks.start()
    run_supernode()


def end_if_refused(folder: Path, period: float) -> None:
    """Look every ``period`` seconds; end this process once the certificate is not valid."""
    operator = Operator.read(folder / FILE)
    while True:
        time.sleep(period)
        try:
            server_certificate(folder, operator)
        except ssl.SSLCertVerificationError as error:
            says = f"{operator.superlink}: {error.verify_message}; this node ends, to start anew"
            tell(logging.ERROR, says)
            os._exit(1)  # what hangs would hang in an orderly end, too
        except OSError:
            continue  # Flower's node waits for a server that is away


if __name__ == "__main__":
    main()
