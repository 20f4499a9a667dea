"""The table of watches, against a model of a server's: every watcher that should hear of a change does."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from aioregistry._protocol import (
    AddWatch,
    EventKind,
    Exists,
    GetChildren,
    GetChildren2,
    GetData,
    Message,
    RemoveWatches,
    SetWatches,
    SetWatches2,
    WatchedEvent,
    WatcherType,
)
from aioregistry._session.watch_table import WatchTable, _lineage
from tests.session.watch_tables import Mode, Node, WatchTables, lineage, parent_of

PATHS = ["/", "/a", "/a/b"]
READS: dict[str, type[Any]] = {"exists": Exists, "data": GetData, "children": GetChildren}
MAX_REQUEST = 1 << 20


def event(path: str, kind: EventKind = EventKind.DATA_CHANGED) -> WatchedEvent:
    return WatchedEvent(kind, 3, path, -1)


@dataclass(eq=False)
class Listener:
    """One who listens, and what it is owed."""

    path: str
    tree: bool
    listening: bool = True
    seen: dict[str, Any] = field(default_factory=dict)
    """The results of its one-shot reads for which it was not called since."""
    looked_at: int | None = None
    """The zxid of a tree's first look after it was armed, on the present connection."""
    heard: list[tuple[int, str]] = field(default_factory=list)
    """Since that look."""


@dataclass(frozen=True)
class Look:
    """A read without a watch, by who has armed a tree."""

    listener: int


class Server:
    """A tree, one connection's watches, and what was said."""

    def __init__(self, *, one_mode_per_path: bool) -> None:
        self.one_mode_per_path = one_mode_per_path
        self.zxid = 1
        self.nodes = {"/": Node(1), "/a": Node(1)}
        self.changes: list[tuple[int, int, str]] = []  # zxid, kind, path
        self.connect()

    def connect(self) -> None:
        self.tables = WatchTables(one_mode_per_path=self.one_mode_per_path)
        self.inbox: deque[Message[Any] | Look] = deque()
        self.outbox: deque[Any] = deque()

    def change(self, path: str, *, delete: bool) -> None:
        """Create what is not there, change or delete what is."""
        parent = self.nodes.get(parent_of(path))
        if (path == "/" and delete) or parent is None:
            return
        has_children = any(other != path and parent_of(other) == path for other in self.nodes)
        if path in self.nodes and delete and has_children:
            return
        if path not in self.nodes and delete:
            return
        self.zxid += 1
        if path not in self.nodes:
            self.nodes[path], parent.pzxid = Node(self.zxid), self.zxid
            self._tell(EventKind.CREATED, path, self.tables.created(path))
        elif delete:
            del self.nodes[path]
            parent.pzxid = self.zxid
            self._tell(EventKind.DELETED, path, self.tables.deleted(path))
        else:
            self.nodes[path].mzxid = self.zxid
            self._tell(EventKind.DATA_CHANGED, path, self.tables.changed(path))

    def _tell(self, kind: int, path: str, events: list[tuple[int, str]]) -> None:
        self.changes.append((self.zxid, kind, path))
        self.outbox += [event(where, EventKind(what)) for what, where in events]

    def work(self) -> None:
        """Answer one request: (request, found, what there is, zxid)."""
        request = self.inbox.popleft()
        found = True
        match request:
            case GetData() | Exists() | GetChildren():
                found = request.path in self.nodes
                self._watch(request, found)
            case AddWatch():
                self.tables.add(request.path, Mode.RECURSIVE)
            case RemoveWatches():
                assert request.kind == WatcherType.ANY
                found = self.tables.remove(request.path)
            case SetWatches():
                recursive = request.persistent_recursive if isinstance(request, SetWatches2) else ()
                events = self.tables.set_again(
                    self.nodes, request.relative_zxid, request.data, request.exist, request.child, recursive
                )
                self.outbox += [event(where, EventKind(what)) for what, where in events]
        self.outbox.append((request, found, self.state_of(getattr(request, "path", "/")), self.zxid))

    def state_of(self, path: str) -> dict[str, Any]:
        """The results of reads of the path, by kind."""
        node = self.nodes.get(path)
        return {"data": node and node.mzxid, "children": node and node.pzxid}

    def _watch(self, request: Any, found: bool) -> None:
        if not request.watch:
            return
        if isinstance(request, GetChildren):
            if found:
                self.tables.add_child(request.path)
        elif found or isinstance(request, Exists):
            self.tables.add(request.path, Mode.ONE_SHOT)


