"""Errors that a user can act on: one line that says what is wrong, where, and what to do."""


class FedDermError(Exception):
    """A failure with a message for the user; the command line prints it without a traceback."""


class ConfigError(FedDermError):
    """A configuration key or value that is not allowed."""


class DataError(FedDermError):
    """A data folder that cannot be used."""


class ReplyError(FedDermError):
    """A site's reply that must not be added to the others."""


class RefusalError(FedDermError):
    """What a site will not answer; its text is the reason that the coordinator reads."""


class QuorumError(FedDermError):
    """Too few sites are left to go on."""


_LONGEST_REASON = 300


def reason(error: BaseException) -> str:
    """Return what an error says as a part of one line, whoever chose its words; never empty."""
    words = " ".join(str(error).split())[:_LONGEST_REASON]
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
    return shown or type(error).__name__
