"""Markers: what a withdrawal writes is what a view reads, and what a stranger forges it does not believe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._markers import Marker, WithdrawalFinder, distrust, read_marker, root_of
from aioregistry._protocol import AclEntry, Create, EventKind, Multi
from aioregistry._registration.transactions import target_of, withdrawal

segments = st.text(st.characters(max_codepoint=0xD7FF, exclude_categories=["Cc", "Cs"]), min_size=1, max_size=9)


@given(segments, segments, st.integers(1, 2**63 - 1))
def test_every_marker_is_read_as_it_was_meant(name: str, id: str, czxid: int) -> None:
    transaction = withdrawal(target_of("/services", name, id, ()), 0, czxid, marked=True)
    assert isinstance(transaction, Multi)
    creation = transaction.ops[0]
    assert isinstance(creation, Create)
    root, _, marker = creation.path.rpartition("/")
    assert root == "/services-withdrawn"
    assert read_marker(marker) == (name, id, czxid)


NO_MARKERS = ["", "a", "a:b", "a:b:", "a:b:x", "a:b:1:2", "::", ":b:1", "a::1"]
VARIANTS = [
    "chat:n0:0ff",  # a leading zero
    "chat:n0:FF",
    "chat:n0:0xff",
    "chat:n0:+ff",
    "chat:n0: ff",
    "chat:n0:f_f",
    "chat:n0:\uff15",  # a digit of another script
    "chat:n0:-1",
    "chat:n0:0",
    "chat:n0:8000000000000000",
    "%63hat:n0:ff",  # quoted without need
    "chat:n%30:ff",
    "chat:a%3a:ff",  # quoted in lower case
    "chat:a b:ff",  # not quoted
    "chat:%FF:ff",
    "chat:%:ff",
    "chat:n0:ff ",
]


@pytest.mark.parametrize("text", NO_MARKERS + VARIANTS)
def test_what_is_not_exactly_a_markers_text_tells_of_nobody(text: str) -> None:
    assert read_marker("chat:n0:ff") == ("chat", "n0", 0xFF)
    assert read_marker(text) is None


def test_the_first_and_the_last_zxid_may_be_marked() -> None:
    assert read_marker("chat:n0:1") == ("chat", "n0", 1)
    assert read_marker("chat:n0:7fffffffffffffff") == ("chat", "n0", 2**63 - 1)


def test_where_markers_are_made() -> None:
    assert root_of("/prod/services") == "/prod/services-withdrawn"
    assert root_of("") is None


# ---------------------------------------------------------------- what comes together

C, D, S, K = EventKind.CREATED, EventKind.DELETED, EventKind.DATA_CHANGED, EventKind.CHILDREN_CHANGED
MARK = "/services-withdrawn/chat:n0:ff"
OTHER = "/services-withdrawn/chat:n1:ff"
NODE = "/services/chat/n0"
ORDERS = {
    "a withdrawal": ([(C, MARK), (D, MARK), (S, NODE), (D, NODE)], True),
    "two, one after the other": ([(C, MARK), (C, MARK), (D, MARK), (S, NODE), (D, NODE)], True),
    "after another's marker": ([(C, "/services-withdrawn/x"), (C, MARK), (D, MARK), (S, NODE), (D, NODE)], True),
    "not written": ([(C, MARK), (D, MARK), (D, NODE)], False),
    "written before the marker": ([(S, NODE), (C, MARK), (D, MARK), (D, NODE)], False),
    "the marker alone": ([(C, MARK), (D, MARK)], None),
    "a marker that stays": ([(C, MARK), (S, NODE), (D, NODE)], None),
    "an old marker that is deleted": ([(D, MARK), (S, NODE), (D, NODE)], None),
    "after the node": ([(S, NODE), (D, NODE), (C, MARK), (D, MARK)], None),
    "written while the marker is there": ([(C, MARK), (S, NODE), (D, MARK), (D, NODE)], None),
    "written twice": ([(C, MARK), (D, MARK), (S, NODE), (S, NODE), (D, NODE)], None),
    "another node": ([(C, MARK), (D, MARK), (S, "/services/chat/n1"), (D, "/services/chat/n1")], None),
    "another node written": ([(C, MARK), (D, MARK), (S, "/services/chat/n1"), (D, NODE)], None),
    "another node deleted": ([(C, MARK), (D, MARK), (S, NODE), (D, "/services/chat/n1")], None),
    "below the node": ([(C, MARK), (D, MARK), (S, f"{NODE}/x"), (D, f"{NODE}/x")], None),
    "another service": ([(C, MARK), (D, MARK), (S, "/services/mail/n0"), (D, "/services/mail/n0")], None),
    "the node only changed": ([(C, MARK), (D, MARK), (S, NODE)], None),
    "the node was made": ([(C, MARK), (D, MARK), (C, NODE)], None),
    "something else between": ([(C, MARK), (D, MARK), (S, NODE), (S, "/services/chat/n1"), (D, NODE)], None),
    "another marker between": ([(C, MARK), (D, MARK), (C, OTHER), (D, OTHER), (S, NODE), (D, NODE)], None),
    "another marker after the write": ([(C, MARK), (D, MARK), (S, NODE), (C, OTHER), (D, OTHER), (D, NODE)], None),
    "the marker was changed": ([(C, MARK), (S, MARK), (D, MARK), (S, NODE), (D, NODE)], None),
    "somewhere else": ([(C, "/elsewhere/chat:n0:ff"), (D, "/elsewhere/chat:n0:ff"), (S, NODE), (D, NODE)], None),
    "below a marker": ([(C, f"{MARK}/chat:n0:ff"), (D, f"{MARK}/chat:n0:ff"), (S, NODE), (D, NODE)], None),
    "not a marker's text": ([(C, f"{MARK}x"), (D, f"{MARK}x"), (S, NODE), (D, NODE)], None),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_withdrawal_is_its_four_events_with_nothing_in_between(order: str) -> None:
    """Without the write of the node it is none that is believed; whether it is one at all is worth a warning."""
    events, proven = ORDERS[order]
    withdrawals = WithdrawalFinder("/services", "/services-withdrawn")
    found = [withdrawal for event in events if (withdrawal := withdrawals.event(*event)) is not None]
    assert found == ([] if proven is None else [(Marker("chat", "n0", 0xFF), proven)])


def test_an_answer_in_between_says_that_it_was_no_transaction() -> None:
    withdrawals = WithdrawalFinder("/services", "/services-withdrawn")
    for number in range(4):
        events = [(C, MARK), (D, MARK), (S, NODE), (D, NODE)]
        found = []
        for place, event in enumerate(events):
            if place == number:
                withdrawals.interrupted()
            found.append(withdrawals.event(*event))
            assert (withdrawals.awaited is not None) == (place in (1, 2) and (number == 0 or number > place))
        assert (found[-1] is not None) == (number == 0)


# ---------------------------------------------------------------- whose are believed

ALL, READ, WRITE, CREATE, DELETE, ADMIN = 31, 1, 2, 4, 8, 16
OURS, THEIRS = ("digest", "chat:aGFzaA="), ("digest", "chat:b3RoZXI=")
WORLD, HIDDEN, NAMED = ("world", "anyone"), ("digest", "chat:x"), ("x509", "CN=chat")
TRUST = {
    "all is open": ([(ALL, *WORLD)], [(ALL, *WORLD)], True),
    "all is ours": ([(ALL, *OURS)], [(ALL, *OURS)], True),
    "ours, and open to read": ([(ALL, *OURS), (READ, *WORLD)], [(ALL, *OURS), (READ, *WORLD)], True),
    "ours in an open service": ([(ALL, *OURS)], [(ALL, *WORLD)], True),
    "nobody may write": ([(READ | WRITE | DELETE, *WORLD)], [(ALL, *OURS)], True),
    "ours may change the service's ACL": ([(ALL, *OURS)], [(READ | ADMIN, *OURS)], True),
    "ours may delete": ([(CREATE, *OURS)], [(DELETE, *OURS)], True),
    "of two one": ([(ALL, *OURS)], [(ALL, *NAMED), (DELETE, *OURS)], True),
    "an open root": ([(ALL, *WORLD)], [(ALL, *OURS)], False),
    "open to create": ([(ALL, *OURS), (CREATE, *WORLD)], [(ALL, *OURS)], False),
    "open to change": ([(ALL, *OURS), (ADMIN, *WORLD)], [(ALL, *OURS)], False),
    "a stranger's of the same name": ([(ALL, *THEIRS)], [(ALL, *OURS)], False),
    "a stranger beside us": ([(ALL, *OURS), (CREATE, *NAMED)], [(ALL, *OURS)], False),
    "of another scheme": ([(ALL, "sasl", OURS[1])], [(ALL, *OURS)], False),
    "hidden here": ([(ALL, *HIDDEN)], [(ALL, *OURS)], False),
    "hidden in both": ([(ALL, *HIDDEN)], [(ALL, *HIDDEN)], False),
    "hidden in an open service": ([(ALL, *HIDDEN)], [(ALL, *WORLD)], True),
    "may only register": ([(ALL, *OURS)], [(READ | WRITE | CREATE, *OURS)], False),
    "everybody may only register": ([(ALL, *WORLD)], [(READ | CREATE, *WORLD), (ALL, *OURS)], False),
}


@pytest.mark.parametrize("case", TRUST)
def test_whose_markers_are_believed(case: str) -> None:
    root, service, believed = TRUST[case]
    why = distrust([AclEntry(*each) for each in root], [AclEntry(*each) for each in service])
    assert (why is None) == believed
    if why is not None:
        assert any(f"{scheme}:{id}" in why for _, scheme, id in root)