class World(RuleBasedStateMachine):
    """Listeners that come, read and go, a tree that others change, a connection that breaks."""

    one_mode_per_path: ClassVar[bool] = True
    kind: ClassVar[type[WatchTable]] = WatchTable

    def __init__(self) -> None:
        super().__init__()
        self.server = Server(one_mode_per_path=self.one_mode_per_path)
        self.watches = self.kind()
        self.listeners: list[Listener] = []
        self.callbacks: dict[int, Callable[[WatchedEvent], None]] = {}
        self.last_zxid = 1
        self.reading: deque[Listener] = deque()

    # ---- the session's part

    def submit(self, request: Any) -> None:
        if isinstance(request, AddWatch):
            self.watches.tree_asked(request.path)
        elif getattr(request, "watch", False) and not self.watches.one_shot_asked(request.opcode, request.path):
            request = type(request)(request.path)
        self.server.inbox.append(request)

    def receive(self) -> None:
        message = self.server.outbox.popleft()
        if isinstance(message, WatchedEvent):
            for callback in self.watches.fire(message):
                callback(message)
            return
        request, found, state, zxid = message
        self.last_zxid = max(self.last_zxid, zxid)
        if isinstance(request, Look):
            listener = self.listeners[request.listener]
            listener.looked_at, listener.heard = zxid, []
        elif isinstance(request, (GetData, Exists, GetChildren)):
            self.watches.read_answered(request.opcode, request.path, watch=request.watch, found=found)
            listener = self.reading.popleft()
            if found or isinstance(request, Exists):
                kind = "children" if isinstance(request, GetChildren) else "data"
                listener.seen[kind] = state[kind]
        elif isinstance(request, (AddWatch, SetWatches2)):
            armed = [request.path] if isinstance(request, AddWatch) else request.persistent_recursive
            for path in self.watches.trees_armed(armed):
                self.submit(RemoveWatches(path, WatcherType.ANY))
            for listener in self.listeners:
                if listener.tree and listener.listening and listener.path in armed and listener.looked_at is None:
                    self.arm(listener)

    # ---- the listeners' part

    @rule(path=st.sampled_from(PATHS))
    def follow(self, path: str) -> None:
        self.arm(self.come(path, tree=True))

    @rule(path=st.sampled_from(PATHS), kind=st.sampled_from(list(READS)))
    def look(self, path: str, kind: str) -> None:
        self.read(self.come(path, tree=False), kind)

    @precondition(lambda self: self.one_shots())
    @rule(pick=st.randoms(use_true_random=False), kind=st.sampled_from(list(READS)))
    def look_again(self, pick: Any, kind: str) -> None:
        self.read(pick.choice(self.one_shots()), kind)

    @precondition(lambda self: any(listener.listening for listener in self.listeners))
    @rule(pick=st.randoms(use_true_random=False))
    def leave(self, pick: Any) -> None:
        listener = pick.choice([listener for listener in self.listeners if listener.listening])
        listener.listening = False
        callback = self.callbacks[id(listener)]
        if not listener.tree:
            self.watches.unlisten(listener.path, callback)
        elif self.watches.unlisten_tree(listener.path, callback):
            self.submit(RemoveWatches(listener.path, WatcherType.ANY))

    def come(self, path: str, *, tree: bool) -> Listener:
        listener = Listener(path, tree)
        self.listeners.append(listener)

        def called(what: WatchedEvent) -> None:
            listener.heard.append((int(what.kind), what.path))
            listener.seen.clear()  # it is told to look again
            assert path in lineage(what.path) if tree else path == what.path

        self.callbacks[id(listener)] = called
        (self.watches.listen_tree if tree else self.watches.listen)(path, called)
        return listener

    def read(self, listener: Listener, kind: str) -> None:
        self.reading.append(listener)
        self.submit(READS[kind](listener.path, watch=True))

    def arm(self, listener: Listener) -> None:
        """Set the watch; once it is set, look: what changes from then on must be heard."""
        if self.watches.is_tree_armed(listener.path):
            self.server.inbox.append(Look(self.listeners.index(listener)))
        else:
            self.submit(AddWatch(listener.path))

    def one_shots(self) -> list[Listener]:
        return [listener for listener in self.listeners if listener.listening and not listener.tree]

    # ---- the world's part

    @rule(path=st.sampled_from(PATHS), delete=st.booleans())
    def change(self, path: str, delete: bool) -> None:
        self.server.change(path, delete=delete)

    @rule(turns=st.lists(st.booleans(), min_size=1, max_size=10))
    def work(self, turns: list[bool]) -> None:
        """Now the server answers something, now the client reads something."""
        for serves in turns:
            if serves and self.server.inbox:
                self.server.work()
            elif not serves and self.server.outbox:
                self.receive()

    @rule(recursive=st.booleans(), meanwhile=st.lists(st.tuples(st.sampled_from(PATHS), st.booleans()), max_size=4))
    def reconnect(self, recursive: bool, meanwhile: list[tuple[str, bool]]) -> None:
        """Requests under way are lost; things change; the connection is back."""
        self.watches.disconnected()
        self.reading.clear()
        self.server.connect()
        for listener in self.listeners:
            listener.looked_at = None
        for path, delete in meanwhile:
            self.server.change(path, delete=delete)
        for request in self.watches.restore(self.news_since(), recursive=recursive, max_request=MAX_REQUEST):
            self.server.inbox.append(request)
        self.drain()  # nobody may read or arm before that is answered
        for listener in self.listeners:
            if listener.tree and listener.listening and listener.looked_at is None:
                self.arm(listener)

    def news_since(self) -> int:
        return self.last_zxid

    def drain(self) -> None:
        while self.server.inbox or self.server.outbox:
            while self.server.outbox:
                self.receive()
            if self.server.inbox:
                self.server.work()

    # ---- what must hold

    @rule()
    def everybody_has_heard(self) -> None:
        self.drain()
        for listener in self.listeners:
            if listener.listening:
                self.check_tree(listener) if listener.tree else self.check_one_shot(listener)

    def check_one_shot(self, listener: Listener) -> None:
        state = self.server.state_of(listener.path)
        for kind, seen in listener.seen.items():
            assert state[kind] == seen, f"{listener} was not told that there is {state} now"

    def check_tree(self, listener: Listener) -> None:
        assert listener.looked_at is not None, f"{listener} is not armed"
        expected = [
            (change, path)
            for zxid, change, path in self.server.changes
            if zxid > listener.looked_at and listener.path in lineage(path)
        ]
        for each in expected:
            assert listener.heard.count(each) >= expected.count(each), f"{listener} did not hear of {each}"

    def teardown(self) -> None:
        self.everybody_has_heard()
        self.reconnect(True, [("/a", False), ("/a/b", False)])
        self.everybody_has_heard()


