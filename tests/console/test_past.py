"""Answers about what was: what of a history is asked for, how much of it is told, and in which order."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from aioregistry._console.answers import Refused
from aioregistry._console.past import Comparison, Timeline, event_row
from aioregistry._console.reading import Query
from aioregistry._console.states import State
from aioregistry._console.timeline import Span

HOSTILE = "\u202eevil"
SHOWN = r"\u202eevil"


def request(**parameters: object) -> Request:
    return Request({"type": "http", "query_string": urlencode(parameters).encode(), "headers": []})


def state(payload: str = "", word: str = "enabled") -> State:
    return State(word, "0x1", "10.0.0.1:80", payload, "", 1)


def span(id: str, since: float, until: float | None = None, word: str = "enabled") -> Span:
    return Span("chat", id, since, until, state(word=word))


class Kept:
    """A history that answers what it is given, and notes what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers
        self.asked: dict[str, tuple[Any, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: Any) -> Any:
            self.asked[name] = arguments
            answer = self._answers.get(name, [])
            return answer(*arguments) if callable(answer) else answer

        return ask


def timeline(kept: Kept, now: float = 1000.0, *, recording: bool = True, **parameters: object) -> dict[str, Any]:
    asked = {"since": 0, "until": 600, **parameters}
    return Timeline(request(**asked), now, recording=recording)(kept)  # type: ignore[arg-type] # it has the methods


def comparison(kept: Kept, now: float = 1000.0, *, recording: bool = True, **parameters: object) -> dict[str, Any]:
    asked = {"a": 100, "b": 200, **parameters}
    return Comparison(request(**asked), now, recording=recording)(kept)  # type: ignore[arg-type] # it has the methods


# ---------------------------------------------------------------- what is asked for


@pytest.mark.parametrize("seconds", ["", "soon", "nan", "inf", "-1", "4000000001"])
@pytest.mark.parametrize("name", ["since", "until"])
def test_what_is_no_time_is_refused_by_name(name: str, seconds: str) -> None:
    asked: dict[str, Any] = {name: seconds}
    with pytest.raises(Refused) as refused:
        timeline(Kept(), **asked)
    assert refused.value.status == 400
    assert name in refused.value.text


@pytest.mark.parametrize("moments", [(5, 5), (6, 5)])
def test_an_end_before_the_beginning_is_refused(moments: tuple[int, int]) -> None:
    with pytest.raises(Refused) as refused:
        timeline(Kept(), since=moments[0], until=moments[1])
    assert refused.value.status == 400


def test_the_first_and_the_last_moment_may_be_asked_for() -> None:
    kept = Kept()
    shown = timeline(kept, since=0, until=4_000_000_000)
    assert (shown["since"], shown["until"]) == (0.0, 4e9)
    assert kept.asked["periods"] == (0.0, 4e9)
    assert kept.asked["counts"] == (Query(0.0, 4e9), 120, 50_000)
    assert kept.asked["events"] == (Query(0.0, 4e9), 1001)


def test_a_question_has_the_service_the_id_the_kinds_and_the_beginning_of_a_text() -> None:
    kept = Kept()
    timeline(kept, service="chat", id="a", kinds="joined,left,unheard-of", q="x" * 300)
    query = kept.asked["events"][0]
    assert query == Query(0.0, 600.0, "chat", "a", frozenset({"joined", "left"}), "x" * 200)
    assert kept.asked["spans"] == (query, 20_000)
    timeline(kept, service="", id="", kinds="")
    assert kept.asked["events"][0] == Query(0.0, 600.0, None, None, frozenset(), "")


# ---------------------------------------------------------------- the timeline


def test_events_are_harmless_and_at_most_a_thousand() -> None:
    row = (5.0, "joined", HOSTILE, HOSTILE, HOSTILE)
    assert event_row(row) == [5.0, "joined", HOSTILE, SHOWN, HOSTILE, SHOWN, SHOWN]
    for number, more in ((1000, False), (1001, True)):
        shown = timeline(Kept(events=[row] * number, bounds=(1.0, 2.0)))
        assert (len(shown["events"]), shown["more"]) == (1000, more)
        assert shown["events"][0] == event_row(row)
        assert (shown["now"], shown["bounds"]) == (1000.0, (1.0, 2.0))


def test_periods_but_those_of_a_recording_are_shown_and_what_lasts_goes_on_until_now() -> None:
    periods = [("recording", 0.0, 600.0, ""), ("outage", 10.0, 20.0, HOSTILE), ("outage", 30.0, None, "")]
    shown = timeline(Kept(periods=periods))
    assert shown["periods"] == [["outage", 10.0, 20.0, SHOWN], ["outage", 30.0, 1000.0, ""]]
    assert shown["gaps"] == []


@pytest.mark.parametrize(
    ("last_said", "recording", "gap"),
    [
        (590.1, True, []),  # it says so every few seconds
        (590.0, True, [[590.0, 600.0]]),
        (590.1, False, [[590.1, 600.0]]),
    ],
)
def test_a_recording_that_goes_on_has_no_gap_behind_its_last_word(
    last_said: float, recording: bool, gap: list[list[float]]
) -> None:
    periods = [("recording", 0.0, 100.0, ""), ("outage", 110.0, 120.0, ""), ("recording", 200.0, last_said, "")]
    shown = timeline(Kept(periods=periods), now=600.0, recording=recording)
    assert [list(each) for each in shown["gaps"]] == [[100.0, 200.0], *gap]
    early = timeline(Kept(periods=periods), now=600.0, recording=recording, until=300)
    assert [list(each) for each in early["gaps"]] == [[100.0, 200.0]]


def test_no_gap_is_told_of_what_is_to_come() -> None:
    shown = timeline(Kept(periods=[("recording", 0.0, 300.0, "")]), now=300.0, recording=True)
    assert shown["gaps"] == []
    shown = timeline(Kept(), now=300.0, recording=True)
    assert [list(each) for each in shown["gaps"]] == [[0.0, 300.0]], "nothing was recorded at all"


def test_services_with_most_events_are_shown_in_the_order_of_their_names() -> None:
    few = [(f"s{number:03}", 1, "joined", 2) for number in range(299)]
    counts = [*few, ("", 0, "outage", 9), ("busy", 3, "left", 7), ("busy", 4, "left", 1), ("zz", 1, "joined", 1)]
    shown = timeline(Kept(counts=counts))
    assert shown["bins"] == 120
    assert shown["lanes_more"] == 2
    names = [name for name, *_ in shown["services"]]
    assert names == ["busy", *(f"s{number:03}" for number in range(298))], "what belongs to no service has no lane"
    assert shown["services"][0] == ["busy", "busy", [[3, "left", 7], [4, "left", 1]]]
    few_lanes = timeline(Kept(counts=[(HOSTILE, 0, "joined", 1)]))
    assert (few_lanes["services"], few_lanes["lanes_more"]) == ([[HOSTILE, SHOWN, [[0, "joined", 1]]]], 0)


def test_instances_with_most_states_are_shown_in_the_order_of_their_ids() -> None:
    few = [span(f"i{number:03}", 0.0, 50.0) for number in range(300)]
    busy = [span("z", 0.0, 100.0), span("z", 100.0, word="failing")]
    shown = timeline(Kept(spans=[*few, *busy]), service="chat")
    ids = [id for id, *_ in shown["instances"]]
    assert ids == [*(f"i{number:03}" for number in range(299)), "z"]
    assert (shown["lanes_more"], shown["spans_more"]) == (1, False)
    last = shown["instances"][-1][2]
    assert [(each[0], each[1]) for each in last] == [(0.0, 100.0), (100.0, 600.0)]
    early = timeline(Kept(spans=busy), now=300.0, service="chat")
    assert early["instances"][0][2][-1][1] == 300.0, "what lasts is drawn until now"


def test_an_instance_is_found_by_a_part_of_its_id_in_capitals_or_not() -> None:
    spans = [span("Room-A", 0.0), span("other", 0.0)]
    assert [id for id, *_ in timeline(Kept(spans=spans), service="chat", q="ROOM")["instances"]] == ["Room-A"]


def test_states_that_are_shorter_than_a_five_hundredth_are_drawn_as_one() -> None:
    for seconds, drawn in ((1.0, ["mixed"]), (1.25, ["failing", "draining"])):
        moments = (100.0, 100.0 + seconds, 100.0 + 2 * seconds)
        brief = [span("a", *moments[:2], "failing"), span("a", *moments[1:], "draining")]
        shown = timeline(Kept(spans=brief), service="chat", since=50, until=650)
        ((_, _, lane),) = shown["instances"]
        assert [segment.state for segment in lane] == drawn


@pytest.mark.parametrize(("number", "more"), [(19_999, False), (20_000, True)])
def test_that_there_are_more_states_is_told(number: int, more: bool) -> None:
    spans = [span("a", 0.0)] * number
    assert timeline(Kept(spans=spans), service="chat")["spans_more"] is more
    assert comparison(Kept(changed=spans))["more"] is more


# ---------------------------------------------------------------- two moments


def test_of_two_moments_the_earlier_comes_first_however_they_are_asked_for() -> None:
    kept = Kept(totals=lambda moment, service: {"enabled": moment, "of": service}, bounds=(1.0, 2.0))
    shown = comparison(kept, a=200, b=100, service="chat")
    assert (shown["a"], shown["b"], shown["bounds"]) == (100.0, 200.0, (1.0, 2.0))
    assert shown["totals"] == [{"enabled": 100.0, "of": "chat"}, {"enabled": 200.0, "of": "chat"}]
    assert kept.asked["changed"] == (100.0, 200.0, "chat", 20_000)
    assert kept.asked["periods"] == (100.0, 200.0)
    assert (shown["differences"], shown["more"]) == ([], False)
    of_all = Kept()
    comparison(of_all, service="")
    assert of_all.asked["changed"] == (100.0, 200.0, None, 20_000)


def test_differences_have_what_was_and_what_is_harmless_and_in_short() -> None:
    spans = [
        Span("chat", HOSTILE, 50.0, 150.0, state(HOSTILE + "x" * 400)),
        Span("chat", "new", 150.0, None, state(word="failing")),
    ]
    shown = comparison(Kept(changed=spans))
    gone, came = sorted(shown["differences"], key=lambda each: each[2] == "new")
    assert gone[:5] == ["chat", "chat", HOSTILE, SHOWN, "went"]
    assert gone[5] == {
        "state": "enabled",
        "owner": "0x1",
        "place": "10.0.0.1:80",
        "payload": SHOWN + "x" * (300 - len(HOSTILE)),
        "reason": "",
    }
    assert gone[6] is None
    assert came[:6] == ["chat", "chat", "new", "new", "came", None]
    assert came[6]["state"] == "failing"
    assert came[7] == 1


def test_at_most_five_hundred_differences_are_shown() -> None:
    for number, more in ((500, False), (501, True)):
        shown = comparison(Kept(changed=[span(f"i{index}", 150.0) for index in range(number)]))
        assert (len(shown["differences"]), shown["more"]) == (500, more)


@pytest.mark.parametrize(("recording", "gaps"), [(True, []), (False, [[155.0, 160.0]])])
def test_gaps_between_two_moments_end_with_what_was(recording: bool, gaps: list[list[float]]) -> None:
    shown = comparison(Kept(periods=[("recording", 0.0, 155.0, "")]), now=160.0, recording=recording)
    assert [list(each) for each in shown["gaps"]] == gaps
