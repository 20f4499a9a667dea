"""A process of a world: an application with a registry, registrations, views and consumers, on a machine of its own."""

from __future__ import annotations

import asyncio
import enum
import random
import ssl
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import aioregistry
from aioregistry import (
    Guard,
    HandleClosed,
    NoAuth,
    Registration,
    RegistrationDisplaced,
    RegistrationError,
    Resynced,
    ServiceInstance,
    Status,
    View,
)
from aioregistry._discovery.subscriptions import CHANGES_KEPT, Changes
from aioregistry._errors import TransactionAborted
from aioregistry._runtime import Endpoint, Runtime
from tests.simulation.engine import Machine
from tests.simulation.network import Network, Tap
from tests.simulation.wellness import Warmth, Wellness
from tests.support.checkers import OrderedConsumer, Violated, check_bounded

BASE: Final = "/services"

GUARDS: Final = {"s1": Guard(hold=8.0, longest=12.0)}
"""The services whose views have one."""

# Written down once more on purpose, as the library's own tables are what is judged: requests that the quorum answers
# (create, delete, setData, setACL, sync, check, multi, create2, the containers', the TTLs' …), and error codes that a
# server gives by itself.
_QUORUM: Final = frozenset({1, 2, 5, 7, 9, 13, 14, 15, 16, 19, 20, 21})
_DELETE: Final = 2
_GET_DATA: Final = 4
_OWN_ERRORS: Final = frozenset({-5, -6, -8, -112, -118, -119, -127})
_NO_NODE: Final = -101
_HEAD: Final = struct.Struct(">iii")
_REPLY: Final = struct.Struct(">iiqi")
_SIZE: Final = struct.Struct(">i")
_STAT: Final = struct.Struct(">qqqqiiiq")
"""Its beginning: czxid, mzxid, ctime, mtime, version, cversion, aversion, ephemeralOwner."""


class Sight(NamedTuple):
    """A node as it was read, and the zxid of the reply."""

    zxid: int
    czxid: int
    version: int
    owner: int