class Later(World):
    """3.9: one-shot and recursive watches on one path live side by side."""

    one_mode_per_path = False


@pytest.mark.parametrize("world", [World, Later])
def test_whoever_should_hear_hears(world: type[World]) -> None:
    run_state_machine_as_test(
        world,
        settings=settings(
            max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.parametrize("world", [World, Later])
def test_whoever_should_hear_hears_on_any_walk(world: type[World]) -> None:
    """Plain chance finds every defect below, most of them where a search of Hypothesis's finds none in 3,000 tries."""
    for seed in range(2_000):
        # Fails by raising: the world asserts after each of its steps that whoever should hear has heard.
        wander(world(), random.Random(seed))


# ---------------------------------------------------------------- one thing at a time


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        (EventKind.CREATED, "child"),
        (EventKind.DATA_CHANGED, "child"),
        (EventKind.DELETED, ""),
        (EventKind.CHILDREN_CHANGED, "data exist"),
        (EventKind.DATA_WATCH_REMOVED, "child"),
        (EventKind.CHILD_WATCH_REMOVED, "data exist"),
        (EventKind.PERSISTENT_WATCH_REMOVED, "data exist child"),
        (EventKind.NONE, "data exist child"),
    ],
)
def test_an_event_takes_what_it_fires_from_the_server_and_nothing_else(kind: EventKind, left: str) -> None:
    table = WatchTable()
    table.listen("/a", lambda _: None)
    table.one_shot_asked(Exists.opcode, "/a")
    table.read_answered(Exists.opcode, "/a", watch=True, found=False)
    table.one_shot_asked(GetData.opcode, "/a")
    table.one_shot_asked(GetChildren.opcode, "/a")
    table.fire(event("/a", kind))
    (restored,) = table.restore(3, recursive=False, max_request=MAX_REQUEST) or [SetWatches(3, (), (), ())]
    assert isinstance(restored, SetWatches)
    there = {"data": restored.data, "exist": restored.exist, "child": restored.child}
    assert " ".join(name for name, paths in there.items() if list(paths) == ["/a"]) == left


