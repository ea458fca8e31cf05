"""Asking sites and adding their answers: who is in, who failed, and whether enough are left."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.config import RunConfig
from common.errors import FedDermError, QuorumError, ReplyError
from common.sums import Sums
from common.wire import Arrays, Value, pack, size, unpack_arrays, unpack_values
from server.run import RunFolder

S = TypeVar("S", bound=Sums)

_POLL_SECONDS = 0.2

_log = logging.getLogger(__name__)


class SitesLostError(FedDermError):
    """Sites failed in a round, and those that are left may go on without them."""


@dataclass(frozen=True)
class SiteInfo:
    """What a site says about itself when it joins."""

    site: str
    classes: tuple[str, ...]
    n_features: int
    features: str
    images: int
    lesions: int
    synthetic: bool
    fingerprint: str


@dataclass
class Round:
    """One question to all sites, as it is logged."""

    question: str
    answered: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0


class Federation:
    """The sites of one run, asked in rounds.

    Parameters
    ----------
    grid : Flower's way to the sites.
    config : for the quorum, the sites expected and the seconds an answer may take.
    folder : where every round is logged.
    """

    def __init__(self, grid: Grid, config: RunConfig, folder: RunFolder):
        self._grid = grid
        self._config = config
        self._folder = folder
        self._nodes: dict[str, int] = {}
        self.sites: dict[str, SiteInfo] = {}

    def join(self) -> None:
        """Ask every connected node who it is; those with an odd answer are left out, by name.

        Raises
        ------
        QuorumError
            If too few sites joined.
        """
        nodes = {f"node {node}": node for node in self._wait_for_nodes()}
        started, record = time.monotonic(), Round("join")
        infos: dict[str, SiteInfo] = {}
        joined: dict[str, int] = {}
        for label, reply in self._replies(nodes, pack({}, {"question": "join"}), record):
            try:
                info = _read_info(unpack_values(reply))
            except ReplyError as error:
                record.faults[label] = str(error)
                continue
            if info.site in infos:
                record.faults[label] = f"a second node that calls itself '{info.site}'"
                continue
            infos[info.site] = info
            joined[info.site] = nodes[label]
        record.faults |= _odd_ones(infos)
        record.answered = sorted(infos.keys() - record.faults)
        self.sites = {site: infos[site] for site in record.answered}
        self._nodes = {site: joined[site] for site in record.answered}
        self._close_round(record, started)

    def ask(
        self,
        question: str,
        zero: S,
        arrays: Arrays | None = None,
        values: Mapping[str, Value] | None = None,
    ) -> S:
        """Return the sum of all sites' answers, added in the order of the sites' names.

        Parameters and errors are those of :meth:`answers`.
        """
        total = zero
        for _, answer in self.answers(question, zero, arrays, values):
            total = total + answer
        return total

    def answers(
        self,
        question: str,
        zero: S,
        arrays: Arrays | None = None,
        values: Mapping[str, Value] | None = None,
    ) -> Iterator[tuple[str, S]]:
        """Yield each site's name and checked answer, in the order of the names.

        Parameters
        ----------
        zero : the neutral element, which every answer must look like.

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
        for site, reply in self._replies(self._nodes, content, record):
            try:
                answer = zero.from_record(unpack_arrays(reply))
            except ReplyError as error:
                record.faults[site] = str(error)
                continue
            record.answered.append(site)
            yield site, answer
        self._close_round(record, started)
        if record.faults:
            raise SitesLostError(_sentence(record.faults))

    def close(self) -> None:
        """Tell the sites to forget what they kept for this run; no answer is needed."""
        content = pack({}, {"question": "close"})
        for _ in self._replies(self._nodes, content, Round("close")):
            pass

    def _replies(
        self, nodes: Mapping[str, int], content: RecordDict, record: Round
    ) -> Iterator[tuple[str, RecordDict]]:
        """Send ``content`` to all nodes and yield what they answer, in order of their names.

        An answer is yielded as soon as those before it are there, so that many large ones
        need not be held at once. Faults are put into ``record``.
        """
        timeout = self._config.timeout
        messages = [Message(content, node, "query", ttl=timeout) for node in nodes.values()]
        record.bytes_down += size(content) * len(messages)
        ids = self._grid.push_messages(messages)
        pending = dict(zip(ids, nodes, strict=True))
        waiting = list(nodes)
        arrived: dict[str, RecordDict] = {}
        for label, reply in self._collect(pending, nodes, record):
            arrived[label] = reply
            while waiting and (waiting[0] in arrived or waiting[0] in record.faults):
                first = waiting.pop(0)
                if first in arrived:
                    yield first, arrived.pop(first)
        yield from ((label, arrived[label]) for label in waiting if label in arrived)

    def _collect(
        self, pending: dict[str, str], nodes: Mapping[str, int], record: Round
    ) -> Iterator[tuple[str, RecordDict]]:
        """Yield good replies as they arrive; at the end the silent sites are faults."""
        asked = dict(pending)
        end = time.monotonic() + self._config.timeout
        while pending and time.monotonic() < end:
            replies = list(self._grid.pull_messages(pending))
            for reply in replies:
                label = asked.get(reply.metadata.reply_to_message_id)
                if label is None or reply.metadata.src_node_id != nodes[label]:
                    _log.warning("a reply that was not asked for, from %s", reply.metadata)
                elif pending.pop(reply.metadata.reply_to_message_id, None) is None:
                    record.faults[label] = "answered twice"
                elif (reason := _refusal(reply)) is not None:
                    record.faults[label] = reason
                else:
                    record.bytes_up += size(reply.content)
                    yield label, reply.content
            if not replies:
                time.sleep(_POLL_SECONDS)
        for label in pending.values():
            record.faults[label] = f"no answer within {self._config.timeout:g} s"

    def _wait_for_nodes(self) -> list[int]:
        """Return the connected nodes once as many as expected are there, or time is up."""
        end = time.monotonic() + self._config.timeout
        while len(nodes := sorted(self._grid.get_node_ids())) < self._config.expected:
            if time.monotonic() > end:
                break
            time.sleep(_POLL_SECONDS)
        return nodes

    def _close_round(self, record: Round, started: float) -> None:
        """Log a round, drop the sites that failed and check the quorum."""
        self._folder.log_round(record, time.monotonic() - started)
        for site in record.faults:
            self.sites.pop(site, None)
            self._nodes.pop(site, None)
        if len(self.sites) < self._config.quorum:
            why = f": {_sentence(record.faults)}" if record.faults else ""
            raise QuorumError(
                f"{len(self.sites)} sites are left in round '{record.question}', the quorum is "
                f"{self._config.quorum}{why}"
            )


