from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from aioregistry import Added, Entry, Invalid, Invalidated, Removed, Resynced, Snapshot, Suspicion, Updated
from aioregistry._cli import selected_changes
from aioregistry._cli.selected_changes import SelectedChanges, Told
from aioregistry._cli.selection import Selection, condition
from aioregistry._document import decode
from tests.cli.test_watch import instance

EU1, EU2 = {"zone": "eu-1", "load": 2}, {"zone": "eu-2", "load": 1}


def entry(id: str, payload: Any = EU1) -> Entry[Any]:
    return Entry(decode(instance(id, payload)), 7, 1, 1, 0, 0.0, 0.0)


def snapshot(entries: Iterable[Entry[Any]] = (), invalid: Iterable[Invalid] = ()) -> Snapshot[Any]:
    by_id = {each.instance.id: each for each in entries}
    return Snapshot("chat", by_id, {each.id: each for each in invalid}, as_of=9)


def changes(*where: str, sort: str | None = None, reverse: bool = False) -> SelectedChanges:
    return SelectedChanges(Selection([*map(condition, where)], sort, reverse))


def told(selected: SelectedChanges, *news: Any) -> list[tuple[str, str]]:
    return [(line.kind, id_of(line)) for each in news for line in selected.of(each)]


def id_of(line: Told) -> str:
    return line.node.id if isinstance(line.node, Invalid) else line.node.instance.id


@pytest.mark.parametrize(
    ("where", "before", "after", "kind"),
    [
        (["zone=eu-1"], EU1, EU1, "updated"),
        (["zone=eu-1"], EU1, EU2, "unmatched"),
        (["zone=eu-1"], EU2, EU1, "matched"),
        (["zone=eu-1"], EU2, EU2, None),
        (["zone!=eu-1"], EU1, EU2, "matched"),
        (["zone!=eu-1"], EU1, None, "matched"),
        (["zone=eu-1", "load=2"], EU1, {**EU1, "load": 3}, "unmatched"),
        ([], EU1, EU2, "updated"),
    ],
    ids=str,
)
def test_an_update_may_enter_or_leave_the_selection(
    where: list[str], before: Any, after: Any, kind: str | None
) -> None:
    expected = [] if kind is None else [(kind, "a")]
    assert told(changes(*where), Updated(entry("a", after), entry("a", before), 9)) == expected


def test_what_comes_and_goes_is_told_of_the_selection_alone() -> None:
    selected = changes("zone=eu-1")
    news = (Added(entry("a"), 9), Added(entry("b", EU2), 9), Removed(entry("a"), 9), Removed(entry("b", EU2), 9))
    assert told(selected, *news) == [("added", "a"), ("removed", "a")]


@pytest.mark.parametrize(
    ("where", "of_one", "of_another"),
    [
        ("zone=eu-1", 1, 0),  # it leaves, with the reason; the other is of no concern
        ("zone!=eu-1", 1, 1),  # as `list` has it: a node without a value has not this one
        ("state=invalid", 1, 1),
        ("state!=invalid", 1, 1),
        ("id=a", 1, 0),
    ],
)
def test_a_node_that_stops_to_show_an_instance_is_told_once_and_never_as_removed(
    where: str, of_one: int, of_another: int
) -> None:
    for id, payload, count in (("a", EU1, of_one), ("b", EU2, of_another)):
        invalid = Invalid(id, "not JSON")
        found = told(changes(where), Removed(entry(id, payload), 9, invalid), Invalidated(invalid, 9))
        assert found == [("invalid", id)] * count


def test_a_node_that_is_mended_leaves_a_selection_of_the_invalid() -> None:
    selected = changes("state=invalid")
    present = selected.present(snapshot([entry("a")], [Invalid("x", "not JSON")]))
    assert ([*present.entries], [each.id for each in present.invalid]) == ([], ["x"])
    assert told(selected, Invalidated(Invalid("y", "not JSON"), 9)) == [("invalid", "y")]
    mended = [Added(entry(id), 9) for id in "xyz"]
    assert told(selected, *mended) == [("unmatched", "x"), ("unmatched", "y")]
    assert told(selected, *mended) == []  # that was told


def test_a_node_that_is_mended_and_belongs_to_the_selection_is_added() -> None:
    selected = changes("zone!=eu-2")
    assert told(selected, Invalidated(Invalid("x", "not JSON"), 9), Added(entry("x"), 9)) == [
        ("invalid", "x"),
        ("added", "x"),
    ]


def test_the_present_state_is_sorted() -> None:
    payloads = {"a": {"load": 9}, "b": {"load": 10}, "c": {"load": 1}, "d": {}}
    entries = [entry(id, payload) for id, payload in payloads.items()]
    for selected, expected in (
        (changes(), "abcd"),
        (changes(reverse=True), "dcba"),
        (changes(sort="load"), "cabd"),
        (changes(sort="load", reverse=True), "bacd"),
        (changes("load!=9", sort="load"), "cbd"),
    ):
        found = selected.present(snapshot(entries)).entries
        assert "".join(each.instance.id for each in found) == expected


def test_what_changed_while_nobody_looked() -> None:
    selected = changes("zone=eu-1")
    bad = Invalid("d", "not JSON")
    news = Resynced(
        (
            Added(entry("a"), 9),
            Updated(entry("b", EU2), entry("b"), 9),
            Updated(entry("c"), entry("c", EU2), 9),
            Removed(entry("d"), 9, bad),
            Removed(entry("e"), 9),
            Removed(entry("f", EU2), 9, Invalid("f", "not JSON")),
            Added(entry("g", EU2), 9),
        ),
        snapshot([entry("a"), entry("b", EU2), entry("c"), entry("g", EU2)], [bad, Invalid("f", "not JSON")]),
    )
    differences, present = selected.caught_up(news)
    assert [(line.kind, id_of(line)) for line in differences] == [
        ("added", "a"),
        ("unmatched", "b"),
        ("matched", "c"),
        ("invalid", "d"),
        ("removed", "e"),
    ]
    assert [each.instance.id for each in present.entries] == ["a", "c"]
    assert present.invalid == []


def test_a_node_that_turned_is_a_difference_and_not_told_again() -> None:
    bad, other = Invalid("d", "not JSON"), Invalid("x", "not JSON")
    news = Resynced((Removed(entry("d"), 9, bad),), snapshot([], [bad, other]))
    differences, present = changes().caught_up(news)
    assert differences == [Told("invalid", bad, 9)]
    assert present.invalid == [other]


def test_a_suspect_is_not_listed() -> None:
    held = entry("a").with_suspicion(Suspicion("mass removal", 0.0, 1.0))
    news = Updated(held, entry("a"), 9)
    assert told(changes("state=listed"), news) == [("unmatched", "a")]
    assert told(changes("state=suspect"), news) == [("matched", "a")]


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selected_changes, "_MOST_INVALID", 2)
    selected = changes("state=invalid")
    for id in "abc":
        assert told(selected, Invalidated(Invalid(id, "not JSON"), 9)) == [("invalid", id)]
    assert told(selected, *(Added(entry(id), 9) for id in "abc")) == [("unmatched", "b"), ("unmatched", "c")]
    _ = selected.present(snapshot(invalid=[Invalid(id, "not JSON") for id in "abc"]))
    assert len(told(selected, *(Added(entry(id), 9) for id in "abc"))) == 2
