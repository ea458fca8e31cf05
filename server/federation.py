"""Asking sites and adding their answers: who is in, who failed, and whether enough are left."""

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.config import RunConfig
from common.errors import FedDermError, QuorumError, ReplyError
from common.sums import Sums
from common.wire import Arrays, Value, pack, size, unpack_arrays, unpack_values
from server.introduction import SiteInfo, odd_ones, read_info
from server.journal import question_key
from server.run import RunFolder

S = TypeVar("S", bound=Sums)

_POLL_SECONDS = 0.2
_CLOSE_SECONDS = 30.0
_ROUNDING = 1e-9

_log = logging.getLogger(__name__)


class SitesLostError(FedDermError):
    """Sites failed in a round, and those that are left may go on without them."""


@dataclass
class Round:
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


class Federation:
    """The sites of one run, asked in rounds.

    Parameters
    ----------
    grid : Flower's way to the sites.
    config : for the quorum, the sites expected and the seconds an answer may take.
    folder : where every round is logged.

    Attributes
    ----------
    sites : those that take part, by name, in the order in which their answers are added.
    faults : why the others do not, by name; a site that said no name has its node's.
    """

    def __init__(self, grid: Grid, config: RunConfig, folder: RunFolder):
        self._grid = grid
        self._config = config
        self._folder = folder
        self._nodes: dict[str, int] = {}
        self.sites: dict[str, SiteInfo] = {}
        self.faults: dict[str, str] = {}

    def join(self) -> None:
        """Ask every connected node who it is; those with an odd answer are left out, by name.

        Raises
        ------
        QuorumError
            If too few sites joined.
        """
        started, record = time.monotonic(), Round("join")
        nodes = {f"node {node}": node for node in self._wait_for_nodes(record)}
        infos: dict[str, SiteInfo] = {}
        content = pack({}, {"question": "join"})
        for label, reply in self._replies(nodes, content, record, self._config.timeout):
            try:
                info = read_info(reply)
            except ReplyError as error:
                record.faults[label] = str(error)
                continue
            if info.site in infos:
                record.faults[label] = f"is a second node that calls itself '{info.site}'"
                continue
            infos[info.site] = info
            self._nodes[info.site] = nodes[label]
        self.sites = {site: infos[site] for site in sorted(infos)}
        self._nodes = {site: self._nodes[site] for site in self.sites}
        record.faults |= odd_ones(self.sites)
        record.answered = list(self.sites)
        self._close_round(record, started)

    def ask(
        self,
        question: str,
        zero: S,
        arrays: Arrays | None = None,
        values: Mapping[str, Value] | None = None,
    ) -> S:
        """Return the sum of all sites' answers, added in the order of the sites' names.

        What these sites were asked before the run was interrupted is not asked again.
        Parameters and errors are those of :meth:`answers`.
        """
        fingerprints = {site: info.fingerprint for site, info in self.sites.items()}
        key = question_key(question, fingerprints, arrays or {}, values or {})
        total = self._folder.journal.recall(key, zero)
        if total is None:
            total = zero
            for _, answer in self.answers(question, zero, arrays, values):
                total = total + answer
            self._folder.journal.keep(key, total)
        return total

    def answers(
        self,
        question: str,
        zero: S,
        arrays: Arrays | None = None,
        values: Mapping[str, Value] | None = None,
        sites: Collection[str] | None = None,
    ) -> Iterator[tuple[str, S]]:
        """Yield each site's name and checked answer, in the order of the names.

        Parameters
        ----------
        zero : the neutral element, which every answer must look like.
        sites : the sites that are asked; None for all.

        Raises
        ------
        SitesLostError
            At the end, if sites failed and the quorum stands. They are out, and what was
            computed with them before must be computed again.
        QuorumError
            At the end, if too few sites are left.
        """
        content = pack(arrays or {}, {"question": question, **(values or {})})
        started, record = time.monotonic(), Round(question)
        nodes = {s: self._nodes[s] for s in self.sites if sites is None or s in sites}
        for site, reply in self._replies(nodes, content, record, self._config.timeout):
            try:
                answer = zero.from_record(unpack_arrays(reply))
                _check_size(answer, self.sites[site].images)
            except ReplyError as error:
                record.faults[site] = str(error)
                continue
            record.answered.append(site)
            yield site, answer
        self._close_round(record, started)
        if record.faults:
            raise SitesLostError(_sentence(record.faults))

    def remaining(
        self,
        question: str,
        zero: S,
        arrays: Arrays | None = None,
        values: Mapping[str, Value] | None = None,
        sites: Collection[str] | None = None,
    ) -> dict[str, S]:
        """Return the checked answers by site; the run goes on without sites that fail.

        Parameters are those of :meth:`answers`.

        Raises
        ------
        QuorumError
            If too few sites are left.
        """
        found = {}
        try:
            for site, answer in self.answers(question, zero, arrays, values, sites):
                found[site] = answer
        except SitesLostError as lost:
            _log.warning("%s; going on with %s", lost, ", ".join(self.sites))
        return found

    def close(self, finished: bool) -> None:
        """Tell all sites that joined, lost ones too, to forget what they kept for this run.

        Of a run that is not finished they keep what it needs to go on.
        """
        started, record = time.monotonic(), Round("close")
        content = pack({}, {"question": "close", "finished": finished})
        patience = min(self._config.timeout, _CLOSE_SECONDS)
        for site, _ in self._replies(self._nodes, content, record, patience):
            record.answered.append(site)
        self._folder.log_round(record, time.monotonic() - started)

    def _replies(
        self, nodes: Mapping[str, int], content: RecordDict, record: Round, patience: float
    ) -> Iterator[tuple[str, RecordDict]]:
        """Send ``content`` to all nodes and yield what they answer, in order of ``nodes``.

        An answer is yielded as soon as those before it are there, so that many large ones
        need not be held at once. Faults are put into ``record``.
        """
        pending = self._send(nodes, content, record, patience)
        waiting = list(nodes)
        arrived: dict[str, RecordDict] = {}
        for label, reply in self._collect(pending, nodes, record, patience):
            arrived[label] = reply
            while waiting and (waiting[0] in arrived or waiting[0] in record.faults):
                first = waiting.pop(0)
                if first not in record.faults:
                    yield first, arrived.pop(first)
        yield from ((label, arrived[label]) for label in waiting if label not in record.faults)

    def _send(
        self, nodes: Mapping[str, int], content: RecordDict, record: Round, patience: float
    ) -> dict[str, str]:
        """Send ``content`` to all nodes and return their labels by message id."""
        # Sites that share a machine answer one after the other.
        ttl = patience * max(1, len(nodes))
        messages = [Message(content, node, "query", ttl=ttl) for node in nodes.values()]
        record.bytes_down += size(content) * len(messages)
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
        self, pending: dict[str, str], nodes: Mapping[str, int], record: Round, patience: float
    ) -> Iterator[tuple[str, RecordDict]]:
        """Yield good replies as they arrive; sites that stay silent are faults.

        Time is up when none of the sites still waited for has answered for ``patience``
        seconds.
        """
        asked = dict(pending)
        end = time.monotonic() + patience
        while pending and time.monotonic() < end:
            replies = list(self._grid.pull_messages(pending))
            for reply in replies:
                label = _sender(reply, asked, nodes)
                if label is None:
                    who = self._name(reply.metadata.src_node_id)
                    record.notes.append(f"ignored a reply of {who} that was not asked for")
                    continue
                if pending.pop(reply.metadata.reply_to_message_id, None) is None:
                    record.faults[label] = "answered twice"
                    continue
                end = time.monotonic() + patience
                if reason := _refusal(reply, label):
                    record.faults[label] = reason
                    continue
                record.bytes_up += size(reply.content)
                yield label, reply.content
            if not replies:
                time.sleep(_POLL_SECONDS)
        for label in pending.values():
            record.faults[label] = f"gave no answer within {patience:g} s"

    def _name(self, source: int) -> str:
        names = (site for site, node in self._nodes.items() if node == source)
        return next(names, f"node {source}")

    def _wait_for_nodes(self, record: Round) -> list[int]:
        """Return the connected nodes once as many as expected are there, or time is up."""
        expected = max(self._config.expected, self._config.quorum)
        end = time.monotonic() + self._config.timeout
        while len(nodes := sorted(self._grid.get_node_ids())) < expected:
            if time.monotonic() > end:
                within = f"within {self._config.timeout:g} s"
                record.notes.append(f"{len(nodes)} of {expected} expected sites connected {within}")
                break
            time.sleep(_POLL_SECONDS)
        return nodes

    def _close_round(self, record: Round, started: float) -> None:
        """Log a round, drop the sites that failed and check the quorum."""
        record.answered = [site for site in record.answered if site not in record.faults]
        self._folder.log_round(record, time.monotonic() - started)
        self.faults |= record.faults
        self.sites = {s: info for s, info in self.sites.items() if s not in record.faults}
        if len(self.sites) < self._config.quorum:
            why = "; ".join(filter(None, [*record.notes, _sentence(record.faults)]))
            raise QuorumError(
                f"{len(self.sites)} sites are left in round '{record.question}', the quorum is "
                f"{self._config.quorum}: {why or 'no more are connected'}"
            )


