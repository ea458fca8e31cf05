"""A method's side at a site: what its module must have."""

from collections.abc import Mapping
from typing import Protocol

from client.egress.activity_gate import Gated
from client.egress.questions import Question
from client.site import Site
from common.statistics.sums import Sums
from common.wire.messages import Value


class Method(Protocol):
    """A method's module at a site; of the run it knows only what a site and a question hold."""

    def describe(self, site: Site, /) -> Mapping[str, Value]:
        """Return what the coordinator must know of this site before the first question."""

    def answer(self, site: Site, question: Question, /) -> Sums | Gated:
        """Answer one question that was checked.

        Raises
        ------
        RefusalError
            If this site does not answer it.
        """
