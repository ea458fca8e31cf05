"""Whether a new model may replace the one in use, by the change of each figure."""

import math
from collections.abc import Iterable
from typing import Literal

from common.answers.paired import FIGURES

ALL = "all lesions"

REFUSED = 3
"""Exit code where the model in use stays."""

Verdict = Literal["passed", "worse, not shown", "refused", "not measured"]


def verdict(value: float, high: float, margin: float, whole: bool) -> Verdict:
    """Judge a change.

    Parameters
    ----------
    value : of the change, new minus old; nan where it is not known.
    high : the upper end of its interval.
    margin : the largest loss.
    whole : whether it is over all lesions. Then a loss above the margin is refused as it is
        estimated; in a part it must be shown, too: of many small parts one is worse by chance.
    """
    if math.isnan(value):
        return "not measured"
    if value >= -margin:
        return "passed"
    return "refused" if whole or high < 0 else "worse, not shown"


def worse(rows: Iterable[tuple[str, str, Verdict]]) -> str:
    """Return why the model in use stays, of groups, figures and verdicts; "" if it need not."""
    lost = [f"{FIGURES[name]} of {group}" for group, name, each in rows if each == "refused"]
    return f"the new one is worse in {', '.join(lost)}" if lost else ""


def unjudged(codes: Iterable[str]) -> str:
    """Return why the model in use stays where some diagnoses have no held-out lesion."""
    return (
        f"no held-out lesion of {', '.join(codes)}, so nobody can say that a new model keeps it; "
        "raise test_fraction, or add lesions"
    )


def decision(reason: str) -> str:
    """Say which model to use, and why where it is the old one."""
    return f"The old model stays: {reason}." if reason else "The new model may replace the old one."
