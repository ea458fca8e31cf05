"""A noisy sum of a run: answered once, in order, after the site's ledger is charged."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Self

from client.privacy.clipped import Clipped
from client.privacy.ledger import SEAL_FOLDER, Ledger, Release
from client.site import Site
from client.state import RoundArrays
from common.config.run import RunConfig
from common.errors import Reason, RefusalError
from common.privacy.linear import NoisySum, plan
from common.wire.messages import Value

FOLDER = "ledger"
"""Name of the ledger's folder, in a site's own folder."""


def ledger_of(site: Site) -> Ledger:
    """Open the site's ledger; a simulated site's ledger lies in its folder.

    A hospital's ledger has its operator's unit, delta and limit, whatever a run configures.
    """
    config, folder = site.config, site.own_folder / FOLDER
    unit, delta, limit, state = config.unit, config.delta, config.epsilon, folder / SEAL_FOLDER
    if site.operator:
        rules, state = site.rules, site.operator.seals
        unit, delta, limit = rules.unit, rules.delta, rules.epsilon
    return Ledger.open(
        folder, site.fingerprint, unit, limit, delta, state, lambda: site.former_fingerprint
    )


@dataclass(frozen=True)
class PaidStep:
    """A noisy sum of a run.

    Attributes
    ----------
    run : name of the run.
    number : 0 for the overview, then from 1.
    question : its name.
    due : whether this is the question of that step.
    """

    run: str
    number: int
    question: str
    due: bool

    @classmethod
    def read(cls, values: Mapping[str, Value], question: str, training: str) -> Self:
        """Read what a question says; ``training`` is the question after the overview."""
        number = int(str(values["step"]))
        due = question == (training if number else "overview")
        return cls(str(values["run"]), number, question, due)

    def answer(self, site: Site, compute: Callable[[], Clipped]) -> NoisySum:
        """Return the noisy sum of what ``compute`` clips, after the ledger was charged.

        A repeated question gets the same answer, because other noise would tell more. The sealed
        ledger records which steps were answered, so an older or lost file of answers allows no
        second answer. Whatever can fail comes before the charge.

        Raises
        ------
        RefusalError
            If the step does not follow the last of its run, or the budget does not allow the run.
            Steps in between, which the site missed, are charged all the same.
        """
        answers = RoundArrays(site.own_folder / FOLDER / "answers", self.run)
        with answers.locked():
            ledger = ledger_of(site) if site.config.epsilon else None
            kept = -1 if answers.last is None else answers.last
            answered = max(kept, self._answered(ledger))
            clipped = None
            if self.number != answered or kept != answered:
                self._refuse_out_of_turn(site.config, kept, answered)
                clipped = compute()
            with ledger.held() if ledger else nullcontext():
                if clipped is not None:
                    self._reserve(site.config, ledger)
                    answers.save(self.number, clipped.noisy(site.config.honest).to_record())
                if ledger is not None:
                    self._note(site.config, ledger)
            return NoisySum(answers.load(self.number)["values"])

    def _answered(self, ledger: Ledger | None) -> int:
        """Return the last step of this run that the ledger knows to be answered; -1 for none."""
        if ledger is None:
            return -1
        account = ledger.last_read
        # Versions before answers were noted settled the overview when it was answered.
        begun = account.number_of(self._key("overview")) in account.settled
        return account.answered.get(self.run, 0 if begun else -1)

    def _refuse_out_of_turn(self, config: RunConfig, kept: int, answered: int) -> None:
        if self.number <= answered and kept < answered:
            raise RefusalError(
                Reason.ORDER,
                f"step {self.number} was answered and the answers were lost, the last kept is "
                f"{kept}; begin a new run",
            )
        # The overview comes first: without it, answers that were lost could be given anew.
        early = self.number < answered or self.number > 0 > answered
        if early or self.number > config.releases or not self.due:
            raise RefusalError(
                Reason.ORDER,
                f"step {self.number}, {self.question}, does not follow step {answered} of this run",
            )

    def _reserve(self, config: RunConfig, ledger: Ledger | None) -> None:
        """Reserve all that a run spends, with its first step."""
        spent = plan(config)
        if ledger is not None and spent is not None:
            costs = spent._asdict().items()
            ledger.reserve(*(Release(cost, part, self._key(part)) for part, cost in costs))

    def _note(self, config: RunConfig, ledger: Ledger) -> None:
        """Note an answer before it leaves; only a first one adds anything."""
        account = ledger.account()
        if account.answered.get(self.run, -1) < self.number:
            ledger.answer(self.run, self.number)
        number = account.number_of(self._key("training" if self.number else "overview"))
        if self.number in (0, config.releases) and number is not None:
            ledger.settle(number)

    def _key(self, part: str) -> str:
        return f"{self.run}/{part}"
