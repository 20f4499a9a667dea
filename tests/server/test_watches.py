from __future__ import annotations

import pytest

from aioregistry.server._acl import OPEN, Rule
from aioregistry.server._codes import EventKind
from aioregistry.server._operations import ACLChanged, Change, Created, DataChanged, Deleted, Kind, Moment
from aioregistry.server._profiles import PROFILES
from aioregistry.server._watches import (
    ANY,
    CHILDREN,
    DATA,
    PERSISTENT,
    PERSISTENT_ONLY,
    RECURSIVE,
    RECURSIVE_ONLY,
    Watches,
)

CREATED, DELETED, CHANGED, CHILDREN_CHANGED = (
    EventKind.CREATED, EventKind.DELETED, EventKind.DATA_CHANGED, EventKind.CHILDREN_CHANGED,
)  # fmt: skip
NOW = Moment(1, 1)

Told = list[tuple[str, EventKind, str]]


def created(path: str) -> Created:
    return Created(path, None, OPEN, OPEN, Kind.PERSISTENT, 0, -1, 1, NOW)


def deleted(path: str) -> Deleted:
    return Deleted(path, OPEN, OPEN, NOW)


def changed(path: str) -> DataChanged:
    return DataChanged(path, None, OPEN, 1, NOW)


def told(watches: Watches[str], *changes: Change) -> Told:
    return [
        (notification.watcher, notification.kind, notification.path)
        for change in changes
        for notification in watches.trigger(change)
    ]


@pytest.fixture(params=["3.5", "3.8", "3.9"])
def watches(request: pytest.FixtureRequest) -> Watches[str]:
    return Watches(PROFILES[request.param])


@pytest.fixture
def old() -> Watches[str]:
    return Watches(PROFILES["3.8"])


@pytest.fixture
def new() -> Watches[str]:
    return Watches(PROFILES["3.9"])


class TestOneShot:
    def test_a_data_watch_tells_once(self, watches: Watches[str]) -> None:
        watches.watch_data("/a", "me")
        assert told(watches, changed("/a"), changed("/a")) == [("me", CHANGED, "/a")]
        assert watches.count == 0

    def test_a_data_watch_tells_of_creation_and_deletion(self, watches: Watches[str]) -> None:
        watches.watch_data("/a", "me")
        assert told(watches, created("/a")) == [("me", CREATED, "/a")]
        watches.watch_data("/a", "me")
        assert told(watches, deleted("/a")) == [("me", DELETED, "/a")]

    def test_a_child_watch_tells_of_children(self, watches: Watches[str]) -> None:
        for change in (created("/a/b"), deleted("/a/b")):
            watches.watch_children("/a", "me")
            assert told(watches, changed("/a"), change, change) == [("me", CHILDREN_CHANGED, "/a")]

    def test_who_watches_data_and_children_is_told_once_of_the_deletion(self, watches: Watches[str]) -> None:
        watches.watch_data("/a", "me")
        watches.watch_children("/a", "me")
        watches.watch_children("/a", "other")
        watches.watch_children("/", "me")
        assert told(watches, deleted("/a")) == [
            ("me", DELETED, "/a"), ("other", DELETED, "/a"), ("me", CHILDREN_CHANGED, "/"),
        ]  # fmt: skip
        assert watches.count == 0

    def test_an_acl_is_nobodys_news(self, watches: Watches[str]) -> None:
        watches.watch_data("/a", "me")
        assert told(watches, ACLChanged("/a", OPEN, 1)) == []

    def test_the_acl_of_whom_it_tells_of_goes_along(self, watches: Watches[str]) -> None:
        of_node, of_parent = (Rule(1, "world", "anyone"),), (Rule(2, "world", "anyone"),)
        watches.watch_data("/a/b", "me")
        watches.watch_children("/a", "me")
        change = created("/a/b")._replace(acl=of_node, parent_acl=of_parent)
        assert [notification.acl for notification in watches.trigger(change)] == [of_node, of_parent]


