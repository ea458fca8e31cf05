"""The log of this program on standard error: lines of text, or of JSON where a user asks for it."""

import json
import logging
import os
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType

from common.text import printable

VARIABLE = "FEDDERM_LOG"
"""Variable of the environment: "text", the default, or "json"."""

_TEXT, _JSON = "text", "json"
_log = logging.getLogger(__name__)


def is_json() -> bool:
    """Tell whether the log is to be JSON."""
    return os.environ.get(VARIABLE) == _JSON


def choose_form() -> None:
    """Make every record of this process a line of JSON, traceback and all, if the user asks for it.

    Whoever logs it and wherever it goes: Flower and web servers have handlers of their own.
    """
    if is_json():
        logging.Formatter.format = _json_line  # type: ignore[assignment, method-assign]
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_in_thread
        _log.setLevel(logging.INFO)


def log_lines(level: int, layout: str) -> None:
    """Begin a log on standard error in which a record is one line, but for a traceback.

    Parameters
    ----------
    layout : of a line of text, as :mod:`logging` has it.
    """
    choose_form()
    handler = logging.StreamHandler()
    handler.setFormatter(_LineFormatter(layout))
    logging.basicConfig(level=level, handlers=[handler])
    if (asked := os.environ.get(VARIABLE, _TEXT)) not in (_TEXT, _JSON):
        _log.warning(
            "%s is '%s', neither %s nor %s; the log is text", VARIABLE, asked, _TEXT, _JSON
        )


def tell(level: int, text: str) -> None:
    """Tell whoever typed a command: a line, or a record where the log is JSON.

    A warning or an error says that it is one, and goes to standard error.
    """
    if is_json():
        _log.log(level, "%s", text)
    elif level < logging.WARNING:
        print(printable(text))
    else:
        print(f"{logging.getLevelName(level).lower()}: {printable(text)}", file=sys.stderr)


class _LineFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))


def _json_line(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    line = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
        "exception": formatter.formatException(record.exc_info) if record.exc_info else None,
    }
    return json.dumps(line)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    _log.critical("%s", kind.__name__, exc_info=(kind, error, traceback))


def _log_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