class Evidence(Tap):
    """When the last request was sent that the quorum answered, read off the wire: what a claim to be live rests on.

    Args:
        machine: whose boot clock counts.
        process: gets it.
    """

    def __init__(self, machine: Machine, process: Process) -> None:
        self._machine = machine
        self._process = process
        self._greeting: float | None = None
        self._greeted = False
        self._asked: dict[int, tuple[float, int]] = {}
        self._reads: dict[int, str] = {}
        self._agreed = 0
        """The xid of the last reply, of a registration, that the quorum has agreed on."""

    def sent(self, data: bytes) -> None:
        now = self._machine.boot()
        if self._greeting is None:
            self._greeting = now
            return
        at = 0
        while at < len(data):
            length, xid, opcode = _HEAD.unpack_from(data, at)
            if opcode in _QUORUM:
                self._asked[xid] = now, opcode
            elif opcode == _GET_DATA:
                (size,) = struct.unpack_from(">i", data, at + 12)
                self._reads[xid] = data[at + 16 : at + 16 + size].decode()
            at += 4 + length

    def got(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if not self._greeted:
                self._greet(data)
                (length,) = struct.unpack_from(">i", data, at)
            else:
                length, xid, zxid, error = _REPLY.unpack_from(data, at)
                sent, opcode = self._asked.pop(xid, (None, 0))
                if sent is not None and error not in _OWN_ERRORS:
                    self._process.evidence = max(self._process.evidence, sent)
                    if opcode != _DELETE:
                        self._agreed = xid
                self._read(xid, zxid, error, data[at + _REPLY.size : at + 4 + length])
            at += 4 + length

    def _read(self, xid: int, zxid: int, error: int, found: bytes) -> None:
        """A read right behind what the quorum agreed on is as new as that; the first of a node is what a claim goes by.

        Reads of views come behind other reads, or behind a barrier, which is a deletion. A read that an overloaded
        server dropped shows nothing.
        """
        path = self._reads.pop(xid, None)
        if path is None or error not in (0, _NO_NODE):
            return
        if self._agreed == xid - 1:
            self._process.first_sights.setdefault(path, zxid)
        if not error:
            (size,) = _SIZE.unpack_from(found)
            czxid, _, _, _, version, _, _, owner = _STAT.unpack_from(found, _SIZE.size + max(size, 0))
            self._process.last_sights[path] = Sight(zxid, czxid, version, owner)

    def _greet(self, data: bytes) -> None:
        self._greeted = True
        _, _, timeout_ms, session = struct.unpack_from(">iiiq", data)
        if session and timeout_ms > 0:
            assert self._greeting is not None
            self._process.evidence = max(self._process.evidence, self._greeting)


class Names(enum.Enum):
    """The outcome of a look-up."""

    ANSWERED = enum.auto()
    FAIL = enum.auto()
    HANG = enum.auto()
    EMPTY = enum.auto()


class MachineRuntime(Runtime):
    """The outside of a process: its machine and the network."""

    def __init__(self, process: Process, network: Network) -> None:
        self._process = process
        self._network = network
        self._draw = process.draw

    def monotonic(self) -> float:
        return self._process.machine.time()

    def boot(self) -> float:
        return self._process.machine.boot()

    def wall(self) -> float:
        return self._process.machine.wall()

    def uniform(self, low: float, high: float) -> float:
        return self._draw.uniform(low, high)

    def shuffle(self, items: list[Endpoint]) -> None:
        self._draw.shuffle(items)

    async def resolve(self, host: str, port: int) -> list[Endpoint]:
        match self._process.names:
            case Names.FAIL:
                raise OSError(-3, "no name server answers")
            case Names.HANG:
                await asyncio.get_running_loop().create_future()
            case Names.EMPTY:
                return []
        return [Endpoint(host, port, host)]

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint, tls: ssl.SSLContext | None
    ) -> asyncio.Transport:
        machine = self._process.machine
        return await self._network.connect(machine, factory, endpoint.host, Evidence(machine, self._process))


# ---------------------------------------------------------------- what a process is to do


@dataclass(frozen=True)
class Claim:
    """An instance that a process registers."""

    service: str
    id: str
    on_displaced: Literal["stop", "standby"] = "stop"

    @property
    def path(self) -> str:
        return f"{BASE}/{self.service}/{self.id}"


@dataclass(frozen=True)
class Part:
    """The role of a process.

    Args:
        name: of the process.
        claims: what it registers.
        follows: the services that it has views of, each with a consumer of changes and one of snapshots.
        session_timeout: seconds.
        pace: seconds that its consumers take for an item, at most.
        updates: seconds between two updates of its payload, at most; None for none.
        watches: how views watch.
        checked: whether what it registers has checks.
        clock_ahead: seconds by which its host's wall clock is ahead; below 0 if it is behind.
    """

    name: str
    claims: tuple[Claim, ...] = ()
    follows: tuple[str, ...] = ()
    session_timeout: float = 10.0
    pace: float = 0.0
    updates: float | None = None
    watches: Literal["auto", "recursive", "one-shot"] = "auto"
    checked: bool = False
    clock_ahead: float = 0.0


class Stage(enum.Enum):
    """Where a process is in its life."""

    UP = "up"
    LEAVING = "leaving"
    GONE = "gone"
    KILLED = "killed"


@dataclass
class Held:
    """A registration, and what those who judge need to know of it."""

    claim: Claim
    process: Process
    registration: Registration[Any]
    number: int
    wrong_since: float | None = None
    """Since when it says live and its node is not there (world's time)."""
    was_live: bool = False
    closed: bool = False

    @property
    def name(self) -> str:
        return f"{self.process.name}#{self.number}"

    @property
    def told(self) -> bool:
        """Whether whoever holds it knows that the id is not his."""
        return self.closed or self.registration.status in (Status.DISPLACED, Status.FAILED, Status.CLOSED)


