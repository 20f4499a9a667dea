"""With any bytes, the server lives, keeps nothing of it, and its other clients notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import aioregistry.server
from aioregistry.server import ZooKeeperServer
from tests.server.differential import histories
from tests.server.differential.conftest import HISTORIES
from tests.server.differential.language import (
    AddWatch,
    Auth,
    Close,
    Create,
    CreateTTL,
    Delete,
    Exists,
    GetData,
    Multi,
    Place,
    Reconfig,
    Request,
    SetACL,
    SetData,
    SetWatches2,
)
from tests.server.differential.player import Link, Session, connect_request, framed
from tests.support.embedded import EmbeddedServer, embedded_server

PATIENCE = 100.0
MAX_BUFFER = 0xFFFFF
HERE = Place("/attacked", 0)
HANDSHAKE = connect_request(Session("attacker"), 0, 0)
NOISE = 50_000
"""Bytes, of 366 connections: what the interpreter keeps in its caches."""
FRAMES = 12
"""Of each allocation: from what asyncio and codecs take for the server up to its own code."""

# ---------------------------------------------------------------- the server and its witness


class Witness:
    """An honest client, from before every attack: what it reads stays the same, and nothing else comes."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._link = Link((server.host, server.port), "witness")
        self._link.send(connect_request(Session("witness"), 0, 1_000_000))
        assert self._link.receive() is not None
        self._ask(Create("/witness", b"unharmed"), AddWatch("/witness"), Create("/attacked"))

    def look(self) -> None:
        exists, data = self._ask(Exists("/witness"), GetData("/witness"))
        assert data[16:].startswith(struct.pack(">i", 8) + b"unharmed")
        assert exists[16:] == data[16 + 4 + 8 :]

    def _ask(self, *requests: Request) -> list[bytes]:
        self._link.ask(requests, Place("", 0))
        frames = [self._link.receive() for _ in requests]
        xids = [xid for xid, _ in self._link.pending]
        self._link.pending.clear()
        assert all(frames), "the witness was dropped"
        assert [struct.unpack_from(">i", frame)[0] for frame in frames if frame] == xids, (
            "the witness got something else"
        )
        return [frame for frame in frames if frame]

    def close(self) -> None:
        self._link.close()


@dataclass
class Attacked:
    """A server, with what can be seen of it from inside."""

    server: EmbeddedServer
    witness: Witness
    errors: list[dict[str, Any]] = field(default_factory=list)

    def connect(self) -> socket.socket:
        connection = socket.create_connection((self.server.host, self.server.port), PATIENCE)
        connection.settimeout(PATIENCE)
        return connection

    def check(self) -> None:
        """The witness is served, no connection but its own is left, no task, and nothing went wrong inside."""
        self.witness.look()
        deadline = time.monotonic() + PATIENCE
        while (left := self.server.call(self._left)) != (1, 2) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert left == (1, 2), "connections and tasks are left"
        assert not self.errors

    @staticmethod
    def _left(server: ZooKeeperServer) -> tuple[int, int]:
        # The tasks are the thread's own, and the one that looks.
        return len(server.connections), len(asyncio.all_tasks())


@contextlib.contextmanager
def under_attack() -> Iterator[Attacked]:
    # Sessions of attackers end soon after them; a large limit, as every attack is from the same address.
    options = {"tick_time": 0.1, "max_session_timeout": 1000.0, "max_connections_per_client": 2000}
    with embedded_server(**options) as server:
        attacked = Attacked(server, Witness(server))

        def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            attacked.errors.append(context)

        server.call(lambda _: asyncio.get_running_loop().set_exception_handler(note))
        try:
            yield attacked
        finally:
            attacked.witness.close()


@pytest.fixture(scope="module")
def attacked() -> Iterator[Attacked]:
    with under_attack() as attacked:
        yield attacked


# ---------------------------------------------------------------- attacks

numbers = st.one_of(
    st.sampled_from((-(2**31), -2, -1, 0, 1, 2**15, MAX_BUFFER, MAX_BUFFER + 1, 2**31 - 1)),
    st.integers(-(2**31), 2**31 - 1),
)
valid_requests: SearchStrategy[bytes] = st.one_of(histories.requests, histories.credentials, st.just(Close())).map(
    lambda request: struct.pack(">ii", 1 if request.xid is None else request.xid, request.opcode) + request.encode(HERE)
)


def with_number(content: bytes, at: int, number: int) -> bytes:
    """With four of its bytes replaced: often the length of something."""
    at %= max(len(content) - 3, 1)
    return content[:at] + struct.pack(">i", number) + content[at + 4 :]


def with_bytes(content: bytes, at: int, cut: int, more: bytes) -> bytes:
    at %= len(content) + 1
    return content[:at] + more + content[at + cut :]


some_bytes = st.binary(max_size=40)
offsets = st.integers(0, 200)
spoiled = st.one_of(
    st.builds(with_number, valid_requests, offsets, numbers),
    st.builds(with_bytes, valid_requests, offsets, st.integers(0, 20), some_bytes),
    st.builds(
        lambda xid, opcode, body: struct.pack(">ii", xid, opcode) + body, numbers, st.integers(-20, 120), some_bytes
    ),
)
frames = st.one_of(
    valid_requests.map(framed),
    spoiled.map(framed),
    spoiled.map(framed),
    st.builds(lambda length, content: struct.pack(">i", length) + content, numbers, some_bytes),
    some_bytes,
    st.sampled_from((b"ruok", b"stat", b"mntr\n", b"what")),
)
handshakes = st.one_of(
    st.just(HANDSHAKE),
    st.just(HANDSHAKE),
    st.builds(with_number, st.just(HANDSHAKE), offsets, numbers),
    st.builds(with_bytes, st.just(HANDSHAKE), offsets, st.integers(0, 20), some_bytes),
    st.just(b""),
)
attacks = st.builds(lambda handshake, parts: [handshake, *parts], handshakes, st.lists(frames, max_size=6))


