"""The console's pure parts: what a change is called, what is drawn, what differs, who may."""

from __future__ import annotations

import base64
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry import Entry, Invalid, InvalidArgument, Override, ServiceInstance, Snapshot, Suspicion
from aioregistry._console.access import (
    HEADERS,
    AttemptLimit,
    Logins,
    is_host_known,
    is_same_origin,
    is_token,
)
from aioregistry._console.passwords import (
    LONGEST_NAME,
    SCHEMES,
    Argon2,
    Hash,
    hashed,
    is_password,
    read_passwords,
    stand_in,
)
from aioregistry._console.states import KINDS, State, marks, of_snapshot
from aioregistry._console.timeline import MIXED, Difference, Segment, Span, compare, gaps, reconcile, segments


def state(word: str = "enabled", owner: str = "0x1", place: str = "10.0.0.1:80", czxid: int = 1, **more: str) -> State:
    return State(word, owner, place, more.get("payload", ""), more.get("reason", ""), czxid)


# ---------------------------------------------------------------- what a change is called


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (None, None, []),
        (None, state(), ["joined"]),
        (None, state("invalid", place="-", reason="not JSON"), ["invalid"]),
        (state(), None, ["left"]),
        (state("invalid"), None, ["left"]),
        (state(), state(), []),
        (state(), state(owner="0x2"), ["owner"]),
        (state(), state(czxid=2), ["owner"]),
        (state(), state("failing"), ["state"]),
        (state("failing"), state("draining"), ["state"]),
        (state(), state("maintenance", reason="disk (by ann)"), ["override"]),
        (state("maintenance", reason="disk (by ann)"), state(), ["override-over"]),
        (state(), state("maintenance"), ["state"]),
        (state("maintenance"), state("maintenance", reason="disk (by ann)"), ["override"]),
        (state("maintenance", reason="disk (by ann)"), state("maintenance"), ["override-over"]),
        (state("maintenance"), state(), ["state"]),
        (state(), state(reason="weight 0.5: canary (by ann)"), ["override"]),
        (state(reason="weight 0.5: canary (by ann)"), state(), ["override-over"]),
        (state("suspect", reason="a"), state("suspect", reason="b"), []),
        (state(), state("suspect", reason="mass removal"), ["held"]),
        (state("suspect"), state(), ["released"]),
        (state("suspect"), state("failing"), ["released"]),
        (state(), state("invalid", place="-", czxid=9), ["invalid"]),
        (state("invalid", place="-", czxid=9), state(), ["state"]),
        (state(), state(place="10.0.0.2:80"), ["changed"]),
        (state(), state(payload="{}"), ["changed"]),
        (state(), state("failing", owner="0x2", place="10.0.0.2:80", payload="1"), ["owner", "state", "changed"] * 1),
    ],
)
def test_what_a_change_is_called(before: State | None, after: State | None, kinds: list[str]) -> None:
    found = [mark.kind for mark in marks(before, after)]
    assert [kind for kind, _ in itertools.groupby(found)] == kinds
    assert set(found) <= set(KINDS)


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (None, state(), "10.0.0.1:80, session 0x1"),
        (None, state("failing"), "10.0.0.1:80, session 0x1, failing"),
        (state("draining"), None, "draining"),
        (state("invalid"), None, "the node that cannot be read"),
        (state(), state(owner="0x2"), "session 0x1 → 0x2"),
        (state(reason="weight 0.5"), state(), "is enabled"),
        (state("suspect"), state("failing"), "is failing"),
        (state("maintenance", reason="disk (by ann)"), state("draining"), "is draining"),
        (state("maintenance"), state("draining"), "maintenance → draining"),
        (state(), state("failing"), "enabled → failing"),
        (state(), state(place="b:1"), "10.0.0.1:80 → b:1"),
        (state(), state(payload="{}"), "payload"),
    ],
)
def test_what_people_are_told_of_a_change(before: State | None, after: State | None, text: str) -> None:
    assert [mark.text for mark in marks(before, after)] == [text]


