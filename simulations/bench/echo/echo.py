"""A server app that sends nodes what they send back, round by round."""

import time

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

app = ServerApp()
never_started = ClientApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask as many rounds as are wanted; random bytes, so that no message is like another."""
    nodes, rounds, size = (int(context.run_config[name]) for name in ("nodes", "rounds", "bytes"))
    while len(asked := list(grid.get_node_ids())) < nodes:
        time.sleep(0.2)
    rng = np.random.default_rng(size)
    for _ in range(rounds):
        content = RecordDict({"values": ConfigRecord({"x": rng.bytes(size)})})
        pending = set(grid.push_messages([Message(content, node, "query") for node in asked]))
        while pending:
            for reply in grid.pull_messages(pending):
                pending.remove(reply.metadata.reply_to_message_id)
            time.sleep(0.2)
