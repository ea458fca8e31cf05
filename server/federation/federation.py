"""The sites of a run as its method sees them: it asks a question and gets the answers' sum."""

import logging
from collections.abc import Collection, Iterator, Mapping

from flwr.app import RecordDict
from flwr.serverapp import Grid

from common.config.run import RunConfig
from common.errors import FedDermError, QuorumError
from common.statistics.sums import S
from server.federation.kept_answers import KeptAnswers
from server.federation.members import Members, faults_in_words
from server.federation.question import Answers, LossPolicy, Question, check_size
from server.federation.rounds import Rounds
from server.federation.secure import SecureSums
from server.federation.site_info import SiteInfo
from server.run.folder import RunFolder
from server.run.journal import question_key

_log = logging.getLogger(__name__)


class SitesLostError(FedDermError):
    """Sites failed in a round, and those that are left may go on without them."""


class Federation:
    """The sites of one run, asked in rounds.

    Parameters
    ----------
    grid : Flower's way to the sites.
    config : has the quorum, the number of sites expected and the seconds that an answer may take.
    folder : logs every round, and keeps sums for a run that is interrupted.
    """

    def __init__(self, grid: Grid, config: RunConfig, folder: RunFolder) -> None:
        self._config, self._folder = config, folder
        self._members = Members(Rounds(grid, folder), config, folder.features)
        self._secure: SecureSums | None = None

    @property
    def sites(self) -> Mapping[str, SiteInfo]:
        """The sites that take part, by name, in the order in which their answers are added."""
        return self._members.sites

    @property
    def faults(self) -> Mapping[str, str]:
        """Why the other sites do not, by name; a site that said no name has its node's."""
        return self._members.faults

    def join(self) -> None:
        """Ask every connected node for its description; leave out those whose answer does not fit.

        Where sums are secure, the sites then agree on keys, unless all that is left is to close.

        Raises
        ------
        QuorumError
            If too few sites joined.
        """
        self._members.join()
        if self._config.secure and not self._folder.trained:
            self._secure = SecureSums(self._members.exchange, self._folder.name)
            self._secure.agree(list(self.sites))
            if former := self.sites.keys() - set(self._secure.members):
                reason = "was lost before; the sites of this run may only be fewer"
                self._members.leave_out(former, "secure.members", reason)

    def take_back(self) -> bool:
        """Readmit sites that were lost without an answer and are back; return if there are any.

        The next question must not build on rounds that they missed. Where sums are secure no site
        comes back, because the sites of a run may only become fewer.
        """
        return self._secure is None and self._members.take_back()

    def leave_out(self, sites: Collection[str], question: str, reason: str) -> None:
        """Go on without sites for a reason; a round of that name is logged.

        Raises
        ------
        QuorumError
            If too few sites are left.
        """
        before = list(self.sites)
        self._members.leave_out(sites, question, reason)
        self._deal_with(self._members.lost(before), LossPolicy.CONTINUE, opened=False)

    def total(self, question: Question[S], on_loss: LossPolicy) -> S:
        """Return the sum of the checked answers, added in the order of the sites' names.

        Sums are kept on disk, and an interrupted run does not ask for them again: under RESTART if
        the same sites have the same data, under CONTINUE whichever sites answered then.

        Parameters
        ----------
        on_loss : as for :meth:`answers`, with its errors. Under CONTINUE sites that are back are
            readmitted first, so the question must not build on earlier ones.
        """
        total = self._folder.journal.recall(self._key(question, on_loss), question.zero)
        if total is None:
            if on_loss is LossPolicy.CONTINUE:
                self.take_back()
            total = self._ask(question, on_loss, keep=False).total
            # The key may be another now: secure sums go on over fewer sites until one is opened.
            self._folder.journal.keep(self._key(question, on_loss), total)
        return total

    def answers(self, question: Question[S], on_loss: LossPolicy) -> Answers[S]:
        """Return the checked answers, added in the order of the sites' names.

        Parameters
        ----------
        on_loss : what becomes of the run where sites fail. The failed sites are out in any case.

        Raises
        ------
        SitesLostError
            Under RESTART, if sites failed and the quorum stands: what was computed with them
            before must be computed again.
        QuorumError
            If too few sites are left, or, under RESTART where sums are secure, what was computed
            with those that failed cannot be computed again.
        ReplyError
            If a secure sum is none that the sites' images can give.
        """
        return self._ask(question, on_loss, keep=True)

    def added(self, question: Question[S], on_loss: LossPolicy) -> Answers[S]:
        """Return the same without each site's answer: of many sites large ones need much memory."""
        return self._ask(question, on_loss, keep=False)

    def close(self, finished: bool) -> None:
        """Ask all sites that joined, lost ones too, to forget what they kept for this run.

        Of a run that is not finished they keep what it needs to go on.
        """
        self._members.close(finished)

    def _key(self, question: Question[S], on_loss: LossPolicy) -> str:
        """Return the key of a sum on disk; that of an exact sum depends on every site's data."""
        exact = on_loss is LossPolicy.RESTART
        sites = {site: info.fingerprint for site, info in self.sites.items()} if exact else {}
        return question_key(question.name, sites, question.arrays, question.values)

    def _ask(self, question: Question[S], on_loss: LossPolicy, *, keep: bool) -> Answers[S]:
        """Ask a question, add the answers and deal with losses; keep each answer if so asked."""
        before, secure = list(self.sites), self._secure
        opened = secure is not None and secure.opened
        if secure and question.zero.to_record():
            # Before a sum was opened, one over fewer sites tells nobody's share.
            answers = self._ask_secure(secure, question, on_loss if opened else LossPolicy.CONTINUE)
        else:
            answers = _add(question.zero, self._each(question), keep)
        if lost := self._members.lost(before):
            self._deal_with(lost, on_loss, opened or bool(lost.keys() & set(answers.sites)))
        if question.check_sites:
            question.check_sites(answers.sites)
        return answers

    def _each(self, question: Question[S]) -> Iterator[tuple[str, S]]:
        """Ask each site; yield its name and checked answer as soon as those before it are there."""

        def read(site: str, reply: RecordDict) -> S:
            return question.read(reply, self.sites[site].images)

        sites = [s for s in self.sites if question.sites is None or s in question.sites]
        contents = dict.fromkeys(sites, question.content())
        return self._members.exchange(question.name, contents, read)

    def _ask_secure(
        self, secure: SecureSums, question: Question[S], on_loss: LossPolicy
    ) -> Answers[S]:
        infos = self.sites
        total, members = secure.sum(question, on_loss)
        images = [infos[site].images for site in members]
        # Of each site alone its counts cannot be compared with its images.
        check_size(total, None if None in images else sum(filter(None, images)))
        return Answers(total, members, {})

    def _deal_with(self, lost: Mapping[str, str], on_loss: LossPolicy, opened: bool) -> None:
        """Go on without lost sites, or raise.

        Parameters
        ----------
        opened : whether a secure sum with them was opened; the same sum without them would then
            tell their share.
        """
        words = faults_in_words(lost)
        if on_loss is LossPolicy.CONTINUE:
            _log.warning("%s; going on with %s", words, ", ".join(self.sites))
        elif self._secure is None:
            raise SitesLostError(words)
        elif opened:
            raise QuorumError(
                f"{words}; sums with it were opened, and the same sums without it would tell "
                "its share: start this run again when it is back, and it goes on"
            )


def _add(zero: S, answers: Iterator[tuple[str, S]], keep: bool) -> Answers[S]:
    """Add answers as they come; many large ones are held at once only if each is kept."""
    total, sites, kept = zero, [], KeptAnswers(zero)
    for site, answer in answers:
        total = total + answer
        sites.append(site)
        if keep:
            kept.keep(site, answer)
    return Answers(total, sites, kept)
