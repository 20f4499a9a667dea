"""The core of a view, stage by stage: what each event makes of what is shown, told and to be told later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from aioregistry import Entry, Guard, Override, ServiceInstance
from aioregistry._discovery.core import STAGES, Effects, ViewCore
from aioregistry._discovery.guard import Moment
from aioregistry._discovery.kept import Kept
from aioregistry._discovery.mirror import News
from aioregistry._discovery.stages import (
    Called,
    Due,
    Event,
    FreshnessChanged,
    Held,
    Misfit,
    Opened,
    Options,
    Overridden,
    Recalled,
    Released,
    Stage,
    State,
    Withdrawn,
)
from aioregistry._model import Added, Difference, Invalid, Removed, Updated

WALL = 1_700_000_000.0
EPOCH = 2**32


class Listing:
    """The server's list."""

    def __init__(self, *entries: Entry[Any], as_of: int = EPOCH + 9) -> None:
        self.entries: dict[str, Entry[Any]] = {entry.instance.id: entry for entry in entries}
        self.invalid: dict[str, Invalid] = {}
        self.as_of = as_of


class View:
    """A core, and what it was told last."""

    def __init__(self, listing: Listing, **options: Any) -> None:
        self.listing = listing
        self.now = 1000.0
        asked: dict[str, Any] = {"payload_type": Any, "guard": None, "kept": False, "subsets": tuple}
        self.core: ViewCore[Any] = ViewCore(listing, Options(**asked | options))

    def step(self, event: Event) -> Effects[Any]:
        return self.core.step(event, Moment(self.now, WALL + self.now))

    def opens(self, kept: Kept | None = None, *, listed: bool = True, synced: bool = True) -> Effects[Any]:
        return self.step(Opened(kept, listed, synced))

    def hears(
        self, *changes: Difference[Any], resynced: bool = False, invalid: tuple[Invalid, ...] = ()
    ) -> Effects[Any]:
        """The listing changes, and it is told."""
        for change in changes:
            self.listing.as_of = max(self.listing.as_of, change.zxid)
            if isinstance(change, Removed):
                del self.listing.entries[change.id]
            else:
                self.listing.entries[change.id] = change.entry
        return self.step(News(tuple(changes), invalid, resynced))

    @property
    def shown(self) -> list[str]:
        return sorted(self.core.entries)

    @property
    def state(self) -> State[Any]:
        """The state that the stages share."""
        return self.core._state

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        return self.core._stages


def entry(id: str, czxid: int = EPOCH + 1, payload: object = None, *, registered: int = 7) -> Entry[Any]:
    instance = ServiceInstance("chat", id=id, address="10.0.0.7", payload=payload, registration_time_ms=registered)
    return Entry(instance, 5, czxid, czxid, 0, WALL, WALL)


def kept(*entries: Entry[Any], known_at: float = WALL + 1000.0, as_of: int = EPOCH + 3) -> Kept:
    return Kept("chat", "/services", known_at, as_of, {each.instance.id: each for each in entries})


def override(
    id: str, *, registered: int | None = None, enabled: bool | None = False, weight: float | None = None
) -> Override:
    return Override(
        service="chat",
        id=id,
        enabled=enabled,
        weight=weight,
        reason="",
        by="",
        since=WALL,
        until=None,
        registration_time_ms=registered,
        version=0,
    )


def status(view: View) -> Mapping[str, tuple[bool, str | None]]:
    return {id: (each.instance.enabled, each.instance.status) for id, each in view.core.entries.items()}


# ---------------------------------------------------------------- without any stage


def test_a_core_without_stages_shows_what_is_listed_and_holds_nothing_itself() -> None:
    a, b = entry("a"), entry("b")
    view = View(Listing(a))
    assert view.opens() == Effects((), False, (), None, ())
    added = Added(b, EPOCH + 10)
    assert view.hears(added) == Effects((added,), False, (), None, ())
    assert view.core.entries == {"a": a, "b": b}
    assert (len(view.core), view.core.suspects, view.core.recalled, view.core.heeds_answers) == (2, {}, None, False)
    assert (view.core.as_of, view.core.invalid, view.core.to_keep) == (EPOCH + 10, {}, {"a": a, "b": b})
    assert view.core.overrides == {}
    assert view.state.overlay == {}
    assert view.state.listed is view.listing.entries
    gone = Removed(b, EPOCH + 11)
    assert view.hears(gone, resynced=True) == Effects((gone,), True, (), None, ())


