"""A command's figures as a JSON file beside what it prints."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.command_line import command
from common.json_types import plain
from common.storage.whole_files import refuse_taken_file, write_atomically


def refuse_taken(out: Path | None) -> None:
    """Check, before anything is computed, that a file can be written.

    Raises
    ------
    DataError
        If it is there already, or its folder is not.
    """
    if out is not None:
        refuse_taken_file(out)


def write_figures(out: Path | None, values: Mapping[str, Any]) -> None:
    """Write figures and the command that gave them; nothing without a file.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    if out is not None:
        content = json.dumps(plain({"command": command(), **values}), indent=1) + "\n"
        write_atomically(out, content.encode())
