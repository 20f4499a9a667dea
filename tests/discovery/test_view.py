"""Views, and what follows a service for them, on a session in memory."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec
import pytest

from aioregistry._discovery import Changes, Discovery, View, WatchMode, follower, subscriptions
from aioregistry._discovery.balancer_driver import BalancerDriver
from aioregistry._discovery.keeper import Keeper
from aioregistry._document import encode
from aioregistry._errors import (
    AuthenticationFailed,
    HandleClosed,
    InvalidArgument,
    NoAuth,
    NotReadOnly,
    RegistryError,
    RequestTimeout,
    ServerError,
    SessionFailed,
    SystemFault,
    Throttled,
    Unimplemented,
    UnsupportedServer,
    UsageError,
)
from aioregistry._model import Added, Entry, Invalid, Resynced
from aioregistry._protocol import GetChildren2, GetData, MultiReadData, Sync
from aioregistry._streams import Stream
from tests.discovery.scene import BASE, CHAT, DiscoverySession, Service, chat, check_nothing_is_left, discovery, taken
from tests.support.checkers import OrderedConsumer, check_converged, check_honest
from tests.support.fake_session import Fate, quiet, until
from tests.support.model_tree import ModelTree

DEADLINE = 100.0

T = TypeVar("T")


@pytest.fixture(params=["recursive", "one-shot"])
async def found(request: pytest.FixtureRequest, session: DiscoverySession) -> AsyncIterator[Discovery]:
    """Discovery by each strategy; leaves nothing behind."""
    found = discovery(session, request.param)
    yield found
    await found.aclose()
    check_nothing_is_left(session)


@pytest.fixture
async def recursive(session: DiscoverySession) -> AsyncIterator[Discovery]:
    found = discovery(session)
    yield found
    await found.aclose()
    check_nothing_is_left(session)


def told(changes: list[Any]) -> list[tuple[str, str]]:
    return [(type(change).__name__, change.id) for change in changes]


async def following(stream: Stream[T]) -> T:
    """The next item, in time."""
    async with asyncio.timeout(DEADLINE):
        return await anext(stream)


async def check_view(view: View[Any], service: Service) -> None:
    """When all is quiet, the view shows what the server holds."""
    await until(lambda: view.fresh)
    snapshot = await view.sync(DEADLINE)
    known: dict[str, Entry[Any] | Invalid] = {**snapshot.entries, **snapshot.invalid}
    check_converged(seen={id: (node.czxid, node.mzxid) for id, node in known.items()}, held=service.held())


# ---------------------------------------------------------------- following


async def test_an_entered_view_shows_who_is_there(found: Discovery, service: Service) -> None:
    service.add("a", {"zone": "eu-1"})
    service.add("b")
    async with found.view("chat") as view:
        assert view.fresh
        assert view.snapshot == {"a": chat("a", {"zone": "eu-1"}), "b": chat("b")}
        assert view.snapshot.stale_since is None
        assert view.snapshot is view.snapshot
        assert repr(view) == f"<View chat: 2 instances, fresh, as of zxid {service.tree.zxid:#x}>"


async def test_changes_come_in_order(found: Discovery, service: Service) -> None:
    service.add("a", 1)
    async with found.view("chat") as view, view.changes() as changes:
        consumer = OrderedConsumer(changes.start.entries)
        service.add("b")
        await quiet()
        service.set("a", 2)
        await quiet()
        service.remove("b")
        await quiet()
        service.take_over("a", 3)
        await quiet()
        seen = taken(changes)
        assert told(seen) == [("Added", "b"), ("Updated", "a"), ("Removed", "b"), ("Updated", "a")]
        assert [change.instance.payload for change in seen if change.id == "a"] == [2, 3]
        assert [change.zxid for change in seen] == sorted({change.zxid for change in seen})
        for change in seen:
            consumer.apply(change)
        consumer.check(view.snapshot.entries)
        await check_view(view, service)


async def test_a_change_costs_one_small_read_whatever_the_size(
    recursive: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.fill(f"n{number}" for number in range(2000))
    async with recursive.view("chat") as view, view.changes() as changes:
        assert len(view.snapshot) == 2000
        session.served.clear()
        service.set("n7", 1)
        await quiet()
        assert session.served == [GetData(f"{CHAT}/n7")]
        assert told(taken(changes)) == [("Updated", "n7")]


async def test_a_takeover_costs_one_small_read(
    recursive: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.add("a")
    async with recursive.view("chat"):
        session.served.clear()
        service.take_over("a")
        await quiet()
        assert session.served == [GetData(f"{CHAT}/a")]


async def test_changes_that_come_together_are_read_together(
    recursive: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with recursive.view("chat") as view:
        session.served.clear()
        for number in range(10):
            service.add(f"n{number}")
        await quiet()
        first, *others = [f"n{number}" for number in range(10)]
        assert session.served == [GetData(f"{CHAT}/{first}"), MultiReadData(CHAT, others)]
        assert len(view.snapshot) == 10


async def test_a_large_service_is_read_in_bounded_batches(
    recursive: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.fill((f"n{number}" for number in range(5000)), "x" * 1000)
    async with recursive.view("chat") as view:
        assert len(view.snapshot) == 5000
    batches = [len(message.names) for message in session.served if isinstance(message, MultiReadData)]
    assert 4990 <= sum(batches) <= 5000
    assert max(batches) * 1000 <= session.max_request / 4
    assert len(batches) < 50
    assert session.most_under_way <= 3 * max(batches)


async def test_the_service_may_be_missing_come_go_and_come_back(found: Discovery, tree: ModelTree) -> None:
    async with found.view("chat") as view:
        assert view.snapshot == {}
        for _ in range(2):
            service = Service(tree)
            await quiet()
            service.add("a")
            await quiet()
            await check_view(view, service)
            assert list(view.snapshot) == ["a"]
            service.remove("a")
            service.reap()
            await quiet()
            assert view.snapshot == {}
            assert view.fresh


async def test_all_views_of_a_service_share_one_mirror(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.add("a", {"zone": "eu-1"})
    async with found.view("chat"):
        reads = len(session.served)
        async with found.view("chat") as second, found.view("chat", payload_type=Meta) as third:
            assert len(session.served) == reads
            assert second.snapshot == {"a": chat("a", {"zone": "eu-1"})}
            assert third.snapshot["a"].payload == Meta("eu-1")
        service.add("b", {"zone": "eu-2"})
        await quiet()
        assert session.watches.in_use
    check_nothing_is_left(session)


# ---------------------------------------------------------------- connections


async def test_after_a_reconnect_the_true_differences_are_told_at_once(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    for id in "abcd":
        service.add(id, 1)
    async with found.view("chat") as view, view.changes() as changes:
        consumer = OrderedConsumer(changes.start.entries)
        session.disconnect()
        assert len(view.snapshot) == 4
        service.remove("a")
        service.set("b", 2)
        service.take_over("c", 1)
        service.add("e")
        session.connect()
        await check_view(view, service)
        [resynced] = taken(changes)
        assert isinstance(resynced, Resynced)
        assert sorted(told(list(resynced.changes))) == [
            ("Added", "e"),
            ("Removed", "a"),
            ("Updated", "b"),
            ("Updated", "c"),
        ]
        assert [instance.id for instance in resynced.removed] == ["a"]
        consumer.apply(resynced)
        consumer.check(view.snapshot.entries)
        service.add("f")  # the watches are in place again
        await quiet()
        assert told(taken(changes)) == [("Added", "f")]


async def test_a_resync_without_differences_is_told_too(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.add("a")
    async with found.view("chat") as view, view.changes() as changes:
        session.disconnect()
        session.expire()
        session.connect()
        await until(lambda: view.fresh)
        [resynced] = taken(changes)
        assert resynced.changes == ()
        assert resynced.snapshot == view.snapshot


async def test_after_a_roll_back_the_content_counts(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.add("a", "before")
    service.add("b")
    async with found.view("chat") as view, view.changes() as changes:
        session.roll_back()
        zxid = service.tree.zxid
        service.tree.nodes[f"{CHAT}/a"] = service.tree.nodes[f"{CHAT}/a"].__class__(
            encode(chat("a", "after")), 0, zxid - 1, zxid - 1
        )
        session.connect()
        await until(lambda: view.fresh)
        [resynced] = taken(changes)
        assert told(list(resynced.changes)) == [("Updated", "a")]
        assert view.snapshot["a"].payload == "after"


async def test_connections_that_end_during_a_resync_are_no_harm(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.fill(f"n{number}" for number in range(200))
    losses = iter([4, 3, 2, 4])
    fates = iter([None] * next(losses) + [Fate.REPLY_LOST])

    def fate(message: Any) -> Fate | None:
        return next(fates, None)

    session.fate = fate
    entering = asyncio.ensure_future(found.view("chat"))
    for answered in losses:
        await until(lambda: not session.connected)
        assert not entering.done()
        fates = iter([None] * answered + [Fate.REPLY_LOST])
        session.connect()
    await until(lambda: not session.connected)
    session.connect()
    async with await entering as view:
        assert len(view.snapshot) == 200
        await check_view(view, service)


async def test_batches_shrink_when_the_connection_ends_under_them(
    recursive: Discovery, service: Service, session: DiscoverySession
) -> None:
    """Something on the way cannot carry large answers."""
    service.fill(f"n{number}" for number in range(300))
    carried = 20
    session.fate = lambda message: (
        Fate.REPLY_LOST if isinstance(message, MultiReadData) and len(message.names) > carried else None
    )
    entering = asyncio.ensure_future(recursive.view("chat"))
    for _ in range(20):
        await quiet()
        if not session.connected:
            session.connect()
    async with await entering as view:
        assert len(view.snapshot) == 300


async def test_a_server_that_refuses_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, found: Discovery, service: Service, session: DiscoverySession
) -> None:
    monkeypatch.setattr(follower, "RETRY", 0.01)
    service.add("a")
    refusals = iter([True, True])
    session.fate = lambda message: (
        Throttled(message.path) if isinstance(message, GetChildren2) and next(refusals, False) else None
    )
    async with asyncio.timeout(DEADLINE), found.view("chat") as view, view.changes() as changes:
        assert list(view.snapshot) == ["a"]
        refusals = iter([True])
        session.fate = lambda message: (
            Throttled(message.path) if isinstance(message, GetData) and next(refusals, False) else None
        )
        service.set("a", 1)
        await until(lambda: view.snapshot["a"].payload == 1)
        assert told(taken(changes)) == [("Updated", "a")]
        refusals = iter([True])
        session.fate = lambda message: (
            SystemFault(message.path) if isinstance(message, GetData) and next(refusals, False) else None
        )
        service.set("a", 2)
        await until(lambda: view.fresh and view.snapshot["a"].payload == 2)
        [resynced] = taken(changes)
        assert told(list(resynced.changes)) == [("Updated", "a")]


# ---------------------------------------------------------------- strategies


async def test_a_server_without_recursive_watches_is_followed_by_one_shot_ones(
    session: DiscoverySession, service: Service
) -> None:
    session.knows_no_trees = True
    found = discovery(session)
    async with found.view("chat") as view:
        service.add("a")
        await quiet()
        assert list(view.snapshot) == ["a"]
        session.disconnect()
        session.knows_no_trees = False  # the next server is newer
        session.connect()
        await until(lambda: view.fresh)
        session.served.clear()
        service.add("b")
        await quiet()
        assert session.served == [GetData(f"{CHAT}/b")]


async def test_recursive_watches_can_be_demanded(session: DiscoverySession) -> None:
    session.knows_no_trees = True
    found = discovery(session, "recursive")
    with pytest.raises(UnsupportedServer):
        _ = await found.view("chat")
    check_nothing_is_left(session)


async def test_without_multiread_nodes_are_read_one_by_one(session: DiscoverySession, service: Service) -> None:
    session.known.clear()
    session.known[22] = False
    service.fill(f"n{number}" for number in range(100))
    found = discovery(session)
    async with found.view("chat") as view:
        assert len(view.snapshot) == 100
    assert not any(isinstance(message, MultiReadData) for message in session.served)


# ---------------------------------------------------------------- bad nodes


class Meta(msgspec.Struct, frozen=True):
    zone: str


BAD = {"json": b"{", "empty": b"", "list": b"[]", "fields": b"{}", "id": encode(chat("other")), "bytes": b"\xff\xfe"}


async def test_bad_nodes_are_listed_with_the_reason_and_harm_nobody(
    found: Discovery, service: Service, session: DiscoverySession, caplog: pytest.LogCaptureFixture
) -> None:
    service.add("good")
    for id, data in BAD.items():
        service.add(id, data=data)
    with caplog.at_level(logging.WARNING, "aioregistry.discovery"):
        async with found.view("chat") as view, view.changes() as changes:
            assert list(view.snapshot) == ["good"]
            assert view.snapshot.invalid.keys() == BAD.keys()
            assert all(invalid.reason and invalid.czxid for invalid in view.snapshot.invalid.values())
            [record] = caplog.records
            assert all(f"{id}: " in record.getMessage() for id in BAD)
            emitted = [fields["id"] for name, fields in session.emitted if name == "discovery.invalid"]
            assert set(emitted) == BAD.keys()
            service.set("good", data=b"not any more")
            service.set("json", 1)
            service.remove("empty")
            await quiet()
            assert sorted(told(taken(changes))) == [("Added", "json"), ("Removed", "good")]
            assert "empty" not in view.snapshot.invalid
            await check_view(view, service)
    assert len(caplog.records) == 2
    assert "/services/chat/good" in caplog.records[1].getMessage()


async def test_a_payload_that_does_not_fit_is_invalid_in_this_view_only(found: Discovery, service: Service) -> None:
    service.add("a", {"zone": "eu-1"})
    service.add("b", {"zone": 7})
    service.add("c", data=b"{")
    async with (
        found.view("chat", payload_type=Meta) as typed,
        found.view("chat") as untyped,
        typed.changes() as changes,
    ):
        consumer = OrderedConsumer(changes.start.entries)
        assert typed.snapshot.keys() == {"a"}
        assert typed.snapshot["a"].payload == Meta("eu-1")
        assert typed.snapshot.invalid.keys() == {"b", "c"}
        assert "payload" in typed.snapshot.invalid["b"].reason
        assert untyped.snapshot.keys() == {"a", "b"}
        service.set("b", {"zone": "eu-2"})
        await quiet()
        service.set("a", None)
        await quiet()
        service.set("a", 3)
        await quiet()
        service.remove("a")
        await quiet()
        seen = taken(changes)
        assert told(seen) == [("Added", "b"), ("Removed", "a")]
        assert seen[0].instance.payload == Meta("eu-2")
        assert typed.snapshot.invalid.keys() == {"c"}
        for change in seen:
            consumer.apply(change)
        consumer.check(typed.snapshot.entries)


async def test_a_typed_view_resyncs(found: Discovery, service: Service, session: DiscoverySession) -> None:
    service.add("a", {"zone": "eu-1"})
    async with found.view("chat", payload_type=Meta) as view, view.changes() as changes:
        session.disconnect()
        service.set("a", {"zone": "eu-2"})
        service.add("b", "misfit")
        session.connect()
        await until(lambda: view.fresh)
        [resynced] = taken(changes)
        assert told(list(resynced.changes)) == [("Updated", "a")]
        assert resynced.snapshot["a"].payload == Meta("eu-2")
        assert resynced.snapshot.invalid.keys() == {"b"}


async def test_a_node_that_cannot_be_read_is_looked_at_now_and_then(
    monkeypatch: pytest.MonkeyPatch, found: Discovery, service: Service, session: DiscoverySession
) -> None:
    monkeypatch.setattr(follower, "AUDIT", 0.02)
    service.add("secret")
    session.unreadable.add(f"{CHAT}/secret")
    async with asyncio.timeout(DEADLINE), found.view("chat") as view:
        assert view.snapshot.invalid.keys() == {"secret"}
        assert view.fresh
        session.unreadable.clear()  # a changed ACL fires no watch
        await view.wait_for(lambda snapshot: "secret" in snapshot)
        assert view.snapshot.invalid == {}


async def test_syncing_looks_at_what_could_not_be_read(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.add("secret")
    session.unreadable.add(f"{CHAT}/secret")
    async with found.view("chat") as view:
        session.unreadable.clear()
        assert (await view.sync(DEADLINE)).keys() == {"secret"}


async def test_nodes_that_are_no_instances_are_told_to_those_who_ask(found: Discovery, service: Service) -> None:
    service.add("good", {"zone": "eu-1"})
    async with (
        found.view("chat", payload_type=Meta) as typed,
        found.view("chat") as view,
        view.changes(invalid=True) as asked,
        typed.changes(invalid=True) as asked_typed,
        view.changes() as not_asked,
    ):
        service.add("bad", data=b"{")
        await quiet()
        service.set("bad", data=b"[")
        await quiet()
        service.set("good", "misfit")
        await quiet()
        service.set("good", data=b"not any more")
        await quiet()
        expected = [("Invalidated", "bad"), ("Invalidated", "bad")]
        spoiled = [("Removed", "good"), ("Invalidated", "good")]
        seen = [taken(stream) for stream in (asked, asked_typed, not_asked)]
        assert told(seen[0]) == [*expected, ("Updated", "good"), *spoiled]
        assert told(seen[1]) == [*expected, *spoiled, ("Invalidated", "good")]
        assert told(seen[2]) == [("Updated", "good"), ("Removed", "good")]
        assert seen[0][-1].invalid == seen[0][-2].invalid == view.snapshot.invalid["good"]
        assert seen[1][2].invalid.reason.startswith("payload")
        with pytest.raises(InvalidArgument):
            view.changes(invalid="yes")  # type: ignore[call-overload]


@pytest.mark.parametrize("payload_type", [Any, Meta])
async def test_a_node_that_is_spoiled_again_and_again_is_few_lines(
    found: Discovery,
    service: Service,
    session: DiscoverySession,
    caplog: pytest.LogCaptureFixture,
    payload_type: Any,
) -> None:
    async with found.view("chat", payload_type=payload_type):
        service.add("bad", data=b"0")
        for number in range(100):
            await quiet()
            service.set("bad", number, data=None if payload_type is Meta else b"%d" % number)
        await quiet()
    assert 2 <= len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 10


async def hide(session: DiscoverySession, change: Callable[[], None]) -> None:
    """Let something happen of which the server tells nobody."""
    session.hidden = True
    change()
    session.hidden = False
    await quiet()


async def test_what_the_server_hid_is_found_by_syncing(
    found: Discovery, service: Service, session: DiscoverySession, caplog: pytest.LogCaptureFixture
) -> None:
    for id in "abcd":
        service.add(id, 0)
    async with found.view("chat") as view, view.changes() as changes:
        for change in (
            lambda: service.remove("a"),
            lambda: service.set("b", 1),
            lambda: service.take_over("c", 2),
            lambda: service.add("e"),
        ):
            await hide(session, change)
        assert view.snapshot.keys() == set("abcd")
        await view.sync(DEADLINE)
        assert sorted(told(taken(changes))) == [("Added", "e"), ("Removed", "a"), ("Updated", "b"), ("Updated", "c")]
        await check_view(view, service)
    assert ("discovery.missed", "chat") in [(name, fields.get("service")) for name, fields in session.emitted]
    assert [record for record in caplog.records if "changed without an event" in record.getMessage()]


@pytest.mark.parametrize("what", ["removed", "changed", "replaced", "added"])
async def test_what_the_server_hid_is_found_by_an_audit(
    monkeypatch: pytest.MonkeyPatch, found: Discovery, service: Service, session: DiscoverySession, what: str
) -> None:
    for id in "abc":
        service.add(id, 0)
    monkeypatch.setattr(follower, "AUDIT", 0.02)
    async with asyncio.timeout(DEADLINE), found.view("chat") as view, view.changes() as changes:
        hidden: dict[str, Callable[[], None]] = {
            "removed": lambda: service.remove("b"),
            "changed": lambda: service.set("b", 1),
            "replaced": lambda: service.take_over("b", 1),
            "added": lambda: service.add("d"),
        }
        await hide(session, hidden[what])
        await anext(changes)
        await check_view(view, service)


@pytest.mark.parametrize("nodes", [1, 64, 100, 3000])
@pytest.mark.parametrize("mode", ["recursive", "one-shot"])
async def test_an_audit_asks_for_one_list_and_a_few_nodes_however_large_the_service(
    monkeypatch: pytest.MonkeyPatch, service: Service, session: DiscoverySession, mode: WatchMode, nodes: int
) -> None:
    for number in range(nodes):
        service.add(f"n{number:04}", 0)
    monkeypatch.setattr(follower, "AUDIT", 0.02)
    found = discovery(session, mode)
    async with asyncio.timeout(DEADLINE), found.view("chat"):
        begun = len(session.served)
        while sum(isinstance(each, GetChildren2) for each in session.served[begun:]) < 5:
            await asyncio.sleep(0.001)
        served = session.served[begun:]
    await found.aclose()
    lists = [number for number, each in enumerate(served) if isinstance(each, GetChildren2)]
    for first, following in itertools.pairwise(lists):
        read: list[str] = []
        for request in served[first + 1 : following]:
            assert isinstance(request, (GetData, MultiReadData))
            read += request.names if isinstance(request, MultiReadData) else [request.path]
        assert 1 <= len(set(read)) == len(read) <= min(nodes, max(64, nodes // 32))
        if mode == "recursive":  # in one request, as the servers that have these watches can
            assert following == first + 2


async def test_a_node_replaced_unseen_is_found_by_one_audit_however_large_the_service(
    monkeypatch: pytest.MonkeyPatch, recursive: Discovery, service: Service, session: DiscoverySession
) -> None:
    """The service's node counts what comes and goes below it."""
    monkeypatch.setattr(follower, "SAMPLE", 0)
    for number in range(20):
        service.add(f"n{number:02}", 0)
    async with asyncio.timeout(DEADLINE), recursive.view("chat") as view, view.changes() as changes:
        monkeypatch.setattr(follower, "AUDIT", 0.02)
        session.reconnect()  # its next audit is due soon
        assert isinstance(await anext(changes), Resynced)
        await hide(session, lambda: service.take_over("n13", 1))
        assert told([await anext(changes)]) == [("Updated", "n13")]


