"""Suspects of views: shown, told, counted, timed and let go, on a session in memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from aioregistry import Ejection, Guard, InvalidArgument, NoInstances, OwnZone, Resynced, RoundRobin
from aioregistry._concurrency import Alarm
from aioregistry._discovery import Discovery, View, subscriptions, view_driver
from aioregistry._discovery.view import driver_of
from aioregistry._markers import marker_name, marker_prefix
from aioregistry._protocol import AclEntry, AddWatch, Create, Delete, Multi, SetData
from aioregistry._registration.transactions import target_of, withdrawal
from tests.discovery.scene import BASE, CHAT, DiscoverySession, Service, discovery, refuse_twice, taken
from tests.support.checkers import OrderedConsumer, check_converged, check_guarded
from tests.support.fake_session import FakeRuntime, quiet, until
from tests.support.model_tree import ModelTree

DEADLINE = 100.0
IDS = [f"n{number}" for number in range(10)]
LONG, SHORT = Guard(hold=300), Guard(hold=0.05)
MARKERS = f"{BASE}-withdrawn"


@pytest.fixture
def service(tree: ModelTree) -> Service:
    tree.make(MARKERS)
    service = Service(tree)
    service.fill(IDS, {"zone": "eu"})
    return service


def withdraw(service: Service, id: str) -> None:
    node = service.tree.nodes[f"{CHAT}/{id}"]
    target = target_of(BASE, "chat", id, ())
    service.tree.apply(0, withdrawal(target, node.version, node.czxid, marked=True))


def withdraw_together(service: Service, ids: Iterable[str]) -> None:
    for id in ids:
        withdraw(service, id)


def alarm_of(view: View[Any]) -> Alarm:
    """The timer by which a view lets suspects go."""
    return driver_of(view)._alarm


def remove(service: Service, ids: Iterable[str]) -> None:
    for id in ids:
        service.remove(id)


async def expire_all_while_away(service: Service, session: DiscoverySession) -> None:
    session.disconnect()
    remove(service, service.held())
    session.connect()
    await quiet()


def check(view: View[Any], service: Service) -> None:
    snapshot = view.snapshot
    confirmed = snapshot.confirmed.entries
    check_converged(
        seen={id: (entry.czxid, entry.mzxid) for id, entry in confirmed.items()},
        held={id: node for id, node in service.held().items() if id not in snapshot.invalid},
    )
    suspects = dict.fromkeys(snapshot.suspects, 0.0)
    check_guarded(suspects=suspects, holds=dict.fromkeys(suspects, 300.0), listed=service.held())
    assert len(snapshot) == len(confirmed) + len(suspects)


def events(session: DiscoverySession, name: str) -> list[dict[str, Any]]:
    return [fields for event, fields in session.emitted if event == name]


# ---------------------------------------------------------------- held and let go


async def test_an_outage_after_which_all_come_back(
    found: Discovery, service: Service, session: DiscoverySession, caplog: pytest.LogCaptureFixture
) -> None:
    async with found.view("chat", guard=LONG) as view, view.changes() as changes:
        consumer = OrderedConsumer(changes.start.entries)
        with caplog.at_level(logging.WARNING):
            await expire_all_while_away(service, session)
        assert list(view.snapshot) == IDS
        assert list(view.snapshot.suspects) == IDS
        assert view.snapshot.confirmed == {}
        check(view, service)
        [resynced] = taken(changes)
        assert isinstance(resynced, Resynced)
        assert (len(resynced.updated), resynced.removed) == (10, ())
        assert events(session, "discovery.held") == [
            {"service": "chat", "id": id, "reason": "disruption"} for id in IDS
        ]
        assert "chat: 10 held back, for disruption: n0, n1" in caplog.text
        assert repr(view).startswith("<View chat: 10 instances (10 suspect), fresh")
        assert repr(view).endswith(", 10 held so far>")
        assert "10 instances (10 suspect)" in repr(view.snapshot)

        for id in IDS:
            service.add(id, "new")
        await quiet()
        assert view.snapshot.suspects == {}
        assert view.snapshot.confirmed is view.snapshot
        assert {instance.payload for instance in view.snapshot.values()} == {"new"}
        assert view.held_total == 10
        assert {(each["id"], each["why"]) for each in events(session, "discovery.released")} == {
            (id, "came back") for id in IDS
        }
        for change in [resynced, *taken(changes)]:
            consumer.apply(change)
        consumer.check(view.snapshot.entries)
        check(view, service)


async def test_a_hold_that_ends_wakes_whoever_follows(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=SHORT) as view, view.changes() as changes:
        await expire_all_while_away(service, session)
        snapshot = await view.wait_for(lambda snapshot: not snapshot, timeout=DEADLINE)
        assert snapshot == {}
        resynced, *removals = taken(changes)
        assert isinstance(resynced, Resynced)
        assert [type(each).__name__ for each in removals] == ["Removed"] * 10
        assert view.held_total == 10
        check(view, service)


async def test_an_outage_during_a_hold_moves_its_end(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view, view.changes() as changes:
        await expire_all_while_away(service, session)
        service.add("n0")
        before = view.snapshot.suspects["n1"]
        session.disconnect()
        await quiet()
        session.connect()
        await until(lambda: view.fresh)
        after = view.snapshot.suspects["n1"]
        assert (after.since, after.reason) == (before.since, before.reason)
        assert after is not before  # by the clocks: what was left is left
        assert after.until == pytest.approx(before.until, abs=DEADLINE)
        consumer = OrderedConsumer(changes.start.entries)
        for change in taken(changes):
            consumer.apply(change)
        consumer.check(view.snapshot.entries)


async def test_a_process_that_was_stopped_believes_no_hold_to_be_over_before_it_has_looked(
    found: Discovery, service: Service, session: DiscoverySession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its timers run first: before the end of the connection is seen, and everybody who came back meanwhile."""
    runtime = session.runtime
    assert isinstance(runtime, FakeRuntime)
    async with found.view("chat", guard=LONG) as view, view.changes() as changes:
        await expire_all_while_away(service, session)
        assert taken(changes)
        now = runtime.monotonic() + 1000  # longer than the hold, and the session timeout
        monkeypatch.setattr(runtime, "monotonic", lambda: now)
        driver_of(view)._due()
        assert (sorted(view.snapshot.suspects), view.fresh, taken(changes)) == (IDS, False, [])
        session.disconnect()
        for id in IDS:
            service.add(id, "new")
        session.connect()
        await until(lambda: view.fresh)
        assert view.snapshot.suspects == {}
        assert {each["why"] for each in events(session, "discovery.released")} == {"came back"}


