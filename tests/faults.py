"""Faults by plan: what goes wrong between a coordinator and its sites, and when.

A plan is data, so that Hypothesis can draw and shrink it. Time is simulated: who waits, waits in
no time, and who waits for ever is found out.
"""

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Context, Error, Message, RecordDict
from hypothesis import strategies as st

import client.app
import client.methods.private
import client.methods.svm
import client.open_site
import client.privacy.ledger
import client.secure.session
import client.state
import common.finetune.local_steps
import server.app
import server.federation.members
import server.federation.rounds
import server.federation.transport
from client.open_site import site_folders
from common.config.run import RunConfig
from common.errors import FedDermError
from common.flower_inside import APP_RAISED, NODE_UNAVAILABLE
from server.run.checkpoint import Checkpoint
from server.run.journal import Journal
from simulations.runtimes.in_process import RUN_ID, SERVER_NODE_ID, InProcessGrid

KINDS = (
    "crash before",
    "crash during",
    "crash after",
    "gone",
    "late",
    "twice",
    "damaged question",
    "damaged answer",
    "stale",
)
HARMLESS = "twice"

_HOUR = 3600.0
_MIDWAY: tuple[tuple[Any, str], ...] = (
    (common.finetune.local_steps.LocalSteps, "step"),
    (client.methods.private, "clipped"),
    (client.privacy.ledger.Ledger, "answer"),
    (client.privacy.ledger.Ledger, "reserve"),
    (client.privacy.ledger.Ledger, "settle"),
    (client.secure.session.SealedLog, "append"),
    (client.state, "write_arrays"),
    (client.methods.svm, "hinge_sums"),
    (client.methods.svm, "_prepare"),
    (client.methods.svm.Prepared, "save"),
)
"""Where a site may crash on its way to an answer, before or after."""


class Killed(BaseException):
    """A process ends here; nothing in it may catch this."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at a site.

    Attributes
    ----------
    site : its place among the sites.
    message : which of the messages to it, from 0, restarts of the coordinator included.
    kind : one of ``KINDS``.
    seed : decides what is left open: where it crashes, which byte is damaged.
    """

    site: int
    message: int
    kind: str
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """What goes wrong in a run.

    Attributes
    ----------
    kills : when the coordinator is killed, in polls and writes since the run began.
    """

    faults: tuple[Fault, ...] = ()
    kills: tuple[int, ...] = ()


def plans(sites: int, messages: int, most: int = 3) -> st.SearchStrategy[Plan]:
    """Draw plans for runs in which a site gets about ``messages`` messages."""
    fault = st.builds(
        Fault,
        st.integers(0, sites - 1),
        st.integers(0, messages - 1),
        st.sampled_from(KINDS),
        st.integers(0, 2**16),
    )
    kills = st.lists(st.integers(0, 2 * sites * messages), max_size=2)
    return st.builds(Plan, st.lists(fault, max_size=most).map(tuple), kills.map(tuple))


@dataclass
class World:
    """Sites and a coordinator under a plan, however often it is started.

    Attributes
    ----------
    struck : the faults that came to pass.
    now : seconds since the world began.
    fuse : moments that the site which is asked has left, if it is to crash midway.
    said : what each node has answered.
    """

    config: RunConfig
    plan: Plan
    struck: list[Fault] = field(default_factory=list)
    now: float = 0.0
    fuse: int | None = None
    said: defaultdict[int, list[RecordDict]] = field(default_factory=lambda: defaultdict(list))
    _messages: Counter[int] = field(default_factory=Counter)
    _moments: int = 0
    _dead: bool = False

    @property
    def folders(self) -> list[Path]:
        """The sites' folders."""
        assert self.config.sites is not None
        return site_folders(self.config.sites)

    @property
    def harmed(self) -> dict[str, set[str]]:
        """How sites failed, by name."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for fault in self.struck:
            if fault.kind != HARMLESS:
                found[self.folders[fault.site].name].add(fault.kind)
        return found

    def run(self, between: Callable[[], None] = lambda: None) -> str | None:
        """Start the coordinator until it is killed no more; return how it failed, if it did.

        Parameters
        ----------
        between : what is done after each kill.
        """
        while True:
            self._dead = False
            grid = FaultyGrid(self)
            context = Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), self.config.flat())
            try:
                server.app.app(grid, context)
            except Killed:
                between()
                continue
            except FedDermError as error:
                return str(error)
            return None

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        self.plan = Plan()

    def moment(self) -> None:
        """Let the coordinator live through a moment, or be killed in it."""
        self._moments += 1
        if self._dead or self._moments - 1 in self.plan.kills:
            self._dead = True
            raise Killed

    def midway(self) -> None:
        """Let a site live through a moment of an answer, or be killed in it."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Killed

    def fault_of(self, node: int) -> Fault | None:
        """Count a message to a node; return what goes wrong with it."""
        number = self._messages[node]
        self._messages[node] += 1
        wanted = (node - 1, number)
        return next((f for f in self.plan.faults if (f.site, f.message) == wanted), None)

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        assert self.now < _HOUR, "the coordinator waits for ever"


