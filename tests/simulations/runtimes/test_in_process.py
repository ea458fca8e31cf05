"""The in-process grid behaves as a deployed one, seen from both apps."""

import time

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from common.flower_inside import APP_RAISED
from simulations.runtimes.in_process import InProcessGrid, run_in_process

client_app = ClientApp()


@client_app.train()
def count_calls(message: Message, context: Context) -> Message:
    calls = context.state.setdefault("calls", ConfigRecord({"n": 0}))
    calls["n"] += 1
    record = {"site": context.node_config["site"], "n": calls["n"]}
    return Message(RecordDict({"reply": ConfigRecord(record)}), reply_to=message)


@client_app.query()
def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


@client_app.evaluate()
def fail(message: Message, context: Context) -> Message:
    if context.node_id == 1:
        raise ValueError("no test images")
    return Message(RecordDict(), reply_to=message)


@pytest.fixture
def grid() -> InProcessGrid:
    return InProcessGrid(client_app, [{"site": "a"}, {"site": "b"}], {})


def messages(grid: Grid, message_type: str) -> list[Message]:
    return [Message(RecordDict(), node_id, message_type) for node_id in grid.get_node_ids()]


def test_each_node_answers_with_its_own_config_and_keeps_its_state(grid):
    first = grid.send_and_receive(messages(grid, "train"))
    second = grid.send_and_receive(messages(grid, "train")[:1])
    assert [(m.metadata.src_node_id, m.metadata.dst_node_id) for m in first] == [(1, 0), (2, 0)]
    assert [dict(m.content["reply"]) for m in [*first, *second]] == [
        {"site": "a", "n": 1},
        {"site": "b", "n": 1},
        {"site": "a", "n": 2},
    ]


def test_a_client_is_called_only_when_its_reply_is_pulled(grid):
    calls: list[int] = []
    recording = ClientApp()

    @recording.train()
    def record(message: Message, context: Context) -> Message:
        calls.append(context.node_id)
        return Message(RecordDict(), reply_to=message)

    grid = InProcessGrid(recording, [{}, {}, {}], {})
    ids = grid.push_messages(messages(grid, "train"))
    assert calls == []
    # The order is that of sending, whatever the order of the ids.
    replies = [grid.pull_messages(reversed(ids)) for _ in range(4)]
    assert calls == [1, 2, 3]
    assert [[m.metadata.reply_to_message_id for m in pulled] for pulled in replies] == [
        [ids[0]],
        [ids[1]],
        [ids[2]],
        [],
    ]
    assert len({m.metadata.message_id for pulled in replies for m in pulled} | set(ids)) == 6


def test_a_client_exception_is_an_error_reply(grid):
    failed, answered = grid.send_and_receive(messages(grid, "evaluate"))
    assert failed.has_error()
    assert failed.metadata.src_node_id == 1
    assert failed.error.code == APP_RAISED
    assert failed.error.reason == "<class 'ValueError'>:<'no test images'>"
    assert answered.has_content()


def test_content_is_handed_over_and_not_copied(grid):
    content = RecordDict({"model": ConfigRecord({"bytes": b"0" * 1000})})
    [reply] = grid.send_and_receive([Message(content, 2, "query")])
    assert reply.content is content


def test_after_the_timeout_no_client_is_called():
    slow = ClientApp()

    @slow.train()
    def sleep(message: Message, context: Context) -> Message:
        time.sleep(0.2)
        return Message(RecordDict(), reply_to=message)

    grid = InProcessGrid(slow, [{}, {}], {})
    replies = grid.send_and_receive(messages(grid, "train"), timeout=0.1)
    assert [m.metadata.src_node_id for m in replies] == [1]


def test_run_in_process_gives_the_configuration_and_raises_what_the_server_raises():
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        raise RuntimeError(f"{context.run_config['rounds']} rounds, {grid.get_node_ids()}")

    with pytest.raises(RuntimeError, match=r"3 rounds, \[1, 2\]"):
        run_in_process(server_app, client_app, [{}, {}], {"rounds": 3})
