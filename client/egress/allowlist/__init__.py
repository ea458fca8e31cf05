"""All that a site may be asked and may answer, method by method; nothing else leaves.

Each method's part is here, not beside the method, because a hospital reviews it. The guard refuses
everything else. What is allowed depends on settings and question alone, so that neither a refusal
nor the length of an answer depends on a lesion.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol

from client.egress.questions import QuestionForm
from client.egress.records import Declared
from common.methods import METHODS


class Allowlist(Protocol):
    """A module that says what a method may be asked and may answer.

    Attributes
    ----------
    QUESTIONS : what comes with each of its questions, by name.
    SUMS : the arrays of each answer, by the question's name.
    """

    QUESTIONS: Mapping[str, QuestionForm]
    SUMS: Mapping[str, Declared]


def allowlist_of(method: str) -> Allowlist:
    """Return what a method may be asked and may answer."""
    module: Allowlist = import_module(METHODS[method].allowlist)
    return module
