"""Asking sites and adding their answers: who is in, who failed, and whether enough are left."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from flwr.app import RecordDict
from flwr.serverapp import Grid

from common.config.run import RunConfig
from common.errors import FedDermError, QuorumError, ReplyError
from common.statistics.sums import S, Sums
from common.text import printable
from common.wire.messages import Arrays, Value, pack, unpack_arrays
from server.federation.secure import SecureSums
from server.federation.site_info import SiteInfo, odd_ones, read_info
from server.federation.transport import POLL_SECONDS, Post, Round
from server.run.folder import RunFolder
from server.run.journal import question_key

T = TypeVar("T")
Check = Callable[[S, int], None]

_PATIENCE = 30.0
"""Seconds at most that a run waits for sites on which it does not depend."""

_CHANCES = 3
"""How often a site that was lost is asked whether it is back, before its node is seen again."""

_ROUNDING = 1e-9

_log = logging.getLogger(__name__)


class SitesLostError(FedDermError):
    """Sites failed in a round, and those that are left may go on without them."""


@dataclass(frozen=True)
class Answers(Generic[S]):
    """What the sites answered to a question.

    Attributes
    ----------
    total : the sum.
    sites : names of those in it.
    apart : each site's, by name; none where sums are secure.
    """

    total: S
    sites: list[str]
    apart: dict[str, S]


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
        self._grid, self._post = grid, Post(grid)
        self._config = config
        self._folder = folder
        self._nodes: dict[str, int] = {}
        self._secure: SecureSums | None = None
        self._away: dict[str, SiteInfo] = {}
        self._asked: Counter[str] = Counter()
        self.sites: dict[str, SiteInfo] = {}
        self.faults: dict[str, str] = {}

    def join(self) -> None:
        """Ask every connected node who it is; those with an odd answer are left out, by name.

        Where sums are secure, the sites then agree on keys, unless all that is left is to close.

        Raises
        ------
        QuorumError
            If too few sites joined.
        """
        started, record = time.monotonic(), Round("join")
        nodes = {f"node {node}": node for node in self._wait_for_nodes(record)}
        infos: dict[str, SiteInfo] = {}
        contents = dict.fromkeys(nodes, pack({}, {"question": "join"}))
        timeout = self._config.timeout
        for label, info in self._heard(nodes, contents, record, timeout, _introduced):
            if info.site in infos:
                record.faults[label] = f"is a second node that calls itself '{info.site}'"
                continue
            infos[info.site] = info
            self._nodes[info.site] = nodes[label]
        self.sites = {site: infos[site] for site in sorted(infos)}
        self._nodes = {site: self._nodes[site] for site in self.sites}
        self._post.names = {node: site for site, node in self._nodes.items()}
        record.faults |= odd_ones(self.sites, self._folder.features)
        record.answered = list(self.sites)
        self._close_round(record, started)
        if self._config.secure and not self._folder.trained:
            self._secure = SecureSums(self.exchange, self._folder.name)
            self._secure.agree(list(self.sites))
            if former := self.sites.keys() - set(self._secure.members):
                self._leave_out(former, "was lost before; the sites of this run may only be fewer")

    def take_back(self) -> bool:
        """Let sites in again that were lost without an answer and are back; tell if there are any.

        What they are asked next must not build on what they missed. Where sums are secure nobody
        comes back: the sites of a run may only become fewer.
        """
        online = set(self._grid.get_node_ids())
        nodes = {
            site: self._nodes[site]
            for site in sorted(self._away)
            if self._nodes[site] in online and self._asked[site] < _CHANCES
        }
        if self._secure or not nodes:
            return False
        started, record = time.monotonic(), Round("join")
        contents = dict.fromkeys(nodes, pack({}, {"question": "join"}))
        patience = min(self._config.timeout, _PATIENCE)
        for site, info in self._heard(nodes, contents, record, patience, _introduced):
            if info != self._away[site]:
                record.faults[site] = "came back with other data than it had"
                continue
            record.answered.append(site)
        self._folder.log_round(record, time.monotonic() - started)
        self._asked.update(nodes)
        for site in record.answered:
            self.sites[site] = self._away.pop(site)
            del self.faults[site], self._asked[site]
        for site in record.faults.keys() - self._post.unheard:
            del self._away[site]
        self.faults |= record.faults
        self.sites = dict(sorted(self.sites.items()))
        return bool(record.answered)

    def ask(
        self,
        question: str,
        zero: S,
        arrays: Arrays | None = None,
        values: Mapping[str, Value] | None = None,
        check: Check[S] | None = None,
    ) -> S:
        """Return the sum of all sites' answers, added in the order of the sites' names.

        What these sites were asked before the run was interrupted is not asked again.
        Other parameters and errors are those of :meth:`answers`.

        Parameters
        ----------
        check : raises a ``ReplyError`` for an answer that a site with so many images cannot give,
            where the sites' answers are visible.
        """
        known = {site: info.fingerprint for site, info in self.sites.items()}

        def key(sites: Collection[str]) -> str:
            asked = {site: known[site] for site in sites}
            return question_key(question, asked, arrays or {}, values or {})

        total = self._folder.journal.recall(key(known), zero)
        if total is None:
            found = self._exactly(question, zero, arrays, values, check, apart=False)
            self._folder.journal.keep(key(found.sites), found.total)
            total = found.total
        return total

    def answers(
        self,
        question: str,
        zero: S,
        arrays: Arrays | None = None,
        values: Mapping[str, Value] | None = None,
    ) -> Answers[S]:
        """Return the checked answers of all sites, added in the order of the sites' names.

        Parameters
        ----------
        zero : the neutral element, which every answer must look like.

        Raises
        ------
        SitesLostError
            If sites failed and the quorum stands. They are out, and what was computed with them
            before must be computed again.
        QuorumError
            If too few sites are left, or, where sums are secure, what was computed with those
            that failed cannot be computed again.
        """
        return self._exactly(question, zero, arrays, values, None, apart=True)

    def remaining(
        self,
        question: str,
        zero: S,
        arrays: Arrays | None = None,
        values: Mapping[str, Value] | None = None,
        sites: Collection[str] | None = None,
    ) -> Answers[S]:
        """Return the checked answers; the run goes on without sites that fail.

        Parameters
        ----------
        zero : the neutral element, which every answer must look like.
        sites : the sites that are asked; None for all.

        Raises
        ------
        QuorumError
            If too few sites are left.
        """
        before = list(self.sites)
        found = self._gather(question, zero, arrays, values, sites, again=True, apart=True)
        if lost := self._lost(before):
            _log.warning("%s; going on with %s", _sentence(lost), ", ".join(self.sites))
        return found

    def exchange(
        self,
        question: str,
        contents: Mapping[str, RecordDict],
        read: Callable[[str, RecordDict], T],
    ) -> Iterator[tuple[str, T]]:
        """Send each site its content; yield names and what was read, in the order of ``contents``.

        This is one round: at its end sites that failed are out, and the quorum is checked.

        Parameters
        ----------
        read : reads a site's answer; where it raises a ``ReplyError``, the site has failed.

        Raises
        ------
        QuorumError
            At the end, if too few sites are left.
        """
        started, record = time.monotonic(), Round(question)
        nodes = {site: self._nodes[site] for site in contents}
        for site, answer in self._heard(nodes, contents, record, self._config.timeout, read):
            record.answered.append(site)
            yield site, answer
        self._close_round(record, started)

    def close(self, finished: bool) -> None:
        """Tell all sites that joined, lost ones too, to forget what they kept for this run.

        Of a run that is not finished they keep what it needs to go on.
        """
        started, record = time.monotonic(), Round("close")
        content = pack({}, {"question": "close", "finished": finished})
        patience = min(self._config.timeout, _PATIENCE)
        contents = dict.fromkeys(self._nodes, content)
        for site, _ in self._post.replies(self._nodes, contents, record, patience):
            record.answered.append(site)
        self._folder.log_round(record, time.monotonic() - started)

    def _heard(
        self,
        nodes: Mapping[str, int],
        contents: Mapping[str, RecordDict],
        record: Round,
        patience: float,
        read: Callable[[str, RecordDict], T],
    ) -> Iterator[tuple[str, T]]:
        """Yield what was read of each reply; where none can be, that is the site's fault."""
        for label, reply in self._post.replies(nodes, contents, record, patience):
            try:
                answer = read(label, reply)
            except ReplyError as error:
                record.faults[label] = str(error)
            else:
                yield label, answer

    def _exactly(
        self,
        question: str,
        zero: S,
        arrays: Arrays | None,
        values: Mapping[str, Value] | None,
        check: Check[S] | None,
        apart: bool,
    ) -> Answers[S]:
        """Gather answers and raise if sites were lost, with which sums were added before.

        Without secure sums the run may begin again without them. With these, not where a sum
        with them was opened: beside the same without them, it would tell their share.
        """
        before, secure = list(self.sites), self._secure
        opened = secure is not None and secure.opened
        found = self._gather(question, zero, arrays, values, None, not opened, apart, check)
        lost = self._lost(before)
        if secure is None and lost:
            raise SitesLostError(_sentence(lost))
        if lost and (opened or lost.keys() & set(found.sites)):
            raise QuorumError(
                f"{_sentence(lost)}; sums with it were opened, and the same without it would tell "
                "its share: start this run again when it is back, and it goes on"
            )
        return found

    def _gather(
        self,
        question: str,
        zero: S,
        arrays: Arrays | None,
        values: Mapping[str, Value] | None,
        sites: Collection[str] | None,
        again: bool,
        apart: bool,
        check: Check[S] | None = None,
    ) -> Answers[S]:
        """Ask a question and add the answers.

        Parameters
        ----------
        again : whether to ask again, in secure sums, without sites that fail.
        apart : whether to keep each answer.
        """
        content = pack(arrays or {}, {"question": question, **(values or {})})
        if self._secure and zero.to_record():
            return self._gather_secure(self._secure, question, zero, content, again)
        asked = [site for site in self.sites if sites is None or site in sites]

        def read(site: str, reply: RecordDict) -> S:
            answer = zero.from_record(unpack_arrays(reply))
            images = self.sites[site].images
            _check_size(answer, images)
            if check and images is not None:
                check(answer, images)
            return answer

        total, added, kept = zero, [], {}
        for site, answer in self.exchange(question, dict.fromkeys(asked, content), read):
            total = total + answer
            added.append(site)
            if apart:
                kept[site] = answer
        return Answers(total, added, kept)

    def _gather_secure(
        self, secure: SecureSums, question: str, zero: S, content: RecordDict, again: bool
    ) -> Answers[S]:
        infos = self.sites
        total, members = secure.sum(question, zero, content, again)
        images = [infos[site].images for site in members]
        # Of each site alone its counts cannot be compared with its images.
        _check_size(total, None if None in images else sum(filter(None, images)))
        return Answers(total, members, {})

    def _lost(self, before: Collection[str]) -> dict[str, str]:
        return {site: self.faults[site] for site in before if site not in self.sites}

    def _leave_out(self, sites: Collection[str], reason: str) -> None:
        record = Round("secure.members")
        record.answered, record.faults = list(self.sites), dict.fromkeys(sorted(sites), reason)
        self._close_round(record, time.monotonic())

    def _wait_for_nodes(self, record: Round) -> list[int]:
        """Return the connected nodes once as many as expected are there, or time is up."""
        expected = max(self._config.expected, self._config.quorum)
        end = time.monotonic() + self._config.timeout
        while len(nodes := sorted(self._grid.get_node_ids())) < expected:
            if time.monotonic() > end:
                within = f"within {self._config.timeout:g} s"
                record.notes.append(f"{len(nodes)} of {expected} expected sites connected {within}")
                break
            time.sleep(POLL_SECONDS)
        return nodes

    def _close_round(self, record: Round, started: float) -> None:
        """Log a round, drop the sites that failed and check the quorum."""
        record.answered = [site for site in record.answered if site not in record.faults]
        self._folder.log_round(record, time.monotonic() - started)
        self.faults |= record.faults
        lost = record.faults.keys() & self._post.unheard
        self._away |= {site: info for site, info in self.sites.items() if site in lost}
        self.sites = {s: info for s, info in self.sites.items() if s not in record.faults}
        if len(self.sites) < self._config.quorum:
            why = "; ".join(filter(None, [*record.notes, _sentence(record.faults)]))
            raise QuorumError(
                f"{len(self.sites)} sites are left in round '{record.question}', the quorum is "
                f"{self._config.quorum}: {why or 'no more are connected'}"
            )


def _introduced(label: str, reply: RecordDict) -> SiteInfo:
    return read_info(reply)


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
    # A reason may hold the site's own words.
    return printable("; ".join(f"{site} {reason}" for site, reason in sorted(faults.items())))