def test_nodes_that_show_no_instance_are_told_once_and_kept_by_id() -> None:
    view = View(Listing())
    view.opens()
    bad = Invalid("bad", "is empty", 0, EPOCH + 2, EPOCH + 2)
    view.listing.invalid["bad"] = bad
    (told,) = view.hears(invalid=(bad,)).invalid
    assert (told.invalid, told.zxid) == (bad, view.core.as_of)
    assert view.core.invalid == {"bad": bad}
    assert view.hears(Added(entry("a"), EPOCH + 10)).invalid == ()


def test_who_asks_for_everything_has_each_stage_in_this_order() -> None:
    asked: dict[str, Any] = {"payload_type": int, "guard": Guard(), "kept": True, "overridden": True}
    assert [type(stage).__name__ for stage in View(Listing(), **asked).stages] == [
        "Conversion",
        "Recall",
        "Suspecting",
        "Overriding",
    ]
    assert len(STAGES) == 4
    assert View(Listing()).stages == ()


@pytest.mark.parametrize(
    ("method", "event"),
    [
        ("opened", Opened(None, True, True)),
        ("news", News((), (), False)),
        ("freshness_changed", FreshnessChanged(True)),
        ("withdrawn", Withdrawn("a", EPOCH)),
        ("called", Called("a", True, 0.0)),
        ("due", Due()),
        ("overridden", Overridden({})),
    ],
)
def test_what_a_stage_does_not_care_for_passes_through(method: str, event: Event) -> None:
    changes = (Added(entry("a"), EPOCH + 1),)
    stage: Stage[Any] = Stage(State(Listing()))
    assert getattr(stage, method)(event, changes) is changes
    assert stage.wake is None


# ---------------------------------------------------------------- payloads with a type


def test_payloads_are_converted_and_what_does_not_fit_counts_as_absent() -> None:
    view = View(Listing(entry("a", payload="1"), entry("b", payload=2)), payload_type=int)
    effects = view.opens()
    assert (effects.changes, [type(each) for each in effects.notices]) == ((), [Misfit])
    assert view.shown == ["b"]
    assert list(view.core.invalid) == ["a"]
    misfit = view.core.invalid["a"]
    assert (misfit.owner, misfit.czxid, misfit.mzxid) == (5, EPOCH + 1, EPOCH + 1)
    assert view.core.to_keep == view.listing.entries


def test_what_is_not_listed_yet_is_converted_with_the_first_news() -> None:
    view = View(Listing(), payload_type=int)
    view.opens(listed=False, synced=False)
    view.listing.entries["a"] = entry("a", payload=1)
    effects = view.step(News((), (), resynced=True))
    assert (effects.changes, view.shown) == ((), ["a"])


def test_changes_are_of_what_fits() -> None:
    view = View(Listing(entry("a", payload=1)), payload_type=int)
    view.opens()
    before = view.core.entries["a"]

    broken = entry("a", EPOCH + 10, payload="x")
    effects = view.hears(Updated(broken, view.listing.entries["a"], EPOCH + 10))
    (gone,) = effects.changes
    assert isinstance(gone, Removed)
    assert (gone.entry, gone.zxid, gone.invalid) == (before, EPOCH + 10, view.core.invalid["a"])
    assert [told.invalid.id for told in effects.invalid] == ["a"]

    still = entry("a", EPOCH + 11, payload="y")
    effects = view.hears(Updated(still, broken, EPOCH + 11))
    assert (effects.changes, [told.invalid.id for told in effects.invalid]) == ((), ["a"])

    good = entry("a", EPOCH + 12, payload=3)
    effects = view.hears(Updated(good, still, EPOCH + 12))
    (back,) = effects.changes
    assert isinstance(back, Added)
    assert (back.entry.instance.payload, view.core.invalid, effects.invalid) == (3, {}, ())

    better = entry("a", EPOCH + 13, payload=4)
    (update,) = view.hears(Updated(better, good, EPOCH + 13)).changes
    assert isinstance(update, Updated)
    assert (update.previous_entry.instance.payload, update.entry.instance.payload) == (3, 4)

    node = Invalid("a", "is empty", 0, EPOCH + 14, EPOCH + 14)
    (removal,) = view.hears(Removed(better, EPOCH + 14, node)).changes
    assert isinstance(removal, Removed)
    assert (removal.entry.instance.payload, removal.invalid, view.shown) == (4, node, [])


