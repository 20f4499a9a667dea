"""Which requests cost the connection: suspected together, tried apart, convicted alone, cleared by any answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._errors import PoisonRequest
from aioregistry._protocol import Create2, Delete, GetData, Multi, MultiReadData, SetData, SetWatches, Sync
from aioregistry._session.isolation import (
    ALONE,
    ENOUGH,
    FIRST_TERM,
    LONGEST_TERM,
    REPLACED,
    SMALLEST_LIMIT,
    TOGETHER,
    Isolation,
    Sent,
)

LARGE = SMALLEST_LIMIT * 4
KEPT, SERVERS_KEPT = 1024, 64
SERVER, OTHER = "zk:2181", "other:2181"


def create(name: str, size: int = 100) -> Sent:
    return Sent(Create2(f"/services/chat/{name}", b""), size)


def died(isolation: Isolation, *in_flight: Sent, now: float = 0.0, **more: Any) -> dict[int, PoisonRequest]:
    options: dict[str, Any] = {"server": SERVER, "reason": "closed", "proven": True}
    return isolation.died(in_flight, now, **(options | more))


def convict(isolation: Isolation, sent: Sent, now: float = 0.0) -> PoisonRequest:
    for _ in range(ENOUGH):
        if found := died(isolation, sent, now=now):
            return found[0]
    raise AssertionError("nothing was convicted")


def refused(isolation: Isolation, sent: Sent, now: float, server: str = SERVER) -> PoisonRequest | None:
    try:
        isolation.apart(sent, server, now)
    except PoisonRequest as error:
        return error
    return None


def test_the_numbers_are_those_of_the_docstring() -> None:
    assert (TOGETHER, ALONE, ENOUGH) == (2, 2, 3)
    assert (FIRST_TERM, LONGEST_TERM, REPLACED, SMALLEST_LIMIT) == (2.0, 30.0, 600.0, 4096)


def test_one_death_makes_no_suspect() -> None:
    isolation = Isolation()
    assert not died(isolation, create("a"), create("b"))
    assert not isolation.apart(create("a"), SERVER, 0)


def test_what_was_there_at_two_deaths_is_sent_apart_and_no_other() -> None:
    isolation = Isolation()
    died(isolation, create("a"), create("b"))
    died(isolation, create("a"), create("c"))
    assert isolation.apart(create("a"), SERVER, 0)
    assert not isolation.apart(create("b"), SERVER, 0)
    assert not isolation.apart(create("c"), SERVER, 0)


def test_an_answer_clears_whatever_it_is() -> None:
    isolation = Isolation()
    for _ in range(TOGETHER):
        died(isolation, create("a"), create("b"))
    isolation.answered(create("a"), SERVER)
    assert not isolation.apart(create("a"), SERVER, 0)
    assert isolation.apart(create("b"), SERVER, 0)


def test_it_is_convicted_when_it_was_alone_often_enough() -> None:
    isolation = Isolation()
    for _ in range(TOGETHER):
        assert not died(isolation, create("a"), create("b"))
    for _ in range(ALONE - 1):
        assert not died(isolation, create("a"))
    (error,) = died(isolation, create("a")).values()
    assert error.request == "Create2 /services/chat/a"
    assert (error.size, error.server, error.connections) == (100, "zk:2181", TOGETHER + ALONE)
    for said in ("Create2 /services/chat/a", "100 bytes", "zk:2181", "closed"):
        assert said in str(error)


def test_a_connection_that_never_answered_anything_convicts_nobody() -> None:
    isolation = Isolation()
    for _ in range(10):
        assert not died(isolation, create("a"), proven=False)
    assert isolation.apart(create("a"), SERVER, 0)


def test_company_at_a_death_makes_it_begin_again_with_being_alone() -> None:
    isolation = Isolation()
    for _ in range(10):
        for _ in range(ALONE - 1):
            assert not died(isolation, create("a"))
        assert not died(isolation, create("a"), create("b"))


def test_a_reply_that_cannot_be_read_convicts_nobody_else() -> None:
    isolation = Isolation()
    for _ in range(ALONE - 1):
        assert not died(isolation, create("a"), create("b"), unreadable=0)
    assert list(died(isolation, create("a"), create("b"), unreadable=0)) == [0]
    assert refused(isolation, create("b"), 0) is None


def test_a_convicted_request_is_refused_for_a_term_then_tried_apart_and_the_term_doubles() -> None:
    isolation = Isolation()
    term, now = FIRST_TERM, 0.0
    convict(isolation, create("a"), now)
    for _ in range(10):
        assert refused(isolation, create("a"), now + term - 0.1) is not None
        now += term
        assert isolation.apart(create("a"), SERVER, now)
        assert died(isolation, create("a"), now=now), "one more death is enough"
        term = min(2 * term, LONGEST_TERM)
    isolation.answered(create("a"), SERVER)
    assert not isolation.apart(create("a"), SERVER, now)


def convict_on(isolation: Isolation, server: str, sent: Sent, now: float = 0.0) -> None:
    for _ in range(ENOUGH):
        if died(isolation, sent, now=now, server=server):
            return
    raise AssertionError("nothing was convicted")


def test_a_conviction_forbids_nothing_on_another_server() -> None:
    isolation = Isolation()
    for number in range(4):  # the request, the length and the operation
        convict(isolation, create(str(number), LARGE + number))
    sent = create("0", LARGE)
    assert refused(isolation, sent, 0.5) is not None
    assert refused(isolation, sent, 0.5, OTHER) is None
    assert isolation.apart(sent, OTHER, 0.5), "it may cost this connection, too"
    assert died(isolation, sent, now=0.5, server=OTHER), "one more death is enough"
    assert refused(isolation, sent, 1, OTHER) is not None


def test_what_another_server_answered_is_sent_with_others_there_and_tried_again_where_it_was_convicted() -> None:
    isolation = Isolation()
    convict(isolation, create("a"), 0)
    isolation.answered(create("a"), OTHER)
    assert not isolation.apart(create("a"), OTHER, 0)
    assert refused(isolation, create("a"), FIRST_TERM / 2) is not None
    assert isolation.apart(create("a"), SERVER, FIRST_TERM)
    isolation.answered(create("a"), SERVER)
    assert not isolation.apart(create("a"), SERVER, FIRST_TERM)
    assert not isolation.suspects


def test_it_is_known_whether_an_answer_can_clear_anything() -> None:
    isolation = Isolation()
    assert not isolation.suspects
    died(isolation, create("a"), create("b"))
    assert isolation.suspects
    for name in ("a", "b"):
        isolation.answered(create(name), SERVER)
    assert not isolation.suspects
    convict(isolation, create("a"))
    for number in range(SERVERS_KEPT):  # the conviction is forgotten of its server, and speaks against it elsewhere
        isolation.fits(100, f"10.0.0.{number}:2181")
    assert isolation.suspects
    isolation.answered(create("a"), SERVER)
    assert not isolation.suspects


def test_a_limit_alone_is_something_to_clear() -> None:
    isolation = Isolation()
    convict(isolation, create("a", LARGE))
    convict(isolation, create("a", 100), FIRST_TERM)
    isolation.answered(create("a", 100), SERVER)
    assert isolation.limit(SERVER) == LARGE
    assert isolation.suspects


def test_an_operation_is_convicted_where_nothing_like_it_was_answered_since() -> None:
    isolation = Isolation()
    convict(isolation, create("a"))
    assert isolation.has_convicted(Create2.opcode, OTHER)
    isolation.answered(create("b"), OTHER)
    assert not isolation.has_convicted(Create2.opcode, OTHER)
    assert isolation.has_convicted(Create2.opcode, SERVER)
    assert isolation.suspects


def test_suspicion_goes_with_the_session_from_server_to_server() -> None:
    isolation, deaths = Isolation(), 0
    for server in itertools.cycle([SERVER, OTHER, "third:2181"]):
        deaths += 1
        if died(isolation, create("a"), server=server):
            break
    assert deaths == ENOUGH


def test_a_server_that_becomes_well_is_found_so_in_no_more_than_it_was_ill_and_a_bounded_pause() -> None:
    for ill in (0.5, 3.0, 10.0, 100.0, 10_000.0):
        isolation, now, trials = Isolation(), 0.0, 0
        convict(isolation, create("a"), now)
        while True:
            error = refused(isolation, create("a"), now)
            if error is None:
                trials += 1
                if now >= ill:
                    break
                assert died(isolation, create("a"), now=now)
            else:
                now += error.retry_in
        assert now <= ill + min(max(ill, FIRST_TERM) + FIRST_TERM, LONGEST_TERM)
        assert trials <= 6 + ill / LONGEST_TERM


def test_servers_that_are_remembered_are_bounded() -> None:
    isolation = Isolation()
    for number in range(1000):
        convict_on(isolation, f"10.0.0.{number}:2181", create("a"))
    assert len(isolation._servers) <= SERVERS_KEPT


def test_the_latest_64_servers_are_remembered() -> None:
    isolation = Isolation()
    servers = [f"10.0.0.{number}:2181" for number in range(SERVERS_KEPT)]
    for server in servers:
        convict_on(isolation, server, create("a"))
    assert all(refused(isolation, create("a"), 1, server) is not None for server in servers)
    convict_on(isolation, OTHER, create("a"))
    assert refused(isolation, create("a"), 1, servers[1]) is not None
    assert refused(isolation, create("a"), 1, OTHER) is not None
    assert refused(isolation, create("a"), 1, servers[0]) is None


def test_the_latest_1024_suspects_are_remembered() -> None:
    isolation = Isolation()
    many = [create(str(number)) for number in range(KEPT)]
    for _ in range(TOGETHER):
        died(isolation, *many)
    assert all(isolation.apart(sent, SERVER, 0) for sent in many)
    died(isolation, create("another"), proven=False)
    assert not isolation.apart(many[0], SERVER, 0)
    assert all(isolation.apart(sent, SERVER, 0) for sent in many[1:])


def test_the_latest_1024_convicted_ones_are_remembered() -> None:
    isolation = Isolation()
    many = [create(str(number)) for number in range(KEPT)]
    for sent in many:
        convict(isolation, sent)
    assert died(isolation, many[0], now=1.0), "the first is convicted again, and so the latest"
    isolation.answered(create("other"), SERVER)  # the operation is not to blame
    assert all(refused(isolation, sent, 1.5) is not None for sent in many)
    convict(isolation, create("another"), 1.0)
    isolation.answered(create("other"), SERVER)
    assert refused(isolation, many[1], 1.5) is None
    assert all(refused(isolation, sent, 1.5) is not None for sent in (many[0], *many[2:], create("another")))


def test_batches_are_halved_at_each_death_and_doubled_at_each_answer() -> None:
    isolation = Isolation()
    assert isolation.window == 1024
    died(isolation)
    assert isolation.window == 1024, "nothing was in flight"
    for in_flight, window in ((11, 5), (3, 1), (1, 1)):
        died(isolation, *[create(str(number)) for number in range(in_flight)])
        assert isolation.window == window
    windows = []
    for _ in range(12):
        isolation.survived()
        windows.append(isolation.window)
    assert windows == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]


def test_a_shorter_one_is_tried_at_once() -> None:
    isolation = Isolation()
    convict(isolation, create("a", LARGE))
    assert refused(isolation, create("a", LARGE), 1) is not None
    assert isolation.apart(create("a", LARGE - 1), SERVER, 1)


def test_when_it_is_tried_again_is_told() -> None:
    isolation = Isolation()
    assert convict(isolation, create("a"), 10.0).retry_in == FIRST_TERM
    again = refused(isolation, create("a"), 10.5)
    assert again is not None
    assert again.retry_in == FIRST_TERM - 0.5


def test_company_at_a_death_convicts_nobody_whatever_is_known() -> None:
    isolation = Isolation()
    convict(isolation, create("a"))
    assert not died(isolation, create("a"), create("b"), now=FIRST_TERM)
    assert died(isolation, create("b"), now=FIRST_TERM)


def test_a_convicted_one_is_sent_apart_also_where_its_operation_is_well() -> None:
    isolation = Isolation()
    convict(isolation, create("a"))
    for server in (SERVER, OTHER):
        isolation.answered(create("b"), server)
    assert isolation.apart(create("a"), SERVER, FIRST_TERM)
    assert not isolation.apart(create("c"), SERVER, FIRST_TERM)


def test_the_servers_limit_is_remembered() -> None:
    isolation = Isolation()
    isolation.answered(create("small", 300), SERVER)
    error = convict(isolation, create("a", LARGE))
    assert isolation.limit(SERVER) == error.limit == LARGE
    assert error.largest_answered == 300
    other = refused(isolation, create("b", LARGE + 1), 1)
    assert other is not None
    assert "Create2 /services/chat/b" in str(other)
    assert "Create2 /services/chat/a" in str(other), "it says from which it is known"
    assert not isolation.apart(create("b", LARGE - 1), SERVER, 1)
    assert refused(isolation, create("b", LARGE), 1) is not None
    assert isolation.apart(create("b", LARGE), SERVER, FIRST_TERM)
    assert not isolation.apart(create("b", LARGE - 1), SERVER, FIRST_TERM)
    isolation.answered(create("c", LARGE - 1), SERVER)
    assert isolation.limit(SERVER) == LARGE, "a shorter one says nothing of longer ones"
    isolation.answered(create("c", LARGE), SERVER)
    assert isolation.limit(SERVER) is None


def test_a_request_of_the_smallest_limit_may_be_too_long_and_one_with_an_unreadable_reply_is_not() -> None:
    assert convict(Isolation(), create("a", SMALLEST_LIMIT)).limit == SMALLEST_LIMIT
    isolation = Isolation()
    died(isolation, create("a", LARGE), unreadable=0)
    (error,) = died(isolation, create("a", LARGE), unreadable=0).values()
    assert error.limit is None


def test_what_was_answered_without_suspects_counts_for_the_limit() -> None:
    isolation = Isolation()
    isolation.fits(LARGE, SERVER)
    isolation.fits(100, SERVER)
    error = convict(isolation, create("a", LARGE))
    assert (error.limit, error.largest_answered) == (None, LARGE)


@pytest.mark.parametrize(("largest", "size"), [(0, SMALLEST_LIMIT - 1), (LARGE, LARGE)])
def test_what_others_exceed_or_no_server_forbids_is_no_limit(largest: int, size: int) -> None:
    isolation = Isolation()
    isolation.answered(create("others", largest), SERVER)
    assert convict(isolation, create("a", size)).limit is None
    assert isolation.limit(SERVER) is None


def test_an_operation_that_costs_connections_again_and_again_is_refused_at_once() -> None:
    isolation = Isolation()
    convict(isolation, create("a"))
    deaths = 0
    for number in itertools.count():
        sent = create(f"b{number}")
        if refused(isolation, sent, 1) is not None:
            break
        assert isolation.apart(sent, SERVER, 1)
        assert died(isolation, sent, now=1)
        deaths += 1
    assert deaths == 2, "three convictions in all"
    assert refused(isolation, Sent(GetData("/services/chat/a"), 100), 1) is None
    isolation.answered(create("late"), SERVER)
    assert refused(isolation, create("yet another"), 1) is None


def test_what_makes_a_request_the_same() -> None:
    same: Sequence[tuple[Any, Any]] = [
        (Create2("/a", b"1"), Create2("/a", b"2")),
        (Multi([Delete("/a", 1), Create2("/a", b"1")]), Multi([Delete("/a", 2), Create2("/a", b"2")])),
        (MultiReadData("/a", ("b", "c")), MultiReadData("/a", ("b", "c"))),
        (SetWatches(1, ["/a"]), SetWatches(2, ["/b"])),
    ]
    for one, other in same:
        isolation = Isolation()
        for _ in range(TOGETHER):
            died(isolation, Sent(one, 50), create("x"))
        assert isolation.apart(Sent(other, 60), SERVER, 0)
    different: Sequence[tuple[Any, Any]] = [
        (Create2("/a", b""), Create2("/b", b"")),
        (GetData("/a"), Sync("/a")),
        (MultiReadData("/a", ("b", "c")), MultiReadData("/a", ("b",))),
        (Multi([Delete("/a")]), Multi([Delete("/b")])),
    ]
    for one, other in different:
        isolation = Isolation()
        for _ in range(TOGETHER):
            died(isolation, Sent(one, 50), create("x"))
        assert not isolation.apart(Sent(other, 50), SERVER, 0)


@pytest.mark.parametrize("size", [200, LARGE])
def test_a_smaller_one_that_is_answered_acquits_nobody(size: int) -> None:
    """An update of the same node with less in it says nothing of the one that ended connections."""
    isolation = Isolation()
    convict(isolation, create("a", size))
    isolation.answered(create("a", 100), SERVER)
    assert refused(isolation, create("a", size), 0) is not None
    isolation.answered(create("a", size), SERVER)
    assert refused(isolation, create("a", size), 0) is None


def test_what_is_kept_is_bounded() -> None:
    isolation = Isolation()
    for start in range(0, 10_000, 100):
        died(isolation, *[create(str(start + number)) for number in range(100)])
    for number in range(2_000):
        for _ in range(TOGETHER + ALONE):
            died(isolation, create(str(number)))
    convicted = [isolation._anywhere.convicted, *(each.convicted for each in isolation._servers.values())]
    assert len(isolation._suspects) + sum(len(each) for each in convicted) <= 4096


@given(st.integers(1, 300), st.data())
def test_one_among_many_is_found_in_few_deaths(count: int, data: st.DataObject) -> None:
    """The whole loop: everybody repeats for ever, one kills the connection, and the others are answered in the end."""
    culprit = data.draw(st.integers(0, count - 1))
    requests = [create(str(number)) for number in range(count)]
    isolation, waiting, deaths, rounds = Isolation(), list(range(count)), 0, 0
    while waiting:
        rounds += 1
        assert rounds < 200
        apart = [number for number in waiting if isolation.apart(requests[number], SERVER, 0)]
        batch = apart[: isolation.window] if apart and apart[0] == waiting[0] else []
        if not batch:  # others go together, up to the first that must not
            batch = waiting[: waiting.index(apart[0])] if apart else list(waiting)
        if culprit in batch:
            deaths += 1
            convicted = died(isolation, *[requests[number] for number in batch])
            assert set(convicted) <= {batch.index(culprit)}
            if convicted:
                waiting.remove(culprit)
        else:
            for number in batch:
                isolation.answered(requests[number], SERVER)
                waiting.remove(number)
            isolation.survived()
    assert deaths <= TOGETHER + ALONE + 2 * count.bit_length()


def test_what_was_found_done_is_no_suspect_whatever_it_carried() -> None:
    isolation = Isolation()
    for size in range(1, 2 * ENOUGH):
        update = Sent(SetData("/services/chat/a", b"x" * size, size), 100 + size)
        assert not died(isolation, update)
        isolation.executed(update.request)
        assert not isolation.apart(update, SERVER, 0)
    assert not isolation.suspects


@pytest.mark.parametrize("size", [100, LARGE])
def test_what_was_found_done_after_all_is_acquitted_on_every_server(size: int) -> None:
    isolation = Isolation()
    convict(isolation, create("a", size))
    assert isolation.has_convicted(Create2.opcode, SERVER) == (size < LARGE)
    assert isolation.limit(SERVER) == (None if size < LARGE else LARGE)
    isolation.executed(create("a").request)
    assert not isolation.has_convicted(Create2.opcode, SERVER)
    assert isolation.limit(SERVER) is None
    assert refused(isolation, create("a", size), 0) is None
    assert not isolation.suspects


def test_another_request_that_was_found_done_says_nothing_of_a_convicted_one() -> None:
    isolation = Isolation()
    error = convict(isolation, create("a"))
    isolation.executed(create("b").request)
    assert isolation.has_convicted(Create2.opcode, SERVER)
    again = refused(isolation, create("a"), 0)
    assert again is not None
    assert again.request == error.request


def test_one_that_was_found_done_acquits_itself_and_no_other() -> None:
    isolation = Isolation()
    convict(isolation, create("long", LARGE))
    convict(isolation, create("a"))
    isolation.executed(create("a").request)
    assert isolation.limit(SERVER) == LARGE
    assert not isolation.has_convicted(Create2.opcode, SERVER)
    convict(isolation, create("a"))
    isolation.executed(create("long").request)
    assert isolation.limit(SERVER) is None
    assert isolation.has_convicted(Create2.opcode, SERVER)


def test_another_operation_takes_its_place_for_a_while_after_a_conviction() -> None:
    isolation = Isolation()
    opcode = create("a").request.opcode
    assert not isolation.excludes(opcode, SERVER, 0.0)
    convict(isolation, create("a"))
    assert isolation.excludes(opcode, SERVER, FIRST_TERM + REPLACED - 0.001)
    assert not isolation.excludes(opcode, SERVER, FIRST_TERM + REPLACED)
    assert not isolation.excludes(opcode, OTHER, 0.0)


@pytest.mark.parametrize(("number", "end"), [(1, "0)"), (3, "2)"), (4, "2, 1 more)"), (6, "2, 3 more)")])
def test_the_error_names_the_first_operations_of_a_transaction(number: int, end: str) -> None:
    transaction = Sent(Multi([Delete(f"/services/chat/{each}") for each in range(number)]), 100)
    assert convict(Isolation(), transaction).request.endswith(end)


def test_a_request_without_a_path_is_known_by_its_kind() -> None:
    isolation = Isolation()
    convict(isolation, Sent(SetWatches(1, (), (), ()), 100))
    assert refused(isolation, Sent(SetWatches(2, ("/a",), (), ()), 100), 1) is not None
    also_without_a_path = Sent(SimpleNamespace(opcode=SetWatches.opcode, subject="aiozk's"), 100)
    assert refused(isolation, also_without_a_path, 1) is None
    other = Sent(SimpleNamespace(opcode=999, subject="another"), 100)
    assert refused(isolation, other, 1) is None
    assert not isolation.apart(other, SERVER, 1)
