"""Reads and watches by the bytes of their requests."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from aioregistry.server import ZooKeeperServer
from tests.support import wire
from tests.support.wire import CHANGED, CHILDREN_CHANGED, CREATED, DELETED, EPHEMERAL, Operation, Wire

GET_ACL, SET_ACL, GET_CHILDREN, CHECK_WATCHES, REMOVE_WATCHES = 6, 7, 8, 17, 18
AUTH, SET_WATCHES, SASL, GET_EPHEMERALS, GET_ALL_CHILDREN_NUMBER, SET_WATCHES2, WHO_AM_I = (
    100,
    101,
    102,
    103,
    104,
    105,
    107,
)
MARSHALLING_ERROR, BAD_ARGUMENTS, NO_NODE, NO_AUTH, AUTH_FAILED, NO_WATCHER = -5, -8, -101, -102, -115, -121
DATA, ANY = 2, 3


def text(value: str | None) -> bytes:
    if value is None:
        return struct.pack(">i", -1)
    return struct.pack(">i", len(value.encode())) + value.encode()


def texts(values: Sequence[str | None]) -> bytes:
    return struct.pack(">i", len(values)) + b"".join(map(text, values))


def auth(scheme: str, credentials: str | None) -> Operation:
    return Operation(AUTH, struct.pack(">i", 0) + text(scheme) + text(credentials))


def set_acl(path: str, *rules: tuple[int, str, str]) -> Operation:
    packed = [struct.pack(">i", permissions) + text(scheme) + text(name) for permissions, scheme, name in rules]
    return Operation(SET_ACL, text(path) + struct.pack(">i", len(rules)) + b"".join(packed) + struct.pack(">i", -1))


def set_watches(since: int, *paths: Sequence[str | None]) -> Operation:
    opcode = SET_WATCHES if len(paths) == 3 else SET_WATCHES2
    return Operation(opcode, struct.pack(">q", since) + b"".join(map(texts, paths)))


async def acl(client: Wire, path: str) -> list[tuple[int, str, str]]:
    body = (await client.ask(Operation(GET_ACL, text(path)))).body
    return [(body.number(), body.string(), body.string()) for _ in range(body.number())]


async def error(client: Wire, operation: Operation) -> int:
    return (await client.reply(client.send(operation))).error


async def told(watcher: Wire) -> list[tuple[int, str]]:
    await watcher.sync()
    events = [(event.type, event.path) for event in watcher.events]
    watcher.events.clear()
    return events


class TestPermissions:
    async def test_who_may_read_is_asked(self, client: Wire, other: Wire) -> None:
        await client.ask(auth("digest", "ada:secret"))
        await client.create("/a")
        await client.ask(set_acl("/a", (31, "auth", "")))
        ((permissions, scheme, name),) = await acl(client, "/a")
        assert (permissions, scheme) == (31, "digest")
        assert name.startswith("ada:")
        for operation in (
            *(wire.get_data("/a"), wire.get_children("/a"), wire.get_children("/a", opcode=GET_CHILDREN)),
            *(Operation(GET_ACL, text("/a")), Operation(GET_ALL_CHILDREN_NUMBER, text("/a"))),
        ):
            assert await error(other, operation) == NO_AUTH
            assert await error(client, operation) == 0
        assert await error(other, wire.exists("/a")) == 0

    async def test_digests_are_for_administrators(self, client: Wire, other: Wire) -> None:
        await client.ask(auth("digest", "ada:secret"))
        await client.create("/a")
        await client.ask(set_acl("/a", (31, "auth", ""), (1, "world", "anyone")))
        assert (await acl(other, "/a"))[0] == (31, "digest", "ada:x")
        assert (await acl(client, "/a"))[0] != (31, "digest", "ada:x")

    @pytest.mark.parametrize(("permissions", "answer"), [(1, 0), (16, 0), (14, NO_AUTH)])
    async def test_an_acl_is_told_to_readers_and_administrators(
        self, client: Wire, permissions: int, answer: int
    ) -> None:
        await client.create("/a")
        await client.ask(set_acl("/a", (permissions, "world", "anyone")))
        assert await error(client, Operation(GET_ACL, text("/a"))) == answer

    async def test_who_one_is(self, client: Wire) -> None:
        for _ in range(2):
            await client.ask(auth("digest", "ada:secret"))
        await client.ask(auth("ip", ""))
        body = (await client.ask(Operation(WHO_AM_I, b""))).body
        assert {(body.string(), body.string()) for _ in range(body.number())} == {
            ("ip", "127.0.0.1"),
            ("digest", "ada"),
        }

    @pytest.mark.parametrize(("scheme", "credentials"), [("world", "anyone"), ("sasl", "x"), ("digest", None)])
    async def test_credentials_that_are_refused_end_the_connection(
        self, client: Wire, scheme: str, credentials: str | None
    ) -> None:
        assert await error(client, auth(scheme, credentials)) == AUTH_FAILED
        await client.closed()

    @pytest.mark.parametrize("opcode", [AUTH, SASL])
    async def test_credentials_cut_short_end_the_connection(self, client: Wire, opcode: int) -> None:
        client.send(Operation(opcode, b"\0"))
        await client.closed()

    async def test_sasl_is_not_configured(self, client: Wire) -> None:
        reply = await client.ask(Operation(SASL, text("token")))
        assert reply.body.number() == -1

    @pytest.mark.parametrize(("version", "seen"), [("3.5", True), ("3.8", False), ("3.9", False)])
    async def test_events_of_what_one_may_not_read(self, version: str, seen: bool) -> None:
        async with (
            ZooKeeperServer(version=version) as server,
            await wire.connect(server.address) as client,
            await wire.connect(server.address) as other,
        ):
            await client.ask(auth("digest", "ada:secret"))
            await client.create("/a")
            await client.ask(set_acl("/a", (31, "auth", "")))
            await other.exists("/a", watch=True) if version != "3.9" else await other.get_children("/", watch=True)
            await client.delete("/a")
            expected = [(CHILDREN_CHANGED, "/")] if version == "3.9" else [(DELETED, "/a")] * seen
            assert await told(other) == expected

    @pytest.mark.parametrize(("version", "seen"), [("3.5", True), ("3.8", True), ("3.9.5", True), ("3.9", False)])
    async def test_what_was_missed_of_what_one_may_not_read(self, version: str, seen: bool) -> None:
        """Since 3.9.6 only those hear of a node who may read it, as of any event; of one that is gone everybody."""
        async with (
            ZooKeeperServer(version=version) as server,
            await wire.connect(server.address) as client,
            await wire.connect(server.address) as other,
        ):
            await client.ask(auth("digest", "ada:secret"))
            await client.create("/a")
            await client.ask(set_acl("/a", (31, "auth", "")))
            for watcher, hears in ((client, True), (other, seen)):
                await watcher.ask(set_watches(0, ["/a", "/gone"], ["/a"], ["/a", "/gone"]))
                hidden = [(CHANGED, "/a"), (CREATED, "/a"), (CHILDREN_CHANGED, "/a")] * hears
                assert sorted(await told(watcher)) == sorted([*hidden, (DELETED, "/gone"), (DELETED, "/gone")])


class TestReads:
    async def test_paths_that_are_none(self, client: Wire) -> None:
        assert await error(client, Operation(wire.GET_DATA, text(None) + b"\0")) == MARSHALLING_ERROR
        assert await error(client, wire.get_data("a")) == NO_NODE
        assert await error(client, wire.exists("/\0")) == BAD_ARGUMENTS

    async def test_counting_and_listing(self, client: Wire, other: Wire) -> None:
        for path, flags in (("/a", 0), ("/a/b", EPHEMERAL), ("/ab", EPHEMERAL)):
            await client.create(path, flags=flags)
        assert (await client.ask(Operation(GET_ALL_CHILDREN_NUMBER, text("/a")))).body.number() == 1
        for prefix, mine in (
            ("/", ["/a/b", "/ab"]),
            (" / ", ["/a/b", "/ab"]),
            ("", ["/a/b", "/ab"]),
            (None, ["/a/b", "/ab"]),
            ("/a", ["/a/b", "/ab"]),
            ("/a/", ["/a/b"]),
        ):
            assert (await client.ask(Operation(GET_EPHEMERALS, text(prefix)))).body.strings() == mine
        assert (await other.ask(Operation(GET_EPHEMERALS, text("/")))).body.strings() == []

    async def test_a_multi_read_tells_data_and_children(self, client: Wire) -> None:
        await client.create("/a", b"data")
        await client.create("/a/b")
        parts = [wire.get_data("/a"), wire.get_children("/a", opcode=GET_CHILDREN)]
        body = (await client.ask(wire.multi(parts, opcode=wire.MULTI_READ))).body
        assert body.unpack(">i?i") == (wire.GET_DATA, False, 0)
        assert body.buffer() == b"data"
        body.stat()
        assert body.unpack(">i?i") == (GET_CHILDREN, False, 0)
        assert body.strings() == ["b"]

    async def test_a_multi_read_that_fails_whole_tells_what_it_had(self, client: Wire) -> None:
        mixed = wire.multi([wire.get_data("/"), wire.create("/a")], opcode=wire.MULTI_READ)
        assert await error(client, mixed) == MARSHALLING_ERROR
        null = Operation(wire.GET_DATA, text(None) + b"\0")
        reply = await client.reply(client.send(wire.multi([wire.get_data("/"), null], opcode=wire.MULTI_READ)))
        assert reply.error == MARSHALLING_ERROR
        assert [result.data for result in reply.body.results()] == [b""]


class TestTransactions:
    @pytest.mark.parametrize(
        "operations",
        [
            [wire.get_data("/")],
            [wire.create("/a", flags=wire.TTL)],
            [Operation(wire.DELETE, text(None) + struct.pack(">i", -1))],
            [wire.exists("/")],
        ],
    )
    async def test_what_the_real_server_stumbles_over(self, client: Wire, operations: list[Operation]) -> None:
        assert await error(client, wire.multi(operations)) == MARSHALLING_ERROR
        await client.ping()

    async def test_flags_make_what_is_created(self, client: Wire) -> None:
        container, ttl = await client.multi(
            wire.create("/c", flags=wire.CONTAINER),
            wire.create("/t", flags=wire.TTL, opcode=wire.CREATE_TTL, ttl_ms=1000),
        )
        assert container.stat is not None
        assert ttl.stat is not None


class TestWatches:
    async def test_what_was_missed_is_told_and_the_rest_watched(self, client: Wire, other: Wire) -> None:
        for path in ("/same", "/changed", "/gone", "/parent", "/quiet"):
            await other.create(path)
        await other.sync()
        since = other.zxid
        await other.set_data("/changed", b"")
        await other.delete("/gone")
        await other.create("/parent/child")
        await other.create("/new")
        data, exist, child = ["/same", "/changed", "/gone"], ["/new", "/absent"], ["/parent", "/quiet", "/gone"]
        await client.ask(set_watches(since, data, exist, child))
        assert await told(client) == [
            *((CHANGED, "/changed"), (DELETED, "/gone"), (CREATED, "/new")),
            *((CHILDREN_CHANGED, "/parent"), (DELETED, "/gone")),
        ]
        await other.set_data("/same", b"")
        await other.create("/absent")
        await other.create("/quiet/child")
        assert await told(client) == [(CHANGED, "/same"), (CREATED, "/absent"), (CHILDREN_CHANGED, "/quiet")]

    async def test_what_was_changed_last_at_that_zxid_was_not_missed(self, client: Wire, other: Wire) -> None:
        await other.create("/a")
        since = (await other.get_data("/a")).stat.mzxid
        await client.ask(set_watches(since, ["/a"], [], []))
        assert await told(client) == []
        await client.ask(set_watches(since - 1, ["/a"], [], []))
        await client.sync()
        assert [(event.type, event.path, event.zxid) for event in client.events] == [(CHANGED, "/a", -1)]

    async def test_nothing_is_watched_by_a_null_path(self, client: Wire) -> None:
        mode = struct.pack(">i", wire.RECURSIVE_WATCH)
        assert await error(client, Operation(wire.ADD_WATCH, text(None) + mode)) == 0
        assert await error(client, set_watches(0, [], [], [], [None], [None])) == 0
        for opcode in (CHECK_WATCHES, REMOVE_WATCHES):
            assert await error(client, Operation(opcode, text(None) + struct.pack(">i", ANY))) == NO_WATCHER
        await client.create("/a")
        assert await told(client) == []

    async def test_persistent_ones_are_set_too(self, client: Wire, other: Wire) -> None:
        await client.ask(set_watches(0, [], [], [], ["/p"], ["/r"]))
        for path in ("/p", "/p/x", "/r", "/r/x"):
            await other.create(path)
        assert await told(client) == [(CREATED, "/p"), (CHILDREN_CHANGED, "/p"), (CREATED, "/r"), (CREATED, "/r/x")]

    async def test_a_null_among_them(self, client: Wire) -> None:
        assert await error(client, set_watches(0, [None], [], [])) == MARSHALLING_ERROR

    async def test_checking_and_removing(self, client: Wire) -> None:
        def checks(kind: int) -> Operation:
            return Operation(CHECK_WATCHES, wire.remove_watches("/a", kind).body)

        assert await error(client, checks(DATA)) == NO_WATCHER
        await client.exists("/a", watch=True)
        assert await error(client, checks(DATA)) == 0
        assert await error(client, wire.remove_watches("/a", ANY)) == 0
        assert await error(client, wire.remove_watches("/a", ANY)) == NO_WATCHER
        assert await error(client, wire.remove_watches("/a", 9)) == MARSHALLING_ERROR

    async def test_a_mode_that_is_none(self, client: Wire) -> None:
        assert await error(client, wire.add_watch("/", 2)) == MARSHALLING_ERROR
