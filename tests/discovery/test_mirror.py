"""The mirror against a reference tree, under whatever order of events, answers, cuts and roll-backs."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aioregistry._bounds import LATEST
from aioregistry._discovery.mirror import SERVICE, FindService, ListNames, Mirror, News, Question, ReadNodes
from aioregistry._discovery.nodes import decoded
from aioregistry._discovery.pace import Pace
from aioregistry._document import encode
from aioregistry._errors import NoAuth, NoNode
from aioregistry._model import Added, Entry, Invalid, Removed, Resynced, ServiceInstance, Snapshot, Updated
from aioregistry._protocol import EventKind, Stat
from tests.support.checkers import OrderedConsumer, check_converged

ALICE = 0x1_0000_0000_0000_0001
BOB = 0x1_0000_0000_0000_0002


def document(name: str, payload: object = None) -> bytes:
    return encode(ServiceInstance("chat", id=name, address="10.0.0.7", payload=payload))


def stat(czxid: int, mzxid: int | None = None, owner: int = ALICE) -> Stat:
    mzxid = czxid if mzxid is None else mzxid
    return Stat(czxid, mzxid, czxid * 1000, mzxid * 1000, int(mzxid != czxid), 0, 0, owner, 0, 0, czxid)


# ---------------------------------------------------------------- one thing at a time


def synced(nodes: dict[str, tuple[bytes, Stat]], *, zxid: int = 10, one_shot: bool = False) -> Mirror:
    mirror = Mirror("chat")
    mirror.connected(one_shot=one_shot, history=0)
    resync(mirror, nodes, zxid)
    return mirror


def resync(mirror: Mirror, nodes: dict[str, tuple[bytes, Stat]], zxid: int) -> News:
    assert isinstance(mirror.ask(100), ListNames)
    mirror.listed(list(nodes), zxid)
    while (question := mirror.ask(1)) is not None:
        assert isinstance(question, ReadNodes)
        mirror.observed(question, [nodes[name] for name in question.names], zxid)
    assert mirror.synced
    news = mirror.take_news()
    assert news is not None
    return news


def read(mirror: Mirror, *observations: Any, zxid: int) -> None:
    question = mirror.ask(100)
    assert isinstance(question, ReadNodes)
    mirror.observed(question, observations, zxid)


def read_one(mirror: Mirror, observation: Any, *, zxid: int) -> None:
    question = mirror.ask(1)
    assert isinstance(question, ReadNodes)
    mirror.observed(question, [observation], zxid)


def changes(mirror: Mirror) -> list[Any]:
    news = mirror.take_news()
    return [] if news is None else list(news.changes)


def test_the_first_sync_shows_everything_and_tells_no_difference() -> None:
    mirror = Mirror("chat")
    mirror.connected(one_shot=False, history=0)
    news = resync(mirror, {"a": (document("a"), stat(3)), "b": (b"{}", stat(4))}, zxid=9)
    assert news.resynced
    assert news.changes == ()
    assert [invalid.id for invalid in news.invalid] == ["b"]
    assert mirror.as_of == 9
    entry = mirror.entries["a"]
    assert (entry.owner, entry.czxid, entry.mzxid, entry.version) == (ALICE, 3, 3, 0)
    assert (entry.created, entry.modified) == (3.0, 3.0)


def test_nothing_is_visible_before_everything_was_read() -> None:
    mirror = Mirror("chat")
    assert (mirror.as_of, mirror.synced, mirror.entries, mirror.invalid) == (0, False, {}, {})
    mirror.connected(one_shot=False, history=0)
    mirror.ask(100)
    mirror.listed(["a", "b"], 9)
    question = mirror.ask(1)
    assert isinstance(question, ReadNodes)
    mirror.observed(question, [(document("a"), stat(3))], 9)
    assert not mirror.synced
    assert (mirror.entries, mirror.take_news()) == ({}, None)


def test_a_takeover_is_one_update() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.event(EventKind.DELETED, "a")
    mirror.event(EventKind.CREATED, "a")
    read(mirror, (document("a"), stat(11, owner=BOB)), zxid=11)
    [update] = changes(mirror)
    assert isinstance(update, Updated)
    assert (update.previous_entry.owner, update.entry.owner) == (ALICE, BOB)
    assert mirror.ask(100) is None


def test_a_deleted_node_is_removed_by_the_reading_not_by_the_event() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.event(EventKind.DELETED, "a")
    assert "a" in mirror.entries
    read(mirror, NoNode("/services/chat/a"), zxid=11)
    [removal] = changes(mirror)
    assert isinstance(removal, Removed)
    assert removal.entry.czxid == 3
    assert mirror.entries == {}


def test_an_event_without_a_change_tells_nothing() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.event(EventKind.DATA_CHANGED, "a")
    read(mirror, (document("a"), stat(3)), zxid=12)
    assert mirror.take_news() is None
    assert mirror.as_of == 12


def test_an_event_before_the_first_connection_asks_for_nothing() -> None:
    mirror = Mirror("chat")
    mirror.event(EventKind.CREATED, "a")
    assert mirror.ask(100) is None


@pytest.mark.parametrize("kind", EventKind)
def test_only_an_event_that_can_mean_a_change_asks_for_anything(kind: EventKind) -> None:
    """A recursive watch tells of the children of instances, too."""
    for name, meant in (
        ("a", {EventKind.CREATED, EventKind.DELETED, EventKind.DATA_CHANGED}),
        (SERVICE, {EventKind.CREATED, EventKind.DELETED, EventKind.CHILDREN_CHANGED}),
    ):
        mirror = synced({"a": (document("a"), stat(5))})
        mirror.event(kind, name)
        assert (mirror.ask(9) is not None) is (kind in meant)


def test_a_list_that_was_refused_is_asked_for_again() -> None:
    mirror = Mirror("chat")
    mirror.connected(one_shot=False, history=0)
    question = mirror.ask(9)
    assert isinstance(question, ListNames)
    assert mirror.ask(9) is None
    mirror.refused(question)
    assert mirror.ask(9) == question


def test_what_an_event_had_asked_for_is_not_missed_when_a_look_finds_it() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.event(EventKind.DATA_CHANGED, "a")
    mirror.look_at_everything()
    assert isinstance(mirror.ask(100), ListNames)
    mirror.listed(["a"], 11)
    read(mirror, (document("a", payload=1), stat(3, 11)), zxid=11)
    news = mirror.take_news()
    assert news is not None
    assert ([type(change) for change in news.changes], news.missed) == ([Updated], ())


def test_a_look_that_was_answered_makes_nothing_later_a_miss() -> None:
    mirror = synced({"a": (document("a"), stat(3))}, one_shot=True)
    mirror.look_at_everything()
    assert isinstance(mirror.ask(100), ListNames)
    mirror.listed(["a"], 11)
    read(mirror, (document("a"), stat(3)), zxid=11)
    for names, zxid in (([], 12), (["a"], 13)):
        mirror.event(EventKind.CHILDREN_CHANGED, SERVICE)
        assert isinstance(mirror.ask(100), ListNames)
        mirror.listed(names, zxid)
    read(mirror, (document("a"), stat(13)), zxid=13)
    news = mirror.take_news()
    assert news is not None
    assert ([type(change) for change in news.changes], news.missed) == ([Removed, Added], ())


@pytest.mark.parametrize("other", [stat(3, owner=BOB), stat(3)._replace(ctime=99_000)], ids=["owner", "birth"])
def test_a_node_of_another_history_has_another_owner_or_was_born_at_another_time(other: Stat) -> None:
    """Nothing proves that the history was lost where the new one has overtaken what was seen of the old."""
    mirror = Mirror("chat")
    mirror.connected(one_shot=False, history=0)
    resync(mirror, {"a": (document("a"), stat(3))}, zxid=9)
    mirror.disconnected()
    mirror.connected(one_shot=False, history=0)
    news = resync(mirror, {"a": (document("a", payload="new"), other)}, zxid=12)
    assert [(type(change), change.instance.payload) for change in news.changes] == [(Updated, "new")]
    assert mirror.entries["a"].owner == other.ephemeral_owner


@pytest.mark.parametrize(("given", "taken"), [(-1, 0.0), (-(2**63), 0.0), (2**63 - 1, LATEST), (1500, 1.5)])
def test_times_of_nodes_are_those_of_a_calendar(given: int, taken: float) -> None:
    seen = stat(3)._replace(ctime=given, mtime=given, mzxid=4)
    mirror = synced({"a": (document("a"), seen)})
    assert (mirror.entries["a"].created, mirror.entries["a"].modified) == (taken, taken)
    mirror.event(EventKind.DATA_CHANGED, "a")
    read(mirror, (document("a"), seen), zxid=12)
    assert mirror.take_news() is None


def test_a_node_that_was_never_changed_keeps_its_zxid_and_its_time_once() -> None:
    """An instance in memory is smaller by two objects."""
    twice = [int(f"{5 << 32}") for _ in range(2)]
    node = decoded("chat", "a", document("a"), stat(*twice))
    assert isinstance(node, Entry)
    assert node.mzxid is node.czxid
    assert node.modified is node.created


def test_versions_are_no_identity() -> None:
    mirror = synced({"a": (document("a", "old"), stat(3))})
    mirror.event(EventKind.CREATED, "a")
    read(mirror, (document("a", "new"), stat(11)), zxid=11)
    assert [change.entry.version for change in changes(mirror)] == [0]
    assert mirror.entries["a"].instance.payload == "new"


def test_an_event_during_a_reading_has_the_node_read_again() -> None:
    mirror = synced({"a": (document("a", 1), stat(3))})
    mirror.event(EventKind.DATA_CHANGED, "a")
    question = mirror.ask(100)
    mirror.event(EventKind.DATA_CHANGED, "a")
    assert mirror.ask(100) is None  # one reading of a node at a time
    assert isinstance(question, ReadNodes)
    mirror.observed(question, [(document("a", 2), stat(3, 11))], 11)
    read(mirror, (document("a", 3), stat(3, 12)), zxid=12)
    assert [change.instance.payload for change in changes(mirror)] == [2, 3]


@pytest.mark.parametrize("begun_first", [False, True])
def test_the_beginning_of_an_epoch_makes_no_answer_an_older_one(begun_first: bool) -> None:
    last, begun = 0x1_0000_000E, 0x2_0000_0000
    nodes = {"a": (document("a"), stat(0x1_0000_000D))}
    at = [begun, last] if begun_first else [last, begun, last]
    mirror = synced(nodes, zxid=at.pop(0))
    known = mirror.as_of
    for zxid in at:  # the leader tells that it has begun, a follower of the same state does not
        mirror.disconnected()
        mirror.connected(one_shot=False, history=0)
        resync(mirror, nodes, zxid)
        assert mirror.as_of == known
    mirror.disconnected()
    mirror.connected(one_shot=False, history=0)
    resync(mirror, {"b": (document("b"), stat(begun + 1))}, begun + 1)
    assert mirror.as_of == begun + 1


def test_an_answer_older_than_what_is_known_is_asked_for_again() -> None:
    mirror = synced({"a": (document("a", 1), stat(3)), "b": (document("b"), stat(4))})
    mirror.event(EventKind.DATA_CHANGED, "a")
    first = mirror.ask(100)
    assert isinstance(first, ReadNodes)
    mirror.event(EventKind.DATA_CHANGED, "b")
    read(mirror, (document("b", 1), stat(4, 20)), zxid=20)
    mirror.observed(first, [(document("a", 2), stat(3, 11))], 11)
    assert [change.id for change in changes(mirror)] == ["b"]
    read(mirror, (document("a", 2), stat(3, 11)), zxid=20)
    assert [change.id for change in changes(mirror)] == ["a"]


def test_where_only_older_answers_come_everything_is_read_again() -> None:
    mirror = synced({"a": (document("a", 1), stat(3))}, zxid=2**40 + 1)
    for payload, zxid in ((2, 11), (3, 9)):
        mirror.event(EventKind.DATA_CHANGED, "a")
        for _ in range(32):
            assert not mirror.misled
            read(mirror, (document("a", payload), stat(3, zxid)), zxid=zxid)
        assert mirror.misled
        assert mirror.take_news() is None
        mirror.forget_order()
        mirror.connected(one_shot=False, history=0)
        assert not mirror.misled
        news = resync(mirror, {"a": (document("a", payload), stat(3, zxid))}, zxid)
        assert [change.id for change in news.changes] == ["a"]
        assert mirror.as_of == zxid


def test_where_order_is_forgotten_an_epoch_may_have_only_begun() -> None:
    mirror = synced({}, zxid=2**40 + 1)
    mirror.forget_order()
    mirror.connected(one_shot=False, history=0)
    resync(mirror, {}, 2**33)
    assert mirror.as_of == 2**33
    mirror.connected(one_shot=False, history=1)  # it was rolled back
    resync(mirror, {}, 2**32)
    assert mirror.as_of == 2**32


def test_older_answers_among_others_are_no_reason_to_read_everything_again() -> None:
    mirror = synced({"a": (document("a"), stat(3))}, zxid=20)
    for zxid in [11, 20] * 100:
        mirror.event(EventKind.DATA_CHANGED, "a")
        read(mirror, (document("a"), stat(3)), zxid=zxid)
        assert not mirror.misled


def test_an_answer_to_a_question_of_an_earlier_connection_is_none() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.event(EventKind.DATA_CHANGED, "a")
    question = mirror.ask(100)
    assert isinstance(question, ReadNodes)
    mirror.disconnected()
    mirror.observed(question, [NoNode("/services/chat/a")], 30)
    mirror.listed([], 30)
    assert "a" in mirror.entries


def test_an_answer_of_an_earlier_connection_makes_no_later_one_old() -> None:
    nodes = {"a": (document("a"), stat(3))}
    mirror = synced(nodes)
    mirror.audit(0)
    assert isinstance(mirror.ask(100), ListNames)
    mirror.disconnected()
    mirror.connected(one_shot=False, history=0)
    mirror.listed(["a"], 99)
    assert resync(mirror, nodes, 12).changes == ()


def test_a_resync_tells_the_true_differences_at_once() -> None:
    mirror = synced({name: (document(name), stat(3)) for name in "abc"})
    mirror.disconnected()
    assert len(mirror.entries) == 3
    mirror.connected(one_shot=False, history=0)
    after = {"b": (document("b"), stat(3)), "c": (document("c"), stat(3, 20)), "d": (document("d"), stat(21))}
    news = resync(mirror, after, zxid=30)
    assert news.resynced
    assert sorted((type(change).__name__, change.id, change.zxid) for change in news.changes) == [
        ("Added", "d", 30),
        ("Removed", "a", 30),
        ("Updated", "c", 30),
    ]


def test_a_resync_without_differences_says_so() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.connected(one_shot=False, history=0)
    news = resync(mirror, {"a": (document("a"), stat(3))}, zxid=30)
    assert (news.resynced, news.changes) == (True, ())


def test_a_connection_lost_during_a_resync_leaves_what_was_known() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.connected(one_shot=False, history=0)
    mirror.ask(100)
    mirror.listed(["b"], 30)
    mirror.disconnected()
    assert (list(mirror.entries), mirror.take_news()) == (["a"], None)
    mirror.connected(one_shot=False, history=0)
    news = resync(mirror, {"a": (document("a"), stat(3))}, zxid=30)
    assert news.changes == ()


def test_after_a_roll_back_the_same_zxids_are_other_nodes() -> None:
    mirror = synced({"a": (document("a", "before"), stat(4)), "b": (document("b"), stat(5))})
    mirror.connected(one_shot=False, history=1)
    news = resync(mirror, {"a": (document("a", "after"), stat(4)), "b": (document("b"), stat(5))}, zxid=6)
    assert [(type(change), change.id) for change in news.changes] == [(Updated, "a")]
    assert mirror.as_of == 6
    mirror.connected(one_shot=False, history=1)
    assert resync(mirror, {"a": (b"not read", stat(4)), "b": (document("b"), stat(5))}, zxid=6).changes == ()


def test_a_bad_node_takes_nothing_but_its_own_place() -> None:
    mirror = synced({"a": (document("a"), stat(3)), "b": (document("b"), stat(4))})
    mirror.event(EventKind.DATA_CHANGED, "a")
    read(mirror, (b'{"name": "chat"', stat(3, 11)), zxid=11)
    assert [type(change) for change in changes(mirror)] == [Removed]
    assert list(mirror.entries) == ["b"]
    assert (mirror.invalid["a"].id, mirror.invalid["a"].mzxid) == ("a", 11)
    mirror.event(EventKind.DATA_CHANGED, "a")
    read(mirror, (document("a"), stat(3, 12)), zxid=12)
    assert [type(change) for change in changes(mirror)] == [Added]
    assert mirror.invalid == {}


@pytest.mark.parametrize(("data", "children", "asks"), [(b"", 1, True), (b"", 0, False), (b"{", 1, False)])
def test_an_empty_node_with_children_may_be_a_service(data: bytes, children: int, asks: bool) -> None:
    node = decoded("chat", "eu", data, stat(3)._replace(num_children=children))
    assert isinstance(node, Invalid)
    assert node.reason.endswith(": is chat/eu a service?") is asks


def test_a_document_of_another_service_is_invalid() -> None:
    mail = encode(ServiceInstance("mail", id="a", address="10.0.0.7"))
    mirror = synced({"a": (mail, stat(3))})
    assert mirror.entries == {}
    assert "mail" in mirror.invalid["a"].reason


def test_a_node_that_came_and_went_unseen_is_no_news() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.event(EventKind.CREATED, "b")
    read(mirror, NoNode("/services/chat/b"), zxid=12)
    assert mirror.take_news() is None
    assert mirror.as_of == 12


# ---------------------------------------------------------------- what no event told


def audit(mirror: Mirror, sample: int, names: Iterable[str], zxid: int, **parent: int) -> None:
    """Look, and be answered with the list."""
    mirror.audit(sample)
    assert isinstance(mirror.ask(100), ListNames)
    mirror.listed(list(names), zxid, stat(1)._replace(**parent))


def missed(mirror: Mirror) -> tuple[str, ...]:
    news = mirror.take_news()
    return () if news is None else news.missed


def test_a_list_that_differs_has_everything_read() -> None:
    mirror = synced({name: (document(name), stat(3)) for name in "abc"})
    audit(mirror, 0, "abd", 12)
    assert missed(mirror) == ("c", "d")
    assert isinstance(mirror.ask(100), ListNames)
    question = mirror.ask(100)
    assert isinstance(question, ReadNodes)
    assert sorted(question.names) == ["a", "b", "c", "d"]


def test_what_an_event_is_about_to_tell_was_not_missed() -> None:
    mirror = synced({name: (document(name), stat(3)) for name in "ab"})
    mirror.event(EventKind.DELETED, "a")
    mirror.event(EventKind.CREATED, "c")
    audit(mirror, 5, "bc", 12)
    assert missed(mirror) == ()
    mirror.event(EventKind.DATA_CHANGED, "b")  # while it is being read
    question = mirror.ask(100)
    assert isinstance(question, ReadNodes)
    nodes: dict[str, Any] = {"a": NoNode("a"), "b": (document("b", 1), stat(3, 11)), "c": (document("c"), stat(12))}
    mirror.observed(question, [nodes[name] for name in question.names], 12)
    assert missed(mirror) == ()


def test_an_audit_reads_every_node_in_turn() -> None:
    mirror = synced({name: (document(name), stat(3)) for name in "abcdefg"})
    seen: list[str] = []
    for number in range(7):
        audit(mirror, 2, "abcdefg", 12 + number)
        question = mirror.ask(100)
        assert isinstance(question, ReadNodes)
        assert len(question.names) <= 2
        seen += question.names
        mirror.observed(question, [(document(name), stat(3)) for name in question.names], 12 + number)
        assert mirror.ask(100) is None
    assert seen[:7] == list("abcdefg")
    assert mirror.take_news() is None


def test_a_change_found_by_an_audit_was_missed_and_has_everything_read() -> None:
    mirror = synced({name: (document(name), stat(3)) for name in "ab"})
    audit(mirror, 1, "ab", 12)
    read_one(mirror, (document("a", 2), stat(3, 11)), zxid=12)
    assert missed(mirror) == ("a",)
    assert isinstance(mirror.ask(100), ListNames)
    question = mirror.ask(100)
    assert isinstance(question, ReadNodes)
    assert sorted(question.names) == ["a", "b"]


def test_everything_is_read_again_at_each_miss() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.look_at_everything()
    assert isinstance(mirror.ask(100), ListNames)
    mirror.listed(["a"], 11)
    read(mirror, (document("a"), stat(3)), zxid=11)
    audit(mirror, 1, "a", 12)
    read_one(mirror, (document("a", 2), stat(3, 12)), zxid=12)
    assert missed(mirror) == ("a",)
    assert isinstance(mirror.ask(100), ListNames)


@pytest.mark.parametrize("then", [(document("a"), stat(3)), NoNode("a")], ids=["readable", "gone"])
def test_no_event_was_missed_of_what_could_not_be_read(then: Any) -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.event(EventKind.DATA_CHANGED, "a")
    read(mirror, NoAuth("a"), zxid=11)
    mirror.take_news()
    audit(mirror, 0, "a", 12)
    read(mirror, then, zxid=12)
    news = mirror.take_news()
    assert news is not None
    assert news.missed == ()


def test_a_counter_that_overflows_is_the_same_counter() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    audit(mirror, 0, "a", 12, cversion=2**31 - 1)
    mirror.event(EventKind.CREATED, "b")
    read(mirror, (document("b"), stat(13)), zxid=13)
    audit(mirror, 0, "ab", 13, cversion=-(2**31))
    assert mirror.ask(100) is None
    audit(mirror, 0, "ab", 14, cversion=-(2**31) + 2)
    assert isinstance(mirror.ask(100), ListNames)


def test_another_node_of_the_service_counts_anew() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    audit(mirror, 0, "a", 12, cversion=2)
    audit(mirror, 0, "a", 13, cversion=7, czxid=13)
    assert mirror.ask(100) is None
    audit(mirror, 0, "a", 14, cversion=8, czxid=13)
    assert isinstance(mirror.ask(100), ListNames)


def test_no_event_is_due_for_what_may_not_be_read() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    audit(mirror, 1, "a", 12)
    read_one(mirror, NoAuth("a"), zxid=12)
    assert missed(mirror) == ()
    assert mirror.unreadable() == ["a"]


def test_more_comings_and_goings_than_were_told_have_everything_read_once() -> None:
    """A server that counts otherwise is believed to do so, when everything turned out to be as it was known."""
    mirror = synced({name: (document(name), stat(3)) for name in "ab"})
    audit(mirror, 0, "ab", 12, cversion=2)
    assert mirror.ask(100) is None  # to begin with
    mirror.event(EventKind.DELETED, "a")
    mirror.event(EventKind.CREATED, "a")
    read(mirror, (document("a"), stat(13)), zxid=13)
    audit(mirror, 0, "ab", 13, cversion=4)
    assert mirror.ask(100) is None
    audit(mirror, 0, "ab", 14, cversion=6)
    assert isinstance(mirror.ask(100), ListNames)
    mirror.listed(["a", "b"], 14, stat(1)._replace(cversion=6))
    question = mirror.ask(100)
    assert isinstance(question, ReadNodes)
    assert sorted(question.names) == ["a", "b"]
    mirror.observed(question, [(document(name), stat(13 if name == "a" else 3)) for name in question.names], 14)
    for number in range(3):
        audit(mirror, 0, "ab", 15 + number, cversion=8 + number)
        assert mirror.ask(100) is None

    mirror.connected(one_shot=False, history=0)  # to another server, perhaps
    resync(mirror, {name: (document(name), stat(13 if name == "a" else 3)) for name in "ab"}, 18)
    audit(mirror, 0, "ab", 19, cversion=12)
    assert mirror.ask(100) is None
    audit(mirror, 0, "ab", 20, cversion=14)
    assert isinstance(mirror.ask(100), ListNames)


def test_what_events_told_of_is_taken_off_what_came_and_went() -> None:
    for cversion, all_are_read in ((4, False), (6, True)):
        mirror = synced({name: (document(name), stat(3)) for name in "ab"})
        audit(mirror, 0, "ab", 12, cversion=2)
        mirror.event(EventKind.DELETED, "a")
        mirror.event(EventKind.CREATED, "a")
        read(mirror, (document("a"), stat(13)), zxid=13)
        audit(mirror, 0, "ab", 14, cversion=cversion)
        assert isinstance(mirror.ask(100), ListNames) is all_are_read


def test_a_document_of_another_id_is_invalid() -> None:
    mirror = synced({"a": (document("b"), stat(3))})
    assert "node is 'a'" in mirror.invalid["a"].reason


def test_an_unreadable_node_is_listed_and_looked_at_again() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.event(EventKind.CREATED, "secret")
    read(mirror, NoAuth("/services/chat/secret"), zxid=11)
    assert "not authorised" in mirror.invalid["secret"].reason
    assert mirror.unreadable() == ["secret"]
    mirror.take_news()
    mirror.audit(0)
    mirror.ask(100)
    mirror.listed(["a", "secret"], 12)
    read(mirror, (document("secret"), stat(11)), zxid=12)
    assert [change.id for change in changes(mirror)] == ["secret"]
    assert mirror.unreadable() == []


def test_what_no_server_answered_is_no_older_answer() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.event(EventKind.CREATED, "large")
    question = mirror.ask(100)
    assert isinstance(question, ReadNodes)
    mirror.observed(question, [NoAuth("/services/chat/large")], None)
    assert mirror.unreadable() == ["large"]
    assert mirror.as_of == 10


def test_an_unreadable_node_that_goes_during_a_resync_is_forgotten_by_the_list() -> None:
    mirror = Mirror("chat")
    mirror.connected(one_shot=True, history=0)
    mirror.ask(1)
    mirror.listed(["secret", "a"], 5)
    read_one(mirror, NoAuth("/services/chat/secret"), zxid=5)  # leaves no watch
    mirror.event(EventKind.CHILDREN_CHANGED, SERVICE)
    assert mirror.ask(1) == ListNames(watch=True)
    mirror.listed(["a"], 6)
    read_one(mirror, (document("a"), stat(3)), zxid=6)
    assert mirror.synced
    assert mirror.invalid == {}


def test_a_second_list_of_a_resync_has_only_what_is_new_read() -> None:
    mirror = Mirror("chat")
    mirror.connected(one_shot=True, history=0)
    mirror.ask(1)
    mirror.listed(["a", "b"], 5)
    read_one(mirror, (document("a"), stat(3)), zxid=5)
    mirror.event(EventKind.CHILDREN_CHANGED, SERVICE)
    assert mirror.ask(1) == ListNames(watch=True)
    mirror.listed(["a", "b", "c"], 6)
    assert mirror.ask(100) == ReadNodes(("b", "c"), watch=True)


def test_one_shot_watches_are_left_by_every_question() -> None:
    mirror = Mirror("chat")
    mirror.connected(one_shot=True, history=0)
    assert mirror.ask(1) == ListNames(watch=True)
    mirror.listed(["a"], 5)
    assert mirror.ask(1) == ReadNodes(("a",), watch=True)


def test_a_missing_service_is_an_empty_one_and_is_waited_for() -> None:
    mirror = Mirror("chat")
    mirror.connected(one_shot=True, history=0)
    assert mirror.ask(1) == ListNames(watch=True)
    mirror.missing(5)
    assert not mirror.synced  # a list of what is not there leaves no watch
    assert mirror.ask(1) == FindService()
    mirror.missing(5)
    assert mirror.synced
    assert mirror.ask(1) is None
    mirror.event(EventKind.CREATED, SERVICE)
    assert mirror.ask(1) == ListNames(watch=True)
    mirror.listed([], 6)
    assert mirror.ask(1) is None


def test_what_is_missing_is_as_of_when_it_was_seen_though_the_watch_for_it_is_not_there_yet() -> None:
    mirror = synced({"a": (document("a"), stat(5))}, one_shot=True)
    mirror.event(EventKind.DELETED, SERVICE)
    assert mirror.ask(1) == ListNames(watch=True)
    mirror.missing(12)
    news = mirror.take_news()
    assert news is not None
    assert [change.zxid for change in news.changes] == [12]
    assert mirror.as_of == 12


def test_a_service_that_comes_between_list_and_exists_watch_is_listed_again() -> None:
    mirror = Mirror("chat")
    mirror.connected(one_shot=True, history=0)
    mirror.ask(1)
    mirror.missing(5)
    assert mirror.ask(1) == FindService()
    mirror.found(6)
    assert not mirror.synced
    assert mirror.ask(1) == ListNames(watch=True)
    mirror.listed([], 6)
    assert mirror.synced


def test_with_a_recursive_watch_a_missing_service_needs_no_other() -> None:
    mirror = Mirror("chat")
    mirror.connected(one_shot=False, history=0)
    mirror.ask(1)
    mirror.missing(5)
    assert mirror.synced
    mirror.event(EventKind.CREATED, "a")
    assert mirror.ask(1) == ReadNodes(("a",), watch=False)


def test_a_mark_is_settled_when_what_was_due_has_been_answered_and_what_came_of_it() -> None:
    mirror = synced({}, one_shot=True)
    mirror.event(EventKind.CHILDREN_CHANGED, SERVICE)
    mark = mirror.mark()
    assert not mirror.settled(mark)
    mirror.ask(1)
    mirror.event(EventKind.CHILDREN_CHANGED, SERVICE)  # later than the mark: not waited for
    mirror.listed(["a"], 11)
    assert not mirror.settled(mark)
    assert mirror.ask(1) == ListNames(watch=True)
    read(mirror, (document("a"), stat(11)), zxid=11)
    assert mirror.settled(mark)
    assert not mirror.settled(mirror.mark())


def test_a_mark_waits_for_what_was_due_then_though_it_is_due_once_more() -> None:
    mirror = synced({"a": (document("a"), stat(3))})
    mirror.event(EventKind.DATA_CHANGED, "a")
    mark = mirror.mark()
    mirror.event(EventKind.DATA_CHANGED, "a")
    assert not mirror.settled(mark)
    question = mirror.ask(1)
    assert isinstance(question, ReadNodes)
    mirror.event(EventKind.DATA_CHANGED, "a")  # later than the mark
    mirror.refused(question)
    assert not mirror.settled(mark)
    read(mirror, (document("a"), stat(3, 11)), zxid=11)
    assert mirror.settled(mark)


# ---------------------------------------------------------------- the pace


def test_batches_grow_with_small_nodes_up_to_what_an_answer_may_take() -> None:
    pace = Pace(1 << 20)
    first = pace.batch
    pace.answered(first, first * 500)
    assert first < pace.batch <= (1 << 18) // 500
    for _ in range(5):
        pace.answered(pace.batch, pace.batch * 500)
    assert pace.batch == (1 << 18) // 500
    pace.answered(10, 10 * 100_000)
    assert pace.batch == 2
    pace.answered(2, 2 << 20)
    assert pace.batch == 1


def test_batches_begin_small_and_grow_fourfold_and_three_are_under_way() -> None:
    pace = Pace(1 << 20)
    batches = []
    for _ in range(4):
        batches.append(pace.batch)
        assert pace.window == 3 * pace.batch
        pace.answered(pace.batch, 0)
    assert batches == [64, 256, 1024, 1024]
    pace.refused()
    pace.answered(512, 512)
    assert pace.batch == 512
    for _ in range(2):
        pace.completed()
        pace.answered(512, 512)
        assert pace.batch == 1024


def test_a_batch_that_was_refused_is_not_asked_for_again_before_all_was_read() -> None:
    pace = Pace(1 << 20)
    pace.answered(64, 64 * 200)
    refused = pace.batch
    pace.refused()
    pace.answered(10, 10 * 200)
    assert pace.batch == refused // 2
    pace.completed()
    pace.answered(10, 10 * 200)
    assert pace.batch == refused // 2 * 2
    for _ in range(20):
        pace.refused()
    assert pace.batch == 1
    assert pace.window >= 1


# ---------------------------------------------------------------- the model


@dataclass(frozen=True)
class Node:
    data: bytes
    czxid: int
    mzxid: int
    owner: int
    readable: bool = True

    @property
    def stat(self) -> Stat:
        return stat(self.czxid, self.mzxid, self.owner)


@dataclass
class Tree:
    """The reference: one service's nodes, by ZooKeeper's rules."""

    zxid: int = 1
    service: bool = True
    nodes: dict[str, Node] = field(default_factory=dict)
    born: int = 1
    """The czxid of the service's own node."""
    changes: int = 0
    """How many nodes came or went below it: its cversion."""

    def copy(self) -> Tree:
        return replace(self, nodes=dict(self.nodes))


