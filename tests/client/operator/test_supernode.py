"""A node that has given its server up ends, so that its service can start it again."""

import subprocess
import sys

import pytest

_NODE = """
import threading
from client.operator import supernode

def given_up():
    threading.Thread(target=threading.Event().wait).start()  # as Flower's go on
    {then}

supernode.run_supernode = given_up
supernode.main()
"""


@pytest.mark.parametrize(
    ("then", "said"), [("return", ""), ("raise RuntimeError('of Flower')", "of Flower")]
)
def test_a_node_ends_whatever_goes_on_in_it(then: str, said: str) -> None:
    command = [sys.executable, "-c", _NODE.format(then=then)]
    node = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert node.returncode == 1
    assert node.stderr.endswith("the server was given up; this node ends, to be started anew\n")
    assert said in node.stderr
