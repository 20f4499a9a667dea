"""The checks on pictures that were made by hand: what is just enough to be found, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from aioregistry._doctor import (
    clock_checks,
    instance_checks,
    override_checks,
    root_checks,
    server_checks,
    session_checks,
    words,
)
from aioregistry._doctor.picture import Node, Picture, Server
from aioregistry._doctor.words import ClientConnection
from aioregistry._protocol import AclEntry, Stat
from tests.doctor.scene import document

NOW = 1_800_000_000.0
ME, OWNER = 17, 23


def stat(owner: int = OWNER, *, ctime: float = NOW, mtime: float = NOW) -> Stat:
    fields = dict.fromkeys(Stat._fields, 0) | {"ctime": int(ctime * 1000), "mtime": int(mtime * 1000)}
    return Stat(**fields | {"ephemeral_owner": owner})


def instance(id: str = "a", /, owner: int = OWNER, **fields: Any) -> Node:
    return Node(f"/services/chat/{id}", document("chat", id, **fields), stat(owner))


def server(*connections: ClientConnection, address: str = "zk1:2181", **fields: Any) -> Server:
    return Server(address, connections=connections, **fields)


def connection(session: int, *, host: str = "10.0.0.1", timeout: float = 0.0, established: float = 0.0) -> Any:
    return ClientConnection(host, session, timeout, established)


def picture(*servers: Server, nodes: Mapping[str, Node] | None = None, **fields: Any) -> Picture:
    services = {} if nodes is None else {"chat": nodes}
    return Picture(servers or (server(),), now=NOW, session=ME, services=services, **fields)


# ---------------------------------------------------------------- clocks


@pytest.mark.parametrize(("skew", "direction"), [(5.0, None), (5.1, "ahead of"), (-5.0, None), (-5.1, "behind")])
def test_a_clock_is_wrong_by_more_than_five_seconds(skew: float, direction: str | None) -> None:
    seen = picture(server(connection(ME, established=NOW + skew)), connected_at=NOW)
    assert clock_checks.measured_skew(seen) == pytest.approx(skew, abs=1e-6)
    found = [text for _, text in clock_checks.skewed(seen)]
    assert found == ([] if direction is None else [f"the server's clock is 5 s {direction} this machine's"])


def test_the_clock_is_that_of_the_own_connection_where_it_is_told() -> None:
    other, untold = connection(OWNER, established=NOW + 99), connection(ME)
    assert clock_checks.measured_skew(picture(server(other, untold), connected_at=NOW)) is None
    own = server(connection(ME, established=NOW + 7), address="zk2:2181")
    assert clock_checks.measured_skew(picture(server(other), own, connected_at=NOW)) == 7.0
    without = Picture([server(connection(0, established=NOW + 7))], connected_at=NOW)
    assert clock_checks.measured_skew(without) is None


@pytest.mark.parametrize(("ahead", "found"), [(5.0, 0), (5.5, 1)])
def test_without_the_servers_word_the_newest_node_tells(ahead: float, found: int) -> None:
    nodes = {
        "a": Node("", b"", stat(ctime=NOW + ahead)),
        "b": Node("", b"", stat(ctime=NOW - 50)),
        "c": Node("", b"", None),
    }
    assert len(list(clock_checks.skewed(picture(nodes=nodes)))) == found


@pytest.mark.parametrize(("ahead", "found"), [(-60.0, 0), (5.0, 0), (5.5, 1)])
def test_a_publisher_s_clock_is_ahead(ahead: float, found: int) -> None:
    nodes = {"a": instance(registrationTimeUTC=int((NOW + ahead) * 1000))}
    assert len(list(clock_checks.clock_of_publisher(picture(nodes=nodes)))) == found


def test_an_instance_that_does_not_say_when_it_was_registered_tells_of_no_clock() -> None:
    nodes = {"a": instance(registrationTimeUTC=0), "b": Node("", document("chat", "b"), None)}
    assert list(clock_checks.clock_of_publisher(picture(nodes=nodes))) == []


# ---------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (600.0, None),
        (599.0, "ends in 599 s"),
        (1.0, "ends in 1 s"),
        (0.0, "ended 0 s ago, and is still there"),
        (-0.4, "ended 0 s ago, and is still there"),
        (-7.0, "ended 7 s ago, and is still there"),
    ],
)
def test_an_override_ends_soon(left: float, text: str | None) -> None:
    node = Node("/services-overrides/chat/a", b'{"seconds": 1000}', stat(0, mtime=NOW + left - 1000))
    seen = picture(overrides={("chat", "a"): node}, chroot="/prod")
    expected = [] if text is None else [("/prod/services-overrides/chat/a", text)]
    assert list(override_checks.overrides_ending(seen)) == expected
    assert list(override_checks.overrides_endless(seen)) == []


def test_an_override_that_never_ends_and_one_that_says_nothing() -> None:
    endless = Node("/o/chat/a", b"{}", stat(0))
    hidden, unfit, unknown = (
        Node("/o/chat/b", None, stat(0)),
        Node("/o/chat/c", b"7", stat(0)),
        Node("/o/chat/d", b"{}", None),
    )
    nodes = {("chat", id): node for id, node in zip("abcd", (endless, hidden, unfit, unknown), strict=True)}
    seen = picture(overrides=nodes)
    assert list(override_checks.overrides_ending(seen)) == []
    assert list(override_checks.overrides_endless(seen)) == [("/o/chat/a", "never ends")]
    assert [place for place, _ in override_checks.unreadable_overrides(seen)] == ["/o/chat/b", "/o/chat/c"]


# ---------------------------------------------------------------- sessions


@pytest.mark.parametrize(
    ("timeout", "found"),
    [(1.9, "a pause of its process"), (2.0, None), (60.0, None), (60.1, "noticed late"), (40.0, "the most")],
)
def test_a_session_timeout_of_an_instance(timeout: float, found: str | None) -> None:
    asked = server(
        connection(OWNER, timeout=timeout), settings={"minSessionTimeout": "4000", "maxSessionTimeout": "40000"}
    )
    texts = [text for _, text in session_checks.timeouts(picture(asked, nodes={"a": instance()}))]
    assert len(texts) == (found is not None)
    assert all(found is not None and found in text for text in texts)


def test_the_servers_word_about_a_timeout_counts_before_the_instance_s() -> None:
    nodes = {"a": instance(sessionTimeoutMs=90_000), "b": instance("b", 0, sessionTimeoutMs=90_000)}
    asked = server(connection(OWNER, timeout=30.0))
    assert list(session_checks.timeouts(picture(asked, nodes=nodes))) == []
    assert [place for place, _ in session_checks.timeouts(picture(nodes=nodes))] == ["/services/chat/a"]


@pytest.mark.parametrize(("granted", "found"), [(0.0, 0), (15.0, 0), (15.001, 0), (15.1, 1), (10.0, 1)])
def test_a_timeout_that_was_not_asked_for(granted: float, found: int) -> None:
    assert len(list(session_checks.timeouts(picture(granted=granted, requested=15.0)))) == found


def test_servers_that_grant_different_timeouts() -> None:
    one = {"minSessionTimeout": "4000", "maxSessionTimeout": "40000"}
    for settings, found in (
        (one, 0),
        ({**one, "maxSessionTimeout": "60000"}, 1),
        ({**one, "minSessionTimeout": "1"}, 1),
        ({}, 0),
    ):
        servers = server(settings=one), server(address="zk2:2181", settings=settings)
        assert len(list(session_checks.timeouts(picture(*servers)))) == found


TICKS = {"syncLimit": "5", "tickTime": "2000"}


@pytest.mark.parametrize(
    ("settings", "mode", "limit"),
    [(TICKS, "leader", 10.0), ({}, "standalone", 0.0), ({}, "leader", None), ({"tickTime": "2000"}, "follower", None)],
)
def test_the_seconds_for_which_a_leader_may_miss_its_followers(
    settings: dict[str, str], mode: str, limit: float | None
) -> None:
    assert session_checks.sync_limit(picture(server(settings=settings, summary={"mode": mode}))) == limit


@pytest.mark.parametrize("servers", [(), (server(refusal="silent"),)], ids=["no server", "one that refuses"])
def test_where_no_server_tells_the_limit_is_not_known(servers: tuple[Server, ...]) -> None:
    assert session_checks.sync_limit(picture(*servers)) is None


def test_one_member_that_does_not_tell_is_enough_for_not_knowing() -> None:
    silent = server(summary={"mode": "leader"}, address="zk2:2181")
    assert session_checks.sync_limit(picture(server(summary={"mode": "standalone"}), silent)) is None


def test_without_the_most_that_is_granted_no_bounds_are_known() -> None:
    asked = server(settings={"minSessionTimeout": "4000"})
    other = server(settings={"minSessionTimeout": "2000"}, address="zk2:2181")
    assert list(session_checks.timeouts(picture(asked, other))) == []


@pytest.mark.parametrize(("timeout", "most", "found"), [(10.0, 10.0, 2), (10.1, 10.1, 0), (9.0, 20.0, 1)])
def test_timeouts_that_are_not_above_that(timeout: float, most: float, found: int) -> None:
    settings = {**TICKS, "minSessionTimeout": "1", "maxSessionTimeout": f"{most * 1000:.0f}"}
    asked = server(connection(OWNER, timeout=timeout), settings=settings, summary={"mode": "leader"})
    assert len(list(session_checks.short_timeouts(picture(asked, nodes={"a": instance()})))) == found


@pytest.mark.parametrize(("instances", "more"), [(5, ""), (6, " and 1 more")])
def test_five_of_many_short_timeouts_are_named(instances: int, more: str) -> None:
    nodes = {f"n{number}": instance(f"n{number}") for number in range(instances)}
    asked = server(connection(OWNER, timeout=4.0), settings=TICKS, summary={"mode": "leader"})
    ((place, text),) = session_checks.short_timeouts(picture(asked, nodes=nodes))
    assert (place, f"n0, n1, n2, n3, n4{more}: " in text) == ("/services/chat", True)


def test_a_ghost_is_owned_by_a_session_that_no_server_has() -> None:
    nodes = {"a": instance(), "b": instance("b", 0), "c": Node("", b"", None), "d": instance("d", 99)}
    seen = picture(server(connection(OWNER), members=1), nodes=nodes)
    assert [place for place, _ in session_checks.ghosts(seen)] == ["/services/chat/d"]
    assert list(session_checks.ghosts(picture(server(), nodes=nodes))) == []  # how many servers there are is not known


@pytest.mark.parametrize(
    ("fields", "members", "known"),
    [
        ({"members": 1}, 0, True),
        ({"members": 3}, 0, False),
        ({}, 0, False),
        ({}, 1, True),
        ({}, 2, False),
        ({"summary": {"mode": "standalone"}}, 0, True),
        ({"monitor": {"zk_learners": "0"}}, 0, True),
        ({"monitor": {"zk_learners": "1"}}, 0, False),
    ],
)
def test_ghosts_are_known_where_every_server_was_asked(fields: dict[str, Any], members: int, known: bool) -> None:
    assert (session_checks.why_ghosts_are_unknown(picture(server(**fields), members=members)) is None) is known


# ---------------------------------------------------------------- servers


@pytest.mark.parametrize(
    ("zxid", "found"), [(0x2_0000_07D0, 0), (0x2_0000_03E8, 0), (0x2_0000_03E7, 1), (0x1_0000_07D0, 1), (0, 0)]
)
def test_a_server_that_is_a_thousand_transactions_or_an_epoch_behind(zxid: int, found: int) -> None:
    servers = [server(summary={"zxid": f"{each:#x}"}, address=f"zk{each}") for each in (0x2_0000_07D0, zxid)]
    assert [place for place, _ in server_checks.behind(picture(*servers))] == [f"zk{zxid}"] * found


@pytest.mark.parametrize(
    ("learners", "synced", "observers", "found"), [(2, 2, 0, 0), (2, 1, 0, 1), (3, 2, 1, 0), (3, 1, 1, 1)]
)
def test_a_leader_whose_followers_are_behind(learners: int, synced: int, observers: int, found: int) -> None:
    monitor = {"zk_learners": str(learners), "zk_synced_followers": str(synced), "zk_synced_observers": str(observers)}
    assert len(list(server_checks.behind(picture(server(monitor=monitor))))) == found


@pytest.mark.parametrize(("version", "found"), [("3.7.2-x", 1), ("3.8.0", 0), ("3.4.14", 1), ("4.0.0", 0), ("", 0)])
def test_releases_that_are_no_longer_supported(version: str, found: int) -> None:
    assert len(list(server_checks.end_of_life(picture(server(summary={"zookeeper version": version}))))) == found


@pytest.mark.parametrize(("files", "found"), [(80, 0), (81, 1)])
def test_four_fifths_of_a_limit_are_near_it(files: int, found: int) -> None:
    monitor = {"zk_open_file_descriptor_count": str(files), "zk_max_file_descriptor_count": "100"}
    assert len(list(server_checks.near_limits(picture(server(monitor=monitor))))) == found
    watching = server(monitor={"zk_watch_count": f"{files}0000"})
    assert len(list(server_checks.near_limits(picture(watching)))) == found
    clients = [connection(number, host="a" if number < files else "b") for number in range(100)]
    limited = server(*clients, settings={"maxClientCnxns": "100"})
    assert len(list(server_checks.near_limits(picture(limited)))) == found
    unlimited = server(*clients, settings={"maxClientCnxns": "0"}, monitor={"zk_open_file_descriptor_count": "9"})
    assert list(server_checks.near_limits(picture(unlimited))) == []


# ---------------------------------------------------------------- instances and their nodes


@pytest.mark.parametrize(("limit", "found"), [(400, 0), (399, 1)])
def test_half_of_a_request_is_near_its_limit(limit: int, found: int) -> None:
    large = Node("/services/chat/a", b"x" * 200, stat())
    assert len(list(instance_checks.large(picture(nodes={"a": large}, max_request=limit)))) == found
    names = {f"{'n' * 95}{number}": Node("", b"", None) for number in range(2)}  # 4 bytes more for each
    assert len(list(instance_checks.large(picture(nodes=names, max_request=limit)))) == found


@pytest.mark.parametrize(
    ("kind", "owner", "found"), [("DYNAMIC", 0, 1), ("DYNAMIC", 5, 0), ("STATIC", 0, 0), ("PERMANENT", 0, 0)]
)
def test_a_dynamic_instance_in_a_persistent_node(kind: str, owner: int, found: int) -> None:
    nodes = {"a": instance("a", owner, serviceType=kind)}
    assert len(list(instance_checks.persistent(picture(nodes=nodes)))) == found


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ({"port": 7000}, {"port": 7000}, 1),
        ({"port": 7000}, {"port": 7001}, 0),
        ({"port": 0, "sslPort": 7000}, {"port": None, "sslPort": 7000}, 1),
        ({"port": 0}, {"port": 0}, 0),
        ({"port": 1}, {"port": 1}, 1),
        ({"port": 7000, "address": None}, {"port": 7000, "address": None}, 0),
    ],
)
def test_two_at_one_place(one: dict[str, Any], other: dict[str, Any], found: int) -> None:
    nodes = {"a": instance("a", **one), "b": instance("b", **other)}
    assert len(list(instance_checks.duplicates(picture(nodes=nodes)))) == found


def test_names_that_look_the_same() -> None:
    services = {"chat": {"a": instance("a"), "A ": instance("A "), "b": instance("b")}, "Chat": {}, "mail": {}}
    seen = Picture((server(),), now=NOW, session=ME, services=services)
    assert [*instance_checks.alike(seen)] == [
        ("/services", "has names that differ by case or blanks only: 'chat', 'Chat'"),
        ("/services/chat", "has names that differ by case or blanks only: 'a', 'A '"),
    ]


# ---------------------------------------------------------------- access

WORLD = ("world", "anyone")
ADA, EVE = ("digest", "ada:x"), ("digest", "eve:x")


def node(*entries: tuple[int, str, str], path: str = "/services") -> Node:
    return Node(path, b"", stat(0), [AclEntry(*each) for each in entries])


@pytest.mark.parametrize(
    ("permissions", "words_"),
    [(1, None), (2, "change"), (4, "create below"), (8, "delete below"), (16, "open"), (6, "change, create below")],
)
def test_what_every_client_may_do_beside_what_is_protected(permissions: int, words_: str | None) -> None:
    guarded = node((31, *ADA))
    seen = picture(base=guarded, withdrawn=node((permissions, *WORLD), path="/services-withdrawn"))
    text = f"every client may {words_} it, while other nodes are protected"
    assert list(root_checks.open_to_all(seen)) == ([] if words_ is None else [("/services-withdrawn", text)])
    assert list(root_checks.unprotected(seen)) == []


@pytest.mark.parametrize(("permissions", "found"), [(31, 1), (1, 0)])
def test_nothing_is_protected(permissions: int, found: int) -> None:
    seen = picture(base=node((permissions, *WORLD)))
    assert list(root_checks.open_to_all(seen)) == []
    assert len(list(root_checks.unprotected(seen))) == found


@pytest.mark.parametrize(
    ("root", "base", "found"),
    [
        ([(31, *EVE)], [(31, *ADA)], 1),
        ([(1, *EVE)], [(31, *ADA)], 0),
        ([(31, *EVE)], [(31, *ADA), (31, *EVE)], 0),
        ([(31, *EVE)], [(31, *ADA), (1, *EVE)], 1),
        ([(31, *EVE)], [(31, *WORLD)], 0),
        ([(31, *EVE), (31, *WORLD)], [(31, *ADA)], 0),  # another check finds it
    ],
)
def test_a_root_of_strangers(root: list[Any], base: list[Any], found: int) -> None:
    for name in ("withdrawn", "overrides_root"):
        strange: dict[str, Any] = {name: node(*root, path="/strange")}
        seen = picture(base=node(*base), **strange)
        assert [place for place, _ in root_checks.strange_roots(seen)] == ["/strange"] * found


@pytest.mark.parametrize(("number", "more"), [(5, ""), (6, ", and 1 more places have some")])
def test_five_places_are_named_where_the_services_could_be(number: int, more: str) -> None:
    elsewhere = {f"/{each}": each for each in range(number + 1)}  # the first has none
    seen = picture(elsewhere=elsewhere)
    ((place, text),) = root_checks.typing_error(seen)
    assert (place, text) == (
        "/services",
        f"has no services, but /1 has 1, /2 has 2, /3 has 3, /4 has 4, /5 has 5{more}",
    )
    assert list(root_checks.missing_root(seen)) == []
    assert len(list(root_checks.missing_root(picture(elsewhere={"/0": 0})))) == 1


# ---------------------------------------------------------------- the servers' words


def test_lines_are_pairs() -> None:
    assert words.pairs(" a \t 1\nnone\nb\t2\t3\n", "\t") == {"a": "1", "b": "2\t3"}
    assert (
        words.pairs(" \n", "\t") == words.pairs("mntr is not executed because it is not in the whitelist.", " ") == {}
    )
    assert words.summary("Mode: leader\nZxid: 0x5") == {"mode": "leader", "zxid": "0x5"}
    assert words.summary("This ZooKeeper instance is not currently serving requests") == {"mode": "none"}
    assert words.members("server.1=a\nserver.2=b\nserver.2=c\nserverx=1\nserver.x=1") == 2


def test_connections_of_a_server() -> None:
    line = " /10.0.0.1:5000[1](queued=0,sid=0xffffffffffffffff,to=4500,est=1500)\n"
    assert words.connections(f"{line} /::1:7[0](queued=0,recved=1)\nnoise\n") == [
        ClientConnection("10.0.0.1", -1, 4.5, 1.5),
        ClientConnection("::1", 0, 0.0, 0.0),
    ]
    assert words.connections("\n") is None


@pytest.mark.parametrize(
    ("sid", "session"), [("0x7fffffffffffffff", 2**63 - 1), ("0x8000000000000000", -(2**63)), ("?", 0)]
)
def test_a_session_id_has_a_sign_here(sid: str, session: int) -> None:
    (found,) = words.connections(f"/a:1[0](sid={sid})") or []
    assert found.session == session


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("5", 5.0), ("-1.5", -1.5), ("0x10", 16.0), ("", 0.0), ("five", 0.0), ("nan", 0.0), ("inf", 0.0)),
        *((str(2**63), 0.0), (str(2**62), 2.0**62), (f"-{2**63}", 0.0), ("0x" + "f" * 400, 0.0)),
    ],
)
def test_numbers_of_servers(text: str, value: float) -> None:
    assert words.number({"a": text}, "a") == value
    assert words.number({}, "a") == 0.0


@pytest.mark.parametrize(
    ("version", "release"),
    [("3.8.0-abc, built", (3, 8, 0)), ("12.34.56", (12, 34, 56)), ("3.8", None), ("x3.8.0", None), ("12345.1.1", None)],
)
def test_the_release_of_a_version(version: str, release: tuple[int, int, int] | None) -> None:
    assert words.release(version) == release