@dataclass(frozen=True, eq=False)
class Frame:
    deliver: Callable[[Mirror], None]
    is_event: bool


class Server:
    """Serves the tree on one connection: keeps its watches, and what is under way in both directions, in order."""

    def __init__(self, tree: Tree, *, recursive: bool, hides_unreadable: bool) -> None:
        self.tree = tree
        self.recursive = recursive
        self.hides_unreadable = hides_unreadable
        self.child_watch = self.exists_watch = False
        self.data_watches: set[str] = set()
        self.questions: deque[Question] = deque()
        self.frames: deque[Frame] = deque()

    def fire(self, kind: EventKind, name: str) -> None:
        self.frames.append(Frame(lambda mirror: mirror.event(kind, name), is_event=True))

    def reply(self, deliver: Callable[[Mirror], None]) -> None:
        self.frames.append(Frame(deliver, is_event=False))

    def next_frame(self, how: str) -> Frame:
        """Deliver in order; or the oldest event, since callbacks get events at once and answers a tick later; or even
        the newest frame, which puts the others out of date.
        """
        events = [frame for frame in self.frames if frame.is_event]
        frames = events if how == "deliver an event" and events else self.frames
        frame = frames[-1] if how == "deliver the newest" else frames[0]
        self.frames.remove(frame)
        return frame

    def node_changed(self, kind: EventKind, name: str, *, readable: bool) -> None:
        told = readable or not self.hides_unreadable
        if self.recursive:
            if told:
                self.fire(kind, name)
            return
        if kind is not EventKind.CREATED and name in self.data_watches:
            self.data_watches.discard(name)
            if told:
                self.fire(kind, name)
        if kind is not EventKind.DATA_CHANGED and self.child_watch:
            self.child_watch = False
            self.fire(EventKind.CHILDREN_CHANGED, SERVICE)

    def service_changed(self, kind: EventKind) -> None:
        if self.recursive:
            self.fire(kind, SERVICE)
        elif kind is EventKind.CREATED and self.exists_watch:
            self.exists_watch = False
            self.fire(kind, SERVICE)
        elif kind is EventKind.DELETED and self.child_watch:
            self.child_watch = False
            self.fire(kind, SERVICE)

    def answer(self) -> None:
        """Answer the oldest question with what the tree holds now."""
        question, zxid = self.questions.popleft(), self.tree.zxid
        match question:
            case ReadNodes(names, watch):
                observations = [self._observe(name, watch) for name in names]
                self.reply(lambda mirror: mirror.observed(question, observations, zxid))
            case FindService() if self.tree.service:
                self.reply(lambda mirror: mirror.found(zxid))
            case ListNames(watch) if self.tree.service:
                self.child_watch |= watch
                names = tuple(self.tree.nodes)
                parent = stat(self.tree.born)._replace(cversion=self.tree.changes % 2**32)
                self.reply(lambda mirror: mirror.listed(names, zxid, parent))
            case _:
                self.exists_watch |= isinstance(question, FindService)
                self.reply(lambda mirror: mirror.missing(zxid))

    def _observe(self, name: str, watch: bool) -> Any:
        node = self.tree.nodes.get(name)
        if node is None:
            return NoNode(name)
        if not node.readable:
            return NoAuth(name)
        if watch:
            self.data_watches.add(name)
        return node.data, node.stat


