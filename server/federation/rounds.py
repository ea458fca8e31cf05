"""Rounds: exchanges of messages with nodes, each logged in the run's folder."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from flwr.app import RecordDict
from flwr.serverapp import Grid

from common.errors import ReplyError
from server.federation.transport import RoundRecord, Transport
from server.run.folder import RunFolder

T = TypeVar("T")


class Rounds:
    """Asks nodes, one round at a time.

    Parameters
    ----------
    grid : Flower's way to the nodes.
    folder : logs every round.
    """

    def __init__(self, grid: Grid, folder: RunFolder) -> None:
        self._grid, self._folder = grid, folder
        self._transport = Transport(grid, folder.path)

    @property
    def silent(self) -> set[str]:
        """Labels of those that gave no answer at all in the last round, not even a refusal."""
        return self._transport.silent

    def connected(self) -> list[int]:
        """Return the nodes that are connected now."""
        return sorted(self._grid.get_node_ids())

    def name_nodes(self, nodes: Mapping[str, int]) -> None:
        """Call nodes after their sites from now on."""
        self._transport.names = {node: site for site, node in nodes.items()}

    @contextmanager
    def round(self, question: str) -> Iterator[RoundRecord]:
        """Yield the record of a new round, which is logged at the end unless the round raised.

        Raises
        ------
        DataError
            At the end, if the log cannot be written.
        """
        started, record = time.monotonic(), RoundRecord(question)
        yield record
        self._folder.log_round(record, time.monotonic() - started)

    def ask(
        self,
        record: RoundRecord,
        nodes: Mapping[str, int],
        contents: Mapping[str, RecordDict],
        patience: float,
        read: Callable[[str, RecordDict], T],
    ) -> Iterator[tuple[str, T]]:
        """Send each node its content; yield labels and what was read, in the order of ``nodes``.

        Parameters
        ----------
        record : the record of the round, which gets the faults of nodes that failed, and the bytes.
        nodes : the nodes by label.
        contents : the contents by label.
        patience : seconds that none of those still waited for may stay silent.
        read : reads a reply; where it raises a ``ReplyError``, that is the node's fault.
        """
        for label, reply in self._transport.replies(nodes, contents, record, patience):
            try:
                answer = read(label, reply)
            except ReplyError as error:
                record.faults[label] = str(error)
            else:
                yield label, answer
