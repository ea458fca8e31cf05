"""The in-process runtime: a Flower grid that calls the client app directly.

The apps are the very objects that ``flwr run`` and a deployment run. What is left out is
everything between them: no serialisation, no processes, no polling.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence, Set
from typing import TYPE_CHECKING

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.serverapp import Grid, ServerApp

from common.flower_inside import APP_RAISED, empty_run, identify_message, identify_process

if TYPE_CHECKING:
    from common.flower_inside import Run

RUN_ID = 1
SERVER_NODE_ID = 0

Answer = Callable[[Message, Context], Message]
"""What answers messages, as a Flower client app does."""

_log = logging.getLogger(__name__)


class InProcessGrid(Grid):
    """A grid whose nodes 1 to n are calls of one client app in this process.

    A message is executed when its reply is pulled, one for each pull, in the order
    pushed: a server that adds replies as they come holds one at a time.

    Parameters
    ----------
    client_app : answers for every node.
    node_configs : one for each node. Each node keeps one `Context` for the life of the grid.
    run_config : the run configuration that every node sees.

    Notes
    -----
    Contents are handed over, not copied: a client that changes the content of a message
    changes it for all to whom the server sends the same object.
    """

    in_process = True
    """Whoever runs this has a log already, or wants none."""

    def __init__(
        self, client_app: Answer, node_configs: Sequence[UserConfig], run_config: UserConfig
    ) -> None:
        identify_process(RUN_ID, SERVER_NODE_ID, task_id=RUN_ID)
        self._client_app = client_app
        self._contexts = {
            node_id: _context(node_id, node_config, run_config)
            for node_id, node_config in enumerate(node_configs, start=1)
        }
        self._pending: dict[str, Message] = {}
        self._message_ids = map(str, itertools.count(1))
        self._run = empty_run(RUN_ID)

    def set_run(self, run: "Run") -> None:
        """Set what `run` returns."""
        self._run = run

    @property
    def run(self) -> "Run":
        """Return the run this grid belongs to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a new message; Flower prefers the constructor of `Message`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the node ids 1 to n."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Store messages and return their ids; no client is called yet."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Execute the oldest pending message among the ids and return its reply.

        Returns
        -------
        One reply, or none when every id has been pulled.
        """
        # A set, of which a server with many sites passes one, is not copied for each reply.
        wanted = message_ids if isinstance(message_ids, Set) else set(message_ids)
        for message_id, message in self._pending.items():
            if message_id in wanted:
                del self._pending[message_id]
                return [self._execute(message)]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Return the replies to the messages in the order sent.

        After `timeout` seconds no further message is executed: those left get no reply,
        and the one being executed is waited for.
        """
        end = float("inf") if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        for message_id in self.push_messages(messages):
            if time.monotonic() < end:
                replies += self.pull_messages([message_id])
            else:
                del self._pending[message_id]
        return replies

    def _push(self, message: Message) -> str:
        message_id = self._identify(message)
        self._pending[message_id] = message
        return message_id

    def _execute(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = self._client_app(message, context)
        except Exception as exception:
            _log.exception("node %d failed", context.node_id)
            # Code and reason are worded as a deployed SuperNode words them.
            reason = f"{type(exception)}:<'{exception}'>"
            error = Error(APP_RAISED, reason)
            reply = Message(error, reply_to=message)
        self._identify(reply)
        return reply

    def _identify(self, message: Message) -> str:
        message_id = next(self._message_ids)
        identify_message(message, message_id)
        return message_id


def run_in_process(
    server_app: ServerApp,
    client_app: Answer,
    node_configs: Sequence[UserConfig],
    run_config: UserConfig,
) -> None:
    """Run a server app against one client app for each node configuration.

    What the server app raises is raised here; what a client raises reaches the server as
    an error reply.
    """
    grid = InProcessGrid(client_app, node_configs, run_config)
    server_app(grid, _context(SERVER_NODE_ID, {}, run_config))


def _context(node_id: int, node_config: UserConfig, run_config: UserConfig) -> Context:
    return Context(RUN_ID, node_id, node_config, RecordDict(), run_config)
