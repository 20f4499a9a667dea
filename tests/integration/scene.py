"""A registration and a view on a real ZooKeeper, followed from all sides while something is done to them.

Every fault has the same expectations: while it lasts nobody claims what he cannot know, every state, change and
owner of the node is one that the guarantees allow, and when it is over the service can be updated and the update is
seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Self

import aioregistry
from aioregistry import Registration, Registry, ServiceInstance, Status, View
from aioregistry.testing._proxy import Direction, TcpProxy
from tests.support import checkers
from tests.support.checkers import OrderedConsumer
from tests.support.judge import Chronicle, Judge
from tests.support.waiting import DEADLINE, until


@contextlib.asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run *work* beside the body; what it raises is raised at the end."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)  # it has begun
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def instance_of(name: str, *, id: str = "a", payload: Any = None) -> ServiceInstance[Any]:
    """An instance to register, of which the tests only care for name, id and payload."""
    return ServiceInstance(name, id=id, address="127.0.0.1", port=7000, payload=payload)


class Partition:
    """A way to part clients from their server."""

    def __init__(self, direction: Direction | None) -> None:
        self._direction = direction

    def begin(self, proxy: TcpProxy) -> None:
        if self._direction is None:
            proxy.refuse()
            proxy.cut()
        else:
            proxy.silence(self._direction)

    def end(self, proxy: TcpProxy) -> None:
        if self._direction is None:
            proxy.accept()
        else:
            proxy.heal(self._direction)


PARTITIONS = {
    "refused": Partition(None),
    "silent": Partition(Direction.BOTH),
    "silent-to-server": Partition(Direction.TO_SERVER),
    "silent-to-client": Partition(Direction.TO_CLIENT),
}


class Peer:
    """A registry as a process has it, and what was said through its hook.

    Its views believe every removal, unless it is given a guard: what is watched here are sessions and mirrors.
    """

    def __init__(
        self, servers: str, *, session_timeout: float, guard: aioregistry.Guard | None = None, **options: Any
    ) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.registry: Registry = aioregistry.connect(
            servers, session_timeout=session_timeout, guard=guard, on_event=self._on_event, **options
        )

    def _on_event(self, name: str, fields: dict[str, object]) -> None:
        self.events.append((name, fields))

    @property
    def states(self) -> list[str]:
        """The session's states so far."""
        return [fields["state"] for name, fields in self.events if name == "session.state"]

    @property
    def sessions(self) -> list[int]:
        """The ids of the sessions so far, in order."""
        served = (fields for name, fields in self.events if name == "session.state")
        return list(dict.fromkeys(fields["session"] for fields in served if fields["state"] == "connected"))

    @property
    def rollbacks(self) -> list[dict[str, Any]]:
        """The reports of lost histories."""
        return [fields for name, fields in self.events if name == "session.rollback"]

    async def __aenter__(self) -> Self:
        _ = await self.registry.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.registry.aclose()
        checkers.check_legal(self.states)