def test_what_did_not_fit_and_goes_is_told_to_nobody() -> None:
    broken = entry("a", payload="x")
    view = View(Listing(broken), payload_type=int)
    view.opens()
    effects = view.hears(Removed(broken, EPOCH + 10))
    assert (effects.changes, effects.notices, view.core.invalid) == ((), (), {})


# ---------------------------------------------------------------- a file


def test_what_the_file_keeps_is_shown_until_everything_was_read() -> None:
    view = View(Listing(as_of=0), kept=True)
    file = kept(entry("a"), entry("b"))
    effects = view.opens(file, listed=False, synced=False)
    assert [(type(change), change.id, change.zxid) for change in effects.changes] == [
        (Added, "a", file.as_of),
        (Added, "b", file.as_of),
    ]
    assert effects.notices == (Recalled(2, file.known_at),)
    assert (view.core.recalled, view.core.as_of, len(view.core)) == (file, file.as_of, 2)
    suspicion = view.core.entries["a"].suspicion
    assert suspicion is not None
    assert (suspicion.reason, suspicion.since, suspicion.until) == ("file", WALL + 1000.0, math.inf)

    view.listing.entries["b"], view.listing.entries["c"] = entry("b", EPOCH + 20), entry("c")
    view.listing.as_of = EPOCH + 20
    effects = view.step(News((), (), resynced=True))
    assert effects.first
    assert [(type(change), change.id, change.zxid) for change in effects.changes] == [
        (Updated, "b", EPOCH + 20),
        (Added, "c", EPOCH + 20),
        (Removed, "a", EPOCH + 20),
    ]
    assert (view.core.recalled, view.shown, view.core.suspects) == (None, ["b", "c"], {})
    later = view.step(News((), (), resynced=True))
    assert (later.changes, later.first) == ((), False)


@pytest.mark.parametrize(("listed", "synced"), [(True, False), (True, True)])
def test_a_file_shows_nothing_where_the_server_was_read(listed: bool, synced: bool) -> None:
    view = View(Listing(entry("b")), kept=True)
    effects = view.opens(kept(entry("a"), entry("b")), listed=listed, synced=synced)
    assert (view.core.recalled, view.shown) == (None, ["b"])
    assert [(type(change), change.id, change.zxid) for change in effects.changes] == (
        [(Removed, "a", view.core.as_of)] if synced else []
    )


@pytest.mark.parametrize(("age", "told"), [(3600.0, ["a"]), (3600.5, [])])
def test_an_old_file_tells_nobody_went_meanwhile(age: float, told: list[str]) -> None:
    view = View(Listing(), kept=True)
    effects = view.opens(kept(entry("a"), known_at=WALL + 1000.0 - age))
    assert [change.id for change in effects.changes] == told


def test_a_node_that_shows_no_instance_now_is_not_missing() -> None:
    view = View(Listing(entry("c", payload="x")), kept=True, payload_type=int)
    view.listing.invalid["b"] = Invalid("b", "is empty", 0, EPOCH + 2, EPOCH + 2)
    effects = view.opens(kept(*(entry(id, payload=1) for id in "abc"), entry("d", payload="no number")))
    assert [change.id for change in effects.changes] == ["a"]


def test_what_the_file_keeps_is_converted_too() -> None:
    view = View(Listing(as_of=0), kept=True, payload_type=int)
    effects = view.opens(kept(entry("a", payload="x"), entry("b", payload=2)), listed=False, synced=False)
    assert [change.id for change in effects.changes] == ["b"]
    assert [type(notice) for notice in effects.notices] == [Misfit, Recalled]


