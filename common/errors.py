"""Errors that a user can act on: one line that says what is wrong, where, and what to do."""

from enum import StrEnum

from common.text import printable


class FedDermError(Exception):
    """A failure with a message for the user; the command line prints it without a traceback."""


class ConfigError(FedDermError):
    """A configuration key or value that is not allowed."""


class DataError(FedDermError):
    """A data folder that cannot be used."""


class ReplyError(FedDermError):
    """A site's reply that must not be added to the others."""


class Reason(StrEnum):
    """Why a hospital refuses: the closed list of the reasons that a coordinator can read.

    No text holds a value. What is wrong in detail stands in the hospital's own log.
    """

    FORM = "the question, or what came with it, is not in the form and range that it must have"
    SETTINGS = "the run's settings cannot be used at this site; check them and the versions"
    PROGRAM = "this site runs another version of this program than the coordinator; run the same"
    METHOD = "the operator's rules do not allow this method; choose one that they allow"
    PINS = "this site does not run the code, weights or network that its operator pinned"
    QUOTA = "the operator's limit of answers, rounds or bytes is reached; ask the operator"
    ORDER = "the question is out of turn: it was answered, another comes first, or too many came"
    SECURE = "this site answers in secure sums over enough sites only; set secure=true"
    MEMBERS = "the sites of this secure sum are too few, or others than this run's rules allow"
    KEYS = "a key, signature or envelope of the secure sum is not what it must be"
    FEW = "too few lesions would be behind a number; set secure=true, or raise C or 'min_active'"
    MIN_ACTIVE = "'min_active' is below the operator's least; raise it"
    LINE = "the weights depend on earlier ones of the run; a difference would tell of few lesions"
    EPSILON = "'epsilon' must be above 0 and allowed by the operator's rules"
    UNIT = "'unit' or 'delta' is not what the operator's rules allow; ask for theirs"
    BUDGET = "the privacy budget does not allow this run; plan a smaller 'epsilon'"
    TEST_COUNTS = "the operator's rules let no exact counts of test lesions leave"
    UNDECLARED = "the answer would hold what may not leave this site"
    CONFIGURATION = "this site's configuration cannot be used, which its log explains"
    DATA = "this site's data or disk cannot be used, which its log explains"
    FAILED = "this site failed to answer, which its log explains"
    UNLOGGED = "this site cannot log what leaves it, so nothing does"


class RefusalError(FedDermError):
    """A question that a site refuses to answer.

    Parameters
    ----------
    reason : what the coordinator reads.
    detail : what only the site's own log holds, and the user of a simulation.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class QuorumError(FedDermError):
    """Too few sites are left to go on."""


class BusyError(FedDermError):
    """A folder that another process is writing."""


_LONGEST_REASON = 300


def described(error: BaseException) -> str:
    """Return an error's message, or its type where the message is empty."""
    return str(error).strip() or type(error).__name__


def reason(error: BaseException) -> str:
    """Return an error's message as a printable part of one line; never empty."""
    return printable(" ".join(described(error).split())[:_LONGEST_REASON])
