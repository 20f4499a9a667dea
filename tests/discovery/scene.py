"""A service in memory, and a session that reads and watches it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from aioregistry._discovery import Discovery, View, WatchMode
from aioregistry._document import encode
from aioregistry._errors import ConnectionLost, NoAuth, NoNode, RegistryError, UnsupportedServer
from aioregistry._model import ServiceInstance
from aioregistry._protocol import (
    AclEntry,
    AddWatch,
    Create,
    Delete,
    EventKind,
    Exists,
    GetAcl,
    GetChildren,
    GetChildren2,
    GetData,
    Message,
    Multi,
    MultiRead,
    MultiReadData,
    Reply,
    WatchedEvent,
)
from aioregistry._runtime import Runtime
from aioregistry._session import ReadingSessionPort, SessionState
from aioregistry._streams import Stream
from tests.support.fake_session import FakeSession, FakeWatch, FakeWatches
from tests.support.model_tree import Change, ModelNode, ModelTree

T = TypeVar("T")
Listener = Callable[[WatchedEvent], None]

BASE = "/services"
CHAT = f"{BASE}/chat"


def chat(id: str, payload: Any = None) -> ServiceInstance[Any]:
    return ServiceInstance("chat", id=id, address="10.0.0.7", port=7000, payload=payload)


class FakeTreeWatch(FakeWatch):
    def __init__(self, session: DiscoverySession, path: str, listeners: list[Listener], callback: Listener) -> None:
        super().__init__(listeners, callback)
        self._session, self._path = session, path

    async def arm(self) -> None:
        if self._session.knows_no_trees:
            raise UnsupportedServer("an old one")
        await self._session.submit(AddWatch(self._path))

    def close(self) -> None:
        super().close()
        self._session.armed_trees.pop(self._path, None)


class DiscoveryWatches(FakeWatches):
    def __init__(self, session: DiscoverySession) -> None:
        super().__init__()
        self._session = session
        self.tree_listeners: dict[str, list[Listener]] = {}

    def listen_tree(self, path: str, callback: Listener) -> FakeTreeWatch:
        listeners = self.tree_listeners.setdefault(path, [])
        listeners.append(callback)
        return FakeTreeWatch(self._session, path, listeners, callback)

    @property
    def in_use(self) -> list[str]:
        """The paths that somebody listens to."""
        both = [*self.listeners.items(), *self.tree_listeners.items()]
        return sorted(path for path, listeners in both if listeners)


class DiscoverySession(FakeSession):
    """With child watches, recursive ones, MultiRead and ACLs."""

    watches: DiscoveryWatches

    def __init__(self, tree: ModelTree, *, timeout: float = 30.0, runtime: Runtime | None = None) -> None:
        super().__init__(tree, timeout=timeout, runtime=runtime)
        self.watches = DiscoveryWatches(self)
        self.known = {MultiRead.opcode: True}
        self.knows_no_trees = False
        self.armed_trees: dict[str, None] = {}
        self.unreadable: set[str] = set()
        self.acls: dict[str, list[AclEntry]] = {}
        """Of nodes that are not open to all."""
        self.aversions: dict[str, int] = {}
        """How often the ACLs of nodes were changed."""
        self.hidden = False
        """Whether the server tells of nothing, and what would have told is used up."""
        self.most_under_way = 0
        self._armed_children: dict[str, None] = {}

    # ------------------------------------------------------------------ what a session offers

    @property
    def as_session(self) -> ReadingSessionPort:
        return self

    async def wait_connected(self, timeout: float | None = None) -> None:
        while not self.connected:
            if self.state in (SessionState.CLOSED, SessionState.FAILED):
                raise self._unavailable()
            change = asyncio.get_running_loop().create_future()
            remove = self.observe(lambda change=change: change.done() or change.set_result(None))  # type: ignore[misc]
            try:
                await asyncio.wait_for(change, timeout)
            finally:
                remove()

    async def read(self, message: Message[T]) -> Reply[T]:
        while True:
            await self.wait_connected()
            try:
                return await self.submit(message)
            except ConnectionLost:
                continue

    # ------------------------------------------------------------------ what the server does

    def disconnect(self) -> None:
        self.armed_trees.clear()
        self._armed_children.clear()
        super().disconnect()

    def _flush(self) -> None:
        names = [message.names for message, *_ in self._outgoing if isinstance(message, MultiReadData)]
        self.most_under_way = max(self.most_under_way, sum(map(len, names)))
        super()._flush()

    def _outcome(self, message: Message[Any]) -> Reply[Any] | RegistryError:
        zxid = self.tree.zxid
        if isinstance(message, AddWatch):
            self.armed_trees[message.path] = None
            return Reply(zxid, None)
        if isinstance(message, GetAcl):
            node = self.tree.nodes.get(message.path)
            acl = self.acls.get(message.path, [AclEntry(31, "world", "anyone")])
            if node is None:
                return NoNode(message.path, zxid)
            return Reply(zxid, (acl, node.stat(0)._replace(aversion=self.aversions.get(message.path, 0))))
        if isinstance(message, MultiReadData):
            return Reply(zxid, [self._data_or_error(each) for each in message.ops])
        if isinstance(message, GetData | GetChildren | GetChildren2) and message.path in self.unreadable:
            return NoAuth(message.path, zxid)
        outcome = super()._outcome(message)
        if isinstance(message, Exists) and message.watch:  # where there is nothing, too
            self._armed[message.path] = None
        if isinstance(message, GetChildren | GetChildren2) and message.watch and isinstance(outcome, Reply):
            self._armed_children[message.path] = None
        return outcome

    def _data_or_error(self, message: GetData) -> Any:
        if message.path in self.unreadable:
            return NoAuth(message.path)
        node = self.tree.nodes.get(message.path)
        return NoNode(message.path) if node is None else (node.data, node.stat(0))

    def _on_change(self, change: Change) -> None:
        if not self.connected or self.silent:
            return
        parent = change.path.rpartition("/")[0] or "/"
        lineage = [path for path in self.armed_trees if change.path == path or change.path.startswith(f"{path}/")]
        if lineage or change.path in self._armed:
            self._armed.pop(change.path, None)
            self._tell(WatchedEvent(change.kind, 3, change.path, -1))
        if change.kind is not EventKind.DATA_CHANGED and parent in self._armed_children:
            del self._armed_children[parent]
            self._tell(WatchedEvent(EventKind.CHILDREN_CHANGED, 3, parent, -1))
        if change.kind is EventKind.DELETED and change.path in self._armed_children:
            del self._armed_children[change.path]
            self._tell(WatchedEvent(EventKind.DELETED, 3, change.path, -1))

    def _tell(self, event: WatchedEvent) -> None:
        if not self.hidden:
            self._deliver(event)

    def _receive(self) -> None:
        events = [delivery for delivery in self._incoming if isinstance(delivery, WatchedEvent)]
        for event in events:
            for path, listeners in list(self.watches.tree_listeners.items()):
                if event.path == path or event.path.startswith(f"{path}/"):
                    for callback in list(listeners):
                        callback(event)
        super()._receive()


class Service:
    """The service "chat" on a server, as others change it."""

    def __init__(self, tree: ModelTree) -> None:
        self.tree = tree
        tree.make(CHAT)

    def add(self, id: str, payload: Any = None, *, data: bytes | None = None) -> None:
        self.tree.apply(0, Create(f"{CHAT}/{id}", encode(chat(id, payload)) if data is None else data))

    def fill(self, ids: Iterable[str], payload: Any = None) -> None:
        """Add many at once, of which nobody is told."""
        self.tree.zxid += 1
        zxid = self.tree.zxid
        self.tree.nodes |= {f"{CHAT}/{id}": ModelNode(encode(chat(id, payload)), 0, zxid, zxid) for id in ids}

    def set(self, id: str, payload: Any = None, *, data: bytes | None = None) -> None:
        self.tree.set_data(f"{CHAT}/{id}", encode(chat(id, payload)) if data is None else data)

    def remove(self, id: str) -> None:
        self.tree.delete(f"{CHAT}/{id}")

    def take_over(self, id: str, payload: Any = None) -> None:
        path = f"{CHAT}/{id}"
        self.tree.apply(0, Multi([Delete(path), Create(path, encode(chat(id, payload)))]))

    def reap(self) -> None:
        self.tree.delete(CHAT)

    def held(self) -> dict[str, tuple[int, int]]:
        """The identity of each node, by id."""
        nodes = {name: self.tree.nodes[f"{CHAT}/{name}"] for name in self.tree.children(CHAT)}
        return {name: (node.czxid, node.mzxid) for name, node in nodes.items()}


def check_nothing_is_left(session: DiscoverySession) -> None:
    """Fail if a task, a watch or an observer of a discovery that was closed is left."""
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("aioregistry follows")] == []
    assert session.watches.in_use == []
    assert session.observers == []
    assert session.armed_trees == {}


def discovery(session: DiscoverySession, strategy: WatchMode = "auto") -> Discovery:
    return Discovery(session.as_session, BASE, strategy)


def taken(stream: Stream[Any]) -> list[Any]:
    """The items that the stream has now."""
    return stream.take_ready(1_000_000)


def refuse_twice(view: View[Any], id: str) -> bool:
    """Report what lets a suspect go: two refused connections, and an answer of another in between."""
    assert view.report_failed(id, ConnectionRefusedError()) is False
    view.balancer(where=lambda instance: instance.id != id).pick().succeeded()
    return view.report_failed(id, ConnectionRefusedError())