def test_what_did_not_fit_in_the_file_is_forgotten_once_all_was_read() -> None:
    view = View(Listing(as_of=0), kept=True, payload_type=int)
    view.opens(kept(entry("a", payload="x")), listed=False, synced=False)
    assert list(view.core.invalid) == ["a"]
    view.step(News((), (), resynced=True))
    assert view.core.invalid == {}


def test_a_view_with_a_file_that_is_not_there_shows_what_is_listed() -> None:
    view = View(Listing(entry("a")), kept=True)
    assert (view.opens(None).changes, view.shown) == ((), ["a"])
    assert view.hears(Added(entry("b"), EPOCH + 10)).changes[0].id == "b"


# ---------------------------------------------------------------- a guard

GUARD = Guard(hold=30.0, within=10.0)


def with_guard(*ids: str, **options: Any) -> View:
    return View(Listing(*(entry(id) for id in ids)), guard=GUARD, **options)


def test_removals_around_a_disruption_are_held_and_released_when_their_hold_is_over() -> None:
    view = with_guard("a", "b")
    assert view.opens().wake_at is None
    assert view.step(FreshnessChanged(False)).changes == ()
    gone = [Removed(view.listing.entries[id], EPOCH + 10) for id in "ab"]
    effects = view.hears(*gone, resynced=True)
    assert [type(notice) for notice in effects.notices] == [Held]
    assert view.shown == ["a", "b"]
    assert (sorted(view.core.suspects), len(view.core), view.core.heeds_answers) == (["a", "b"], 2, True)
    assert sorted(view.core.to_keep) == ["a", "b"]
    view.step(FreshnessChanged(True))
    assert effects.wake_at is not None
    view.now = max(effects.wake_at, view.now + GUARD.hold)
    effects = view.step(Due())
    assert sorted(change.id for change in effects.changes) == ["a", "b"]
    assert [type(notice) for notice in effects.notices] == [Released]
    assert (view.shown, effects.wake_at, view.core.heeds_answers) == ([], None, False)


def test_holds_stand_still_from_a_disruption_to_the_next_list() -> None:
    view = with_guard(*"abcdef")
    view.opens()
    held = view.hears(*[Removed(view.listing.entries[id], EPOCH + 10) for id in "abcde"])
    assert held.wake_at == view.now + GUARD.hold
    view.now += 10.0
    assert view.step(FreshnessChanged(False)).wake_at is None
    view.now += 1000.0
    assert view.step(Due()).changes == ()
    assert view.step(FreshnessChanged(True)).wake_at == view.now + GUARD.hold - 10.0


@pytest.mark.parametrize("disrupted", [False, True])
def test_two_of_three_are_held_around_a_disruption_only(disrupted: bool) -> None:
    view = with_guard("a", "b", "c")
    view.opens()
    if disrupted:
        view.step(FreshnessChanged(False))
        view.hears(resynced=True)
    effects = view.hears(*[Removed(view.listing.entries[id], EPOCH + 10) for id in "ab"])
    assert sorted(view.core.suspects) == (["a", "b"] if disrupted else [])
    if disrupted:
        assert effects.wake_at == view.now + GUARD.hold, "the list that came anew ended the disruption"


def test_a_view_that_opens_behind_takes_that_for_a_disruption() -> None:
    view = with_guard("a", "b", "c")
    view.opens(synced=False)
    effects = view.hears(*[Removed(view.listing.entries[id], EPOCH + 10) for id in "ab"])
    assert (sorted(view.core.suspects), effects.wake_at) == (["a", "b"], None)


def test_who_comes_back_long_after_the_others_were_counted_is_confirmed() -> None:
    view = with_guard(*"abcdef")
    view.opens()
    view.hears(*[Removed(view.listing.entries[id], EPOCH + 10) for id in "abcde"])
    view.now += GUARD.hold - 1.0
    view.step(Due())
    (update,) = view.hears(Added(entry("a", EPOCH + 11), EPOCH + 11)).changes
    assert isinstance(update, Updated)
    assert (update.previous_entry.suspicion is not None, update.entry.suspicion) == (True, None)