def _refusal(reply: Message) -> str | None:
    if reply.has_error():
        return f"failed: {reply.error.reason}"
    refused = unpack_values(reply.content).get("refused")
    return None if refused is None else f"refused: {refused!s}"


def _read_info(values: Mapping[str, Value]) -> SiteInfo:
    try:
        return SiteInfo(**{**values, "classes": tuple(values["classes"])})  # type: ignore[arg-type]
    except (KeyError, TypeError) as error:
        raise ReplyError(f"an unreadable introduction ({error})") from error


def _odd_ones(infos: Mapping[str, SiteInfo]) -> dict[str, str]:
    """Name the sites whose classes or features differ from those that most sites have."""
    kinds = Counter((info.classes, info.n_features, info.features) for info in infos.values())
    if len(kinds) < 2:
        return {}
    usual = kinds.most_common(1)[0][0]
    odd = {}
    for site, info in infos.items():
        for what, got, want in zip(
            ("classes", "number of features", "kind of features"),
            (info.classes, info.n_features, info.features),
            usual,
            strict=True,
        ):
            if got != want:
                odd[site] = f"its {what} are {got}, most sites have {want}"
    return odd


def _sentence(faults: Mapping[str, str]) -> str:
    return "; ".join(f"{site} {reason}" for site, reason in sorted(faults.items()))