@dataclass
class Followed:
    """A view, and its consumer's notebook."""

    service: str
    view: View[Any]
    consumer: OrderedConsumer | None = None
    warmth: Warmth | None = None
    history_lost: bool = False
    """The servers lost theirs since: what it is told cannot be compared with what it was told before."""


@dataclass
class Hooks:
    """Whom a process tells."""

    note: Callable[[str, str], None]
    violated: Callable[[Violated], None]
    session_event: Callable[[Process, str, dict[str, object]], None]
    closed: Callable[[Held, float, float], None]
    told: Callable[[Followed, Any], None]
    number: Callable[[], int]


class Process:
    """One run of an application, from its start until it leaves or is killed.

    Args:
        part: what it does.
        machine: it runs on.
        network: it reaches its servers by.
        servers: connect string.
        draw: all that is random in it.
        hooks: whom it tells.
        wellness: whether it is well.
    """

    def __init__(
        self,
        part: Part,
        machine: Machine,
        network: Network,
        servers: str,
        draw: random.Random,
        hooks: Hooks,
        wellness: Wellness,
    ) -> None:
        self.part = part
        self.name = machine.name
        self.machine = machine
        self.draw = draw
        self.wellness = wellness
        self.evidence = float("-inf")
        """When the last request was sent that the quorum answered (boot clock)."""
        self.first_sights: dict[str, int] = {}
        """The zxid of the first read of each path that was as new as the quorum, in the present history."""
        self.last_sights: dict[str, Sight] = {}
        """The contents of each path when it was read last."""
        self.state = "disconnected"
        self.sessions: list[int] = []
        self.held: list[Held] = []
        self.followed: list[Followed] = []
        self.stage = Stage.UP
        self.names = Names.ANSWERED
        self.killed_at = 0.0
        self.stood_still = False
        """Its machine did, while it left."""
        self.changes_nothing = False
        """It makes no more updates."""
        self._hooks = hooks
        self._tasks: list[asyncio.Task[None]] = []
        self.registry = aioregistry.connect(
            servers,
            session_timeout=part.session_timeout,
            wait=False,
            watches=part.watches,
            on_event=lambda event, fields: hooks.session_event(self, event, fields),
            runtime=MachineRuntime(self, network),
        )

    # ------------------------------------------------------------ its life

    def start(self) -> None:
        self.go(self._live())

    async def _live(self) -> None:
        _ = await self.registry
        for claim in self.part.claims:
            self.go(self._keep_registered(claim))
        for service in self.part.follows:
            self.go(self._follow(service))

    async def leave(self) -> None:
        """End as a process that is asked to: withdraw, close, and wait for all of it."""
        self.stage = Stage.LEAVING
        began, timeout = self.machine.boot(), self.registry.session.timeout
        try:
            await self.registry.aclose()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
        took = self.machine.boot() - began
        closing = [held for held in self.held if not held.closed]
        for held in closing:
            held.closed = True
            if self.stage is Stage.LEAVING:
                self._hooks.closed(held, took, timeout)
        if self.stage is Stage.LEAVING:
            self.stage = Stage.GONE

    def go(self, what: Coroutine[Any, Any, None]) -> None:
        """Let it do this too, until it leaves."""
        task = self.machine.create_task(what)
        self._tasks.append(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if task.cancelled() or (error := task.exception()) is None or self.stage is not Stage.UP:
            return
        if isinstance(error, Violated):
            self._hooks.violated(error)
        elif not isinstance(error, RegistrationDisplaced):
            violated = Violated("Contained", f"{self.name}: {error!r}")
            violated.__cause__ = error
            self._hooks.violated(violated)

    # ------------------------------------------------------------ registrations

    async def _keep_registered(self, claim: Claim) -> None:
        held = await self.register(claim, {"by": self.name, "n": 0})
        if self.part.updates is not None:
            await self._update(held, self.part.updates)

    async def register(self, claim: Claim, payload: object) -> Held:
        """Register once, without waiting for it to be listed."""
        instance = ServiceInstance(claim.service, address="10.0.0.1", id=claim.id, payload=payload)
        self.first_sights.pop(claim.path, None)  # it is another claim than that of who was closed before
        checks = self.wellness.checks() if self.part.checked else None
        registration = self.registry.register(instance, wait=False, on_displaced=claim.on_displaced, checks=checks)
        _ = await registration
        held = Held(claim, self, registration, self._hooks.number())
        self.held.append(held)
        self._hooks.note(self.name, f"registers {claim.path} as {held.name}, {claim.on_displaced}")
        return held

    async def unregister(self, held: Held) -> None:
        """Close a registration, within its time or not."""
        held.closed = True
        await held.registration.aclose()
        self._hooks.note(self.name, f"closed {held.name}, withdrawn={held.registration.withdrawn}")

    async def _update(self, held: Held, longest: float) -> None:
        number = 0
        while not held.told:
            await asyncio.sleep(self.draw.uniform(0.0, longest))
            if self.changes_nothing:
                return
            number += 1
            try:
                await held.registration.update(payload={"by": self.name, "n": number})
            except RegistrationDisplaced:
                await asyncio.sleep(longest)
            except RegistrationError as error:
                if not _is_not_permitted(error.__cause__):  # which may be later
                    raise
                await asyncio.sleep(longest)
            except HandleClosed:
                if not held.closed:
                    raise
                return

    # ------------------------------------------------------------ views

    async def _follow(self, service: str) -> None:
        view = await self.registry.discover(service, guard=GUARDS.get(service))
        followed = Followed(service, view)
        self.followed.append(followed)
        if self.part.checked:
            followed.warmth = warmth = Warmth(view, self.machine.time)
            self.go(warmth.follow())
        self.go(self._take_changes(followed))
        self.go(self._take_snapshots(followed))

    async def _take_changes(self, followed: Followed) -> None:
        changes = followed.view.changes()
        followed.consumer = consumer = OrderedConsumer(changes.start.entries)
        newest = changes.start.as_of
        async for change in changes:
            # A slow consumer is told of what was before for a while.
            if followed.history_lost and (change.zxid < newest or isinstance(change, Resynced)):
                consumer.rolled_back()
            newest = change.zxid
            consumer.apply(change)
            self._hooks.told(followed, change)
            self._hooks.note(self.name, f"sees {type(change).__name__} {_told(change)} of {followed.service}")
            await self._take_time(changes)

    async def _take_time(self, changes: Changes[Any]) -> None:
        if self.part.pace:
            await asyncio.sleep(self.draw.uniform(0.0, self.part.pace))
            check_bounded(given=len(changes._items), bound=CHANGES_KEPT)

    async def _take_snapshots(self, followed: Followed) -> None:
        as_of = 0
        async for snapshot in followed.view.snapshots():
            if snapshot.as_of < as_of and not followed.history_lost:
                what = f"{self.name}: a snapshot of zxid {snapshot.as_of:#x} after one of {as_of:#x}"
                raise Violated("Ordered", what)
            as_of = snapshot.as_of
            if self.part.pace:
                await asyncio.sleep(self.draw.uniform(0.0, self.part.pace))


def _is_not_permitted(error: BaseException | None) -> bool:
    """Whether an ACL refuses it: the request, or one of its transaction."""
    return isinstance(error, NoAuth) or (isinstance(error, TransactionAborted) and _is_not_permitted(error.cause))


def _told(change: Any) -> str:
    if isinstance(change, Resynced):
        return "with " + (", ".join(f"{type(each).__name__} {each.id}" for each in change.changes) or "nothing")
    return str(change.id)