def test_a_payload_that_does_not_fit_any_more_is_no_removal_to_doubt() -> None:
    listing = Listing(*(entry(id, payload=1) for id in "abcdef"))
    view = View(listing, guard=GUARD, payload_type=int)
    view.opens()
    broken = entry("a", EPOCH + 10, payload="x")
    effects = view.hears(
        Updated(broken, listing.entries["a"], EPOCH + 10),
        *[Removed(listing.entries[id], EPOCH + 10) for id in "bcde"],
    )
    assert [change.id for change in effects.changes if isinstance(change, Removed)] == ["a"]
    assert view.shown == list("bcdef")
    (held,) = [notice for notice in effects.notices if isinstance(notice, Held)]
    assert [each.instance.id for each in held.entries] == list("bcde")


def test_a_suspect_that_comes_back_with_a_payload_that_does_not_fit_is_let_go() -> None:
    listing = Listing(*(entry(id, payload=1) for id in "abcdef"))
    view = View(listing, guard=GUARD, payload_type=int)
    view.opens()
    view.hears(*[Removed(listing.entries[id], EPOCH + 10) for id in "abcde"])
    effects = view.hears(Added(entry("a", EPOCH + 11, payload="x"), EPOCH + 11))
    assert [(type(change), change.id) for change in effects.changes] == [(Removed, "a")]
    assert view.shown == list("bcdef")


def test_what_is_withdrawn_is_not_held() -> None:
    view = with_guard("a", "b")
    view.opens()
    for id in "ab":
        assert view.step(Withdrawn(id, EPOCH + 1)).changes == ()
    effects = view.hears(*[Removed(view.listing.entries[id], EPOCH + 10) for id in "ab"])
    assert (sorted(change.id for change in effects.changes), view.shown, effects.notices) == (["a", "b"], [], ())


def test_the_leader_is_new_only_if_it_is_after_the_view_opened() -> None:
    listing = Listing(*(entry(id) for id in "abc"), as_of=0)
    view = View(listing, guard=GUARD)
    listing.as_of = EPOCH + 9  # read between the making of the view and its first event
    view.opens()
    effects = view.hears(*[Removed(listing.entries[id], EPOCH + 10) for id in "ab"])
    assert [change.id for change in effects.changes] == ["a", "b"]
    assert (view.shown, view.core.suspects) == (["c"], {})


def test_a_marker_for_who_is_known_from_the_file_only_is_kept_until_the_list_comes() -> None:
    view = View(Listing(as_of=0), guard=GUARD, kept=True)
    view.opens(kept(entry("a"), entry("b")), listed=False, synced=False)
    view.step(Withdrawn("a", EPOCH + 1))
    view.listing.as_of = EPOCH + 9
    effects = view.step(News((), (), resynced=True))
    assert [(type(change), change.id) for change in effects.changes if change.id == "a"] == [(Removed, "a")]
    assert view.shown == ["b"]


def test_nothing_is_kept_of_markers_for_who_is_not_shown() -> None:
    view = with_guard("a", "b")
    view.opens()
    (guarding,) = view.stages
    view.step(Withdrawn("stranger", EPOCH + 1))
    assert guarding._suspects._markers == {}  # type: ignore[attr-defined]
    view.step(Withdrawn("a", EPOCH + 1))
    assert list(guarding._suspects._markers) == ["a"]  # type: ignore[attr-defined]


def test_a_withdrawal_that_comes_late_releases_the_suspect() -> None:
    view = with_guard("a", "b")
    view.opens()
    view.hears(*[Removed(view.listing.entries[id], EPOCH + 10) for id in "ab"])
    assert view.shown == ["a", "b"]
    effects = view.step(Withdrawn("a", EPOCH + 1))
    assert ([change.id for change in effects.changes], view.shown) == (["a"], ["b"])


def test_who_has_refused_and_not_answered_since_is_counted() -> None:
    view = with_guard(*"abcdef")
    view.opens()
    view.hears(*[Removed(view.listing.entries[id], EPOCH + 10) for id in "abcde"])
    assert view.step(Called("a", True, view.now)).changes == ()
    assert view.state.refusing == 1
    view.now += 1.0
    effects = view.step(Called("a", False, view.now))
    assert (effects.changes, view.state.refusing, view.shown) == ((), 0, list("abcdef"))