def test_of_what_cannot_be_read_only_that_is_told() -> None:
    bad = state("invalid", place="-", payload="", reason="not JSON", czxid=9)
    (mark,) = marks(state(payload="{}"), bad)
    assert mark == ("invalid", "not JSON")
    (mark,) = marks(bad, state(payload="{}"))
    assert mark == ("state", "invalid → enabled")
    assert [*marks(bad, bad._replace(reason="too deep"))] == []


def override(*, registered: int | None = None, **fields: object) -> Override:
    said = {"enabled": False, "reason": "disk", "by": "ann", "since": 0.0, "until": None, "version": 0, **fields}
    return Override(service="chat", id="a", registration_time_ms=registered, **said)  # type: ignore[arg-type]


def recorded(
    payload: object = None,
    *,
    czxid: int = 5,
    suspicion: Suspicion | None = None,
    override: Override | None = None,
    address: str | None = "10.0.0.1",
) -> State:
    """The record of the one instance of a service."""
    instance = ServiceInstance("chat", id="a", address=address, port=80, payload=payload, registration_time_ms=7)
    entry = Entry(instance, 0x1F, czxid, czxid, 0, 1.0, 1.0, suspicion)
    overrides = {} if override is None else {"a": override}
    (found,) = of_snapshot(Snapshot("chat", {"a": entry}, {}, as_of=9, overrides=overrides)).values()
    return found


def test_what_is_recorded_of_an_instance() -> None:
    plain = recorded({"zone": "eu"})
    assert plain == State("enabled", plain.owner, "10.0.0.1:80", plain.payload, "", 5)
    assert plain.owner.endswith("1f")
    assert "zone" in plain.payload
    assert recorded().payload == ""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (override(), "disk (by ann)"),
        (override(enabled=None, weight=0.25), "weight 0.25: disk (by ann)"),
        (override(registered=7), "disk (by ann)"),
        (override(registered=8), ""),
    ],
)
def test_the_reason_is_what_an_operator_said_of_this_incarnation(said: Override, reason: str) -> None:
    assert recorded(override=said).reason == reason


def test_the_guards_reason_goes_before_the_operators() -> None:
    held = recorded(suspicion=Suspicion("disruption", 1.0, 31.0), override=override())
    assert (held.state, held.reason) == ("suspect", "disruption")


@pytest.mark.parametrize(("czxid", "kept"), [(-1, 0), (0, 0), (2**63 - 1, 2**63 - 1), (2**63, 2**63 - 1)])
def test_zxids_are_what_the_database_has_room_for(czxid: int, kept: int) -> None:
    assert recorded(czxid=czxid).czxid == kept
    bad = Invalid("a", "why", 0x1F, czxid)
    assert of_snapshot(Snapshot("chat", {}, {"a": bad}, as_of=9))["a"].czxid == kept


def test_what_is_recorded_is_cut_and_can_be_written() -> None:
    whole, long = (recorded("x" * length).payload for length in (1998, 1999))
    assert (len(whole), whole[-1]) == (2000, '"')
    assert (len(long), long[-1]) == (2001, "…")
    assert [len(recorded(override=override(reason="x" * length)).reason) for length in (491, 492)] == [500, 501]
    states = of_snapshot(Snapshot("chat", {}, {"a": Invalid("a", "\ud800" + "x" * 500, 0x1F)}, as_of=9))
    bad = states["a"]
    assert (bad.state, bad.place, bad.payload, bad.czxid) == ("invalid", "-", "", 0)
    assert bad.reason == "\ufffd" + "x" * 499 + "…"


def test_an_instance_goes_before_a_node_of_the_same_name() -> None:
    entry = Entry(ServiceInstance("chat", id="a"), 1, 5, 5, 0, 1.0, 1.0)
    states = of_snapshot(Snapshot("chat", {"a": entry}, {"a": Invalid("a", "why"), "b": Invalid("b", "why")}, as_of=9))
    assert {id: each.state for id, each in states.items()} == {"a": "enabled", "b": "invalid"}


