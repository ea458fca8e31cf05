"""How much has left a hospital, and how much more its operator allows."""

from collections.abc import Iterable
from dataclasses import field, replace
from datetime import UTC, datetime, timedelta

from pydantic.dataclasses import dataclass

from client.egress import questions
from client.log_file import Line
from client.operator.site_rules import Rules
from common.errors import Reason, RefusalError

REFUSED = "refused"
"""Field of a line of the log, empty where a question was answered."""

_TEN_MINUTES = len("2026-01-01T00:0")
_KEPT = 2 * 24 * 6
"""Steps of ten minutes that are kept: two days', or more where nothing was sent in some."""


@dataclass
class Sums:
    """What the lines of an egress log add up to, which is all that rules need of them.

    Attributes
    ----------
    bytes : of all messages.
    questions : answers about the site's images, refusals included.
    rounds : those of them with an SVM's losses and gradients.
    sent : number and bytes of the messages that were no refusals, by ten minutes of UTC; only the
        last steps in which there were any. So a log has sums of the same size, however long it is.
    """

    bytes: int = 0
    questions: int = 0
    rounds: int = 0
    sent: dict[str, tuple[int, int]] = field(default_factory=dict)

    def after(self, lines: Iterable[Line]) -> "Sums":
        """Return what these and some more lines of the log add up to."""
        sums = replace(self, sent=dict(self.sent))
        for line in lines:
            sums._take(line)
        return sums

    def since(self, time: str) -> tuple[int, int]:
        """Return number and bytes of what was sent in the ten minutes of ``time``, and later."""
        recent = [sent for step, sent in self.sent.items() if step >= time[:_TEN_MINUTES]]
        return sum(count for count, _ in recent), sum(total for _, total in recent)

    def _take(self, line: Line) -> None:
        name, size = line["question"], line["bytes"]
        self.bytes += size
        self.questions += name not in questions.OF_ALL
        self.rounds += name == questions.ROUND
        if not line[REFUSED]:
            step = line["time"][:_TEN_MINUTES]
            count, total = self.sent.pop(step, (0, 0))
            self.sent[step] = count + 1, total + size
            for oldest in list(self.sent)[:-_KEPT]:
                del self.sent[oldest]


def refuse_beyond(rules: Rules, sums: Sums, question: str, size: int) -> None:
    """Refuse an answer of ``size`` bytes that is more than rules allow.

    Raises
    ------
    RefusalError
        If it is.
    """
    count, total = sums.since(_day_ago())
    for most, there in (
        (rules.questions, sums.questions if question not in questions.OF_ALL else 0),
        (rules.rounds, sums.rounds if question == questions.ROUND else 0),
        (rules.rounds_a_day, count),
    ):
        if most and there >= most:
            raise RefusalError(
                Reason.QUOTA, f"{there} answers have left, and the operator allows {most}"
            )
    if rules.megabytes_a_day and total + size > rules.megabytes_a_day * 1e6:
        raise RefusalError(
            Reason.QUOTA,
            f"more than the {rules.megabytes_a_day} MB a day that the operator allows",
        )


def _day_ago() -> str:
    return (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")