def test_a_call_to_who_is_listed_changes_nothing_that_is_shown() -> None:
    view = with_guard("a")
    view.opens()
    effects = view.step(Called("a", True, view.now))
    assert (effects.changes, view.core.heeds_answers) == ((), True)
    view.now += 1.0
    effects = view.step(Called("a", False, view.now))
    assert (effects.changes, view.core.heeds_answers) == ((), False)


def test_what_the_file_knew_and_is_not_listed_is_held() -> None:
    view = with_guard("c", kept=True)
    effects = view.opens(kept(entry("a"), entry("b"), entry("c")))
    assert (effects.changes, view.shown) != ((), ["c"])
    assert sorted(view.core.suspects) == ["a", "b"]
    assert [type(notice) for notice in effects.notices] == [Held]
    assert effects.wake_at is not None


def test_a_node_that_shows_no_instance_any_more_is_not_held() -> None:
    view = with_guard("a", "b")
    view.opens()
    node = Invalid("a", "is empty", 0, EPOCH + 1, EPOCH + 10)
    view.listing.invalid["a"] = node
    effects = view.hears(
        Removed(view.listing.entries["a"], EPOCH + 10, node),
        Removed(view.listing.entries["b"], EPOCH + 10),
        invalid=(node,),
    )
    assert ([change.id for change in effects.changes if change.id == "a"], "a" in view.shown) == (["a"], False)


# ---------------------------------------------------------------- operators

MAINTENANCE = (False, "maintenance")
WELL = (True, None)


def with_overrides(*ids: str, **options: Any) -> View:
    view = View(Listing(*(entry(id) for id in ids)), overridden=True, **options)
    view.opens()
    return view


def test_an_override_is_an_update_when_it_begins_and_when_it_ends() -> None:
    view = with_overrides("a", "b")
    (begins,) = view.step(Overridden({"a": override("a")})).changes
    assert isinstance(begins, Updated)
    assert (begins.zxid, begins.previous_entry.instance.enabled, begins.entry.instance.status) == (
        view.core.as_of,
        True,
        "maintenance",
    )
    assert status(view) == {"a": MAINTENANCE, "b": WELL}
    assert (list(view.core.overrides), view.core.suspects, len(view.core)) == (["a"], {}, 2)
    assert view.core.to_keep == view.listing.entries
    assert view.step(Overridden({"a": override("a")})).changes == ()
    (ends,) = view.step(Overridden({})).changes
    assert isinstance(ends, Updated)
    assert (ends.previous_entry, ends.entry) == (begins.entry, view.listing.entries["a"])
    assert status(view) == {"a": WELL, "b": WELL}
    assert (view.state.covered, view.state.overlay) == ({}, {})


@pytest.mark.parametrize(("registered", "shown"), [(7, MAINTENANCE), (None, MAINTENANCE), (8, WELL)])
def test_an_override_is_of_one_incarnation_or_of_any(registered: int | None, shown: tuple[bool, str | None]) -> None:
    view = with_overrides("a")
    view.step(Overridden({"a": override("a", registered=registered)}))
    assert status(view) == {"a": shown}


def test_an_override_that_says_nothing_of_enabled_changes_nothing() -> None:
    view = with_overrides("a")
    assert view.step(Overridden({"a": override("a", enabled=None)})).changes == ()
    assert status(view) == {"a": WELL}


@pytest.mark.parametrize(
    ("enabled", "weight", "shown"),
    [
        (False, None, (False, 1.0)),
        (False, 0.5, (False, 0.5)),
        (None, 0.5, (True, 0.5)),
        (None, 0.0, (True, 0.0)),
        (None, 1.0, (True, 1.0)),
    ],
)
def test_the_weight_of_an_override_is_shown_until_it_ends(
    enabled: bool | None, weight: float | None, shown: tuple[bool, float]
) -> None:
    view = with_overrides("a")
    plain = view.core.entries["a"]
    changes = view.step(Overridden({"a": override("a", enabled=enabled, weight=weight)})).changes
    entry = view.core.entries["a"]
    assert (entry.instance.enabled, entry.weight) == shown
    assert len(changes) == (shown != (True, 1.0))
    assert len(view.step(Overridden({})).changes) == len(changes)
    assert view.core.entries["a"] is plain