def test_a_request_is_filled_to_its_limit() -> None:
    """Each path takes its bytes and four for their number."""
    table = WatchTable()
    for number in range(6):
        table.listen(f"/{number:05}", lambda _: None)
        table.one_shot_asked(GetData.opcode, f"/{number:05}")
    sent = table.restore(3, recursive=False, max_request=64 + 2 * 10)
    assert [len(each.data) for each in sent if isinstance(each, SetWatches)] == [2, 2, 2]
    sent = table.restore(3, recursive=False, max_request=64 + 2 * 10 - 1)
    assert [len(each.data) for each in sent if isinstance(each, SetWatches)] == [1] * 6


# ---------------------------------------------------------------- the world bites


class AsksBesideATree(WatchTable):
    def one_shot_asked(self, opcode: int, path: str) -> bool:
        super().one_shot_asked(opcode, path)
        return True


class TrustsATreeThatWasReplaced(WatchTable):
    def one_shot_asked(self, opcode: int, path: str) -> bool:
        asked = dict(self._asked_trees)
        sent = super().one_shot_asked(opcode, path)
        self._asked_trees.update(asked)
        return sent


class ForgetsWhatWasLeftToATree(WatchTable):
    def disconnected(self) -> None:
        self._covered.clear()
        super().disconnected()


class RemovesWhatIsShared(WatchTable):
    def _spare(self, path: str) -> bool:
        armed = path in self._armed_trees
        self._armed_trees.pop(path, None)
        return armed


class NotesWhenAnswered(WatchTable):
    def one_shot_asked(self, opcode: int, path: str) -> bool:
        noted = {kind: dict(paths) for kind, paths in self._one_shot.items()}
        sent = super().one_shot_asked(opcode, path)
        self._one_shot.update(noted)
        return sent


class RestoresTreesFirst(WatchTable):
    def restore(self, relative_zxid: int, *, recursive: bool, max_request: int) -> list[Message[Any]]:
        return super().restore(relative_zxid, recursive=recursive, max_request=80)[::-1]


class ComparesWithTheNewServersZxid(World):
    def news_since(self) -> int:
        return self.server.zxid


def with_watches(kind: type[WatchTable]) -> type[World]:
    return type(f"With{kind.__name__}", (World,), {"kind": kind})


@pytest.mark.parametrize(
    "world",
    [
        *map(
            with_watches,
            [
                AsksBesideATree,
                TrustsATreeThatWasReplaced,
                ForgetsWhatWasLeftToATree,
                RemovesWhatIsShared,
                NotesWhenAnswered,
                RestoresTreesFirst,
            ],
        ),
        ComparesWithTheNewServersZxid,
    ],
)
def test_a_defect_is_found(world: type[World]) -> None:
    def search() -> None:
        for seed in range(20_000):
            wander(world(), random.Random(seed))

    with pytest.raises(AssertionError):
        search()


def wander(world: World, chance: random.Random) -> None:
    """The world's rules by plain chance: what a search of Hypothesis's tries depends on what else is imported."""
    paths = chance.sample(PATHS, chance.randint(1, len(PATHS)))

    def path() -> str:
        return chance.choice(paths)

    def kind() -> str:
        return chance.choice(list(READS))

    rules: list[Callable[[], None]] = [
        lambda: world.follow(path()),
        lambda: world.look(path(), kind()),
        lambda: world.look_again(chance, kind()) if world.one_shots() else None,
        lambda: world.leave(chance) if any(listener.listening for listener in world.listeners) else None,
        lambda: world.change(path(), chance.random() < 0.5),
        lambda: world.work([chance.random() < 0.5 for _ in range(chance.randint(1, 10))]),
        lambda: world.reconnect(
            chance.random() < 0.8, [(path(), chance.random() < 0.5) for _ in range(chance.randint(0, 4))]
        ),
        world.everybody_has_heard,
    ]
    for _ in range(30):
        chance.choice(rules)()
    world.teardown()