NAMES = st.sampled_from(["a", "b", "c"])
WRITES = st.sampled_from(["create", "create", "create bad", "create unreadable", "grant", "revoke"])
WRITES |= st.sampled_from(["set", "set", "set bad", "delete", "take over", "delete and create", "reap"])
WAYS_TO_DELIVER = ["deliver", "deliver an event", "deliver the newest"]
MOVES = st.sampled_from(["answer", "answer", *WAYS_TO_DELIVER])


class MirrorMachine(RuleBasedStateMachine):
    """A tree that changes, a server that answers when it likes, a connection that breaks, one who believes it all."""

    recursive: bool

    @initialize(hides_unreadable=st.booleans(), names=st.sets(NAMES), service=st.booleans())
    def begin(self, hides_unreadable: bool, names: set[str], service: bool) -> None:
        self.tree = Tree(service=service)
        self.hides_unreadable = hides_unreadable
        self.copies = [self.tree.copy()]
        self.history = 0
        self.written = 0
        self.ever_unreadable: set[str] = set()
        self.server: Server | None = None
        self.mirror = Mirror("chat")
        self.consumer: OrderedConsumer | None = None
        for name in sorted(names):
            self._write("create", name)
        self.connect()

    # ---------------------------------------------------------------- the tree changes

    @rule(steps=st.lists(st.tuples(WRITES | MOVES | MOVES, NAMES), min_size=1, max_size=12), limit=st.integers(1, 3))
    def go_on(self, steps: list[tuple[str, str]], limit: int) -> None:
        for what, name in steps:
            if what in WAYS_TO_DELIVER or what == "answer":
                self._move(what, limit)
            else:
                self._write(what, name)

    def _write(self, how: str, name: str) -> None:
        node = self.tree.nodes.get(name)
        if how == "reap":
            self._make_or_reap_service()
        elif how.startswith("create") and node is None and self.tree.service:
            self._create(name, readable=how != "create unreadable", valid=how != "create bad")
        elif node is not None:
            self._change(how, name, node)

    def _change(self, how: str, name: str, node: Node) -> None:
        self.tree.zxid += 1
        match how:
            case "set" | "set bad":
                self.tree.nodes[name] = replace(node, data=self._data(name, how == "set"), mzxid=self.tree.zxid)
                self._tell(EventKind.DATA_CHANGED, name, node)
            case "grant":  # a changed ACL fires no watch
                self.tree.nodes[name] = replace(node, readable=True)
            case "revoke":
                self.tree.nodes[name] = replace(node, readable=False)
                self.ever_unreadable.add(name)
            case "delete" | "delete and create":
                del self.tree.nodes[name]
                self.tree.changes += 1
                self._tell(EventKind.DELETED, name, node)
                if how != "delete":
                    self._create(name, readable=True, valid=True)
            case "take over":  # one transaction: two events, and no reader sees a gap
                zxid = self.tree.zxid
                self.tree.changes += 2
                self.tree.nodes[name] = Node(self._data(name, True), zxid, zxid, BOB, node.readable)
                self._tell(EventKind.DELETED, name, node)
                self._tell(EventKind.CREATED, name, node)

    def _create(self, name: str, *, readable: bool, valid: bool) -> None:
        self.tree.zxid += 1
        self.tree.changes += 1
        node = Node(self._data(name, valid), self.tree.zxid, self.tree.zxid, ALICE, readable)
        self.tree.nodes[name] = node
        if not readable:
            self.ever_unreadable.add(name)
        self._tell(EventKind.CREATED, name, node)

    def _make_or_reap_service(self) -> None:
        for name in list(self.tree.nodes):
            self._write("delete", name)
        self.tree.zxid += 1
        self.tree.service = not self.tree.service
        self.tree.born, self.tree.changes = self.tree.zxid, 0
        if self.server is not None:
            self.server.service_changed(EventKind.CREATED if self.tree.service else EventKind.DELETED)

    def _data(self, name: str, valid: bool) -> bytes:
        self.written += 1
        return document(name, self.written) if valid else b"%d" % self.written

    def _tell(self, kind: EventKind, name: str, node: Node) -> None:
        if self.server is not None:
            self.server.node_changed(kind, name, readable=node.readable)

    # ---------------------------------------------------------------- answers and events come

    def _move(self, how: str, limit: int) -> None:
        if self.server is not None and self.server.questions and how == "answer":
            self.server.answer()
        elif self.server is not None and self.server.frames and how != "answer":
            self._receive(self.server.next_frame(how), limit)
            self.ordered()

    def _receive(self, frame: Frame, limit: int) -> None:
        frame.deliver(self.mirror)
        self._ask(limit)

    @precondition(lambda self: self.server is not None)
    @rule()
    def settle(self) -> None:
        """All is quiet for a while: without this, hardly a resync would ever end."""
        assert self.server is not None
        while self.server.questions or self.server.frames:
            while self.server.questions:
                self.server.answer()
            while self.server.frames:
                self._receive(self.server.next_frame("deliver"), 2)
                self.ordered()

    @precondition(lambda self: self.server is not None and self.mirror.synced)
    @rule(sample=st.integers(0, 3))
    def audit(self, sample: int) -> None:
        self.mirror.audit(sample)
        self._ask(2)

    @precondition(lambda self: self.server is not None and self.mirror.synced)
    @rule()
    def look_at_everything(self) -> None:
        self.mirror.look_at_everything()
        self._ask(2)

    def _ask(self, limit: int) -> None:
        while self.server is not None and (question := self.mirror.ask(limit if self.recursive else 1)) is not None:
            self.server.questions.append(question)

    # ---------------------------------------------------------------- connections come and go

    @rule(
        meanwhile=st.sampled_from(["", "", "", "backed up", "restored", "rewritten"]),
        copy=st.integers(0, 10),
        reconnect=st.sampled_from([True, True, True, False]),
    )
    def cut(self, meanwhile: str, copy: int, reconnect: bool) -> None:
        self.server = None
        self.mirror.disconnected()
        match meanwhile:
            case "backed up":
                self.copies.append(self.tree.copy())
            case "restored":
                self._roll_back(self.copies[copy % len(self.copies)].copy())
            case "rewritten":  # wiped, and the same was done to it once more: the same zxids, other data
                nodes = {name: replace(node, data=self._data(name, True)) for name, node in self.tree.nodes.items()}
                self._roll_back(replace(self.tree, nodes=nodes))
        if reconnect:
            self.connect()

    def _roll_back(self, tree: Tree) -> None:
        self.tree = tree
        self.history += 1
        if self.consumer is not None:
            self.consumer.rolled_back()

    @precondition(lambda self: self.server is None)
    @rule()
    def connect(self) -> None:
        self.server = Server(self.tree, recursive=self.recursive, hides_unreadable=self.hides_unreadable)
        self.mirror.connected(one_shot=not self.recursive, history=self.history)
        self._ask(2)

    # ---------------------------------------------------------------- what must hold

    @invariant()
    def ordered(self) -> None:
        if not hasattr(self, "mirror"):
            return
        news = self.mirror.take_news()
        if news is None:
            return
        if self.consumer is None:
            self.consumer = OrderedConsumer(self.mirror.entries)
            return
        for change in as_told(self.mirror, news):
            self.consumer.apply(change)
        self.consumer.check(self.mirror.entries)

    def teardown(self) -> None:
        if not hasattr(self, "mirror"):
            return
        if self.server is None:
            self.connect()
        self.settle()
        assert self.mirror.synced
        self._check_converged(except_for=self.ever_unreadable)
        for _ in range(4):  # as the follower does now and then
            self.audit(1)
            self.settle()
        assert self.mirror.as_of == self.tree.zxid
        self._check_converged(except_for=set())

    def _check_converged(self, *, except_for: set[str]) -> None:
        known: dict[str, Entry[Any] | Invalid] = {**self.mirror.entries, **self.mirror.invalid}
        check_converged(
            seen={name: identity(node) for name, node in known.items() if name not in except_for},
            held={name: expected(node) for name, node in self.tree.nodes.items() if name not in except_for},
        )


def as_told(mirror: Mirror, news: News) -> Iterable[Any]:
    """The news as a view passes them on."""
    if not news.resynced:
        return news.changes
    snapshot: Snapshot[Any] = Snapshot("chat", dict(mirror.entries), dict(mirror.invalid), as_of=mirror.as_of)
    return [Resynced(news.changes, snapshot)]


def identity(node: Entry[Any] | Invalid) -> tuple[int, int, object]:
    return node.czxid, node.mzxid, node.instance.payload if isinstance(node, Entry) else None


def expected(node: Node) -> tuple[int, int, object]:
    if not node.readable:
        return 0, 0, None
    return node.czxid, node.mzxid, json.loads(node.data)["payload"] if node.data.startswith(b"{") else None


class RecursiveMachine(MirrorMachine):
    recursive = True


class OneShotMachine(MirrorMachine):
    recursive = False


@pytest.mark.parametrize("machine", [RecursiveMachine, OneShotMachine], ids=["recursive", "one-shot"])
def test_the_mirror_converges_and_keeps_order(machine: type[MirrorMachine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=200, stateful_step_count=40, deadline=None))