def test_an_override_that_takes_nothing_away_covers_nothing() -> None:
    view = with_overrides("a")
    view.step(Overridden({"a": override("a", enabled=None, weight=1.0)}))
    assert (view.state.covered, view.state.overlay) == ({}, {})


@pytest.mark.parametrize(("own", "updates"), [("failing", 1), ("draining", 1), (None, 1), ("maintenance", 0)])
def test_maintenance_is_told_of_who_was_not_enabled_for_another_reason(own: str | None, updates: int) -> None:
    plain = entry("a")
    disabled = msgspec.structs.replace(plain, instance=plain.instance.replace(enabled=False, status=own))
    view = View(Listing(disabled), overridden=True)
    view.opens()
    assert len(view.step(Overridden({"a": override("a")})).changes) == updates
    assert status(view) == {"a": MAINTENANCE}
    assert len(view.step(Overridden({})).changes) == updates
    assert status(view) == {"a": (False, own)}


def test_the_removal_of_who_is_in_maintenance_says_why_its_node_shows_no_instance() -> None:
    view = with_overrides("a")
    view.step(Overridden({"a": override("a")}))
    node = Invalid("a", "is empty", 0, EPOCH + 1, EPOCH + 10)
    (removed,) = view.hears(Removed(view.listing.entries["a"], EPOCH + 10, node)).changes
    assert isinstance(removed, Removed)
    assert (removed.invalid, removed.instance.status) == (node, "maintenance")


def test_an_override_of_who_is_not_there_waits_for_him() -> None:
    view = with_overrides()
    assert view.step(Overridden({"a": override("a")})).changes == ()
    (added,) = view.hears(Added(entry("a"), EPOCH + 10)).changes
    assert isinstance(added, Added)
    assert (added.zxid, added.entry.instance.status, status(view)) == (EPOCH + 10, "maintenance", {"a": MAINTENANCE})


def test_news_of_who_is_in_maintenance_is_told_as_it_is_shown() -> None:
    view = with_overrides("a", "b")
    view.step(Overridden({"a": override("a", registered=7)}))
    shown, listed = view.core.entries["a"], view.listing.entries["a"]

    newer = entry("a", EPOCH + 10)
    (update,) = view.hears(Updated(newer, listed, EPOCH + 10)).changes
    assert isinstance(update, Updated)
    assert (update.previous_entry, update.entry.instance.status, update.zxid) == (shown, "maintenance", EPOCH + 10)

    another = entry("a", EPOCH + 11, registered=8)
    (update,) = view.hears(Updated(another, newer, EPOCH + 11)).changes
    assert isinstance(update, Updated)
    assert (update.previous_entry.instance.status, update.entry) == ("maintenance", another)
    assert status(view) == {"a": WELL, "b": WELL}

    view.step(Overridden({"a": override("a")}))
    shown = view.core.entries["a"]
    (removed,) = view.hears(Removed(another, EPOCH + 12)).changes
    assert isinstance(removed, Removed)
    assert (removed.entry, removed.zxid, view.shown) == (shown, EPOCH + 12, ["b"])

    b = view.listing.entries["b"]
    plain = Updated(entry("b", EPOCH + 13), b, EPOCH + 13)
    assert view.hears(plain).changes == (plain,)
    gone = Removed(view.listing.entries["b"], EPOCH + 14)
    assert view.hears(gone).changes == (gone,)


def test_a_suspect_is_shown_in_maintenance_and_kept_as_it_was() -> None:
    view = with_overrides("a", "b", guard=GUARD)
    entries = dict(view.listing.entries)
    view.hears(*[Removed(each, EPOCH + 10) for each in entries.values()])
    assert sorted(view.core.suspects) == ["a", "b"]
    (update,) = view.step(Overridden({"a": override("a")})).changes
    assert isinstance(update, Updated)
    assert update.entry.suspicion is not None
    assert status(view) == {"a": MAINTENANCE, "b": WELL}
    assert view.core.to_keep["a"].instance.enabled
    (update,) = view.step(Overridden({})).changes
    assert (status(view)["a"], update.entry.suspicion is not None) == (WELL, True)
