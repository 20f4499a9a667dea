"""Random histories of a service, its outages, and a consumer that keeps what it sees and is restarted or killed."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aioregistry._discovery import Changes, Guard, View
from aioregistry._discovery.kept import from_bytes
from aioregistry._model import Snapshot
from tests.discovery.scene import BASE, DiscoverySession, Service, discovery, taken
from tests.support.checkers import OrderedConsumer, check_converged
from tests.support.fake_session import quiet, until
from tests.support.model_tree import ModelTree

DEADLINE = 100.0

State: TypeAlias = frozenset[tuple[str, int, int]]
"""The instances by id, czxid and mzxid."""


def state_of(snapshot: Snapshot[Any]) -> State:
    return frozenset((id, entry.czxid, entry.mzxid) for id, entry in snapshot.entries.items())


class Consumer:
    """One process."""

    def __init__(self, tree: ModelTree, path: Path, guard: Guard | None) -> None:
        self.session = DiscoverySession(tree)
        self.view: View[Any] | None = None
        self.changes: Changes[Any] | None = None
        self.ordered: OrderedConsumer | None = None
        self.discovery = discovery(self.session)
        self._entering = asyncio.create_task(self._enter(path, guard))

    async def _enter(self, path: Path, guard: Guard | None) -> None:
        self.view = await self.discovery.view("chat", keep=path, guard=guard)
        self.changes = self.view.changes()
        self.ordered = OrderedConsumer(self.changes.start.entries)

    async def settle(self, begins_with_file: bool) -> None:
        if begins_with_file or self.session.connected:
            async with asyncio.timeout(DEADLINE):
                await asyncio.shield(self._entering)
        if self.view is not None and self.session.connected:
            await until(lambda: self.view is not None and self.view.fresh, seconds=DEADLINE)
        await quiet()
        for change in taken(self.changes) if self.changes is not None else ():
            assert self.ordered is not None
            self.ordered.apply(change)

    async def end(self) -> None:
        self._entering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._entering
        if self.view is not None:
            await self.view.aclose()
        await self.discovery.aclose()
        if self.session.id:  # of the session 0 are the nodes that stay
            self.session.close()


class History:
    """The service, the file, and one consumer after the other."""

    def __init__(self, path: Path, guard: Guard | None) -> None:
        self.tree = ModelTree()
        self.service = Service(self.tree)
        self.path = path
        self.guard = guard
        self.up = False
        self.found: State = frozenset()  # in the file, by the present consumer
        self.shown: set[State] = set()  # by it, since it was in sync first
        self.consumer = Consumer(self.tree, path, guard)

    def in_file(self) -> State:
        if not self.path.exists():
            return frozenset()
        entries = from_bytes(self.path.read_bytes(), "chat", BASE).entries
        return frozenset((id, entry.czxid, entry.mzxid) for id, entry in entries.items())

    async def step(self, do: str, id: str) -> None:
        present = id in self.service.held()
        match do:
            case "change" if present:
                self.service.set(id, len(self.shown))
            case "change":
                self.service.add(id)
            case "remove" if present:
                self.service.remove(id)
            case "replace" if present:
                self.service.take_over(id)
            case "outage" | "recovery" if self.up is (do == "outage"):
                self.up = not self.up
                (self.consumer.session.connect if self.up else self.consumer.session.disconnect)()
            case "restart" | "kill":
                await self.next_consumer(killed=do == "kill")
        await self.check()

    async def check(self) -> None:
        await self.consumer.settle(begins_with_file=bool(self.found))
        view = self.consumer.view
        if view is None:
            return
        snapshot, ordered = view.snapshot, self.consumer.ordered
        assert ordered is not None
        ordered.check(snapshot.entries)
        if view.fresh:
            seen = {id: (entry.czxid, entry.mzxid) for id, entry in snapshot.confirmed.entries.items()}
            check_converged(seen=seen, held=self.service.held())
            if self.guard is None:
                assert not snapshot.suspects
        if self.shown or view.fresh:
            assert all(suspicion.reason != "file" for suspicion in snapshot.suspects.values())
            self.shown.add(state_of(snapshot))
        else:
            assert {suspicion.reason for suspicion in snapshot.suspects.values()} == {"file"}
            assert not snapshot.confirmed
            assert state_of(snapshot) == self.found

    async def next_consumer(self, *, killed: bool) -> None:
        consumer, view = self.consumer, self.consumer.view
        last = None if view is None else state_of(view.snapshot)
        left = self.path.read_bytes() if self.path.exists() else None
        await consumer.end()
        if killed and left is not None:  # as if it had not ended
            self.path.write_bytes(left)
        elif killed:
            self.path.unlink(missing_ok=True)
        elif self.shown:
            assert self.in_file() == last
        found = self.in_file()
        assert found == self.found or found in self.shown
        self.found, self.shown = found, set()
        self.consumer = Consumer(self.tree, self.path, self.guard)
        if self.up:
            self.consumer.session.connect()


steps = st.tuples(
    st.sampled_from(["change", "change", "remove", "replace", "outage", "recovery", "restart", "kill"]),
    st.sampled_from("abcd"),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=4, max_size=25), st.sampled_from([None, Guard()]))
@example(
    [("change", "a"), ("recovery", "a"), ("outage", "a"), ("remove", "a"), ("restart", "a"), ("restart", "a")], None
)
@example(
    [(do, id) for id in "abc" for do in ("change", "recovery")]
    + [("outage", "a"), ("restart", "a")]
    + [("remove", id) for id in "abc"]
    + [("recovery", "a"), ("kill", "a"), ("restart", "a")],
    Guard(),
)
def test_whatever_happens_a_consumer_shows_what_zookeeper_says_or_what_it_said_last(
    history: list[tuple[str, str]], guard: Guard | None
) -> None:
    async def play(path: Path) -> None:
        world = History(path, guard)
        for do, id in history:
            await world.step(do, id)
        await world.consumer.end()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(play(Path(directory, "chat.kept")))
