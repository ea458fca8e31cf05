"""Messages to nodes and their replies: who answered, who did not, and why."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.errors import ReplyError
from common.flower_inside import NODE_UNAVAILABLE, is_simulation
from common.wire.messages import check_bound, digest, size, unpack_values
from server.federation.waiting import Waiting

POLL_SECONDS = 0.2
SIMULATED_AT_ONCE = 128
"""Most sites that are asked at the same time under ``flwr run``; no fewer than it has cores."""


@dataclass
class RoundRecord:
    """One question to all sites, as it is logged.

    Attributes
    ----------
    answered : sites whose answers were used, in the order in which they were added.
    faults : reasons by site; a site with one is out.
    notes : what else happened.
    """

    question: str
    answered: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bytes_down: int = 0
    bytes_up: int = 0


class Transport:
    """Sends messages and collects replies over Flower's grid.

    Parameters
    ----------
    folder : for answers that wait for others' and are too large for memory.

    Attributes
    ----------
    names : the names of the sites, by node; others are called after their nodes.
    silent : those that gave no answer at all to the last messages, not even a refusal.
    """

    def __init__(self, grid: Grid, folder: Path) -> None:
        self._grid, self._folder, self._sent = grid, folder, 0
        self.names: dict[int, str] = {}
        self.silent: set[str] = set()

    def replies(
        self,
        nodes: Mapping[str, int],
        contents: Mapping[str, RecordDict],
        record: RoundRecord,
        patience: float,
    ) -> Iterator[tuple[str, RecordDict]]:
        """Send ``contents`` to the nodes and yield what they answer, in order of ``nodes``.

        An answer is yielded as soon as those before it are there, so that many large ones
        need not be held at once. Faults are put into ``record``.
        """
        digests, self.silent = _digests(contents), set()
        self._sent += 1
        for part in self._parts(nodes):
            yield from self._replies(part, contents, digests, record, patience)

    def _parts(self, nodes: Mapping[str, int]) -> Iterator[Mapping[str, int]]:
        """Yield all nodes; those of a simulation in parts, after each other.

        For each of its nodes it looks at every message there is, without a pause.
        """
        labels = list(nodes)
        most = SIMULATED_AT_ONCE if is_simulation(self._grid) else max(1, len(labels))
        for first in range(0, len(labels), most):
            yield {label: nodes[label] for label in labels[first : first + most]}

    def _replies(
        self,
        nodes: Mapping[str, int],
        contents: Mapping[str, RecordDict],
        digests: Mapping[str, bytes],
        record: RoundRecord,
        patience: float,
    ) -> Iterator[tuple[str, RecordDict]]:
        pending = self._send(nodes, contents, record, patience)
        missing = deque(nodes)
        with SpooledTemporaryFile(1, dir=str(self._folder)) as file:  # none before it is written to
            waiting = Waiting(file)
            for label, reply in self._collect(pending, nodes, digests, record, patience):
                waiting.put(label, reply)
                while missing and (missing[0] in waiting or missing[0] in record.faults):
                    first = missing.popleft()
                    if first not in record.faults:
                        yield first, waiting.take(first)
            for label in missing:
                if label not in record.faults:
                    yield label, waiting.take(label)

    def _send(
        self,
        nodes: Mapping[str, int],
        contents: Mapping[str, RecordDict],
        record: RoundRecord,
        patience: float,
    ) -> dict[str, str]:
        """Send each node its content and return their labels by message id."""
        # Sites that share a machine answer one after the other.
        ttl = patience * max(1, len(nodes))
        messages = [
            Message(contents[label], node, "query", ttl=ttl, group_id=str(self._sent))
            for label, node in nodes.items()
        ]
        record.bytes_down += sum(size(contents[label]) for label in nodes)
        # Flower returns no ids where all messages are too large, and None for one that is odd.
        ids: list[str | None] = list(self._grid.push_messages(messages))
        ids = ids or [None] * len(messages)
        pending = {}
        for label, message_id in zip(nodes, ids, strict=True):
            if message_id is None:
                record.faults[label] = "could not be sent the question"
            else:
                pending[message_id] = label
        return pending

    def _collect(
        self,
        pending: dict[str, str],
        nodes: Mapping[str, int],
        digests: Mapping[str, bytes],
        record: RoundRecord,
        patience: float,
    ) -> Iterator[tuple[str, RecordDict]]:
        """Yield good replies as they arrive; sites that stay silent are faults.

        A second reply to a message is ignored: the first may be in a sum by then. Time is up when
        none of the sites still waited for has answered for ``patience`` seconds.
        """
        labels = dict(pending)
        end = time.monotonic() + patience
        while pending and time.monotonic() < end:
            replies = list(self._grid.pull_messages(pending.keys()))
            for reply in replies:
                label = self._first_reply_of(reply, labels, pending, nodes, record)
                if label is None:
                    continue
                end = time.monotonic() + patience
                if self._is_answer(reply, label, digests[label], record):
                    record.bytes_up += size(reply.content)
                    yield label, reply.content
            if not replies:
                time.sleep(POLL_SECONDS)
        self.silent.update(pending.values())
        record.faults |= dict.fromkeys(pending.values(), f"gave no answer within {patience:g} s")

    def _first_reply_of(
        self,
        reply: Message,
        labels: Mapping[str, str],
        pending: dict[str, str],
        nodes: Mapping[str, int],
        record: RoundRecord,
    ) -> str | None:
        """Return the label whose first reply this is, no longer pending; None if it is none."""
        label = _sender(reply, labels, nodes)
        if label is None:
            who = self._name(reply.metadata.src_node_id)
            record.notes.append(f"ignored a reply of {who} that was not asked for")
        elif pending.pop(reply.metadata.reply_to_message_id, None) is None:
            record.notes.append(f"ignored a second answer of {label}")
            return None
        return label

    def _is_answer(self, reply: Message, label: str, question: bytes, record: RoundRecord) -> bool:
        """Tell if a reply is an answer to a question; if not, that is its sender's fault."""
        reason = _refusal(reply, label, question)
        if reason is None:
            return True
        record.faults[label] = reason
        if reply.has_error():
            self.silent.add(label)
        return False

    def _name(self, node: int) -> str:
        return self.names.get(node, f"node {node}")


def _sender(reply: Message, labels: Mapping[str, str], nodes: Mapping[str, int]) -> str | None:
    """Name the site whose reply this is; None if nothing was sent to it."""
    label = labels.get(reply.metadata.reply_to_message_id)
    # That a node is gone or a message expired is answered by Flower in the site's place.
    if label is not None and (reply.has_error() or reply.metadata.src_node_id == nodes[label]):
        return label
    return None


def _digests(contents: Mapping[str, RecordDict]) -> dict[str, bytes]:
    """Return a digest of each content; that of one which goes to many is computed once."""
    known = {key: digest(content) for key, content in {id(c): c for c in contents.values()}.items()}
    return {label: known[id(content)] for label, content in contents.items()}


def _refusal(reply: Message, label: str, question: bytes) -> str | None:
    """Return why a reply is no answer, with the site's name where only its node is known."""
    if reply.has_error():
        if reply.error.code == NODE_UNAVAILABLE:
            return "is no longer connected"
        return f"failed: {reply.error.reason}"
    try:
        check_bound(reply.content, question)
        values = unpack_values(reply.content)
    except ReplyError as error:
        return str(error)
    if "refused" not in values:
        return None
    name = str(values.get("site", label))
    return f"{'' if name == label else f'({name}) '}refused: {values['refused']!s}"