class TestPersistent:
    def test_it_stays_and_tells_of_node_and_children(self, watches: Watches[str]) -> None:
        watches.watch_always("/a", "me", PERSISTENT)
        changes: list[Change] = [created("/a"), created("/a/b"), changed("/a/b"), deleted("/a/b"), deleted("/a")]
        of_children = ("me", CHILDREN_CHANGED, "/a")
        for _ in range(2):
            assert told(watches, *changes) == [("me", CREATED, "/a"), of_children, of_children, ("me", DELETED, "/a")]

    def test_a_recursive_one_tells_of_all_that_is_below_and_of_no_children(self, watches: Watches[str]) -> None:
        watches.watch_always("/a", "me", RECURSIVE)
        assert told(watches, created("/a"), created("/a/b"), changed("/a/b"), deleted("/a/b"), created("/ab")) == [
            ("me", CREATED, "/a"), ("me", CREATED, "/a/b"), ("me", CHANGED, "/a/b"), ("me", DELETED, "/a/b"),
        ]  # fmt: skip

    def test_at_the_root(self, watches: Watches[str]) -> None:
        watches.watch_always("/", "me", RECURSIVE)
        assert told(watches, created("/a/b/c")) == [("me", CREATED, "/a/b/c")]

    def test_a_watcher_of_several_is_told_once(self, watches: Watches[str]) -> None:
        for path in ("/", "/a", "/a/b"):
            watches.watch_always(path, "me", RECURSIVE)
        assert told(watches, deleted("/a/b")) == [("me", DELETED, "/a/b")]


class TestOnOnePath:
    def test_before_3_9_the_latest_replaces_the_others(self, old: Watches[str]) -> None:
        old.watch_always("/a", "me", RECURSIVE)
        old.watch_data("/a", "me")
        assert told(old, created("/a/b"), changed("/a/b")) == []
        assert told(old, deleted("/a/b")) == [("me", DELETED, "/a/b")]  # by the table of child watches

    def test_from_3_9_they_live_side_by_side(self, new: Watches[str]) -> None:
        new.watch_always("/a", "me", RECURSIVE)
        new.watch_data("/a", "me")
        assert told(new, created("/a/b"), changed("/a"), changed("/a")) == [
            ("me", CREATED, "/a/b"), ("me", CHANGED, "/a"), ("me", CHANGED, "/a"),
        ]  # fmt: skip


class TestRemoving:
    @pytest.mark.parametrize("kind", [DATA, ANY])
    def test_a_kind(self, watches: Watches[str], kind: int) -> None:
        watches.watch_data("/a", "me")
        watches.watch_data("/a", "other")
        assert not watches.remove("/a", "me", CHILDREN)
        assert watches.remove("/a", "me", kind)
        assert not watches.remove("/a", "me", kind)
        assert told(watches, changed("/a")) == [("other", CHANGED, "/a")]

    def test_any_removes_both_tables(self, watches: Watches[str]) -> None:
        watches.watch_always("/a", "me", RECURSIVE)
        watches.watch_children("/a", "me")
        assert watches.remove("/a", "me", ANY)
        assert watches.count == 0
        assert told(watches, created("/a/b")) == []

    def test_from_3_9_by_mode(self, new: Watches[str]) -> None:
        for mode in (PERSISTENT, RECURSIVE):
            new.watch_always("/a", "me", mode)
        new.watch_data("/a", "me")
        assert new.remove("/a", "me", RECURSIVE_ONLY)
        assert not new.remove("/a", "me", RECURSIVE_ONLY)
        assert new.check("/a", "me", PERSISTENT_ONLY)
        assert told(new, created("/a/b")) == [("me", CHILDREN_CHANGED, "/a")]
        assert new.remove("/a", "me", PERSISTENT_ONLY)
        assert new.check("/a", "me", DATA)

    def test_forgetting_a_watcher_forgets_all_of_its_watches(self, watches: Watches[str]) -> None:
        watches.watch_data("/a", "me")
        watches.watch_children("/b", "me")
        watches.watch_always("/c", "me", RECURSIVE)
        watches.forget("me")
        watches.forget("me")
        assert watches.count == 0
        assert told(watches, changed("/a"), created("/b/x"), created("/c/x")) == []


class TestChecking:
    def test_up_to_3_8_anybodys_watch_counts(self, old: Watches[str], new: Watches[str]) -> None:
        for watches in (old, new):
            watches.watch_data("/a", "other")
        assert old.check("/a", "me", DATA)
        assert not new.check("/a", "me", DATA)
        assert not old.check("/a", "me", CHILDREN)