async def test_a_quorum_that_was_silent_for_a_while_stops_the_clock(
    found: Discovery, service: Service, session: DiscoverySession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with found.view("chat", guard=LONG) as view, view.changes() as changes:
        remove(service, IDS[:5])
        await quiet()
        assert len(view.snapshot.suspects) == 5
        assert taken(changes)
        driver = driver_of(view)
        monkeypatch.setattr(view_driver.ViewDriver, "fresh", False)
        driver.freshness_changed()
        assert alarm_of(view).when is None
        await asyncio.sleep(0.01)
        monkeypatch.setattr(view_driver.ViewDriver, "fresh", True)
        driver.freshness_changed()
        assert [type(each).__name__ for each in taken(changes)] == ["Updated"] * 5
        assert alarm_of(view).when is not None


async def test_a_view_without_a_guard_believes_everything(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat") as view:
        assert [each for each in session.served if isinstance(each, AddWatch)] == [AddWatch(CHAT)]
        await expire_all_while_away(service, session)
        assert view.snapshot == {}
        assert view.held_total == 0
        assert not view.report_failed("n0")


async def test_guarded_and_unguarded_views_share_one_mirror(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat") as plain, found.view("chat", guard=LONG) as guarded:
        await expire_all_while_away(service, session)
        assert (len(plain.snapshot), len(guarded.snapshot)) == (0, 10)
        assert events(session, "discovery.synced")[-1]["instances"] == 0


class Meta(msgspec.Struct, frozen=True):
    zone: str


async def test_typed_views_hold_what_they_converted(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", payload_type=Meta, guard=LONG) as view:
        await expire_all_while_away(service, session)
        assert {instance.payload for instance in view.snapshot.values()} == {Meta("eu")}
        service.add("n0", {"zone": "us"})
        service.add("n1", {"zone": 7})
        service.add("n2", data=b"{}")
        await quiet()
        assert view.snapshot["n0"].payload == Meta("us")
        assert sorted(view.snapshot.invalid) == ["n1", "n2"]
        assert sorted(view.snapshot.suspects) == IDS[3:]
        assert {each["id"]: each["why"] for each in events(session, "discovery.released")} == {
            "n0": "came back",
            "n1": "invalid",
            "n2": "invalid",
        }
        check(view, service)


async def test_overwritten_nodes_are_no_removals(found: Discovery, service: Service) -> None:
    async with found.view("chat", guard=LONG) as view:
        for id in IDS:
            service.set(id, data=b"garbage")
        await quiet()
        assert view.snapshot == {}
        assert sorted(view.snapshot.invalid) == IDS


async def test_a_consumer_that_lags_gets_the_true_differences(
    found: Discovery, service: Service, session: DiscoverySession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "CHANGES_KEPT", 3)
    async with found.view("chat", guard=LONG) as chat, chat.changes() as changes:
        consumer = OrderedConsumer(changes.start.entries)
        for id in IDS[:8]:
            service.remove(id)
            await quiet()
        service.add("n0", "new")
        await quiet()
        assert refuse_twice(chat, "n1")
        [resynced] = taken(changes)
        consumer.apply(resynced)
        consumer.check(chat.snapshot.entries)
        assert sorted(chat.snapshot.suspects) == IDS[2:8]


async def test_a_mass_departure_that_trickles_is_few_lines(
    found: Discovery, service: Service, session: DiscoverySession, caplog: pytest.LogCaptureFixture
) -> None:
    many = [f"m{number}" for number in range(60)]
    service.fill(many)
    with caplog.at_level(logging.INFO, "aioregistry.discovery"):
        async with found.view("chat", guard=LONG) as view:
            await expire_all_while_away(service, session)
            for id in [*IDS, *many]:
                service.add(id)
                await quiet()
            for id in many:
                service.remove(id)
                await quiet()
            assert len(view.snapshot.suspects) == len(many)
    for word in ("held back", "no longer suspect"):
        lines = [record.getMessage() for record in caplog.records if word in record.getMessage()]
        assert 2 <= len(lines) <= 10, lines  # the first, counts at most once a second, the summary
    assert len(events(session, "discovery.held")) == len(IDS) + 2 * len(many)


# ---------------------------------------------------------------- markers


async def test_a_mass_withdrawal_is_not_held(found: Discovery, service: Service, session: DiscoverySession) -> None:
    async with found.view("chat", guard=LONG) as view:
        armed = [each.path for each in session.served if isinstance(each, AddWatch)]
        assert list(dict.fromkeys(armed)) == [MARKERS, CHAT]
        for id in IDS:
            withdraw(service, id)
        await quiet()
        assert view.snapshot == {}
        assert view.held_total == 0


async def test_a_withdrawal_that_was_read_by_the_resync_is_not_held(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    """Between the watches and the first read: the fake server answers one after the other."""
    async with found.view("chat", guard=LONG) as view:
        session.disconnect()
        session.connect()
        while CHAT not in session.armed_trees:
            await asyncio.sleep(0)
        for id in IDS:
            withdraw(service, id)
        await quiet()
        assert view.snapshot == {}


async def test_who_was_away_cannot_know_and_holds(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view:
        session.disconnect()
        for id in IDS[:4]:
            withdraw(service, id)
        session.connect()
        await quiet()
        assert sorted(view.snapshot.suspects) == IDS[:4]


async def test_a_suspect_that_came_back_unseen_and_withdrew_is_let_go(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view:
        await expire_all_while_away(service, session)
        service.add("n0")
        withdraw(service, "n0")
        await quiet()
        assert sorted(view.snapshot.suspects) == IDS[1:]


async def test_the_second_guarded_view_arms_the_watch_that_the_first_view_did_without(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat"):
        assert MARKERS not in session.armed_trees
        async with found.view("chat", guard=LONG) as view:
            assert MARKERS in session.armed_trees
            for id in IDS:
                withdraw(service, id)
            await quiet()
            assert view.held_total == 0
        assert MARKERS not in session.armed_trees


@pytest.mark.parametrize("strategy", ["auto", "one-shot"])
async def test_without_recursive_watches_withdrawals_are_held_unless_disabled_first(
    strategy: Any, service: Service, session: DiscoverySession
) -> None:
    session.knows_no_trees = True
    found = discovery(session, strategy)
    async with found.view("chat", guard=LONG) as view:
        for id in IDS[:5]:
            withdraw(service, id)
        await quiet()
        assert sorted(view.snapshot.suspects) == IDS[:5]
    await found.aclose()
    assert session.watches.in_use == []


async def test_whatever_lies_among_the_markers_costs_nothing(found: Discovery, service: Service) -> None:
    async with found.view("chat", guard=LONG) as view:
        for name in ("x", "a:b", "chat:n0:zz", "a:b:c:d", "%ff:%ff:1", "mail:n0:ffffffffff"):
            path = f"{MARKERS}/{name}"
            service.tree.apply(0, Multi([Create(path, b""), Delete(path)]))
        await quiet()
        remove(service, IDS[:5])
        await quiet()
        assert sorted(view.snapshot.suspects) == IDS[:5]


OURS = AclEntry(31, "digest", "chat:aGFzaA=")
OPEN = AclEntry(31, "world", "anyone")


def forge(service: Service, id: str) -> None:
    """A marker as it is written, by itself."""
    czxid = service.tree.nodes[f"{CHAT}/{id}"].czxid
    marker = f"{MARKERS}/{marker_name(marker_prefix('chat', id), czxid)}"
    service.tree.apply(0, Multi([Create(marker, b""), Delete(marker)]))


async def test_markers_alone_are_no_withdrawals(found: Discovery, service: Service, session: DiscoverySession) -> None:
    """A stranger copies the text and deletes what he made, whenever he likes."""
    async with found.view("chat", guard=LONG) as view:
        for id in IDS:
            forge(service, id)
        await quiet()
        for id in IDS[::-1]:
            forge(service, id)
        await quiet()  # an answer came in between
        remove(service, IDS)
        await quiet()
        assert sorted(view.snapshot.suspects) == sorted(IDS)
        for id in IDS[:5]:
            service.add(id)
        await quiet()
        for id in IDS[:5]:
            forge(service, id)
        await quiet()
        assert sorted(view.snapshot.suspects) == IDS[5:]


@pytest.mark.parametrize("root", [OPEN, AclEntry(4, "world", "anyone"), AclEntry(31, "digest", "chat:x")])
async def test_markers_in_a_root_of_strangers_are_not_believed_and_a_warning_says_so(
    found: Discovery,
    service: Service,
    session: DiscoverySession,
    caplog: pytest.LogCaptureFixture,
    root: AclEntry,
) -> None:
    session.acls |= {MARKERS: [OURS, root], CHAT: [OURS]}
    async with found.view("chat", guard=LONG) as view:
        for id in IDS:
            withdraw(service, id)
        await quiet()
        assert sorted(view.snapshot.suspects) == sorted(IDS)
    [line, *counted] = [each.getMessage() for each in caplog.records if "not proven by its marker" in each.getMessage()]
    assert f"{root.scheme}:{root.id}" in line
    assert len(counted) <= 1
    assert len([name for name, _ in session.emitted if name == "discovery.marker_refused"]) == len(IDS)


async def test_markers_in_a_root_like_the_services_are_believed(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    session.acls |= {MARKERS: [OURS], CHAT: [OURS, AclEntry(1, "world", "anyone")]}
    async with found.view("chat", guard=LONG) as view:
        for id in IDS:
            withdraw(service, id)
        await quiet()
        assert view.snapshot == {}
        assert view.held_total == 0


async def test_the_last_to_leave_are_believed_where_the_service_is_reaped_before_its_acl_is_read(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    session.acls |= {MARKERS: [OURS], CHAT: [OURS]}
    async with found.view("chat", guard=LONG) as view:
        withdraw_together(service, IDS)
        service.tree.delete(CHAT)
        await quiet()
        assert view.snapshot == {}
        assert view.held_total == 0


async def test_a_root_that_was_changed_is_believed_from_the_next_marker_on(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    """It was open for a moment, perhaps: nobody is told of a changed ACL."""
    async with found.view("chat", guard=LONG) as view:
        session.aversions[MARKERS] = 2
        withdraw_together(service, IDS[:4])
        await quiet()
        assert sorted(view.snapshot.suspects) == IDS[:4]
        withdraw_together(service, IDS[4:])
        await quiet()
        assert sorted(view.snapshot) == IDS[:4]


async def test_a_root_that_is_made_anew_is_looked_at(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view:
        service.tree.delete(MARKERS)
        service.tree.make(MARKERS)
        await quiet()
        withdraw_together(service, IDS)
        await quiet()
        assert view.snapshot == {}


async def test_a_marker_of_a_node_that_nobody_has_made_yet_is_not_believed(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view:
        for id in IDS:
            marker, node = f"{MARKERS}/{marker_name(marker_prefix('chat', id), 2**63 - 1)}", f"{CHAT}/{id}"
            service.tree.apply(0, Multi([Create(marker, b""), Delete(marker), SetData(node, b""), Delete(node)]))
        await quiet()
        assert sorted(view.snapshot.suspects) == sorted(IDS)


async def test_who_deletes_without_writing_first_is_not_believed_and_a_warning_says_so(
    found: Discovery, service: Service, session: DiscoverySession, caplog: pytest.LogCaptureFixture
) -> None:
    """The parent's ACL lets him delete; whether he may write the node nobody can tell."""
    async with found.view("chat", guard=LONG) as view:
        for id in IDS:
            node = f"{CHAT}/{id}"
            marker = f"{MARKERS}/{marker_name(marker_prefix('chat', id), service.tree.nodes[node].czxid)}"
            service.tree.apply(0, Multi([Create(marker, b""), Delete(marker), Delete(node)]))
        await quiet()
        assert sorted(view.snapshot.suspects) == sorted(IDS)
    assert [record for record in caplog.records if "did not write it" in record.getMessage()]
    refused = [fields for name, fields in session.emitted if name == "discovery.marker_refused"]
    assert [fields["id"] for fields in refused] == IDS
    assert all("did not write it" in str(fields["reason"]) for fields in refused)


async def test_a_withdrawal_costs_no_read_more_than_a_deletion(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view:
        before = len(session.served)
        withdraw(service, "n0")
        await quiet()
        assert "n0" not in view.snapshot
        asked = [type(each).__name__ for each in session.served[before:]]
        assert sorted(asked) == ["GetAcl", "GetAcl", "GetData"]


# ---------------------------------------------------------------- reports and picks


def caused(by: Exception) -> Exception:
    """As clients of HTTP raise it: their own error, with the reason behind it, in a group perhaps."""
    error = RuntimeError("the request failed")
    error.__cause__ = ExceptionGroup("all attempts failed", [TimeoutError(), by])
    return error


@pytest.mark.parametrize("ejection", [None, Ejection()])
@pytest.mark.parametrize("error", [TimeoutError(), OSError("broken"), caused(TimeoutError())])
async def test_failures_of_calls_drop_no_suspect(
    found: Discovery, service: Service, session: DiscoverySession, ejection: Ejection | None, error: Exception
) -> None:
    async with found.view("chat", guard=LONG) as view:
        balancer = view.balancer(ejection=ejection)
        await expire_all_while_away(service, session)
        for _ in range(60):
            with pytest.raises(type(error)), balancer.pick():
                raise error
            balancer.pick().succeeded()
        assert sorted(view.snapshot) == IDS
        assert len(balancer.set_aside) <= len(IDS) / 2


@pytest.mark.parametrize("error", [ConnectionRefusedError(), caused(ConnectionRefusedError())])
async def test_a_suspect_that_refuses_two_calls_is_dropped(
    found: Discovery, service: Service, session: DiscoverySession, error: Exception
) -> None:
    async with found.view("chat", guard=LONG) as view:
        balancer = view.balancer()
        await expire_all_while_away(service, session)
        refusing = view.balancer(where=lambda instance: instance.id == "n4")
        for listed in (10, 9):
            with pytest.raises(type(error)), refusing.pick():
                raise error
            assert len(view.snapshot) == listed
            if listed == 10:
                for _ in range(2):
                    balancer.pick().succeeded()
        assert "n4" not in view.snapshot
        assert [each["why"] for each in events(session, "discovery.released")] == ["failed"]
        late = balancer.pick()
    late.failed()


async def test_a_reported_failure_drops_nobody_by_itself(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view:
        await expire_all_while_away(service, session)
        service.add("n0")
        await quiet()
        assert [view.report_failed(id) for id in ("n0", "n1", "n1", "other")] == [False] * 4
        assert refuse_twice(view, "n1")
        assert not refuse_twice(view, "n0")  # it is listed
        assert sorted(view.snapshot) == ["n0", *IDS[2:]]
        wrong: Any = 7
        with pytest.raises(InvalidArgument, match="id=7"):
            view.report_failed(wrong)
        with pytest.raises(InvalidArgument, match="error=7"):
            view.report_failed("n1", wrong)


async def test_who_refused_calls_before_its_session_ended_is_not_held(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view:
        balancer = view.balancer("round-robin")
        for _ in range(3):
            for _ in range(len(IDS)):
                pick = balancer.pick()
                if pick.id in IDS[:4]:
                    pick.failed(ConnectionRefusedError())
                else:
                    pick.succeeded()
            await asyncio.sleep(0.002)  # two moments, on whatever clock
        await expire_all_while_away(service, session)
        assert sorted(view.snapshot.suspects) == IDS[4:]


async def test_the_first_to_come_back_shares_the_picks_with_suspects(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view:
        balancer, never_panics = view.balancer(), view.balancer(panic=0)
        await expire_all_while_away(service, session)
        balancer.pick().succeeded()
        never_panics.pick().succeeded()
        assert (balancer.in_panic, never_panics.in_panic) == (True, False)
        for id in IDS[:4]:
            service.add(id)
        await quiet()
        assert sorted(balancer.pick().id for _ in IDS) == IDS
        assert {never_panics.pick().id for _ in IDS} == set(IDS[:4])
        service.add("n4")
        await quiet()
        assert not balancer.in_panic
        assert sorted(balancer.pick().id for _ in range(5)) == IDS[:5]
        assert [each["panic"] for each in events(session, "discovery.panic")] == [True, False]


async def test_what_a_filter_leaves_is_guarded_as_a_service(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view:
        mine = view.balancer(where=lambda instance: instance.id in ("n0", "n1"))
        nearby = view.balancer(OwnZone("us", RoundRobin()))
        for id in ("n2", "n3"):
            service.set(id, {"zone": "us"})
        await quiet()
        for id in IDS[:4]:
            service.remove(id)
        await quiet()
        assert sorted(view.snapshot.suspects) == IDS[:4]
        assert {mine.pick().id for _ in IDS} == {"n0", "n1"}
        assert len(nearby.set_aside) == 0


async def test_suspects_are_picked_as_the_caller_chooses(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view:
        last, never, equal = (view.balancer(suspects=way) for way in ("last", "never", "equal"))
        await expire_all_while_away(service, session)
        assert {last.pick().id for _ in range(20)} == {equal.pick().id for _ in range(20)} == set(IDS)
        with pytest.raises(NoInstances, match="all 10 are suspect") as caught:
            never.pick()
        assert (caught.value.reason, caught.value.counts) == ("suspect", {"suspect": 10})
        service.add("n3")
        await quiet()
        last = view.balancer(suspects="last", panic=0)
        assert {last.pick().id for _ in range(20)} == {never.pick().id for _ in range(20)} == {"n3"}
        assert {equal.pick().id for _ in range(20)} == set(IDS)
        late = view.balancer(suspects="never")
        assert late.pick().id == "n3"
        wrong: Any
        for wrong in ("first", None, 1, ["last"]):
            with pytest.raises(InvalidArgument, match="suspects="):
                view.balancer(suspects=wrong)


@pytest.mark.parametrize("wrong", [True, 30, "on", Guard])
async def test_a_guard_that_is_none_is_refused(found: Discovery, wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match="guard="):
        _ = found.view("chat", guard=wrong)


# ---------------------------------------------------------------- endings


async def test_a_closed_view_leaves_no_timer(found: Discovery, service: Service, session: DiscoverySession) -> None:
    async with found.view("chat", guard=LONG) as view:
        await expire_all_while_away(service, session)
        alarm = alarm_of(view)
        assert alarm.when is not None
    assert alarm.when is None


@pytest.mark.filterwarnings("ignore:View of 'chat' was never closed:ResourceWarning")
async def test_a_timer_keeps_no_view_that_was_dropped(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    view: View[Any] = await found.view("chat", guard=LONG)
    await expire_all_while_away(service, session)
    assert alarm_of(view).when is not None
    gone, driver_gone = weakref.ref(view), weakref.ref(driver_of(view))
    del view
    gc.collect()
    assert gone() is None
    assert driver_gone() is None
    view_driver._wake(driver_gone)  # as the timer does: nobody is told
    found.departures.release()  # what the view would have done


async def test_a_call_that_ends_after_its_view_sets_no_timer(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    async with found.view("chat", guard=LONG) as view:
        pick = view.balancer().pick()
        await expire_all_while_away(service, session)
        assert alarm_of(view).when is not None
    pick.failed(ConnectionRefusedError())
    assert alarm_of(view).when is None


async def test_a_cancelled_entering_leaves_nothing(found: Discovery, session: DiscoverySession) -> None:
    session.silent = True
    entering = asyncio.ensure_future(found.view("chat", guard=LONG).__aenter__())
    await quiet()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        _ = await entering
