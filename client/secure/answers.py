"""A site's answers in secure sums: to the protocol's own questions, and to a method's."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from flwr.app import RecordDict

from client.egress.activity_gate import Gated
from client.egress.answer import Answer
from client.egress.questions import Question
from client.secure.identity import Identity, pinned_keys, verify
from client.secure.session import Session
from client.site import Site
from common.errors import Reason, RefusalError, ReplyError
from common.statistics.sums import Sums
from common.wire.fixed_point import masked_record
from common.wire.messages import Value
from common.wire.secure_sums import (
    KEY,
    PEERS,
    RECORD,
    SumRound,
    question_digest,
    statement,
)

Mask = Callable[[Sums | Gated], Answer]
"""Makes an answer of a site's sums, which the coordinator can only open as a sum over sites."""


def respond(site: Site, question: Question) -> Answer:
    """Answer a question of the protocol itself.

    Raises
    ------
    RefusalError
        If this site does not answer it.
    """
    values = question.values
    with Session.of(site, str(values["run"])) as session:
        if question.name == KEY:
            return Answer(values=session.signed_key(Identity.begun(site.own_folder)))
        if question.name == PEERS:
            return Answer(values=session.agree(_signed_keys(site, values)))
        opened = session.unmask(int(str(values["round"])), _bytes(values["envelopes"]))
        return Answer(values=opened)


@contextmanager
def masking(site: Site, content: RecordDict) -> Iterator[Mask]:
    """Check the sum that a method's question is for, and yield what masks this site's share of it.

    The site's other processes wait meanwhile.

    Parameters
    ----------
    content : the content of the question's message.

    Raises
    ------
    RefusalError
        If the sum is refused; the site's data was not read.
    """
    if RECORD not in content:
        yield _nothing
        return
    try:
        sum_round = SumRound.read(content)
    except ReplyError as error:
        raise RefusalError(Reason.FORM, str(error)) from error
    with Session.of(site, sum_round.run) as session:
        session.check(sum_round)
        yield partial(_masked, session, sum_round, question_digest(content))


def _nothing(sums: Sums | Gated) -> Answer:
    """Acknowledge a question that asks for no sum."""
    if isinstance(sums, Gated) or sums.to_record():
        raise RefusalError(
            Reason.SECURE, "this run's sums are secure, and this question asks for a plain one"
        )
    return Answer()


def _masked(session: Session, sum_round: SumRound, digest: bytes, sums: Sums | Gated) -> Answer:
    gated = sums if isinstance(sums, Gated) else Gated(sums)
    masked = session.mask(sum_round, digest, gated)
    return Answer(
        {"masked": masked.vector.view(np.int64)},
        {"envelopes": masked.envelopes, "seal": masked.seal},
        hidden=masked_record(gated.sums),
    )


def _signed_keys(site: Site, values: Mapping[str, Value]) -> dict[str, bytes]:
    """Read the keys of a run; each must be signed by the identity that is pinned for its site."""
    names, run = [str(name) for name in _list(values["names"])], str(values["run"])
    keys, signatures = _bytes(values["keys"]), _bytes(values["signatures"])
    if not len(set(names)) == len(names) == len(keys) == len(signatures):
        raise RefusalError(
            Reason.FORM, "names, keys and signatures differ in number, or a name occurs twice"
        )
    pinned = pinned_keys(site)
    for name, key, signature in zip(names, keys, signatures, strict=True):
        if name not in pinned:
            raise RefusalError(Reason.KEYS, f"no identity of {name} is pinned at this site")
        verify(pinned[name], signature, statement(run, name, key), name)
    return dict(zip(names, keys, strict=True))


def _bytes(value: Value) -> list[bytes]:
    return [item for item in _list(value) if isinstance(item, bytes)]


def _list(value: Value) -> list[Any]:
    return list(value) if isinstance(value, list) else []
