"""The rows that browsers get: every field in its place, harmless to look at."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aioregistry import Entry, Invalid, Override, ServiceInstance, Snapshot, Suspicion
from aioregistry._console.rows import (
    STATES,
    InstanceRows,
    JsonRow,
    ages,
    instance_detail,
    invalid_detail,
    service_row,
)

HOSTILE = "\u202eevil"
SHOWN = r"\u202eevil"


def entry(id: str = "a", *, payload: object = None, czxid: int = 5, mzxid: int = 6, **fields: Any) -> Entry[Any]:
    more = {name: fields.pop(name) for name in ("suspicion", "weight") if name in fields}
    instance = ServiceInstance("chat", id=id, address="10.0.0.7", port=7000, payload=payload, **fields)
    return Entry(instance, 0x1F, czxid, mzxid, 1, 10.0, 11.0, **more)


def override(**fields: Any) -> Override:
    said = {"enabled": False, "reason": HOSTILE, "by": HOSTILE, "since": 1.0, "until": 2.0, "version": 0, **fields}
    return Override(service="chat", id="a", registration_time_ms=said.pop("registered", None), **said)


def snapshot(*entries: Entry[Any], invalid: tuple[Invalid, ...] = (), **more: Any) -> Snapshot[Any]:
    by_id = {each.instance.id: each for each in entries}
    return Snapshot("chat", by_id, {each.id: each for each in invalid}, as_of=9, **more)


def instance_rows(shown: Snapshot[Any], new: dict[str, float], kept: InstanceRows | None = None) -> dict[str, JsonRow]:
    rows: dict[str, JsonRow] = {}
    for _ in (kept or InstanceRows()).fill(rows, shown, new):
        pass
    return rows


# ---------------------------------------------------------------- services


def test_the_row_of_a_service_that_was_not_read_yet_or_may_not_be() -> None:
    nothing = [0] * len(STATES)
    assert service_row(HOSTILE, None, None, {}) == [HOSTILE, SHOWN, None, *nothing, None, None, 0, None]
    assert service_row("chat", None, HOSTILE, {}) == ["chat", "chat", None, *nothing, None, SHOWN, 0, None]


def test_the_row_of_a_service_counts_its_instances_by_state() -> None:
    held = Suspicion("mass removal", 1.0, 2.0)
    shown = snapshot(
        entry("a"),
        entry("b"),
        entry("c", enabled=False, status="failing"),
        entry("d", enabled=False, status="draining"),
        entry("e", enabled=False, status="maintenance"),
        entry("f", suspicion=held),
        invalid=(Invalid("g", "not JSON"), Invalid("h", "not JSON")),
        stale_since=7.0,
    )
    assert STATES == ("enabled", "failing", "draining", "maintenance", "suspect", "invalid")
    row = service_row("chat", shown, None, {"a": 3.0, "b": 4.0})
    assert row == ["chat", "chat", 6, 2, 1, 1, 1, 1, 2, 7.0, None, 2, 4.0]
    assert service_row("chat", snapshot(), "unread", {}) == ["chat", "chat", 0, *[0] * 6, None, None, 0, None]


# ---------------------------------------------------------------- instances


def test_the_rows_of_instances_come_in_the_order_of_ids_and_the_other_nodes_behind() -> None:
    bad = (Invalid("z", HOSTILE, 0x2F, 1, 1), Invalid("a", "spoiled"), Invalid(HOSTILE, "not JSON"))
    rows = instance_rows(snapshot(entry("b", payload={"n": 1}, weight=0.5), entry("a"), invalid=bad), {"b": 3.0})
    assert list(rows) == ["a", "b", "z", HOSTILE]
    owner = rows["a"][4]
    assert owner.endswith("1f")
    assert rows["a"] == ["a", "a", "10.0.0.7:7000", "enabled", owner, 10.0, "", "", None, 1.0, ["5 6"]]
    assert rows["b"][6:-1] == ["", '{"n": 1}', 3.0, 0.5]
    assert rows["z"][:4] == ["z", "z", "-", "invalid"]
    assert rows["z"][4].endswith("2f")
    assert rows["z"][5:] == [None, SHOWN, "", None, 1.0, ["1 1"]]
    assert rows[HOSTILE][1] == SHOWN


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(snapshot(entry()), snapshot(entry(mzxid=7)), id="the document was written"),
        pytest.param(snapshot(entry()), snapshot(entry(czxid=6)), id="the node is another one"),
        pytest.param(
            snapshot(entry(), overrides={"a": override()}),
            snapshot(entry(), overrides={"a": override(until=99.0, version=1)}),
            id="the override lasts longer",
        ),
        pytest.param(
            snapshot(entry(suspicion=Suspicion("disruption", 1.0, 2.0))),
            snapshot(entry(suspicion=Suspicion("disruption", 1.0, math.inf))),
            id="the suspicion lasts longer",
        ),
        pytest.param(
            snapshot(invalid=(Invalid("a", "not JSON", 0x1F, 5, 6),)),
            snapshot(invalid=(Invalid("a", "not JSON", 0x1F, 5, 7),)),
            id="the node that cannot be read was written",
        ),
    ],
)
def test_a_row_is_another_one_where_only_the_page_of_its_instance_shows_the_change(
    before: Snapshot[Any], after: Snapshot[Any]
) -> None:
    one, other = instance_rows(before, {})["a"], instance_rows(after, {})["a"]
    assert one[:-1] == other[:-1]
    assert one != other


def test_a_row_is_made_again_where_what_it_shows_has_changed() -> None:
    kept, one, two, three, bad = InstanceRows(), entry("a"), entry("b"), entry("c"), Invalid("z", "not JSON")

    known: dict[str, JsonRow] = {}

    def changed(shown: Snapshot[Any], **new: float) -> list[str]:
        rows = instance_rows(shown, new, kept)
        assert rows == instance_rows(shown, new)
        ids = [id for id, row in rows.items() if known.get(id) is not row]
        known.clear()
        known.update(rows)
        return ids

    assert changed(snapshot(one, two, three, invalid=(bad,))) == ["a", "b", "c", "z"]
    assert changed(snapshot(one, two, three, invalid=(bad,))) == []
    assert changed(snapshot(one, entry("b", payload=1), three, invalid=(bad,))) == ["b"]
    assert changed(snapshot(one, two, three, invalid=(bad,)), a=3.0) == ["a", "b"]
    assert changed(snapshot(one, two, three, invalid=(bad,), overrides={"c": override()})) == ["a", "c"]
    assert changed(snapshot(one, three, invalid=(Invalid("z", "too long"),))) == ["c", "z"]
    assert changed(snapshot(one, two, three)) == ["b"]


def test_time_alone_changes_the_row_of_a_service_with_new_instances() -> None:
    assert ages(service_row("chat", snapshot(entry()), None, {"a": 3.0}))
    assert not ages(service_row("chat", snapshot(entry()), None, {}))
    assert not ages(service_row("chat", None, None, {}))


@pytest.mark.parametrize(("length", "shown"), [(118, '"' + "x" * 118 + '"'), (119, '"' + "x" * 119 + "…")])
def test_the_beginning_of_a_payload_is_shown(length: int, shown: str) -> None:
    rows = instance_rows(snapshot(entry(payload="x" * length)), {})
    assert rows["a"][7] == shown


def test_a_row_says_why_an_instance_is_as_it_is() -> None:
    held = entry(suspicion=Suspicion("mass removal", 1.0, 2.0))
    said = {"a": override(reason="disk", by="ann")}
    assert instance_rows(snapshot(held, overrides=said), {})["a"][6] == "mass removal"
    assert "disk" in instance_rows(snapshot(entry(), overrides=said), {})["a"][6]
    other = {"a": override(registered=99)}
    assert instance_rows(snapshot(entry(registration_time_ms=7), overrides=other), {})["a"][6] == ""


def test_the_detail_of_an_instance_has_all_that_is_known() -> None:
    detail = instance_detail(entry(HOSTILE, payload={"zone": HOSTILE}, weight=0.5), None, 3.0)
    assert detail.pop("owner").endswith("1f")
    document = detail.pop("document")
    assert "payload" not in "".join(document)
    assert any(SHOWN in line for line in document)
    assert detail == {
        "id": HOSTILE,
        "shown": SHOWN,
        "place": "10.0.0.7:7000",
        "state": "enabled",
        "reason": "",
        "created": 10.0,
        "modified": 11.0,
        "czxid": "0x5",
        "mzxid": "0x6",
        "version": 1,
        "weight": 0.5,
        "new": 3.0,
        "suspicion": None,
        "override": None,
        "payload": ["{", f'  "zone": "{SHOWN}"', "}"],
    }
    assert instance_detail(entry(), None, None)["payload"] is None


def test_the_detail_of_a_suspect_says_until_when_it_is_held_unless_that_is_for_ever() -> None:
    for until, told in ((20.0, 20.0), (-20.0, -20.0), (math.inf, None), (1e15, None)):
        detail = instance_detail(entry(suspicion=Suspicion("file", 1.0, until)), None, None)
        assert detail["suspicion"] == {"since": 1.0, "until": told}
        assert (detail["state"], detail["reason"]) == ("suspect", "file")


@pytest.mark.parametrize(("registered", "applies"), [(None, True), (7, True), (99, False)])
def test_the_detail_of_an_instance_has_what_an_operator_says_of_it(registered: int | None, applies: bool) -> None:
    detail = instance_detail(entry(registration_time_ms=7), override(registered=registered), None)
    assert detail["override"] == {"reason": SHOWN, "by": SHOWN, "since": 1.0, "until": 2.0, "applies": applies}
    assert (SHOWN in detail["reason"]) is applies


def test_the_detail_of_a_node_that_shows_no_instance() -> None:
    detail = invalid_detail(Invalid(HOSTILE, HOSTILE, 0x2F, 5, 6))
    assert detail.pop("owner").endswith("2f")
    shown = {"id": HOSTILE, "shown": SHOWN, "state": "invalid", "reason": SHOWN}
    assert detail == {**shown, "czxid": "0x5", "mzxid": "0x6"}