# ---------------------------------------------------------------- what is drawn


def spans(*parts: tuple[float, float | None, str]) -> list[Span]:
    return [Span("chat", "a", since, until, state(word)) for since, until, word in parts]


def test_segments_are_clipped_and_what_lasts_ends_with_the_window() -> None:
    own = spans((0, 10, "enabled"), (10, 20, "failing"), (20, None, "enabled"), (99, None, "failing"))
    assert segments(own, 5, 30, 0.1) == [
        Segment(5, 10, "enabled", 1),
        Segment(10, 20, "failing", 1),
        Segment(20, 30, "enabled", 1),
    ]


def test_what_is_too_short_to_be_seen_is_drawn_as_one() -> None:
    flaps = spans(*((second, second + 1, "enabled" if second % 2 else "failing") for second in range(50)))
    assert segments(flaps, 0, 1000, 60) == [Segment(0, 50, MIXED, 50)]
    away = spans((0, 10, "enabled"), (500, 510, "enabled"))
    assert len(segments(away, 0, 1000, 2)) == 2


def test_what_lasts_as_long_as_can_be_seen_is_drawn_by_itself() -> None:
    own = spans((0, 2, "enabled"), (2, 4, "failing"))
    assert [each.state for each in segments(own, 0, 10, 2)] == ["enabled", "failing"]
    assert segments(own, 0, 10, 2.5) == [Segment(0, 4, MIXED, 2)]
    assert [each.state for each in segments(spans((0, 2, "enabled"), (2, 9, "failing")), 0, 10, 2.5)] == [
        "enabled",
        "failing",
    ]


def test_a_gap_that_cannot_be_seen_is_not_drawn() -> None:
    own = spans((0, 10, "enabled"), (12, 20, "enabled"))
    assert segments(own, 0, 100, 2) == [Segment(0, 20, "enabled", 2)]
    assert [(each.since, each.until) for each in segments(own, 0, 100, 1.5)] == [(0, 10), (12, 20)]
    inside = spans((0, 10, "enabled"), (2, 5, "enabled"))
    assert segments(inside, 0, 100, 2) == [Segment(0, 10, "enabled", 2)]


@given(
    st.lists(st.tuples(st.floats(0.1, 50), st.sampled_from(["enabled", "failing", "suspect"])), max_size=40),
    st.floats(0.01, 30),
)
def test_segments_keep_order_and_time(lengths: list[tuple[float, str]], resolution: float) -> None:
    moments = [0.0, *itertools.accumulate(length for length, _ in lengths)]
    own = spans(*((a, b, word) for (a, b), (_, word) in zip(itertools.pairwise(moments), lengths, strict=True)))
    drawn = segments(own, 0, moments[-1], resolution)
    assert sum(each.changes for each in drawn) == len(own)
    assert all(left.until <= right.since for left, right in itertools.pairwise(drawn))
    assert sum(each.until - each.since for each in drawn) == pytest.approx(moments[-1])
    assert len(drawn) <= 2 * moments[-1] / resolution + 2


# ---------------------------------------------------------------- two moments


@pytest.mark.parametrize(
    ("own", "kind", "steps"),
    [
        (spans((5, None, "enabled")), "came", 1),
        (spans((0, 5, "enabled")), "went", 1),
        (spans((0, 5, "enabled"), (5, None, "failing")), "changed", 2),
        (spans((0, 5, "enabled"), (5, 6, "failing"), (6, None, "enabled")), "back", 3),
        (spans((4, 6, "enabled")), "brief", 1),
        (spans((10, None, "enabled")), "came", 1),
        (spans((3, 10, "enabled")), "went", 1),
        ([Span("chat", "a", 0, 5, state()), Span("chat", "a", 5, None, state(owner="0x2"))], "owner", 2),
    ],
)
def test_how_two_moments_differ(own: list[Span], kind: str, steps: int) -> None:
    (found,) = compare(own, 3, 10)
    assert (found.service, found.id, found.kind, found.steps) == ("chat", "a", kind, steps)