async def test_what_cannot_be_read_any_more_is_not_shown_as_the_truth(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.add("a", 0)
    service.add("b", 0)
    async with found.view("chat") as view:
        session.unreadable.add(f"{CHAT}/a")  # a changed ACL fires no watch
        await hide(session, lambda: service.set("a", 1))
        snapshot = await view.sync(DEADLINE)
        assert snapshot.keys() == {"b"}
        assert "not authorised" in snapshot.invalid["a"].reason
        session.unreadable.clear()
        assert (await view.sync(DEADLINE))["a"].payload == 1


async def test_a_service_that_may_not_be_listed_any_more_is_stale_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
    found: Discovery,
    service: Service,
    session: DiscoverySession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(follower, "RETRY", 0.02)
    service.add("a", 0)
    async with found.view("chat") as view:
        session.unreadable.add(CHAT)
        with pytest.raises(NoAuth):
            await view.sync(DEADLINE)
        assert not view.fresh
        assert view.snapshot.keys() == {"a"}
        assert [record.levelname for record in caplog.records if "cannot be listed" in record.getMessage()] == [
            "WARNING"
        ]
        session.unreadable.clear()
        service.add("b")
        await until(lambda: view.fresh)
        assert (await view.sync(DEADLINE)).keys() == {"a", "b"}


async def test_many_who_sync_share_what_it_costs(found: Discovery, service: Service, session: DiscoverySession) -> None:
    service.add("a")
    async with found.view("chat") as view, found.view("chat") as other:
        served = len(session.served)
        first = [asyncio.ensure_future(each.sync(DEADLINE)) for each in (view, other) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        service.add("b")
        second = [asyncio.ensure_future(view.sync(DEADLINE)) for _ in range(50)]
        await asyncio.gather(*first)
        assert all(snapshot.keys() == {"a", "b"} for snapshot in await asyncio.gather(*second))
        assert 1 <= len([message for message in session.served[served:] if message.writes]) <= 2


async def test_one_who_syncs_later_waits_for_a_barrier_of_its_own(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    """The one under way began before what the later one has to see."""
    async with found.view("chat") as view:
        early = asyncio.ensure_future(view.sync(DEADLINE))
        await until(lambda: [message for message in session.served if message.writes])
        await hide(session, lambda: service.add("a"))
        assert (await view.sync(DEADLINE)).keys() == {"a"}
        await early


async def test_who_gives_up_syncing_takes_nobody_with_it(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat") as view:
        session.disconnect()
        patient = asyncio.ensure_future(view.sync(DEADLINE))
        with pytest.raises(RequestTimeout):
            await view.sync(0.01)
        session.connect()
        assert (await patient).keys() == set()


def syncing_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("aioregistry syncs")]


@pytest.mark.parametrize("under_way", [False, True])
async def test_a_sync_ends_with_the_last_one_who_gives_up(
    found: Discovery, service: Service, session: DiscoverySession, under_way: bool
) -> None:
    async with found.view("chat") as view:
        session.fate = lambda message: Fate.UNANSWERED if message.writes else None
        waiting = [asyncio.ensure_future(view.sync()) for _ in range(2)]
        await quiet()
        if under_way:  # these wait for the one after it
            waiting += [asyncio.ensure_future(view.sync()) for _ in range(2)]
            await quiet()
        for left in reversed(range(len(waiting))):
            waiting[left].cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting[left]
            assert len(syncing_tasks()) == (left + 1) // 2
        session.fate = lambda message: None
        session.disconnect()
        session.connect()
        service.add("a")
        assert (await view.sync(DEADLINE)).keys() == {"a"}


async def test_a_view_that_is_closed_while_somebody_syncs_leaves_nothing(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    view = await found.view("chat")
    session.fate = lambda message: Fate.UNANSWERED if message.writes else None
    syncing = [asyncio.ensure_future(view.sync())]
    await quiet()
    syncing.append(asyncio.ensure_future(view.sync()))
    await quiet()
    await view.aclose()
    for each in syncing:
        with pytest.raises(RegistryError):
            await each
    assert syncing_tasks() == []


async def test_a_server_that_is_overloaded_is_asked_again_for_the_barrier(
    monkeypatch: pytest.MonkeyPatch, found: Discovery, service: Service, session: DiscoverySession
) -> None:
    monkeypatch.setattr(follower, "RETRY", 0.02)
    throttled = iter([True, True])
    async with found.view("chat") as view:
        session.fate = lambda message: Throttled("") if message.writes and next(throttled, False) else None
        await hide(session, lambda: service.add("a"))
        assert (await view.sync(DEADLINE)).keys() == {"a"}


@pytest.mark.parametrize("refusal", [NotReadOnly, Unimplemented])
async def test_a_server_that_passes_no_barrier_is_read_as_it_is_and_a_warning_says_so(
    found: Discovery,
    service: Service,
    session: DiscoverySession,
    caplog: pytest.LogCaptureFixture,
    refusal: type[ServerError],
) -> None:
    async with found.view("chat") as view:
        session.fate = lambda message: refusal("") if message.writes or isinstance(message, Sync) else None
        await hide(session, lambda: service.add("a"))
        for _ in range(3):
            assert (await view.sync(DEADLINE)).keys() == {"a"}
    assert (
        len([record for record in caplog.records if "cannot confirm that its data is current" in record.getMessage()])
        == 1
    )


async def test_a_server_without_quorum_is_not_asked_to_write(
    found: Discovery, service: Service, session: DiscoverySession, caplog: pytest.LogCaptureFixture
) -> None:
    session.disconnect()
    session.connect(read_only=True)
    async with found.view("chat") as view:
        await hide(session, lambda: service.add("a"))
        assert (await view.sync(DEADLINE)).keys() == {"a"}
        assert not [message for message in session.served if message.writes]
    assert [
        record.levelname
        for record in caplog.records
        if "cannot confirm that its data is current" in record.getMessage()
    ] == ["WARNING"]


async def test_a_service_that_may_not_be_listed_is_an_error_at_once(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    session.unreadable.add(CHAT)
    with pytest.raises(NoAuth):
        _ = await found.view("chat")
    check_nothing_is_left(session)


# ---------------------------------------------------------------- snapshots


async def test_the_first_snapshot_is_the_present_one(found: Discovery, service: Service) -> None:
    service.add("a")
    async with found.view("chat") as view, view.snapshots() as snapshots:
        assert (await following(snapshots)).keys() == {"a"}
        service.add("b")
        assert (await following(snapshots)).keys() == {"a", "b"}


async def test_a_slow_consumer_of_snapshots_gets_the_latest(found: Discovery, service: Service) -> None:
    async with found.view("chat") as view, view.snapshots() as snapshots:
        for number in range(20):
            service.add(f"n{number}")
            await quiet()
        latest = await following(snapshots)
        assert len(latest) == 20
        assert snapshots.take_ready(1) == []


async def test_a_snapshot_that_was_given_never_changes(found: Discovery, service: Service) -> None:
    service.add("a")
    service.add("bad", data=b"{")
    async with found.view("chat") as view:
        before = view.snapshot
        service.remove("a")
        service.remove("bad")
        await quiet()
        assert (list(before), list(before.invalid)) == (["a"], ["bad"])
        assert (list(view.snapshot), list(view.snapshot.invalid)) == ([], [])


async def test_snapshots_tell_when_freshness_flips(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.add("a")
    async with found.view("chat") as view, view.snapshots() as snapshots:
        assert (await following(snapshots)).stale_since is None
        session.disconnect()
        assert not view.fresh
        stale = await following(snapshots)
        assert stale.keys() == {"a"}
        assert stale.stale_since is not None
        assert stale.stale_since <= session.runtime.wall()
        assert "stale since" in repr(view)
        session.connect()
        fresh = await following(snapshots)
        assert fresh.stale_since is None
        assert fresh.keys() == {"a"}
        await quiet()
        assert snapshots.take_ready(1) == []


async def test_freshness_ends_with_the_evidence_and_comes_back_with_it(tree: ModelTree, service: Service) -> None:
    session = DiscoverySession(tree, timeout=0.2)
    session.connect()
    found = discovery(session)
    async with asyncio.timeout(DEADLINE), found.view("chat") as view, view.snapshots() as snapshots:
        assert (await following(snapshots)).stale_since is None
        stale = await following(snapshots)  # by the passing of time, on a connection that is still there
        assert stale.stale_since is not None
        assert session.connected
        check_honest(claimed=view.fresh, contact_age=session.evidence_age(), timeout=session.timeout)
        await session.submit(Sync("/"))
        assert (await following(snapshots)).stale_since is None


async def test_what_is_read_after_a_sleep_claims_nothing(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    """No callback has run yet: the clock alone tells."""
    async with found.view("chat") as view:
        assert view.snapshot.stale_since is None
        session.runtime.asleep += session.timeout  # type: ignore[attr-defined]
        assert not view.fresh
        stale_since = session.runtime.wall() - session.evidence_age()
        assert view.snapshot.stale_since == pytest.approx(stale_since, abs=1)


# ---------------------------------------------------------------- changes


async def test_a_slow_consumer_of_changes_gets_the_differences_since_what_it_took(
    monkeypatch: pytest.MonkeyPatch, found: Discovery, service: Service, session: DiscoverySession
) -> None:
    monkeypatch.setattr(subscriptions, "CHANGES_KEPT", 8)
    for id in "abcd":
        service.add(id, 0)
    async with found.view("chat") as seen, seen.changes() as slow, seen.changes() as quick:
        consumer, other = OrderedConsumer(slow.start.entries), OrderedConsumer(quick.start.entries)
        service.set("a", 1)
        await quiet()
        consumer.apply(await following(slow))
        for number in range(10):
            service.set("b", number + 1)
            await quiet()
            service.add(f"passing-{number}")
            await quiet()
            service.remove(f"passing-{number}")
            await quiet()
            for change in taken(quick):
                other.apply(change)
        session.reconnect()
        await until(lambda: seen.fresh)
        service.remove("c")
        service.take_over("d")
        service.add("e")
        await quiet()
        assert slow._believed is not None
        assert not [id for id in slow._believed if id.startswith("passing")]
        resynced = await following(slow)
        assert isinstance(resynced, Resynced)
        assert sorted(told(list(resynced.changes))) == [
            ("Added", "e"),
            ("Removed", "c"),
            ("Updated", "b"),
            ("Updated", "d"),
        ]
        assert slow.take_ready(1) == []
        consumer.apply(resynced)
        consumer.check(seen.snapshot.entries)
        service.add("f")
        consumer.apply(await following(slow))
        consumer.check(seen.snapshot.entries)


async def test_exactly_as_many_changes_as_are_kept_are_told_one_by_one(
    monkeypatch: pytest.MonkeyPatch, found: Discovery, service: Service
) -> None:
    monkeypatch.setattr(subscriptions, "CHANGES_KEPT", 8)
    async with found.view("chat") as seen, seen.changes() as full, seen.changes() as over:
        for number in range(8):
            service.add(f"n{number}")
        await quiet()
        assert [type(change) for change in taken(full)] == [Added] * 8
        service.add("one more")
        await quiet()
        assert [type(change) for change in taken(full)] == [Added]
        assert [type(change) for change in taken(over)] == [Resynced]


async def test_a_stream_begins_where_it_was_opened(found: Discovery, service: Service) -> None:
    service.add("a")
    async with found.view("chat") as view:
        service.add("b")
        await quiet()
        async with view.changes() as changes:
            assert changes.start.keys() == {"a", "b"}
            assert changes.take_ready(1) == []


async def test_a_stream_that_was_closed_gives_no_more(
    monkeypatch: pytest.MonkeyPatch, found: Discovery, service: Service
) -> None:
    monkeypatch.setattr(subscriptions, "CHANGES_KEPT", 1)
    async with found.view("chat") as seen:
        changes, snapshots = seen.changes(), seen.snapshots()
        for number in range(3):
            service.add(f"n{number}")
        await quiet()
        await changes.aclose()
        await snapshots.aclose()
        service.add("more")
        await quiet()
        assert [change async for change in changes] == []
        assert [snapshot async for snapshot in snapshots] == []


async def test_cancelled_waiting_loses_no_change(found: Discovery, service: Service) -> None:
    async with found.view("chat") as view, view.changes() as changes:
        waiting = asyncio.ensure_future(following(changes))
        await quiet()
        service.add("a")
        waiting.cancel()
        await quiet()
        assert waiting.cancelled()
        assert told([await following(changes)]) == [("Added", "a")]


# ---------------------------------------------------------------- waiting and syncing


async def test_waiting_for_a_snapshot(found: Discovery, service: Service) -> None:
    service.add("a")
    async with found.view("chat") as view:
        assert (await view.wait_for(lambda snapshot: "a" in snapshot)).keys() == {"a"}
        waiting = asyncio.ensure_future(view.wait_for(lambda snapshot: len(snapshot) == 3, timeout=DEADLINE))
        for id in "bcd":
            await quiet()
            service.add(id)
        assert len(await waiting) == 3


async def test_waiting_is_bounded(found: Discovery, service: Service) -> None:
    async with found.view("chat") as view:
        with pytest.raises(RequestTimeout, match=r"chat.*0\.01"):
            await view.wait_for(lambda snapshot: len(snapshot) == 1, timeout=0.01)
        with pytest.raises(ZeroDivisionError):
            await view.wait_for(lambda snapshot: 1 // len(snapshot) > 0)
        for timeout in (0, -1, float("nan")):
            with pytest.raises(InvalidArgument) as raised:
                await view.wait_for(lambda snapshot: True, timeout=timeout)
            assert raised.value.field == "timeout"
            with pytest.raises(InvalidArgument):
                await view.sync(timeout)


async def test_a_predicate_that_cannot_be_called_is_refused_by_its_name(found: Discovery, service: Service) -> None:
    async with found.view("chat") as view:
        with pytest.raises(TypeError) as raised:
            await view.wait_for(5)  # type: ignore[arg-type]
        assert isinstance(raised.value, InvalidArgument)
        assert raised.value.field == "predicate"


async def test_waiting_ends_with_the_view(found: Discovery, service: Service) -> None:
    view = await found.view("chat")
    waiting = asyncio.ensure_future(view.wait_for(lambda snapshot: False))
    syncing = asyncio.ensure_future(view.sync())
    await quiet()
    await syncing
    await view.aclose()
    with pytest.raises(HandleClosed):
        await waiting


async def test_waiting_can_be_cancelled_by_anyio(found: Discovery, service: Service) -> None:
    async with found.view("chat") as view:
        with anyio.move_on_after(0.01) as scope:
            await view.wait_for(lambda snapshot: False, timeout=DEADLINE)
        assert scope.cancelled_caught


async def test_syncing_waits_for_what_the_server_told_of(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat") as view:
        service.add("a")  # the event is on its way
        assert (await view.sync(DEADLINE)).keys() == {"a"}
        assert [message for message in session.served if message.writes]  # it takes its place among the writes


async def test_syncing_goes_on_after_a_reconnect(found: Discovery, service: Service, session: DiscoverySession) -> None:
    async with found.view("chat") as view:
        lost = iter([True])
        session.fate = lambda message: Fate.REPLY_LOST if message.writes and next(lost, False) else None
        syncing = asyncio.ensure_future(view.sync(DEADLINE))
        await quiet()
        assert not syncing.done()
        service.add("a")
        session.connect()
        assert (await syncing).keys() == {"a"}
        session.disconnect()
        with pytest.raises(RequestTimeout):
            await view.sync(0.01)
        syncing = asyncio.ensure_future(view.sync(DEADLINE))
        await quiet()
        service.add("b")
        session.connect()
        assert (await syncing).keys() == {"a", "b"}


# ---------------------------------------------------------------- beginnings and ends


async def test_a_view_is_used_between_entering_and_closing(found: Discovery, service: Service) -> None:
    view = found.view("chat")
    uses: list[Callable[[], Any]] = [lambda: view.snapshot, lambda: view.fresh, view.snapshots, view.changes]
    for use in uses:
        with pytest.raises(UsageError):
            use()
    assert repr(view) == "<View chat, not entered>"
    _ = await view
    for use in uses:
        use()
    await view.aclose()
    for use in uses:
        with pytest.raises(HandleClosed):
            use()
    with pytest.raises(HandleClosed):
        await view.sync()
    with pytest.raises(UsageError):
        _ = await view


@pytest.mark.parametrize("name", ["", "/", "a//b", "a/../b", "..", "\0", "a/\0", None])
def test_a_name_that_is_no_path_is_refused(session: DiscoverySession, name: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        _ = discovery(session).view(name)
    assert (raised.value.field, raised.value.value) == ("name", name)


async def test_entering_waits_for_a_connection_and_can_be_cancelled(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    session.disconnect()
    entering = asyncio.ensure_future(found.view("chat"))
    await quiet()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        _ = await entering
    check_nothing_is_left(session)
    with anyio.move_on_after(0.01) as scope:
        _ = await found.view("chat")
    assert scope.cancelled_caught
    check_nothing_is_left(session)
    entering = asyncio.ensure_future(found.view("chat"))
    await quiet()
    session.connect()
    async with await entering as view:
        assert view.fresh


async def test_streams_end_with_the_view(found: Discovery, service: Service) -> None:
    async with found.view("chat") as view:
        changes, snapshots = view.changes(), view.snapshots()
        await following(snapshots)
        service.add("a")
        await quiet()
    assert told([change async for change in changes]) == [("Added", "a")]
    assert [snapshot.keys() async for snapshot in snapshots] == [{"a"}]


async def test_streams_end_with_the_session(found: Discovery, service: Service, session: DiscoverySession) -> None:
    service.add("a")
    async with found.view("chat") as view:
        changes, snapshots = view.changes(), view.snapshots()
        session.close()
        await quiet()
        assert [change async for change in changes] == []
        assert [snapshot.keys() async for snapshot in snapshots] == [{"a"}]
        assert not view.fresh
        assert view.snapshot.keys() == {"a"}


async def test_everything_raises_what_the_session_failed_with(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.add("a")
    async with found.view("chat") as view:
        changes, snapshots = view.changes(), view.snapshots()
        waiting = asyncio.ensure_future(view.wait_for(lambda snapshot: False))
        await following(snapshots)
        session.fail(AuthenticationFailed("digest", "127.0.0.1:2181"))
        await quiet()
        assert (await following(snapshots)).stale_since is not None
        streams: list[Stream[Any]] = [changes, snapshots, view.changes(), view.snapshots()]
        for stream in streams[:3]:
            with pytest.raises(SessionFailed):
                await following(stream)
        assert (await following(streams[3])).keys() == {"a"}  # what is known, then why there is no more
        with pytest.raises(SessionFailed):
            await following(streams[3])
        for call in (waiting, view.sync(), view.wait_for(lambda snapshot: False)):
            with pytest.raises(SessionFailed):
                await call
        assert view.snapshot.keys() == {"a"}
    with pytest.raises(SessionFailed):
        _ = await found.view("chat")


async def test_a_defect_reaches_the_consumer(
    monkeypatch: pytest.MonkeyPatch, found: Discovery, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    async with found.view("chat") as view, view.changes() as changes:
        monkeypatch.setattr("aioregistry._discovery.mirror.Mirror.observed", lambda *_: 1 // 0)
        service.add("a")
        with pytest.raises(RegistryError, match="ZeroDivisionError") as raised:
            await following(changes)
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
        assert not view.fresh
    monkeypatch.undo()
    async with found.view("chat") as view:  # a new one begins anew
        assert view.snapshot.keys() == {"a"}


async def test_the_task_cancelled_from_outside_is_an_error_not_silence(found: Discovery, service: Service) -> None:
    async with found.view("chat") as view, view.changes() as changes:
        [task] = [task for task in asyncio.all_tasks() if task.get_name() == f"aioregistry follows {CHAT}"]
        task.cancel()
        with pytest.raises(RegistryError, match="from outside"):
            await following(changes)


async def test_a_view_that_was_dropped_says_so(recursive: Discovery, service: Service) -> None:
    view = await recursive.view("chat")
    dropped = [view]
    del view
    with pytest.warns(ResourceWarning, match="'chat'"):
        dropped.clear()


# ---------------------------------------------------------------- the names of services


async def test_the_names_of_services(found: Discovery, tree: ModelTree, session: DiscoverySession) -> None:
    assert await found.services() == []
    tree.make(f"{BASE}/mail")
    tree.make(CHAT)
    assert await found.services() == ["chat", "mail"]
    session.disconnect()
    asking = asyncio.ensure_future(found.services())
    await quiet()
    session.connect()
    assert await asking == ["chat", "mail"]


async def test_the_names_of_services_are_followed(found: Discovery, tree: ModelTree, session: DiscoverySession) -> None:
    names = found.watch_services()
    assert await following(names) == ()
    tree.make(CHAT)
    assert await following(names) == ("chat",)
    tree.make(f"{CHAT}/a")  # an instance is no service
    tree.make(f"{BASE}/mail")
    assert await following(names) == ("chat", "mail")
    second = found.watch_services()
    assert await following(second) == ("chat", "mail")
    session.disconnect()
    tree.delete(f"{BASE}/mail")
    session.connect()
    assert await following(names) == ("chat",)
    session.reconnect()
    await quiet()
    assert names.take_ready(1) == []
    tree.delete(f"{CHAT}/a")
    tree.delete(CHAT)
    tree.delete(BASE)
    assert await following(names) == ()
    tree.make(CHAT)
    assert await following(names) == ("chat",)
    await found.aclose()
    assert [each async for each in names] == []


async def test_following_names_raises_what_ended_it(found: Discovery, session: DiscoverySession) -> None:
    names = found.watch_services()
    assert await following(names) == ()
    session.fail(AuthenticationFailed("digest", "127.0.0.1:2181"))
    with pytest.raises(SessionFailed):
        await following(names)


async def test_names_that_may_not_be_read(found: Discovery, service: Service, session: DiscoverySession) -> None:
    session.unreadable.add(BASE)
    with pytest.raises(NoAuth):
        await found.services()
    with pytest.raises(NoAuth):
        await following(found.watch_services())


@pytest.mark.parametrize("begun", [True, False])
async def test_the_task_that_follows_names_cancelled_from_outside(
    found: Discovery, service: Service, begun: bool
) -> None:
    names = found.watch_services()
    if begun:
        await following(names)
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == f"aioregistry follows {BASE}"]
    task.cancel()
    with pytest.raises(RegistryError, match="from outside"):
        await following(names)
    assert await following(found.watch_services()) == ("chat",)  # the next one begins anew


@pytest.mark.parametrize("away", ["disconnected", "silent"])
async def test_syncs_that_are_given_up_in_an_outage_leave_nothing(
    found: Discovery, session: DiscoverySession, service: Service, away: str
) -> None:
    def futures() -> int:
        gc.collect()
        return sum(isinstance(each, asyncio.Future) for each in gc.get_objects())

    async with found.view("chat") as view:
        if away == "disconnected":
            session.disconnect()
        session.silent = session.connected
        before = futures()
        for _ in range(300):
            with pytest.raises(RequestTimeout):
                await view.sync(timeout=0.0001)
        assert futures() < before + 30
        if session.connected:
            session.disconnect()
        session.connect()
        await view.sync(DEADLINE)


# ---------------------------------------------------------------- who is told, and when


async def test_balancers_are_told_before_streams_and_those_before_the_file(
    found: Discovery, service: Service, session: DiscoverySession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that a stream wakes may pick at once; and the file has what all others were told."""
    told: list[str] = []

    def noted(kind: type[Any], method: str, word: str) -> None:
        original = getattr(kind, method)

        def noting(self: Any, *given: Any) -> Any:
            told.append(word)
            return original(self, *given)

        monkeypatch.setattr(kind, method, noting)

    noted(BalancerDriver, "take", "balancer")
    noted(Changes, "_offer", "changes")
    noted(subscriptions.SnapshotStream, "_offer", "snapshots")
    noted(Keeper, "changed", "file")
    async with found.view("chat", keep=tmp_path / "chat.kept") as view:
        balancer = view.balancer()
        async with view.snapshots(), view.changes():
            told.clear()
            service.add("a")
            await until(lambda: "a" in view.snapshot)
            assert told == ["balancer", "changes", "snapshots", "file"]
            told.clear()
            session.disconnect()
            session.connect()
            await until(lambda: view.fresh)
            assert told == ["snapshots", "file", "balancer", "changes", "snapshots", "file", "snapshots"]
            assert balancer.pick().id == "a"


async def test_whoever_wakes_by_a_stream_picks_by_the_same_news(found: Discovery, service: Service) -> None:
    async with found.view("chat") as view:
        balancer = view.balancer()
        picked: list[str] = []

        async def pick_after_each_change(changes: Changes[Any]) -> None:
            async for change in changes:
                assert isinstance(change, Added)
                picked.append(balancer.pick().id)

        async with view.changes() as changes:
            picking = asyncio.create_task(pick_after_each_change(changes))
            service.add("a")
            await until(lambda: picked == ["a"])
        await picking