def _sender(reply: Message, asked: Mapping[str, str], nodes: Mapping[str, int]) -> str | None:
    """Name the site whose reply this is; None if it was not asked for."""
    label = asked.get(reply.metadata.reply_to_message_id)
    # That a node is gone or a message expired is answered by Flower in the site's place.
    if label is not None and (reply.has_error() or reply.metadata.src_node_id == nodes[label]):
        return label
    return None


def _refusal(reply: Message, label: str) -> str | None:
    """Return why a reply is no answer, with the site's name where only its node is known."""
    if reply.has_error():
        return f"failed: {reply.error.reason}"
    try:
        values = unpack_values(reply.content)
    except ReplyError as error:
        return str(error)
    if "refused" not in values:
        return None
    name = str(values.get("site", label))
    return f"{'' if name == label else f'({name}) '}refused: {values['refused']!s}"


def _check_size(answer: Sums, images: int | None) -> None:
    """Refuse sums over more images than the site has: they would outweigh all other sites'.

    A site that does not tell how many it has sends noisy sums, which count nothing.
    """
    if answer.counted is None or images is None:
        return
    total = float(getattr(answer, answer.counted).sum())
    if total > images * (1 + _ROUNDING):
        raise ReplyError(f"array '{answer.counted}' adds up to {total:g}, it has {images} images")


def _sentence(faults: Mapping[str, str]) -> str:
    return "; ".join(f"{site} {reason}" for site, reason in sorted(faults.items()))
