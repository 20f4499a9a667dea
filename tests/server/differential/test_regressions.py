"""Histories in which the two servers once said different things, and what random histories seldom meet."""

from __future__ import annotations

import pytest

from tests.server.differential.conftest import Compare
from tests.server.differential.histories import SECRET
from tests.server.differential.language import (
    OPEN,
    Acl,
    AddWatch,
    Ask,
    Auth,
    Check,
    CheckWatches,
    Close,
    Create,
    Cut,
    Delete,
    Exists,
    Expire,
    Frame,
    GetACL,
    GetChildren,
    GetData,
    GetEphemerals,
    History,
    Mangled,
    Multi,
    Open,
    Ping,
    Raw,
    RemoveWatches,
    Request,
    Resume,
    SetACL,
    SetData,
    SetWatches,
    SetWatches2,
    Sync,
    WhoAmI,
)

WRITE_ONLY = (Acl(30, "world", "anyone"),)


def asks(who: int, *requests: Request) -> History:
    return tuple(Ask(who, request) for request in requests)


HISTORIES: dict[str, History] = {
    # ------------------------------------------------------------ differences there were
    "setWatches2 that is cut short tells nothing": asks(
        0, *[Create("/a")] * 4, Mangled(SetWatches2(child=("/a",)), cut=1)
    ),
    "a path beyond U+FFFF in an event": asks(0, SetWatches(child=("/😀",)), SetWatches2(data=("/a😀b",))),
    "no event for a node that one may not read": asks(
        0, Create("/a"), Exists("/a", watch=True), SetACL("/a", WRITE_ONLY), SetData("/a", b"x"), Delete("/a")
    ),
    # ------------------------------------------------------------ sessions
    "what a session leaves goes before its end is answered": (
        *asks(1, AddWatch("/"), GetChildren("/", watch=True), Exists("/e", watch=True)),
        *asks(0, Create("/e", flags=1), Create("/f", flags=1), Create("/s-", flags=3), AddWatch("/"), Close()),
        *asks(1, GetChildren("/", opcode=12)),
    ),
    "an expired session's connection is closed": (
        *asks(1, AddWatch("/")),
        *asks(0, Create("/e", flags=1)),
        Expire(0),
        Resume(0),
        *asks(0, Exists("/e")),
    ),
    "the session moves, the old connection ends": (
        *asks(0, Create("/e", flags=1)),
        Resume(0),
        *asks(0, GetEphemerals("/")),
    ),
    "a wrong password ends the old connection": (*asks(0, Ping()), Resume(0, wrong_password=True), *asks(0, Ping())),
    "a zxid from the future": (*asks(0, Ping()), Resume(0, since=10**9), Open(1, since=10**9), *asks(0, Ping())),
    "timeouts are negotiated at each connect": (
        *(Open(1, timeout_ms) for timeout_ms in (-1, 0, 1, 7_999, 8_000, 40_001)),
        Resume(1, timeout_ms=9_000),
        Open(1, before_3_4=True),
        Open(1, read_only=True),
    ),
    "nothing behind the end": asks(0, Create("/a"), Close(), Create("/b"), Exists("/a")),
    "a wrong scheme ends the connection": asks(0, Auth("nobody", b""), WhoAmI()),
    "credentials belong to the connection": (
        *asks(0, Auth("digest", b"user:secret"), WhoAmI()),
        Cut(0),
        *asks(0, WhoAmI()),
    ),
    # ------------------------------------------------------------ watches
    "a one-shot watch replaces the recursive one": (
        *asks(0, Create("/a"), AddWatch("/a"), GetData("/a", watch=True)),
        *asks(1, SetData("/a", b"1"), SetData("/a", b"2"), Create("/a/b"), SetData("/a/b", b"3"), Delete("/a/b")),
    ),
    "both kinds of persistent watches, in either order": (
        *asks(0, Create("/a"), AddWatch("/a", 0), AddWatch("/a", 1)),
        *asks(1, AddWatch("/a", 1), AddWatch("/a", 0)),
        *asks(2, Create("/a/b"), SetData("/a", b"x"), Delete("/a/b"), Delete("/a")),
    ),
    "one event for several watches of a connection": (
        *asks(
            0, Create("/a"), AddWatch("/"), AddWatch("/a", 0), Exists("/a", watch=True), GetChildren("/a", watch=True)
        ),
        *asks(1, Create("/a/b"), SetData("/a"), Delete("/a/b"), Delete("/a")),
    ),
    "what was missed is told when watches are set again": (
        *asks(0, Create("/a"), Create("/b"), GetData("/a", watch=True), GetChildren("/b", watch=True)),
        Cut(0),
        *asks(1, SetData("/a", b"1"), Create("/b/c"), Create("/d")),
        Resume(0),
        *asks(0, SetWatches(2, ("/a", "/b", "/gone"), ("/d", "/e"), ("/a", "/b", "/gone")), Sync("/")),
        *asks(1, SetData("/b", b"2"), Create("/a/c"), Create("/e"), Create("/gone")),
    ),
    "persistent watches replay nothing": (
        *asks(0, AddWatch("/"), AddWatch("/a", 0)),
        Cut(0),
        *asks(1, Create("/a"), Create("/a/b")),
        Resume(0, since=0),
        *asks(0, SetWatches2(0, persistent=("/a",), recursive=("/",)), Ping()),
        *asks(1, SetData("/a/b"), Delete("/a/b")),
    ),
    "another connection's watch counts for checkWatches": (
        *asks(0, Create("/a"), GetData("/a", watch=True)),
        *asks(1, *(CheckWatches("/a", kind) for kind in range(7))),
    ),
    "no watch on null": asks(
        0, RemoveWatches(None), RemoveWatches(None, 7), SetWatches2(0, ("/a", None), ("/b",)), Exists(None, watch=True)
    ),
    # ------------------------------------------------------------ writes
    "a takeover": (
        *asks(0, Create("/a", flags=1)),
        *asks(1, AddWatch("/"), GetData("/a", watch=True), GetChildren("/", watch=True)),
        *asks(1, Multi((Delete("/a", 0), Create("/a", flags=1, opcode=15), SetData("/a", b"", 0)))),
        *asks(1, Multi((Delete("/a", 0), Create("/a", flags=1)))),
        *asks(1, GetData("/a")),
    ),
    "a withdrawal": (
        *asks(0, Create("/a", flags=1), Create("/m")),
        *asks(1, AddWatch("/")),
        *asks(
            0, Multi((Create("/m/x"), Delete("/m/x"), Delete("/a", 0))), Multi(()), Multi((Check("/m"), Check("/x")))
        ),
    ),
    "a transaction that cannot be read": asks(
        0,
        Multi((Create("/a"), GetData("/"))),
        Multi((Create("/a"), Raw(999))),
        Mangled(Multi((Create("/a"),)), cut=9),
        Mangled(Multi((Create("/a"),)), cut=12),
        GetChildren("/", opcode=12),
    ),
    "a transaction that fails before what nobody can do": asks(
        0,
        Multi((Delete("/a"), Create("/b", flags=5))),
        Multi((Create("/b", flags=5), Delete("/a"))),
        Multi((Create("/b"), Create("/c", flags=6), Delete("/a"))),
        Multi((Delete("/a"), Create("/b", flags=99), Create("/c", flags=4))),
        GetChildren("/", opcode=12),
    ),
    "a creation that nobody can do where only reads belong": asks(
        0,
        *(Multi((GetData("/"), Create("/a", flags=flags)), opcode=22) for flags in (0, 5, 99)),
        *(Multi((Create("/a", flags=flags),), opcode=22) for flags in (0, 5, 99)),
    ),
    "numbers go on after deletions": asks(
        0,
        *[Create("/s-", flags=2), Delete("/s-0000000000"), Create("/s-", flags=2), Create("/", flags=2)],
        *[Create("/a"), Create("/a/", flags=2), Create("/a/", flags=3, opcode=15), Exists("/a")],
    ),
    "an ephemeral node has no children": asks(
        0, Create("/e", flags=1), Create("/e/x"), Multi((Create("/f", flags=1), Create("/f/x")))
    ),
    "data that is null": asks(
        0, Create("/a", None), GetData("/a"), SetData("/a", None), SetData("/a", b""), GetData("/a")
    ),
    "versions": asks(
        0,
        *[Create("/a"), SetData("/a", b"", 0), SetData("/a", b"", 0), SetData("/a", b"", -2), Delete("/a", 0)],
        *[SetACL("/a", OPEN, 0), SetACL("/a", OPEN, 0), Check("/a", 0), Delete("/a", 1)],
    ),
    # ------------------------------------------------------------ access
    "the digests of others are not told": (
        *asks(1, Create("/a", acl=(Acl(1, "world", "anyone"), Acl(31, "digest", SECRET))), GetACL("/a"), SetData("/a")),
        *asks(1, Auth("digest", b"user:secret"), GetACL("/a"), SetData("/a", b"x"), Delete("/a")),
    ),
    "auth is who one is": asks(
        0,
        Create("/a", acl=(Acl(31, "auth", ""),)),
        Auth("digest", b"user:secret"),
        Create("/a", acl=(Acl(31, "auth", "whatever"),)),
        GetACL("/a"),
        WhoAmI(),
    ),
    "by address": asks(
        0,
        Create("/a", acl=(Acl(31, "ip", "127.0.0.1"),)),
        Create("/b", acl=(Acl(31, "ip", "127.0.0.0/9"),)),
        Create("/c", acl=(Acl(31, "ip", "128.0.0.0/9"),)),
        *(request for path in ("/a", "/b", "/c") for request in (GetData(path), GetACL(path), SetData(path, b"x"))),
    ),
    "ZooKeeper's own nodes": asks(
        0,
        *(
            request
            for path in ("@/zookeeper", "@/zookeeper/config", "@/zookeeper/quota", "@/zookeeper/other")
            for request in (Exists(path), GetData(path), GetACL(path), GetChildren(path, opcode=12), Delete(path))
        ),
        SetData("@/zookeeper/config", b"x"),
        Create("@/zookeeper/config/x"),
        Delete("@/"),
    ),
    # ------------------------------------------------------------ what is no request
    "frames of no length": (Frame(0, -1), *asks(0, Ping()), Frame(0, 2**31 - 1), *asks(0, Ping())),
    "a frame that is too long": (*asks(0, Ping()), Frame(0, 2**20), *asks(0, Ping())),
    "the longest request": asks(
        0,
        *(
            request
            for length in (0xFFFFF - 1, 0xFFFFF, 0xFFFFF + 1)
            for request in (Raw(3, b"\0\0\0\x0a/zookeeper\0".ljust(length - 8, b"?")), Ping())
        ),
    ),
    "opcodes that nobody knows": asks(
        0, *(request for opcode in (0, 10, 99, 999, -1, -2) for request in (Raw(opcode), Ping()))
    ),
    "SASL where there is none": asks(
        0, Raw(102, b"\0\0\0\4some"), WhoAmI(), Raw(102, b"\xff\xff\xff\xff"), Raw(102, b"\0\0\0\5some"), Ping()
    ),
    "requests of nothing": asks(
        0,
        *(
            Raw(opcode)
            for opcode in (*range(1, 10), *range(12, 17), 17, 18, 19, 20, 21, 22, 101, 103, 104, 105, 106, 107)
        ),
    ),
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_it_says_what_zookeeper_says(compare: Compare, history: History) -> None:
    difference = compare(history)
    assert difference is None, difference