def send_all(connection: socket.socket, attack: list[bytes], *, at_once: bool) -> None:
    with contextlib.suppress(ConnectionError):
        for part in [b"".join(attack)] if at_once else attack:
            connection.sendall(part)


def drain(connection: socket.socket) -> None:
    """Read until the server has closed, which it does when the attacker has nothing more to say."""
    with contextlib.suppress(ConnectionError, OSError):
        connection.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass


@given(attack=attacks, at_once=st.booleans(), rude=st.booleans())
@settings(max_examples=HISTORIES or 400, deadline=None)
def test_no_bytes_hurt_it(attacked: Attacked, attack: list[bytes], at_once: bool, rude: bool) -> None:
    with attacked.connect() as connection:
        send_all(connection, attack, at_once=at_once)
        if not rude:
            drain(connection)
    attacked.check()


def test_every_request_cut_at_every_byte(attacked: Attacked) -> None:
    """Framed whole (the request lacks its end), and framed as it was (the frame does)."""
    examples = [
        struct.pack(">ii", 1, request.opcode) + request.encode(HERE)
        for request in (
            *(Create("/x"), Auth("digest", b"user:secret"), AddWatch("/x", 1), GetData("/x", watch=True)),
            *(Multi((Create("/m"), Delete("/m"))), Multi((GetData("/"),), 22)),
            *(SetWatches2(0, ("/a",), ("/b",), ("/c",), ("/d",), ("/e",)), CreateTTL("/ttl")),
            *(SetACL("/x"), SetData("/x", b"x"), Reconfig("a", "b", "c")),
        )
    ]
    for example in examples:
        for end in range(len(example)):
            with attacked.connect() as connection:
                send_all(connection, [HANDSHAKE + framed(example[:end]) + framed(example)[: 4 + end]], at_once=True)
                drain(connection)
    attacked.check()


def test_a_flood_of_connections(attacked: Attacked) -> None:
    """Some say nothing, some half a handshake, some have a session; all at once."""
    with contextlib.ExitStack() as stack:
        for number in range(400):
            connection = stack.enter_context(attacked.connect())
            connection.sendall((b"", HANDSHAKE[:20], HANDSHAKE, HANDSHAKE + b"\0\0\0\x20half")[number % 4])
        attacked.witness.look()
    attacked.check()


def test_who_does_not_read_is_not_answered_without_end(attacked: Attacked) -> None:
    """A thousand requests for a megabyte each, and the answers are left lying: some wait here, not a gigabyte."""
    large = Create("/attacked/large", bytes(1_000_000))
    asked = [struct.pack(">ii", number, 4) + GetData("/attacked/large").encode(Place("", 0)) for number in range(1000)]
    tracemalloc.start()
    try:
        with attacked.connect() as connection:
            send_all(
                connection, [HANDSHAKE, framed(struct.pack(">ii", 1, 1) + large.encode(Place("", 0)))], at_once=True
            )
            send_all(connection, [framed(request) for request in asked], at_once=True)
            # The first answers are on their way once the last request was read.
            assert connection.recv(41)
            attacked.witness.look()
            assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    attacked.check()


def test_nothing_of_an_attack_is_kept() -> None:
    """Memory is what it was once the attackers' sessions are over."""

    def attack(attacked: Attacked) -> None:
        for body in (b"", b"\xff" * 40, b"\0\0\0\2/x" + bytes(40)):
            for opcode in range(-12, 110):
                with attacked.connect() as connection:
                    # Watches, credentials, half a frame: what a connection leaves behind.
                    parts = [AddWatch("/attacked/x"), Exists("/attacked/x", watch=True), Auth("digest", b"who:ever")]
                    send_all(
                        connection,
                        [
                            HANDSHAKE,
                            *(framed(struct.pack(">ii", 1, part.opcode) + part.encode(Place("", 0))) for part in parts),
                            framed(struct.pack(">ii", 1, opcode) + body),
                            b"\0\1\0\0half a frame",
                        ],
                        at_once=True,
                    )
                    drain(connection)
        attacked.check()
        deadline = time.monotonic() + PATIENCE
        while attacked.server.call(lambda server: len(server.live_sessions())) > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert attacked.server.call(lambda server: len(server.live_sessions())) == 1
        gc.collect()

    with under_attack() as attacked:
        attack(attacked)
        tracemalloc.start(FRAMES)
        try:
            attack(attacked)
            # The process has other threads, of other tests' servers: what they take is not the attackers'.
            of_the_server = tracemalloc.Filter(
                True, str(Path(aioregistry.server.__file__).parent / "*"), all_frames=True
            )
            left = tracemalloc.take_snapshot().filter_traces([of_the_server]).statistics("lineno")
            assert sum(line.size for line in left) < NOISE, "\n".join(map(str, left[:10]))
        finally:
            tracemalloc.stop()
