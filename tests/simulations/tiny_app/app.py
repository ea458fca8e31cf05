"""Sites count their calls, one fails; the server writes down all that it learns."""

import json
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client_app = ClientApp()
server_app = ServerApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    calls = context.state.setdefault("calls", ConfigRecord({"n": 0}))
    calls["n"] += 1
    if context.node_config["partition-id"] == 1 and calls["n"] == 2:
        raise ValueError("no images")
    reply = {**context.node_config, **context.run_config, "calls": calls["n"]}
    return Message(RecordDict({"reply": ConfigRecord(reply)}), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    # Under `flwr run` the server app starts before the sites are registered.
    while len(nodes := list(grid.get_node_ids())) < context.run_config["sites"]:
        time.sleep(0.1)
    result = []
    for _ in range(context.run_config["rounds"]):
        messages = [Message(RecordDict(), node, "train") for node in nodes]
        replies = [
            m.error.code if m.has_error() else dict(m.content["reply"])
            for m in grid.send_and_receive(messages)
        ]
        result.append(sorted(replies, key=str))
    Path(context.run_config["result"]).write_text(json.dumps(result))
    if context.run_config["fail"]:
        raise RuntimeError("told to fail")
