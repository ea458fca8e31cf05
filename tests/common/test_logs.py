"""A log is one record a line: of text, or of JSON where a user asks for it."""

import json
import logging
import os
import subprocess
import sys

from common.logs import VARIABLE, log_lines

SCRIPT = """
import logging, sys, threading, warnings
from common.logs import log_lines, tell
log_lines(logging.WARNING, "%(message)s")
from flwr.supercore.logger import log
logging.getLogger("a").warning("says %s", "one\\nERROR two\\x1b[2J")
log(logging.WARNING, "Flower's own")
other = logging.StreamHandler(sys.stderr)
other.setFormatter(logging.Formatter("%(levelname)s"))
logging.getLogger("web").addHandler(other)
logging.getLogger("web").propagate = False
logging.getLogger("web").error("of a server")
warnings.warn("deprecated")
tell(logging.ERROR, "for a user")
thread = threading.Thread(target=lambda: {}["key"])
thread.start()
thread.join()
1 / 0
"""


def said(form: str) -> list[str]:
    environment = {**os.environ, VARIABLE: form}
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (1, "")
    return run.stderr.splitlines()


def test_a_record_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    log_lines(logging.WARNING, "%(message)s")
    logging.getLogger("a").warning("says %s", "one\nERROR two\x1b[2J")
    assert capsys.readouterr().err == "says one\\nERROR two\\x1b[2J\n"


def test_every_line_is_json_if_asked_whoever_says_it():
    lines = [json.loads(line) for line in said("json")]
    assert {tuple(line) for line in lines} == {("time", "level", "logger", "message", "exception")}
    found = {line["logger"]: line for line in lines}
    assert found["a"]["message"] == "says one\nERROR two\x1b[2J"
    assert found["flwr"]["message"] == "Flower's own"
    assert (found["web"]["level"], found["web"]["message"]) == ("ERROR", "of a server")
    assert "deprecated" in found["py.warnings"]["message"]
    said_last = [line["message"] for line in lines[-3:]]
    assert said_last == ["for a user", "KeyError", "ZeroDivisionError"]
    assert "division by zero" in lines[-1]["exception"]


def test_another_form_is_named_and_text():
    lines = said("xml")
    assert f"{VARIABLE} is 'xml', neither text nor json; the log is text" in lines
    assert "error: for a user" in lines
