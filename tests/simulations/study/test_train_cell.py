"""Where the time of a cell goes, and what it is refused."""

from types import SimpleNamespace

import pytest

import client.app
from common.wire.messages import pack
from simulations.study.training.train_cell import Stopwatch


def test_time_is_split_as_sites_with_machines_of_their_own_would_see_it():
    watch = Stopwatch(joining=1.0, rounds=[{1: 2.0, 2: 4.0}, {1: 1.0, 2: 1.0}])
    found = watch.split(wall=12.0, sites=2)
    # Of twelve seconds eight are answers, one reads features, and three are the coordinator's.
    assert found["training"] == pytest.approx(4)
    assert found["waiting"] == pytest.approx((4 + 1) - 4 + 3)
    assert (found["reading"], found["wall"]) == (1, 12)


def test_answers_are_told_apart_by_round(monkeypatch):
    monkeypatch.setattr(client.app, "app", lambda message, context: "reply")
    watch = Stopwatch()
    asked = ["join", "join", "hinge", "hinge", "hinge", "hinge", "evaluate", "hinge"]
    nodes = [1, 2, 1, 2, 1, 2, 2, 1]
    for question, node in zip(asked, nodes, strict=True):
        message = SimpleNamespace(content=pack({}, {"question": question}))
        assert watch(message, SimpleNamespace(node_id=node)) == "reply"
    assert [sorted(answered) for answered in watch.rounds] == [[1, 2], [1, 2], [2], [1]]