def test_what_lasts_does_not_differ() -> None:
    assert list(compare(spans((0, None, "enabled")), 3, 10)) == []
    assert list(compare(spans((0, 3, "enabled"), (3, None, "failing")), 3, 10)) == []
    assert list(compare(spans((0, 2, "enabled"), (11, None, "failing")), 3, 10)) == []


def test_differences_are_sorted() -> None:
    own = [Span(service, id, 5, None, state()) for service, id in (("b", "1"), ("a", "2"), ("a", "1"))]
    assert [each[:2] for each in compare(own, 3, 10)] == [("a", "1"), ("a", "2"), ("b", "1")]
    assert all(isinstance(each, Difference) for each in compare(own, 3, 10))


def test_a_record_is_put_right() -> None:
    recorded = {"same": state(), "gone": state(), "other": state()}
    ended, begun = reconcile(recorded, {"same": state(), "other": state("failing"), "new": state()})
    assert (sorted(ended), sorted(begun)) == (["gone", "other"], ["new", "other"])


def test_gaps_are_what_no_recording_covers() -> None:
    assert gaps([], 0, 10) == [(0, 10)]
    assert gaps([(0, 10)], 0, 10) == []
    assert gaps([(2, 4), (6, 20)], 0, 10) == [(0, 2), (4, 6)]
    assert gaps([(-5, -1), (11, 12)], 0, 10) == [(0, 10)]


# ---------------------------------------------------------------- who may


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8765",
        "127.0.0.1:80",
        "[::1]:8765",
        "10.1.2.3",
        "ops.example",
        "app.localhost",
        "OPS.example.",
    ],
)
def test_hosts_that_mean_the_console(host: str) -> None:
    assert is_host_known(host, {"ops.example"})


@pytest.mark.parametrize(
    "host",
    [
        "",
        "rebound.example",
        "127.0.0.1.rebound.example",
        "[::1",
        "localhost@rebound.example",
        "ops.example.evil",
        "a b",
    ],
)
def test_hosts_that_another_site_can_make_lead_here(host: str) -> None:
    assert not is_host_known(host, {"ops.example"})


@pytest.mark.parametrize(
    ("origin", "site", "same"),
    [
        ("http://ops.example", "same-origin", True),
        ("https://OPS.example", None, True),
        (None, None, False),
        ("null", None, False),
        ("http://evil.example", None, False),
        ("http://ops.example", "cross-site", False),
        ("http://ops.example", "same-site", False),
        ("http://ops.example:81", None, False),
    ],
)
def test_origins(origin: str | None, site: str | None, same: bool) -> None:
    assert is_same_origin(origin, site, "ops.example") is same


def test_no_code_in_pages() -> None:
    policy = dict(HEADERS)[b"content-security-policy"].decode()
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    # With no-referrer a browser does not say where a form comes from, and the login is refused.
    assert dict(HEADERS)[b"referrer-policy"] == b"same-origin"


def test_a_login_ends_by_silence_and_by_time() -> None:
    logins = Logins()
    logins.add("t", "ann", "c", now=0)
    assert logins.find("other", 1) is None
    for hour in range(12):
        assert logins.find("t", hour * 3600) is not None
    assert logins.find("t", 12 * 3600) is not None
    assert logins.find("t", 12 * 3600 + 1) is None
    logins.add("u", "ann", "c", now=0)
    assert logins.find("u", 7200, seen=False) is not None
    assert logins.find("u", 7201) is None
    assert logins.find("u", 1) is None
    logins.add("v", "ann", "c", now=0)
    logins.remove("v")
    assert logins.find("v", 1) is None


def test_logins_are_bounded() -> None:
    logins = Logins()
    for number in range(1000):
        logins.add(str(number), "ann", "c", now=0)
    assert logins.find("0", 1) is not None  # of all others nothing was heard for longer
    assert logins.find("1", 1, seen=False) is not None
    logins.add("1000", "ann", "c", now=2)
    assert [logins.find(token, 3) is None for token in ("0", "1", "2", "1000")] == [False, True, False, False]


