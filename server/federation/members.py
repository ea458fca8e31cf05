"""The members of a run: which sites are in, which are away, and why the others are out."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

from flwr.app import RecordDict

from common.config.run import RunConfig
from common.errors import QuorumError
from common.text import printable
from server.federation.question import content_of
from server.federation.rounds import Rounds
from server.federation.site_info import (
    SiteInfo,
    differing,
    lacking_metadata,
    odd_ones,
    read_info,
    smaller_cameras,
)
from server.federation.transport import POLL_SECONDS, RoundRecord

_log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE = 30.0
"""Most seconds that a run waits for sites on which it does not depend."""

_CHANCES = 3
"""Most questions to a lost site whether it is back, until its node is seen again."""


class Members:
    """The sites of one run.

    Parameters
    ----------
    rounds : the way to the sites.
    config : has the quorum, the number of sites expected and the seconds that an answer may take.
    features : key of the features that the run's model will rest on.

    Attributes
    ----------
    sites : the sites that take part, by name, in the order in which their answers are added.
    faults : why the other sites do not, by name; a site that said no name has its node's.
    """

    def __init__(self, rounds: Rounds, config: RunConfig, features: str) -> None:
        self._rounds, self._config, self._features = rounds, config, features
        self._nodes: dict[str, int] = {}
        self._away: dict[str, SiteInfo] = {}
        self._invited: Counter[str] = Counter()
        self.sites: dict[str, SiteInfo] = {}
        self.faults: dict[str, str] = {}

    def join(self) -> None:
        """Ask every connected node for its description; leave out those whose answer does not fit.

        Raises
        ------
        QuorumError
            If too few sites joined.
        """
        infos: dict[str, SiteInfo] = {}
        with self._rounds.round("join") as record:
            nodes = {f"node {node}": node for node in self._wait_for_nodes(record)}
            for label, info in self._introductions(record, nodes, self._config.timeout):
                if info.site in infos:
                    record.faults[label] = f"is a second node that calls itself '{info.site}'"
                    continue
                infos[info.site] = info
                self._nodes[info.site] = nodes[label]
            self.sites = dict(sorted(infos.items()))
            self._nodes = {site: self._nodes[site] for site in self.sites}
            self._rounds.name_nodes(self._nodes)
            record.faults |= odd_ones(self.sites, self._features)
            record.notes += smaller_cameras(self.sites, self._config.resolution)
            record.notes += lacking_metadata(self.sites, self._config.metadata)
            record.answered = [site for site in self.sites if site not in record.faults]
        self._drop_failed(record)
        for line in differing(self.sites, self._config.task):
            _log.info("%s", printable(line))

    def take_back(self) -> bool:
        """Readmit sites that were lost without an answer and are back; return if there are any.

        The next question must not build on rounds that they missed.
        """
        nodes = self._nodes_back()
        if not nodes:
            return False
        with self._rounds.round("join") as record:
            for site, info in self._introductions(record, nodes, self._patience):
                if info == self._away[site]:
                    record.answered.append(site)
                else:
                    record.faults[site] = "came back with other data than it had"
        self._invited.update(nodes)
        self._let_in(record)
        return bool(record.answered)

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
        nodes = {site: self._nodes[site] for site in contents}
        with self._rounds.round(question) as record:
            timeout = self._config.timeout
            for site, answer in self._rounds.ask(record, nodes, contents, timeout, read):
                record.answered.append(site)
                yield site, answer
        self._drop_failed(record)

    def lost(self, before: Collection[str]) -> dict[str, str]:
        """Return those of ``before`` that are out now, and why."""
        return {site: self.faults[site] for site in before if site not in self.sites}

    def leave_out(self, sites: Collection[str], question: str, reason: str) -> None:
        """Leave sites out for a reason; a round of that name is logged.

        Raises
        ------
        QuorumError
            If too few sites are left.
        """
        with self._rounds.round(question) as record:
            record.faults = dict.fromkeys(sorted(sites), reason)
            record.answered = [site for site in self.sites if site not in record.faults]
        self._drop_failed(record)

    def close(self, finished: bool) -> None:
        """Ask all sites that joined, lost ones too, to forget what they kept for this run."""
        content = content_of("close", {"finished": finished})
        contents = dict.fromkeys(self._nodes, content)
        with self._rounds.round("close") as record:
            replies = self._rounds.ask(record, self._nodes, contents, self._patience, _ignore)
            record.answered = [site for site, _ in replies]

    @property
    def _patience(self) -> float:
        return min(self._config.timeout, _PATIENCE)

    def _wait_for_nodes(self, record: RoundRecord) -> list[int]:
        """Return the connected nodes once as many as expected are there, or time is up."""
        expected = max(self._config.expected, self._config.quorum)
        end = time.monotonic() + self._config.timeout
        while len(nodes := self._rounds.connected()) < expected:
            if time.monotonic() > end:
                within = f"within {self._config.timeout:g} s"
                record.notes.append(f"{len(nodes)} of {expected} expected sites connected {within}")
                break
            time.sleep(POLL_SECONDS)
        return nodes

    def _introductions(
        self, record: RoundRecord, nodes: Mapping[str, int], patience: float
    ) -> Iterator[tuple[str, SiteInfo]]:
        contents = dict.fromkeys(nodes, content_of("join", {}))
        return self._rounds.ask(
            record, nodes, contents, patience, lambda _, reply: read_info(reply, self._config.task)
        )

    def _nodes_back(self) -> dict[str, int]:
        """Return the nodes of sites that are away, if they are connected and have chances left."""
        online = set(self._rounds.connected())
        return {
            site: self._nodes[site]
            for site in sorted(self._away)
            if self._nodes[site] in online and self._invited[site] < _CHANCES
        }

    def _let_in(self, record: RoundRecord) -> None:
        """Readmit the sites that answered; a site with a wrong answer is not asked again."""
        for site in record.answered:
            self.sites[site] = self._away.pop(site)
            del self.faults[site], self._invited[site]
        for site in record.faults.keys() - self._rounds.silent:
            del self._away[site]
        self.faults |= record.faults
        self.sites = dict(sorted(self.sites.items()))

    def _drop_failed(self, record: RoundRecord) -> None:
        """Drop the sites that failed in a round and check the quorum."""
        self.faults |= record.faults
        lost = record.faults.keys() & self._rounds.silent
        self._away |= {site: info for site, info in self.sites.items() if site in lost}
        self.sites = {s: info for s, info in self.sites.items() if s not in record.faults}
        if len(self.sites) < self._config.quorum:
            why = "; ".join(filter(None, [*record.notes, faults_in_words(record.faults)]))
            raise QuorumError(
                f"{len(self.sites)} sites are left in round '{record.question}', the quorum is "
                f"{self._config.quorum}: {why or 'no more are connected'}"
            )


def faults_in_words(faults: Mapping[str, str]) -> str:
    """Return faults by site in one printable line: a reason may hold the site's own words."""
    return printable("; ".join(f"{site} {reason}" for site, reason in sorted(faults.items())))


def _ignore(site: str, reply: RecordDict) -> None:
    """Read nothing: that there is a reply is all that counts."""