class Scene:
    """A publisher and a consumer, each in a session of its own, entered when the one is listed and the other sees it.

    Args:
        servers: what both connect to; the fault is somewhere behind it.
        judged_at: the connect string of those who know.
        session_timeout: seconds.
        options: further arguments to both `aioregistry.connect`.
    """

    def __init__(self, servers: str, *, judged_at: str, session_timeout: float = 2.0, **options: Any) -> None:
        self.name = f"chat-{uuid.uuid4().hex}"
        self.id = "a"
        self.timeout = session_timeout
        self.publisher = Peer(servers, session_timeout=session_timeout, **options)
        self.consumer = Peer(servers, session_timeout=session_timeout, **options)
        self.judge = Judge(judged_at)
        self.registration: Registration[Any]
        self.view: View[Any]
        self.chronicle: Chronicle
        self.statuses: list[Status] = []
        self._judged_at = judged_at
        self._ordered: OrderedConsumer
        self._silent_since = float("inf")
        self._updates = 0
        self._stack = contextlib.AsyncExitStack()

    @property
    def path(self) -> str:
        return self.registration.path

    @property
    def session_id(self) -> int:
        """Of the publisher, now."""
        return self.publisher.registry.session.id

    # ------------------------------------------------------------------ the course of the test

    async def __aenter__(self) -> Self:
        async with self._stack as stack:
            await stack.enter_async_context(self.judge)
            await stack.enter_async_context(self.consumer)
            await stack.enter_async_context(self.publisher)
            instance = instance_of(self.name, id=self.id, payload={"update": 0})
            registration = self.publisher.registry.register(instance, on_displaced="stop")
            self.registration = await stack.enter_async_context(registration)
            self.view = await stack.enter_async_context(self.consumer.registry.discover(self.name))
            await self.view.wait_for(lambda snapshot: self.id in snapshot, timeout=DEADLINE)
            self.chronicle = await stack.enter_async_context(Chronicle(self._judged_at, self.path))
            for follower in (self._follow_statuses(), self._follow_changes(), self._follow_claims()):
                await stack.enter_async_context(meanwhile(follower))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.__aexit__(None, None, None)

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """Where nothing that is sent reaches the quorum, or no answer reaches us; entered when that is so."""
        self._silent_since = time.monotonic()
        try:
            yield
        finally:
            self._silent_since = float("inf")

    async def settled(self) -> None:
        """Wait until the service can be updated and the update is seen, and check what must hold then."""
        self._updates += 1
        payload = {"update": self._updates}
        async with asyncio.timeout(DEADLINE):
            await self.registration.update(payload=payload)
            await self.view.wait_for(lambda snapshot: self.id in snapshot and snapshot[self.id].payload == payload)
            await self.view.sync()
        await self.check()

    async def check(self) -> None:
        """Check, now that everything is quiet, what of the guarantees can be seen from outside."""
        node = await self.judge.node(self.path)
        live = self.registration.status is Status.LIVE
        assert live
        checkers.check_owned(live=live, session_id=self.session_id, owner=node.stat.owner if node else None)
        checkers.check_published(
            listed=_listed(node.data) if node else None, wanted=[_wanted(self.registration.instance)]
        )
        held = {self.id: (node.stat.czxid, node.stat.mzxid)} if node else {}
        snapshot = self.view.snapshot
        assert self.view.fresh
        assert not snapshot.invalid
        checkers.check_converged(
            seen={id: (entry.czxid, entry.mzxid) for id, entry in snapshot.entries.items()}, held=held
        )
        await until(lambda: self._ordered.entries == snapshot.entries)
        self._ordered.check(snapshot.entries)
        claimants = dict.fromkeys(self.publisher.sessions, "publisher")
        owners = [None if owner is None else claimants.get(owner, owner) for owner in self.chronicle.owners]
        checkers.check_single(owners, {"publisher": 1}, told=())

    def check_session_kept(self) -> None:
        """The fault was none to the session: the same one owns the same node, which was there all the time."""
        assert self.chronicle.owners == [self.session_id]
        assert len({sight.node.stat.czxid for sight in self.chronicle.sights if sight.node}) == 1
        for peer in (self.publisher, self.consumer):
            assert len(peer.sessions) == 1

    # ------------------------------------------------------------------ followers

    async def _follow_statuses(self) -> None:
        async with self.registration.statuses() as statuses:
            with contextlib.suppress(aioregistry.RegistrationError):  # the test knows whether it was to end so
                async for status in statuses:
                    self.statuses.append(status)

    async def _follow_changes(self) -> None:
        async with self.view.changes() as changes:
            self._ordered = OrderedConsumer(changes.start.entries)
            histories = 0
            async for change in changes:
                if len(self.consumer.rollbacks) != histories:
                    histories = len(self.consumer.rollbacks)
                    self._ordered.rolled_back()
                self._ordered.apply(change)

    async def _follow_claims(self) -> None:
        while True:
            contact_age = time.monotonic() - self._silent_since  # before the claim: it must not age meanwhile
            claimed = self.registration.status is Status.LIVE or self.view.fresh
            checkers.check_honest(claimed=claimed, contact_age=contact_age, timeout=self.timeout)
            await asyncio.sleep(0.002)


_ESSENCE = ("name", "id", "address", "port", "payload")


def _wanted(instance: ServiceInstance[Any]) -> bytes:
    return _comparable({field: getattr(instance, field) for field in _ESSENCE})


def _listed(data: bytes) -> bytes:
    document = json.loads(data)
    return _comparable({field: document[field] for field in _ESSENCE})


def _comparable(essence: dict[str, Any]) -> bytes:
    return json.dumps(essence, sort_keys=True).encode()
