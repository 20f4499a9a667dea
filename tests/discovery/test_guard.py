"""The guard by itself: what is held, for how long, and what is never held."""

from __future__ import annotations

import gc
import itertools
import math
import sys
import weakref
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from types import FrameType
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

from aioregistry import Added, Entry, Guard, InvalidArgument, Removed, ServiceInstance, Updated
from aioregistry._discovery.evidence import REMEMBERED, SILENCE
from aioregistry._discovery.guard import Moment, Suspects, Verdict
from aioregistry._model import Difference, InstanceStatus
from tests.support.checkers import OrderedConsumer, check_guarded

EPOCH = 1 << 32
WALL = 1_763_680_000.0

# ---------------------------------------------------------------- options

_NUMBERS: list[Any] = [-1, math.nan, math.inf, "1", None, True]
WRONG = [
    *(("hold", value) for value in [*_NUMBERS, 0, 100_000]),
    *(("share", value) for value in [*_NUMBERS, 1.01]),
    *(("within", value) for value in [*_NUMBERS, 0]),
    *(("longest", value) for value in [*_NUMBERS, 29.9]),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_option_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        Guard(**{field: value})
    assert (raised.value.field, raised.value.value) == (field, value) or value is not value  # NaN equals nothing


def test_a_hold_beyond_the_longest_names_both() -> None:
    """A user who asks for a hold of ten minutes may not know of the bound."""
    with pytest.raises(InvalidArgument, match=r"longest=300\.0: must not be less than hold=600"):
        Guard(hold=600)


def test_options_cannot_be_changed() -> None:
    guard = Guard(hold=60)
    with pytest.raises(AttributeError):
        guard.hold = 1  # type: ignore[misc]
    assert guard == Guard(hold=60)
    assert repr(guard) == "Guard(hold=60, share=0.2, within=10.0, longest=300.0)"


# ---------------------------------------------------------------- a view in small


def entry(
    id: str, czxid: int, *, timeout_ms: int | None = None, enabled: bool = True, status: InstanceStatus | None = None
) -> Entry[Any]:
    instance = ServiceInstance(
        "chat", id=id, address="10.0.0.7", session_timeout_ms=timeout_ms, enabled=enabled, status=status
    )
    return Entry(instance, 1, czxid, czxid, 0, 0.0, 0.0)


class Scene:
    """The server's nodes, the shown instances, and the time."""

    def __init__(self, guard: Guard, ids: Iterable[str] = (), *, timeout_ms: int | None = None) -> None:
        self.now = 100.0
        self.zxid = EPOCH + 1
        self.listed = {id: entry(id, self.zxid, timeout_ms=timeout_ms) for id in ids}
        self.suspects: Suspects[Any] = Suspects(guard, self.zxid)
        self.consumer = OrderedConsumer(self.listed)
        self.fresh = True
        self.released: list[tuple[str, str]] = []
        self.held = 0

    @property
    def remembered(self) -> tuple[int, int, int]:
        """How many markers, counted removals and removals that were shown are kept."""
        suspects = self.suspects
        return len(suspects._markers), len(suspects._counted), len(suspects._shown_removed)

    def show(self, verdict: Verdict[Any]) -> tuple[Difference[Any], ...]:
        for change in verdict.changes:
            self.consumer.apply(change)
        self.held += len(verdict.held)
        self.released += verdict.released
        return verdict.changes

    def take(self, changes: list[Difference[Any]], *, invalid: Iterable[str] = ()) -> tuple[Difference[Any], ...]:
        gone = set(invalid)
        if not self.suspects.concerned(changes, self.zxid) and self.fresh:
            return self.show(Verdict(tuple(changes)))
        at = Moment(self.now, WALL + self.now)
        verdict = self.suspects.take(
            changes, listed=len(self.listed), zxid=self.zxid, at=at, gone=lambda id: id not in gone
        )
        return self.show(verdict)

    def come(self, *ids: str, **fields: Any) -> tuple[Difference[Any], ...]:
        self.zxid += 1
        changes: list[Difference[Any]] = []
        for id in ids:
            before, after = self.listed.get(id), entry(id, self.zxid, **fields)
            self.listed[id] = after
            changes.append(Added(after, self.zxid) if before is None else Updated(after, before, self.zxid))
        return self.take(changes)

    def go(self, *ids: str, invalid: Iterable[str] = ()) -> tuple[Difference[Any], ...]:
        self.zxid += 1
        return self.take([Removed(self.listed.pop(id), self.zxid) for id in ids], invalid=invalid)

    def withdraw(self, *ids: str) -> tuple[Difference[Any], ...]:
        for id in ids:
            self.mark(id, self.listed[id].czxid)
        return self.go(*ids)

    def mark(self, id: str, czxid: int) -> None:
        self.show(self.suspects.withdrawn(id, czxid, self.zxid, listed=id in self.listed))

    def interrupt(self) -> None:
        self.fresh = False
        self.suspects.interrupted(self.now)

    def resume(self) -> tuple[Difference[Any], ...]:
        self.fresh = True
        return self.show(self.suspects.resumed(self.zxid, Moment(self.now, WALL + self.now)))

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.suspects.wake is not None and self.suspects.wake <= until:
            self.now = max(self.now, self.suspects.wake)
            self.show(self.suspects.due(self.zxid, self.now))
        self.now = until

    @property
    def suspect(self) -> list[str]:
        return sorted(self.suspects.entries)


IDS = [f"n{number}" for number in range(10)]


def told(changes: Iterable[Difference[Any]]) -> list[tuple[str, str, bool]]:
    """Kind, id, and whether it is suspect."""
    return [(type(each).__name__, each.id, each.entry.suspicion is not None) for each in changes]


# ---------------------------------------------------------------- one thing at a time


def test_news_older_than_the_last_concern_the_guard_though_nobody_went() -> None:
    for first in (Suspects.concerned, lambda suspects, _, zxid: suspects.begin(zxid)):
        suspects: Suspects[Any] = Suspects(Guard(), 5, tuple)
        assert not first(suspects, (), 10)
        assert suspects.concerned((), 8), "the history was lost"


def test_nothing_is_kept_of_markers_for_who_is_not_listed() -> None:
    """A client that may write markers could fill the memory of all views with them."""
    scene = Scene(Guard(), IDS)
    for number in range(100):
        scene.mark(f"stranger-{number}", 1)
    assert scene.remembered == (0, 0, 0)
    scene.withdraw("n0")
    assert scene.remembered == (0, 0, 0)


def test_who_comes_back_in_the_same_news_is_neither_counted_nor_held() -> None:
    scene = Scene(Guard(), IDS)
    scene.zxid += 1
    gone = [Removed(scene.listed.pop(id), scene.zxid) for id in IDS[:5]]
    scene.listed["n0"] = entry("n0", scene.zxid)
    scene.take([*gone, Added(scene.listed["n0"], scene.zxid)])
    assert scene.suspect == ["n1", "n2", "n3", "n4"]
    assert scene.remembered[1] == 4


def test_news_of_a_view_that_is_not_fresh_forget_nothing() -> None:
    """The period stands still: who crashed just before the connection was lost is of the same disruption."""
    scene = Scene(Guard(within=10), IDS)
    scene.go("n0", "n1")
    scene.interrupt()
    scene.now += 1000
    scene.go("n2")
    assert scene.remembered[1] == 3
    assert scene.suspect == ["n0", "n1", "n2"]


def test_a_crash_in_quiet_times_is_a_removal() -> None:
    scene = Scene(Guard(), IDS)
    assert told(scene.go("n0")) == [("Removed", "n0", False)]
    assert scene.suspect == []


def test_more_than_the_share_at_once_becomes_suspect() -> None:
    scene = Scene(Guard(), IDS)
    assert told(scene.go("n0", "n1", "n2")) == [("Updated", id, True) for id in ("n0", "n1", "n2")]
    suspicion = scene.consumer.entries["n0"].suspicion  # type: ignore[attr-defined]
    assert (suspicion.reason, suspicion.since, suspicion.until) == ("mass removal", WALL + 100, WALL + 130)


@pytest.mark.parametrize(("share", "known"), [(0.29, 100), (0.57, 100), (0.58, 50), (0.07, 100), (0.2, 10), (1.0, 3)])
def test_the_share_is_what_was_written(share: float, known: int) -> None:
    """0.29 * 100 is 28.999999999999996: by that, 29 of 100 would be more than the share."""
    at_most = round(share * known)
    ids = [f"n{number}" for number in range(known)]
    scene = Scene(Guard(share=share), ids)
    scene.go(*ids[:at_most])
    assert scene.suspect == []
    scene.go(*ids[at_most : at_most + 1])
    assert len(scene.suspect) == (at_most + 1 if at_most < known else 0)


def test_those_that_were_shown_as_removed_come_back_as_suspects() -> None:
    scene = Scene(Guard(), IDS)
    scene.go("n0")
    scene.wait(4)
    scene.go("n1")
    scene.wait(4)
    assert told(scene.go("n2")) == [("Updated", "n2", True), ("Added", "n0", True), ("Added", "n1", True)]


def test_what_went_before_the_period_is_not_counted() -> None:
    scene = Scene(Guard(within=10), IDS)
    for id in IDS[:6]:
        assert told(scene.go(id)) == [("Removed", id, False)]
        scene.wait(5)
    assert scene.suspect == []


def test_who_comes_back_at_once_is_not_counted() -> None:
    scene = Scene(Guard(), IDS)
    for id in IDS:
        scene.go(id)
        assert told(scene.come(id)) == [("Added", id, False)]
    assert scene.held == 0


def test_two_that_were_all_there_was_are_held() -> None:
    """An empty list helps no caller, and two replicas are the commonest service."""
    scene = Scene(Guard(), ["a", "b"])
    assert told(scene.go("a")) == [("Removed", "a", False)]
    scene.wait(9)
    assert told(scene.go("b")) == [("Updated", "b", True), ("Added", "a", True)]


def test_two_of_three_in_quiet_times_are_believed() -> None:
    scene = Scene(Guard(), ["a", "b", "c"])
    assert told(scene.go("a", "b")) == [("Removed", "a", False), ("Removed", "b", False)]
    assert scene.suspect == []


def test_one_of_one_in_quiet_times_is_believed() -> None:
    scene = Scene(Guard(), ["a"])
    assert told(scene.go("a")) == [("Removed", "a", False)]


def test_a_removal_is_counted_for_the_published_session_timeout() -> None:
    """Three that are cut off together expire within one session timeout of each other, which may be a minute."""
    scene = Scene(Guard(within=10), IDS[:3], timeout_ms=60_000)
    scene.go("n0")
    scene.wait(25)
    scene.go("n1")
    scene.wait(25)
    scene.go("n2")
    assert scene.suspect == IDS[:3]


def test_no_published_session_timeout_counts_for_longer_than_the_longest() -> None:
    scene = Scene(Guard(longest=40), IDS[:3], timeout_ms=2**31 - 1)
    scene.go("n0")
    scene.wait(40.1)
    scene.go("n1", "n2")
    assert sorted(scene.suspects.entries) == ["n1", "n2"]  # the two that were left


def test_a_published_session_timeout_keeps_the_period_open_after_a_disruption() -> None:
    scene = Scene(Guard(hold=30, within=1), IDS, timeout_ms=60_000)
    scene.interrupt()
    scene.resume()
    scene.wait(59)
    assert told(scene.go("n0", "n1", "n2"))[0] == ("Updated", "n0", True)
    assert {each.suspicion.reason for each in scene.suspects.entries.values()} == {"disruption"}  # type: ignore[union-attr]


# ---------------------------------------------------------------- subsets


class Zone:
    """Four of twenty: a filter that lets some ids through."""

    def __init__(self, scene: Scene, ids: Iterable[str]) -> None:
        self.ids = set(ids)
        self.scene = scene

    def admits(self, instance: ServiceInstance[Any]) -> bool:
        return instance.id in self.ids

    def confirmed(self) -> int:
        entries: dict[str, Entry[Any]] = self.scene.consumer.entries  # type: ignore[assignment]
        return sum(id in self.ids and entry.suspicion is None for id, entry in entries.items())


def zoned(*zones: Iterable[str]) -> Scene:
    scene = Scene(Guard(), [f"n{number:02d}" for number in range(20)])
    subsets = [Zone(scene, ids) for ids in zones]
    scene.suspects = Suspects(Guard(), scene.zxid, lambda: subsets)
    return scene


ZONE = [f"n{number:02d}" for number in range(4)]


def test_a_subset_that_goes_is_held_though_the_service_spares_it() -> None:
    assert zoned().go(*ZONE) == zoned(["n10", "n11"]).go(*ZONE)
    scene = zoned(ZONE)
    assert told(scene.go(*ZONE)) == [("Updated", id, True) for id in ZONE]


def test_a_subset_is_judged_by_the_same_rule_one_by_one() -> None:
    scene = zoned(ZONE)
    assert told(scene.go("n00")) == [("Removed", "n00", False)]
    assert told(scene.go("n01")) == [("Removed", "n01", False)]
    assert told(scene.go("n10")) == [("Removed", "n10", False)]
    changes = told(scene.go("n02"))
    assert changes == [("Updated", "n02", True), ("Added", "n00", True), ("Added", "n01", True)]
    assert scene.suspect == ["n00", "n01", "n02"]  # not n10, of which the subset knows nothing


@pytest.mark.parametrize("size", [400, 40], ids=["few of all", "many of all"])
def test_a_subset_is_asked_about_each_removal_once(size: int) -> None:
    ids = [f"n{number}" for number in range(size)]
    scene = Scene(Guard(), ids)
    even, asked = Zone(scene, ids[::2]), Counter[str]()

    class Asked:
        def admits(self, instance: ServiceInstance[Any]) -> bool:
            asked[instance.id] += 1
            return even.admits(instance)

        def confirmed(self) -> int:
            return even.confirmed()

    subset = Asked()
    scene.suspects = Suspects(Guard(), scene.zxid, lambda: [subset])
    for id in ids[:30]:
        scene.go(id)
    scene.come(ids[0])  # the others are remembered as they were
    scene.go(ids[30])
    assert set(asked.values()) <= {1}
    scene.come(*ids[1:31])
    before = Counter(asked)
    scene.wait(60)
    scene.go(*ids[:3])
    assert asked - before == Counter(ids[:3])


def test_a_subset_that_is_new_knows_what_went_before_it_came() -> None:
    subsets: list[Zone] = []
    scene = zoned()
    scene.suspects = Suspects(Guard(), scene.zxid, lambda: subsets)
    scene.go(*ZONE[:2])
    subsets.append(Zone(scene, ZONE))
    scene.go(ZONE[2])
    assert scene.suspect == ZONE[:3]


def test_no_filter_outlives_what_it_was_asked_about() -> None:
    scene = zoned()
    subsets = [Zone(scene, ZONE)]
    gone = weakref.ref(subsets[0])
    scene.suspects = Suspects(Guard(), scene.zxid, lambda: subsets)
    scene.go(ZONE[0])
    subsets.clear()
    scene.wait(10)
    gc.collect()
    assert gone() is None


def test_what_was_held_with_the_whole_service_is_held_once() -> None:
    scene = zoned(ZONE)
    scene.go("n00")
    scene.go(*(f"n{number:02d}" for number in range(4, 9)))  # more than a fifth of all: those of the zone, too
    assert len(scene.suspect) == 6
    assert told(scene.go("n01", "n02", "n03")) == [("Updated", id, True) for id in ZONE[1:]]


def test_a_subset_of_two_is_held_when_both_go() -> None:
    scene = zoned(ZONE[:2])
    scene.go("n00")
    assert scene.suspect == []
    scene.go("n01")
    assert scene.suspect == ["n00", "n01"]


def test_a_replacement_that_comes_with_the_loss_counts_as_listed() -> None:
    scene = zoned(["n01", "n02", "n99"])
    scene.zxid += 1
    lost = [Removed(scene.listed.pop(id), scene.zxid) for id in ("n01", "n02")]
    scene.take([*lost, Added(entry("n99", scene.zxid), scene.zxid)])
    assert scene.suspect == []


def test_a_subset_withdraws_as_a_service_does() -> None:
    scene = zoned(ZONE)
    assert told(scene.withdraw(*ZONE)) == [("Removed", id, False) for id in ZONE]


@pytest.mark.parametrize("ids", [["a"], ["a", "b"], IDS])
def test_around_a_disruption_the_whole_service_is_held(ids: list[str]) -> None:
    scene = Scene(Guard(), ids)
    scene.interrupt()
    scene.wait(60)
    assert told(scene.go(*ids)) == [("Updated", id, True) for id in ids]
    assert scene.resume() == ()
    assert {each.suspicion.reason for each in scene.suspects.entries.values()} == {"disruption"}  # type: ignore[union-attr]


def test_one_of_two_around_a_disruption_is_believed() -> None:
    scene = Scene(Guard(), ["a", "b"])
    scene.interrupt()
    assert told(scene.go("a")) == [("Removed", "a", False)]


def test_after_a_disruption_the_period_is_open_until_the_hold_is_over() -> None:
    scene = Scene(Guard(hold=30, within=1), IDS)
    scene.interrupt()
    scene.wait(100)
    scene.resume()
    scene.go("n0", "n1")
    scene.wait(29)
    assert told(scene.go("n2"))[0] == ("Updated", "n2", True)
    scene = Scene(Guard(hold=30, within=1), IDS)
    scene.interrupt()
    scene.resume()
    scene.go("n0", "n1")
    scene.wait(31)
    assert told(scene.go("n2")) == [("Removed", "n2", False)]


def test_a_new_leader_opens_the_period() -> None:
    scene = Scene(Guard(share=0.1), IDS)
    scene.zxid += EPOCH
    scene.go("n0", "n1")
    assert {each.suspicion.reason for each in scene.suspects.entries.values()} == {"new leader"}  # type: ignore[union-attr]


def test_a_deliberate_withdrawal_is_never_held() -> None:
    scene = Scene(Guard(), IDS)
    assert told(scene.withdraw(*IDS)) == [("Removed", id, False) for id in IDS]


@pytest.mark.parametrize("status", [None, "draining", "maintenance"])
def test_who_was_disabled_had_said_so(status: InstanceStatus | None) -> None:
    scene = Scene(Guard(), IDS)
    scene.come(*IDS, enabled=False, status=status)
    scene.go(*IDS)
    assert scene.suspect == []


def test_who_was_failing_had_not_said_that_it_leaves() -> None:
    scene = Scene(Guard(), IDS)
    scene.come(*IDS, enabled=False, status="failing")
    scene.go(*IDS)
    assert scene.suspect == IDS


def test_a_marker_of_another_node_explains_nothing() -> None:
    scene = Scene(Guard(), IDS)
    for id in IDS:
        scene.mark(id, scene.listed[id].czxid - 1)
    scene.go(*IDS)
    assert scene.suspect == IDS


def test_a_marker_of_a_later_node_of_the_same_id_explains_the_removal() -> None:
    scene = Scene(Guard(), IDS)
    scene.interrupt()
    for id in IDS:
        scene.mark(id, scene.listed[id].czxid + 5)
    scene.go(*IDS)
    assert scene.suspect == []


def test_a_marker_that_comes_late_takes_back_the_doubt() -> None:
    scene = Scene(Guard(), IDS)
    scene.go("n0", "n1", "n2")
    scene.mark("n0", EPOCH + 9)
    scene.mark("n1", EPOCH)  # of an earlier node
    assert scene.suspect == ["n1", "n2"]
    assert scene.released == [("n0", "withdrawn")]
    scene = Scene(Guard(), IDS)
    scene.go("n0", "n1")
    scene.mark("n0", EPOCH + 9)
    scene.go("n2")
    assert scene.suspect == []


def test_markers_of_a_history_that_was_lost_mean_nothing() -> None:
    scene = Scene(Guard(), IDS)
    for id in IDS:
        scene.mark(id, scene.listed[id].czxid)
    scene.interrupt()
    scene.zxid = 5
    scene.consumer.rolled_back()
    scene.go(*IDS)
    assert scene.suspect == IDS


def test_a_node_that_shows_no_instance_is_no_removal_to_doubt() -> None:
    scene = Scene(Guard(), IDS)
    scene.go(*IDS, invalid=IDS)
    assert scene.suspect == []
    scene = Scene(Guard(), IDS)
    scene.go(*IDS)
    scene.show(scene.suspects.invalid(["n0", "other"], scene.zxid))
    assert scene.suspect == IDS[1:]
    assert scene.released == [("n0", "invalid")]


def test_who_comes_back_is_confirmed() -> None:
    scene = Scene(Guard(), IDS)
    scene.go(*IDS)
    assert told(scene.come("n3")) == [("Updated", "n3", False)]
    assert scene.released == [("n3", "came back")]


def test_a_hold_ends() -> None:
    scene = Scene(Guard(hold=30), IDS)
    scene.go(*IDS)
    scene.wait(29.9)
    assert scene.suspect == IDS
    scene.wait(0.2)
    assert scene.suspect == []
    assert scene.consumer.entries == {}
    assert scene.suspects.wake is None


@pytest.mark.parametrize(("timeout_ms", "seconds"), [(None, 30), (4_000, 30), (60_000, 60), (10_000_000, 300)])
def test_a_hold_is_never_shorter_than_the_session_timeout(timeout_ms: int | None, seconds: float) -> None:
    scene = Scene(Guard(), IDS, timeout_ms=timeout_ms)
    scene.go(*IDS)
    scene.wait(seconds - 0.1)
    assert scene.suspect == IDS
    scene.wait(0.2)
    assert scene.suspect == []


def refused(scene: Scene, id: str, *, since: float) -> tuple[Difference[Any], ...]:
    return scene.show(scene.suspects.refused(id, scene.zxid, since=since, now=scene.now))


def test_a_suspect_that_refuses_twice_while_another_answers_is_dropped() -> None:
    scene = Scene(Guard(), IDS)
    scene.go(*IDS)
    assert refused(scene, "n0", since=scene.now) == ()
    scene.now += 1
    scene.suspects.answered("n1", scene.now)
    assert told(refused(scene, "n0", since=scene.now)) == [("Removed", "n0", True)]
    assert refused(scene, "n0", since=scene.now) == ()
    assert scene.released == [("n0", "failed")]


def test_all_that_refuse_for_five_seconds_while_nobody_answers_are_dropped() -> None:
    scene = Scene(Guard(), IDS)
    scene.go(*IDS)
    for _ in range(2):
        for id in IDS[1:]:
            assert refused(scene, id, since=scene.now) == ()
        scene.now += SILENCE
    assert refused(scene, "n0", since=scene.now) == ()  # one was asked once
    scene.now += 1
    assert sorted(told(refused(scene, "n0", since=scene.now))) == [("Removed", id, True) for id in IDS]


def test_an_answer_ends_the_silence() -> None:
    scene = Scene(Guard(), IDS)
    scene.go(*IDS)
    for id in IDS:
        refused(scene, id, since=scene.now)
    scene.suspects.answered("n3", scene.now)
    scene.now += SILENCE + 1
    refused(scene, "n3", since=scene.now)
    assert scene.suspect == IDS


def test_who_was_found_out_before_it_went_is_not_held() -> None:
    scene = Scene(Guard(), IDS)
    for id in IDS[:8]:
        refused(scene, id, since=scene.now)
    scene.now += 1
    scene.suspects.answered("n9", scene.now)
    for id in IDS[:7]:
        refused(scene, id, since=scene.now)
    scene.go(*IDS[:8])
    assert scene.suspect == ["n7"]  # it refused once only
    scene.come("n0")
    scene.go("n0")
    assert scene.suspect == ["n0", "n7"]  # registered anew, of which nothing is known


@pytest.mark.parametrize(
    ("answers", "since"),
    [
        ([], 101.0),  # it may be the caller's own network
        (["n0"], 101.0),  # itself
        (["n1"], 99.0),  # both calls began before either failed: that is one moment
    ],
)
def test_what_does_not_suffice_to_drop_a_suspect(answers: list[str], since: float) -> None:
    scene = Scene(Guard(), IDS)
    scene.go(*IDS)
    refused(scene, "n0", since=99.0)
    scene.now = 101.0
    for id in answers:
        scene.suspects.answered(id, scene.now)
    assert refused(scene, "n0", since=since) == ()
    assert scene.suspect == IDS


def test_one_refusal_of_each_suspect_does_not_suffice_however_long_nobody_was_asked() -> None:
    scene = Scene(Guard(), IDS[:2])
    scene.go("n0", "n1")
    assert scene.suspect == IDS[:2]
    began = scene.now
    refused(scene, "n0", since=began)
    scene.now += SILENCE + 1
    assert refused(scene, "n1", since=scene.now) == ()
    scene.now += 1
    assert refused(scene, "n0", since=began - 1) == ()  # both calls began before either failed
    assert refused(scene, "n1", since=scene.now) == ()
    assert scene.suspect == IDS[:2]
    assert sorted(told(refused(scene, "n0", since=scene.now))) == [("Removed", id, True) for id in IDS[:2]]


def test_an_answer_that_came_before_the_first_refusal_says_nothing() -> None:
    scene = Scene(Guard(), IDS)
    scene.go(*IDS)
    scene.suspects.answered("n1", scene.now)
    scene.now += 1
    refused(scene, "n0", since=scene.now)
    scene.now += 1
    assert refused(scene, "n0", since=scene.now) == ()


def test_refusals_before_a_return_are_forgotten() -> None:
    scene = Scene(Guard(), IDS)
    scene.go(*IDS)
    refused(scene, "n0", since=scene.now)
    scene.come("n0")
    scene.interrupt()
    scene.go("n0")
    assert "n0" in scene.suspect
    scene.now += 1
    scene.suspects.answered("n1", scene.now)
    assert refused(scene, "n0", since=scene.now) == ()


def test_holds_stand_still_while_the_view_is_not_fresh() -> None:
    scene = Scene(Guard(hold=30), IDS)
    scene.go(*IDS)
    scene.wait(20)
    scene.interrupt()
    assert scene.suspects.wake is None
    scene.wait(1000)
    assert scene.show(scene.suspects.due(scene.zxid, scene.now)) == ()
    assert told(scene.resume()) == [("Updated", id, True) for id in IDS]
    moved = scene.suspects.entries["n0"].suspicion
    assert moved is not None
    assert (moved.since, moved.until) == (WALL + 100, WALL + scene.now + 10)
    scene.wait(9.9)
    assert scene.suspect == IDS
    scene.wait(0.2)
    assert scene.suspect == []


def test_nothing_is_remembered_after_the_period() -> None:
    scene = Scene(Guard(within=10), IDS)
    scene.go("n0")
    assert scene.suspects.wake == scene.now + 10
    scene.wait(10)
    assert scene.suspects.wake is None
    assert scene.remembered == (0, 0, 0)
    assert not scene.suspects.concerned([Added(entry("x", 5), scene.zxid)], scene.zxid)


def calls_to_forget(number: int) -> int:
    """How many calls of functions it takes to forget so many counted removals, each of which went at its own moment."""
    scene = Scene(Guard(), [f"n{index}" for index in range(10 * number)])
    for index in range(number):
        scene.go(f"n{index}")
        scene.now += 0.001
    scene.now += 100
    before, calls = sys.getprofile(), 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"} and str(frame.f_globals.get("__name__")).startswith("aioregistry.")

    sys.setprofile(count)
    try:
        scene.suspects.due(scene.zxid, scene.now)
    finally:
        sys.setprofile(before)
    assert scene.suspects.wake is None  # all are forgotten
    return calls


def test_forgetting_takes_as_long_as_there_is_to_forget() -> None:
    few, many = calls_to_forget(50), calls_to_forget(400)
    assert few >= 50
    assert many < 12 * few  # eight times as many; not sixty-four


# ---------------------------------------------------------------- whatever happens

OPTIONS = st.builds(
    lambda hold, share, within, more: Guard(hold=hold, share=share, within=within, longest=hold + more),
    st.sampled_from([1.0, 10.0, 30.0]),
    st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    st.sampled_from([0.5, 5.0, 40.0]),
    st.sampled_from([0.0, 15.0]),
)
some_ids = st.lists(st.sampled_from(IDS), min_size=1, unique=True)


class Guarding(RuleBasedStateMachine):
    """The reference keeps a plain diary, and says from it what must be held."""

    @initialize(guard=OPTIONS)
    def start(self, guard: Guard) -> None:
        self.guard = guard
        self.scene = Scene(guard)
        self.counted: dict[str, tuple[float, float]] = {}  # when it went, and the session timeout that it published
        self.loud: list[list[float]] = []  # from when to when there was a disruption, or an election
        self.held_for: dict[str, float] = {}
        self.holds: dict[str, float] = {}
        self.withdrawn: set[str] = set()
        self.calls: list[tuple[str, str, float, float]] = []  # whom, how it went, from when, until when

    # ------------------------------------------------------------ what happens

    @rule(ids=some_ids, enabled=st.sampled_from([True, True, False]), timeout=st.sampled_from([None, 500, 20_000]))
    def come(self, ids: list[str], enabled: bool, timeout: int | None) -> None:
        if self.scene.fresh:
            self.scene.come(*ids, enabled=enabled, timeout_ms=timeout)
            self.came(ids)

    @rule(ids=some_ids)
    def go(self, ids: list[str]) -> None:
        there = [id for id in ids if id in self.scene.listed]
        if self.scene.fresh and there:
            self.gone(there)

    @rule(ids=some_ids)
    def withdraw(self, ids: list[str]) -> None:
        there = [id for id in ids if id in self.scene.listed]
        if self.scene.fresh and there:
            self.withdrawn.update(there)
            self.scene.withdraw(*there)

    @rule(seconds=st.sampled_from([0.5, 3.0, 12.0, 50.0]))
    def wait(self, seconds: float) -> None:
        before = self.scene.suspects.entries.keys()
        self.scene.wait(seconds)
        for id in before & self.scene.suspects.entries.keys():
            self.held_for[id] += seconds if self.scene.fresh else 0.0
        for id, why in self.scene.released:
            assert (why, self.scene.fresh) == ("time is up", True)
            assert self.held_for[id] + seconds >= self.holds[id]
        self.note_ends()

    @rule(id=st.sampled_from(IDS[:3]), age=st.sampled_from([0.0, 1.0]), later=st.sampled_from([0.01, 0.01, 3.0]))
    def refuse(self, id: str, age: float, later: float) -> None:
        self.wait(later)
        scene = self.scene
        before = set(scene.suspects.entries)
        self.calls.append((id, "refused", scene.now - age, scene.now))
        refused(scene, id, since=scene.now - age)
        assert set(scene.suspects.entries) == before - (self.dead(before) if id in before else set())
        self.note_ends()

    @rule(id=st.sampled_from(["other", *IDS[:2]]))
    def answer(self, id: str) -> None:
        self.calls.append((id, "answered", self.scene.now, self.scene.now))
        self.scene.suspects.answered(id, self.scene.now)

    def dead(self, ids: set[str]) -> set[str]:
        """Those of *ids*, all that are in doubt, against whom the calls speak for certain, by the diary alone."""
        since_answer = [at for at, call in enumerate(self.calls) if call[1] == "answered"]
        silent = self.calls[since_answer[-1] + 1 if since_answer else 0 :]
        first: dict[str, float] = {}
        twice: set[str] = set()
        for id, what, since, now in silent:
            if what == "refused" and since >= first.setdefault(id, now) < now:
                twice.add(id)
            elif what != "refused":
                first.pop(id, None)
                twice.discard(id)
        if first and self.scene.now - min(first.values()) >= SILENCE and ids <= twice:
            return set(ids)
        return {id for id in ids if self.is_certain(id)}

    def is_certain(self, id: str) -> bool:
        first = answered = certain = -math.inf
        for who, what, since, now in self.calls:
            if who == id and what == "refused":
                if first == -math.inf:
                    first = now
                elif since >= first and answered >= first:
                    certain = now
            elif who == id:
                first = certain = -math.inf
            elif what == "answered":
                answered = now
        return self.scene.now - certain <= REMEMBERED

    @precondition(lambda self: self.scene.fresh)
    @rule()
    def interrupt(self) -> None:
        self.scene.interrupt()
        self.loud.append([self.scene.now, math.inf])

    @precondition(lambda self: not self.scene.fresh)
    @rule(gone=st.none() | some_ids, come=st.none() | some_ids)
    def resume(self, gone: list[str] | None, come: list[str] | None) -> None:
        if come is not None:
            self.scene.come(*come)
            self.came(come)
        there = [id for id in gone or () if id in self.scene.listed and id not in (come or ())]
        if there:
            self.gone(there)
        self.scene.resume()
        self.loud[-1][1] = self.scene.now

    @rule()
    def elect(self) -> None:
        if self.scene.fresh:
            self.scene.zxid = (self.scene.zxid // EPOCH + 1) * EPOCH
            self.scene.take([])
            self.loud.append([self.scene.now, self.scene.now])

    # ------------------------------------------------------------ what follows from it

    def came(self, ids: list[str]) -> None:
        for id in ids:
            self.counted.pop(id, None)
            self.withdrawn.discard(id)
            self.calls.append((id, "anew", self.scene.now, self.scene.now))
        self.note_ends()

    def gone(self, ids: list[str]) -> None:
        scene = self.scene
        doubtful = [id for id in ids if scene.listed[id].instance.enabled]
        entries = {id: scene.listed[id] for id in ids}
        before = set(scene.suspects.entries)
        self.counted = {id: counted for id, counted in self.counted.items() if self.is_counted(*counted)}
        self.counted |= {id: (scene.now, self.published(scene.listed[id])) for id in doubtful}
        known = len(self.counted) + len(scene.listed) - len(ids)
        scene.go(*ids)
        expected = set(before)
        if doubtful and self.too_many(known, max(self.hold(entries[id]) for id in doubtful)):
            doubted = self.counted.keys() - before
            expected |= doubted - self.dead(doubted)
        assert set(scene.suspects.entries) == expected
        for id in expected - before:
            self.held_for[id] = 0.0
            self.holds[id] = self.hold(entries.get(id) or scene.suspects.entries[id])

    def published(self, entry: Entry[Any]) -> float:
        return (entry.instance.session_timeout_ms or 0) / 1000

    def hold(self, entry: Entry[Any]) -> float:
        return min(max(self.guard.hold, self.published(entry)), self.guard.longest)

    def too_many(self, known: int, hold: float) -> bool:
        loud = any(since <= self.scene.now < until + hold for since, until in self.loud)
        gone = len(self.counted)
        least = min(2, known) if loud else 2 if gone == known else 3
        return gone >= least and gone > Fraction(str(self.guard.share)) * known

    def is_counted(self, time: float, published: float) -> bool:
        """Whether there was no quiet moment since its period would have been over."""
        guard, now = self.guard, self.scene.now
        at = time + max(guard.within, min(published, guard.longest))
        hold = min(max(guard.hold, published), guard.longest)
        for since, until in itertools.chain(sorted(self.loud), [(math.inf, math.inf)]):
            if at > now:
                return True
            if since > at:
                return False
            at = max(at, until + hold)
        return at > now

    def note_ends(self) -> None:
        for id, why in self.scene.released:
            self.calls.append((id, "anew", self.scene.now, self.scene.now))
            if why != "came back":
                self.counted.pop(id, None)
        self.scene.released.clear()

    # ------------------------------------------------------------ what always holds

    @invariant()
    def the_guarantee_holds(self) -> None:
        scene = self.scene
        suspects = scene.suspects.entries
        assert scene.consumer.entries == {**scene.listed, **suspects}
        check_guarded(
            suspects={id: self.held_for[id] for id in suspects},
            holds=self.holds,
            listed=scene.listed,
            withdrawn=self.withdrawn,
        )

    @invariant()
    def the_clock_is_looked_at(self) -> None:
        scene = self.scene
        assert (scene.suspects.wake is None) or scene.fresh
        assert not scene.suspects.entries or not scene.fresh or scene.suspects.wake is not None
        assert max(scene.remembered) <= len(IDS)
        assert [id for id in IDS if id in scene.suspects] == scene.suspect


def test_whatever_happens_only_what_must_be_is_held_and_only_as_long_as_it_may() -> None:
    run_state_machine_as_test(Guarding, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))