def test_attempts_are_bounded_in_number_and_memory() -> None:
    attempts = AttemptLimit(3, 60)
    for second in range(3):
        assert attempts.wait("a", second) == 0
        attempts.failed("a", second)
    assert attempts.wait("a", 3) == 57
    assert attempts.wait("b", 3) == 0
    assert attempts.wait("a", 59) == 1
    assert attempts.wait("a", 60) == 0
    for second in (70, 71, 72, 90):  # of four within a minute the last three count
        attempts.failed("a", second)
    assert attempts.wait("a", 91) == 40
    attempts.succeeded("a")
    assert attempts.wait("a", 91) == 0


def test_the_key_that_failed_longest_ago_is_forgotten_first() -> None:
    attempts = AttemptLimit(1, 60)
    for number in range(10_000):
        attempts.failed(str(number), 100)
    assert attempts.wait("0", 100) == 60
    attempts.failed("0", 100)
    attempts.failed("one more", 100)
    assert [attempts.wait(key, 100) for key in ("0", "1", "2", "one more")] == [60, 0, 60, 60]


def test_tokens_are_compared_whole() -> None:
    assert is_token("abc", "abc")
    assert not is_token("ab", "abc")
    assert not is_token(None, "abc")
    assert not is_token("\ud800ü", "abc")


# ---------------------------------------------------------------- passwords


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_password_is_found_again_and_no_other(scheme: str) -> None:
    line = f"ann:{hashed('correct horse', b'0123456789abcdef', scheme)}"
    known = read_passwords("users", ["# users", "", line])
    assert is_password("correct horse", known["ann"])
    assert not is_password("correct horse ", known["ann"])
    assert not is_password("correct horse", stand_in(known, "bob"))
    assert "correct" not in line
    assert known["ann"][:-2] == SCHEMES[scheme][:-2]


def test_the_time_that_a_login_takes_does_not_tell_which_users_there_are() -> None:
    users = {"ann": f"ann:{GOOD.replace('ln=15', 'ln=4')}", "bob": f"bob:{ARGON2}"}
    for some in (["ann"], ["bob"], ["ann", "bob"]):
        known = read_passwords("users", [users[name] for name in some])
        told = {name: _costs(stand_in(known, name)) for name in map(str, range(100))}
        assert set(told.values()) == {_costs(each) for each in known.values()}
        assert told == {name: _costs(stand_in(known, name)) for name in told}
    assert _costs(stand_in({}, "ann")) == (15, 8, 1, 16, 32)


def _costs(hash: Hash) -> tuple[object, ...]:
    return (*hash[:-2], len(hash.salt), len(hash.hash))


def test_what_the_reference_implementation_writes_is_read() -> None:
    # The line of its README: `echo -n "password" | ./argon2 somesalt -t 2 -m 16 -p 4 -l 24`.
    line = "ann:$argon2i$v=19$m=65536,t=2,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b+dWRWJTmaaJObG"
    known = read_passwords("users", [line])["ann"]
    assert known[:5] == ("i", 65536, 2, 4, b"somesalt")
    assert is_password("password", known)
    assert not is_password("Password", known)


def test_a_hash_whose_package_is_missing_is_refused_and_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidArgument, match=r"line 2 needs argon2-cffi: install aioregistry-zookeeper\[console\]"):
        read_passwords("users", [f"ann:{GOOD}", f"bob:{ARGON2}"])
    assert set(read_passwords("users", [f"ann:{GOOD}"])) == {"ann"}


def test_what_passlib_writes_is_read() -> None:
    # Its form, with the salt of RFC 7914's example.
    line = "ann:$scrypt$ln=4,r=8,p=1$TmFDbE5hQ2xOYUNs$" + "A" * 43
    known = read_passwords("users", [line])["ann"]
    assert (known[0], known.salt, len(known.hash)) == (4, b"NaClNaClNaCl", 32)