# ---------------------------------------------------------------- rule by rule


def heard(watches: WatchTable, what: WatchedEvent) -> list[WatchedEvent]:
    calls = watches.fire(what)
    for call in calls:
        call(what)
    return [what] * len(calls)


class TestListening:
    def test_to_exactly_a_path(self) -> None:
        watches, told = WatchTable(), list[WatchedEvent]()
        watches.listen("/a", told.append)
        for path in ("/", "/a", "/a/b", "/ab"):
            heard(watches, event(path))
        assert told == [event("/a")]

    def test_until_the_last_that_listens_has_left(self) -> None:
        watches, told, other = WatchTable(), list[WatchedEvent](), list[WatchedEvent]()
        watches.listen("/a", told.append)
        watches.listen("/a", other.append)
        watches.unlisten("/a", told.append)
        heard(watches, event("/a"))
        assert (told, other) == ([], [event("/a")])

    def test_to_a_tree(self) -> None:
        watches, told = WatchTable(), list[WatchedEvent]()
        watches.listen_tree("/a", told.append)
        for path in ("/", "/a", "/a/b", "/a/b/c", "/ab"):
            heard(watches, event(path))
        assert [each.path for each in told] == ["/a", "/a/b", "/a/b/c"]

    @pytest.mark.parametrize("path", ["/", "/a", "/a/b"])
    def test_to_the_root_once_for_each_event(self, path: str) -> None:
        watches, told = WatchTable(), list[WatchedEvent]()
        watches.listen_tree("/", told.append)
        heard(watches, event(path))
        assert told == [event(path)]

    def test_nearest_first_in_the_order_of_coming(self) -> None:
        watches, told = WatchTable(), list[str]()
        for name, path in (("root", "/"), ("a", "/a"), ("ab", "/a/b"), ("a again", "/a")):
            watches.listen_tree(path, lambda _, name=name: told.append(name))  # type: ignore[misc]
        watches.listen("/a/b", lambda _: told.append("exact"))
        heard(watches, event("/a/b"))
        assert told == ["exact", "ab", "a", "a again", "root"]

    def test_a_node_far_below_costs_what_one_right_below_costs(self) -> None:
        deep = "/a/b" + "/c" * 5_000
        for longest, looked_at in [
            (0, ["/"]),
            (1, ["/"]),
            (2, ["/a", "/"]),
            (3, ["/a", "/"]),
            (4, ["/a/b", "/a", "/"]),
            (6, ["/a/b/c", "/a/b", "/a", "/"]),
        ]:
            assert list(_lineage(deep, longest)) == looked_at
        assert list(_lineage("/a/b", 4)) == list(_lineage("/a/b", 100)) == ["/a/b", "/a", "/"]
        assert list(_lineage("", 4)) == list(_lineage("/", 4)) == ["/"]

    def test_a_node_far_below_is_heard_of_by_who_is_there(self) -> None:
        watches, told = WatchTable(), list[str]()

        def telling(path: str) -> Callable[[WatchedEvent], None]:
            return lambda _: told.append(path)

        callbacks = {path: telling(path) for path in ("/", "/a", "/a/b", "/a/bb", "/a/b/c/d")}
        for path, callback in callbacks.items():
            watches.listen_tree(path, callback)
        for below, expected in [
            ("/a/b" + "/c" * 5_000, ["/a/b", "/a", "/"]),
            ("/a/b/c/d" + "/e" * 5_000, ["/a/b/c/d", "/a/b", "/a", "/"]),
        ]:
            heard(watches, event(below))
            assert told == expected
            told.clear()
        for path in ("/a/b/c/d", "/a/bb"):
            watches.unlisten_tree(path, callbacks[path])
        heard(watches, event("/a/b/c/d/e"))
        assert told == ["/a/b", "/a", "/"]

    def test_until_it_is_left(self) -> None:
        watches, told = WatchTable(), list[WatchedEvent]()
        watches.listen("/a", told.append)
        watches.unlisten("/a", told.append)
        watches.unlisten("/a", told.append)
        watches.listen_tree("/a", told.append)
        assert not watches.unlisten_tree("/a", told.append)
        assert heard(watches, event("/a")) == told == []


