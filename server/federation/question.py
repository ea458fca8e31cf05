"""A question to the sites, what they answer, and what becomes of it where sites are lost."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic

from flwr.app import RecordDict

from common.errors import ReplyError
from common.statistics.sums import S, Sums
from common.wire.messages import Arrays, Value, pack, stamp, unpack_arrays

_ROUNDING = 1e-9


class LossPolicy(Enum):
    """What a method does where a site is lost while it is asked.

    Attributes
    ----------
    RESTART : exact methods begin again, so the model is that of the sites that are left.
    CONTINUE : averages go on, so what the lost site added before stays in the model.
    """

    RESTART = "restart"
    CONTINUE = "continue"


def content_of(name: str, values: Mapping[str, Value], arrays: Arrays | None = None) -> RecordDict:
    """Return a new message's content: what is asked, by which program, and what goes with it.

    Parameters
    ----------
    arrays : by name, of the shapes that the allow-list declares.
    """
    return stamp(pack(arrays or {}, {"question": name, **values}))


@dataclass(frozen=True)
class Question(Generic[S]):
    """What the coordinator asks the sites.

    Attributes
    ----------
    name : what the sites know the question by.
    zero : the neutral element, which every answer must look like.
    arrays : what goes with the question, by name, of the shapes that the allow-list declares.
    values : plain values that go with it, by name.
    check_answer : raises a ``ReplyError`` for an answer that a site with so many images cannot
        give, where the sites' answers are visible; None to take any.
    check_sites : raises a ``QuorumError`` where the sites in the sum, by name, are too few; None
        where the run's quorum is enough.
    sites : names of those that are asked; None for all. Secure sums are always over all.
    """

    name: str
    zero: S
    arrays: Arrays = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    check_answer: Callable[[S, int], None] | None = None
    check_sites: Callable[[Collection[str]], None] | None = None
    sites: Collection[str] | None = None

    def content(self) -> RecordDict:
        """Return a new message's content."""
        return content_of(self.name, self.values, self.arrays)

    def read(self, reply: RecordDict, images: int | None) -> S:
        """Read an answer.

        Parameters
        ----------
        images : how many the site has; None where it does not say.

        Raises
        ------
        ReplyError
            If it does not look like ``zero``, or no site with so many images can give it.
        """
        answer = self.zero.from_record(unpack_arrays(reply))
        check_size(answer, images)
        if self.check_answer and images is not None:
            self.check_answer(answer, images)
        return answer


@dataclass(frozen=True)
class Answers(Generic[S]):
    """What the sites answered to a question.

    Attributes
    ----------
    total : the sum.
    sites : names of those in it, in the order in which they were added.
    by_site : each site's answer, by name; none where sums are secure.
    """

    total: S
    sites: list[str]
    by_site: Mapping[str, S]


def check_size(answer: Sums, images: int | None) -> None:
    """Refuse sums over more images than the sites have, which would outweigh all others.

    Parameters
    ----------
    images : number of images of the sites in the sum; None where a site does not say, because it
        sends noisy sums, which count nothing.

    Raises
    ------
    ReplyError
        If the array that counts images adds up to more.
    """
    if answer.counted is None or images is None:
        return
    total = float(getattr(answer, answer.counted).sum())
    if total > images * (1 + _ROUNDING):
        raise ReplyError(f"array '{answer.counted}' adds up to {total:g}, it has {images} images")