GOOD = "$scrypt$ln=15,r=8,p=1$" + base64.b64encode(b"0" * 16).decode().rstrip("=") + "$" + "A" * 43
ARGON2 = "$argon2id$v=19$m=64,t=3,p=4$" + base64.b64encode(b"0" * 16).decode().rstrip("=") + "$" + "A" * 43


@pytest.mark.parametrize("costs", ["ln=1,r=1,p=1", "ln=20,r=7,p=1", "ln=14,r=511,p=1"])
def test_costs_that_a_login_can_bear(costs: str) -> None:
    name = "n" * LONGEST_NAME
    assert LONGEST_NAME == 100
    known = read_passwords("users", [f" {name}:{GOOD.replace('ln=15,r=8,p=1', costs)} "])
    assert ",".join(f"{key}={value}" for key, value in zip(("ln", "r", "p"), known[name], strict=False)) == costs


@pytest.mark.parametrize("costs", ["m=8,t=1,p=1", "m=1048576,t=4,p=1", "m=65536,t=64,p=4", "m=1016,t=999,p=127"])
def test_costs_of_argon2_that_a_login_can_bear(costs: str) -> None:
    known = read_passwords("users", [f"ann:{ARGON2.replace('m=64,t=3,p=4', costs)}"])["ann"]
    assert isinstance(known, Argon2)
    assert f"m={known.memory},t={known.passes},p={known.lanes}" == costs


def test_the_line_that_is_wrong_is_told_by_its_number() -> None:
    with pytest.raises(InvalidArgument, match="line 3 has no user"):
        read_passwords("users", ["# users", f"ann:{GOOD}", ":"])


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [f"{'n' * 101}:{GOOD}"],
        *([f"ann:{GOOD.replace('ln=15,r=8,p=1', costs)}"] for costs in ("ln=0,r=8,p=1", "ln=21,r=1,p=1")),
        *([f"ann:{GOOD.replace('ln=15,r=8,p=1', costs)}"] for costs in ("ln=20,r=8,p=1", "ln=14,r=512,p=1")),
        [f"ann:{GOOD.replace('p=1', 'p=0')}"],
        ["ann:$scrypt$ln=4,r=8,p=1$" + "A" * 13 + "$" + "A" * 43],
        ["# nobody"],
        ["secret"],
        ["ann:secret"],
        [f":{GOOD}"],
        [f"a nn:{GOOD}"],
        [f"ann:{GOOD}", f"ann:{GOOD}"],
        ["ann:$2b$12$abcdefghijklmnopqrstuv"],
        [f"ann:{GOOD.replace('ln=15', 'ln=31')}"],
        [f"ann:{GOOD.replace('r=8', 'r=0')}"],
        [f"ann:{GOOD.replace('ln=15,r=8', 'ln=20,r=999')}"],
        [f"ann:{GOOD} trailing secret"],
        *(
            [f"ann:{ARGON2.replace('m=64,t=3,p=4', costs)}"]
            for costs in ("m=7,t=1,p=1", "m=31,t=1,p=4", "m=64,t=0,p=4", "m=64,t=3,p=0", "m=1048577,t=1,p=1")
        ),
        *([f"ann:{ARGON2.replace('m=64,t=3,p=4', costs)}"] for costs in ("m=1048576,t=5,p=1", "t=3,m=64,p=4")),
        [f"ann:{ARGON2.replace('argon2id', 'argon2x')}"],
        [f"ann:{ARGON2.replace('v=19$', '')}"],
        [f"ann:{ARGON2.replace('v=19', 'v=16')}"],
        [f"ann:{ARGON2[:-2]}"],
    ],
)
def test_a_file_that_says_something_else_is_refused_without_being_shown(lines: list[str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_passwords("users", lines)
    assert refused.value.field == "password-file"
    assert "secret" not in str(refused.value)
    assert GOOD not in str(refused.value)