class TestRecursive:
    def armed(self, path: str = "/a") -> tuple[WatchTable, list[WatchedEvent]]:
        watches, told = WatchTable(), list[WatchedEvent]()
        watches.listen_tree(path, told.append)
        watches.tree_asked(path)
        assert not watches.is_tree_armed(path)
        assert watches.trees_armed([path]) == []
        assert watches.is_tree_armed(path)
        return watches, told

    def test_goes_with_its_last_user(self) -> None:
        watches, told = self.armed()
        other: list[WatchedEvent] = []
        watches.listen_tree("/a", other.append)
        assert not watches.unlisten_tree("/a", told.append)
        assert watches.unlisten_tree("/a", other.append)
        assert not watches.is_tree_armed("/a")

    def test_that_nobody_wants_any_more_is_removed_when_it_is_set(self) -> None:
        watches, told = WatchTable(), list[WatchedEvent]()
        watches.listen_tree("/a", told.append)
        watches.tree_asked("/a")
        assert not watches.unlisten_tree("/a", told.append)
        assert watches.trees_armed(["/a"]) == ["/a"]
        assert not watches.is_tree_armed("/a")

    @pytest.mark.parametrize("read", [GetData("/a", watch=True), Exists("/a", watch=True)])
    def test_takes_the_place_of_a_data_watch(self, read: Any) -> None:
        watches, _ = self.armed()
        watches.listen("/a", lambda _: None)
        assert not watches.one_shot_asked(read.opcode, "/a")
        assert watches.one_shot_asked(read.opcode, "/a/b")

    def test_but_not_of_a_child_watch(self) -> None:
        watches, _ = self.armed()
        assert watches.one_shot_asked(GetChildren.opcode, "/a")

    def test_stays_where_a_one_shot_watch_shares_its_path(self) -> None:
        watches, told = self.armed()
        watches.listen("/a", lambda _: None)
        watches.one_shot_asked(GetData.opcode, "/a")
        assert not watches.unlisten_tree("/a", told.append)
        assert watches.is_tree_armed("/a")

    def test_goes_once_the_one_shot_watch_beside_it_has_fired(self) -> None:
        watches, told = self.armed()
        watches.listen("/a", lambda _: None)
        watches.one_shot_asked(GetChildren.opcode, "/a")
        heard(watches, event("/a", EventKind.CHILDREN_CHANGED))
        assert watches.unlisten_tree("/a", told.append)

    def test_goes_where_nobody_listens_any_more_to_what_was_left_to_it(self) -> None:
        watches, told = self.armed()
        watches.listen("/a", told.append)
        watches.one_shot_asked(GetData.opcode, "/a")
        watches.unlisten("/a", told.append)
        assert watches.unlisten_tree("/a", told.append)

    def test_goes_on_the_next_connection_where_what_was_left_to_it_has_fired(self) -> None:
        watches, told = self.armed()
        watches.listen("/a", lambda _: None)
        watches.one_shot_asked(GetData.opcode, "/a")
        watches.disconnected()
        watches.restore(9, recursive=True, max_request=MAX_REQUEST)
        watches.trees_armed(["/a"])
        heard(watches, event("/a"))
        assert watches.unlisten_tree("/a", told.append)

    def test_that_was_asked_for_on_the_connection_before_is_not_armed_by_this_one(self) -> None:
        watches = WatchTable()
        watches.listen_tree("/a", lambda _: None)
        watches.tree_asked("/a")
        watches.disconnected()
        watches.trees_armed(["/a"])
        assert not watches.is_tree_armed("/a")

    def test_is_not_armed_on_the_next_connection_until_it_was_answered(self) -> None:
        watches, _ = self.armed()
        watches.disconnected()
        assert not watches.is_tree_armed("/a")
        (request,) = watches.restore(9, recursive=True, max_request=MAX_REQUEST)
        assert request == SetWatches2(9, [], [], [], (), ["/a"])
        assert not watches.is_tree_armed("/a")
        watches.listen_tree("/late", lambda _: None)
        watches.trees_armed(["/a"])
        assert watches.is_tree_armed("/a")
        assert not watches.is_tree_armed("/late")

    def test_is_left_to_its_user_where_the_server_may_not_know_it(self) -> None:
        watches, _ = self.armed()
        watches.disconnected()
        assert watches.restore(9, recursive=False, max_request=MAX_REQUEST) == []