class FaultyGrid(InProcessGrid):
    """A grid between the sites and one life of the coordinator."""

    def __init__(self, world: World) -> None:
        nodes = [{"partition-id": place} for place in range(len(world.folders))]
        super().__init__(client.app.app, nodes, world.config.flat())
        self._world = world
        self._fault: Fault | None = None
        self._held: list[Message] = []

    def push_messages(self, messages: Any) -> list[str]:
        self._world.moment()
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Any) -> list[Message]:
        self._world.moment()
        wanted = set(message_ids)
        # What was late arrives in a later round, and so may the second of two answers.
        due = [m for m in self._held if m.metadata.reply_to_message_id not in wanted]
        self._held = [m for m in self._held if m not in due]
        replies = super().pull_messages(wanted)
        kind, seed = (self._fault.kind, self._fault.seed) if self._fault else ("", 0)
        self._fault = None
        if kind == "late" or (kind == "twice" and seed % 2):
            self._held += replies
        if kind == "late":
            return due
        return [*due, *replies, *(replies if kind == "twice" and not seed % 2 else [])]

    def _execute(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        self._fault = fault = self._world.fault_of(node)
        if fault is None:
            return self._answer(message)
        if fault.kind == "stale" and not self._world.said[node]:
            return self._answer(message)
        self._world.struck.append(fault)
        rng = np.random.default_rng(fault.seed)
        if fault.kind == "gone":
            return self._failed(message, Error(NODE_UNAVAILABLE, "no heartbeat"))
        if fault.kind == "crash before":
            return self._crash(message)
        if fault.kind == "crash during":
            self._world.fuse = fault.seed % 6
        if fault.kind == "damaged question":
            message.content = damaged(message.content, rng)
        earlier = list(self._world.said[node])
        try:
            reply = self._answer(message)
        except Killed:
            return self._crash(message)
        finally:
            self._world.fuse = None
        if fault.kind in ("crash during", "crash after"):
            return self._crash(message)
        if fault.kind == "damaged answer":
            reply.content = damaged(reply.content, rng)
        if fault.kind == "stale":
            reply.content = earlier[rng.integers(len(earlier))]
        return reply

    def _answer(self, message: Message) -> Message:
        reply = super()._execute(message)
        if reply.has_content():
            self._world.said[message.metadata.dst_node_id].append(reply.content)
        return reply

    def _crash(self, message: Message) -> Message:
        """End the site's process; the next message finds a new one."""
        client.open_site._sites_of.cache_clear()
        return self._failed(message, Error(APP_RAISED, "power cut"))

    def _failed(self, message: Message, error: Error) -> Message:
        """Answer in the node's place, as Flower does."""
        reply = Message(error, reply_to=message)
        self._identify(reply)
        return reply


def damaged(content: RecordDict, rng: np.random.Generator) -> RecordDict:
    """Return a copy of a message's content with one thing in it damaged."""
    content = copy.deepcopy(content)
    records: Sequence[Any] = [*content.array_records.values(), *content.config_records.values()]
    places = [(record, key) for record in records for key in record]
    record, key = places[rng.integers(len(places))]
    record[key] = _damaged_value(record[key], rng)
    return content


def _damaged_value(value: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, Array):
        return Array(value.dtype, value.shape, value.stype, _damaged_bytes(value.data, rng))
    if isinstance(value, list):
        return [*value[:-1], _damaged_value(value[-1], rng)] if value else [1]
    if isinstance(value, bytes):
        return _damaged_bytes(value, rng)
    if isinstance(value, str):
        return value[:-1] if value else "x"
    return not value if isinstance(value, bool) else value + 1


def _damaged_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip a bit, or lose the end."""
    if not data:
        return b"\0"
    place = int(rng.integers(len(data)))
    if rng.integers(4) == 0:
        return data[:place]
    return data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1 :]


@contextmanager
def world_of(config: RunConfig, plan: Plan) -> Iterator[World]:
    """Enter a world: its time is the coordinator's, and its crashes are the processes'."""
    world = World(config, plan)
    client.open_site._sites_of.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("transport", "rounds", "members"):
            patch.setattr(getattr(server.federation, name), "time", world)
        for owner, name in _MIDWAY:
            patch.setattr(owner, name, _around(getattr(owner, name), world.midway))
        for owner, name in ((Journal, "keep"), (Checkpoint, "save")):
            patch.setattr(owner, name, _around(getattr(owner, name), world.moment))
        yield world
    client.open_site._sites_of.cache_clear()


def _around(function: Callable[..., Any], tick: Callable[[], None]) -> Callable[..., Any]:
    def around(*arguments: Any, **named: Any) -> Any:
        tick()
        result = function(*arguments, **named)
        tick()
        return result

    return around