class TestRestoring:
    def watched(self, *reads: tuple[Any, bool]) -> WatchTable:
        watches = WatchTable()
        for read, found in reads:
            watches.listen(read.path, lambda _: None)
            watches.one_shot_asked(read.opcode, read.path)
            watches.read_answered(read.opcode, read.path, watch=True, found=found)
        return watches

    def restored(self, watches: WatchTable) -> list[Message[Any]]:
        watches.disconnected()
        return watches.restore(9, recursive=False, max_request=MAX_REQUEST)

    def test_by_what_the_read_armed(self) -> None:
        watches = self.watched(
            (GetData("/data"), True),
            (Exists("/there"), True),
            (Exists("/absent"), False),
            (GetChildren("/parent"), True),
            (GetChildren2("/family"), True),
            (GetData("/nothing"), False),
            (GetChildren("/nobody"), False),
        )
        assert self.restored(watches) == [SetWatches(9, ["/data", "/there"], ["/absent"], ["/parent", "/family"])]

    def test_not_what_nobody_listens_to(self) -> None:
        watches = WatchTable()
        watches.one_shot_asked(GetData.opcode, "/a")
        watches.read_answered(GetData.opcode, "/a", watch=True, found=True)
        assert self.restored(watches) == []

    def test_not_what_was_left(self) -> None:
        watches = WatchTable()
        watches.listen("/a", print)
        watches.one_shot_asked(GetData.opcode, "/a")
        watches.unlisten("/a", print)
        assert self.restored(watches) == []
        watches.listen("/a", print)
        assert self.restored(watches) == [], "it is not asked for any more"

    def test_in_requests_of_128_kib_at_most(self) -> None:
        watches = WatchTable()
        for number in range(2048):
            watches.listen(f"/{number:059}", print)  # 64 bytes each with its length
            watches.one_shot_asked(GetData.opcode, f"/{number:059}")
        assert len(watches.restore(9, recursive=False, max_request=MAX_REQUEST)) == 1
        watches.listen("/", print)
        watches.one_shot_asked(GetData.opcode, "/")
        assert len(watches.restore(9, recursive=False, max_request=MAX_REQUEST)) == 2

    def test_not_what_has_fired(self) -> None:
        watches = self.watched((GetData("/a"), True), (GetChildren("/a"), True))
        heard(watches, event("/a", EventKind.CHILDREN_CHANGED))
        assert self.restored(watches) == [SetWatches(9, ["/a"], [], [])]
        heard(watches, event("/a", EventKind.DELETED))
        assert self.restored(watches) == []

    def test_what_was_left_to_a_recursive_watch(self) -> None:
        watches = WatchTable()
        for path, found in (("/there", True), ("/absent", False)):
            watches.listen(path, lambda _: None)
            watches.listen_tree(path, lambda _: None)
            watches.tree_asked(path)
            watches.trees_armed([path])
            assert not watches.one_shot_asked(Exists.opcode, path)
            watches.read_answered(Exists.opcode, path, watch=False, found=found)
        assert self.restored(watches) == [SetWatches(9, ["/there"], ["/absent"], [])]

    @pytest.mark.parametrize("max_request", [MAX_REQUEST, 20_000, 300])
    def test_in_requests_that_the_server_takes(self, max_request: int) -> None:
        watches = WatchTable()
        paths = [f"/{'x' * 100}{number:05}" for number in range(3_000)]
        for path in paths:
            watches.listen(path, lambda _: None)
            watches.one_shot_asked(GetData.opcode, path)
        watches.listen_tree("/tree", lambda _: None)
        requests = watches.restore(9, recursive=True, max_request=max_request)
        assert all(len(request.serialize(1)) <= min(max_request, 128 * 1024 + 64) for request in requests)
        assert len(requests) > 2
        assert [path for request in requests for path in request.data] == paths
        assert requests[-1].persistent_recursive == ["/tree"]
