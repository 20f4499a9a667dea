from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry.server import _requests as requests
from aioregistry.server._acl import OPEN, Identity, Rule
from aioregistry.server._codes import Malformed, Opcode
from aioregistry.server._history import OperationFailed, Transaction
from aioregistry.server._operations import Check, Contradiction, Create, Delete, Operation, Result, SetData
from aioregistry.server._profiles import PROFILES
from aioregistry.server._requests import Read, Reader
from tests.support import wire

OPCODES = sorted(requests.WRITES)
READERS: list[Callable[[bytes], Any]] = [
    requests.read_connect,
    lambda frame: requests.read_operations(frame, 0, PROFILES["3.8"]),
    lambda frame: requests.read_operations(frame, 0, PROFILES["3.9"]),
    lambda frame: requests.path_of(frame, 0),
    *(lambda frame, opcode=opcode: requests.WRITES[opcode](Reader(frame), opcode) for opcode in OPCODES),
]
# Java writes what is beyond the basic plane as two surrogates, which nobody reads back.
basic = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]))
texts = st.none() | basic
rules = st.lists(st.builds(Rule, st.integers(0, 31), texts, texts), max_size=3).map(tuple)


@given(st.sampled_from(READERS), st.binary(max_size=60))
def test_bytes_of_any_kind_are_read_or_malformed(read: Callable[[bytes], Any], frame: bytes) -> None:
    # Fails by raising: anything but what says that it is malformed.
    with contextlib.suppress(Malformed, struct.error):
        read(frame)


@given(rules)
def test_an_acl_is_read_as_it_was_written(acl: tuple[Rule, ...]) -> None:
    assert Reader(requests.acl(acl)).acl() == acl


@given(st.lists(basic))
def test_strings_are_read_as_they_were_written(values: list[str]) -> None:
    assert Reader(requests.strings(values)).strings() == values


@pytest.mark.parametrize("value", [None, b"", b"data"])
def test_null_is_not_empty(value: bytes | None) -> None:
    reader = Reader(requests.buffer(value))
    assert reader.buffer() == value
    assert reader.at == len(reader.frame)


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    assert Reader(requests.buffer(b"/\xff")).string() == "/\ufffd"


def test_a_vector_of_a_negative_length_is_empty_but_null() -> None:
    assert Reader(struct.pack(">i", -7)).strings() == []
    assert Reader(struct.pack(">i", -7)).acl() == ()
    assert Reader(struct.pack(">i", -1)).acl() is None
    with pytest.raises(Malformed):
        Reader(struct.pack(">i", -1)).strings()


def test_operations_of_a_transaction() -> None:
    frame = wire.multi(
        [
            wire.create("/a", b"data"),
            wire.create("/t", flags=5, opcode=Opcode.CREATE_TTL, ttl_ms=1000),
            wire.delete("/a", 1),
            wire.set_data("/a", b"x", 2),
            wire.Operation(Opcode.CHECK, wire.delete("/a", 3).body),
        ]
    ).body
    assert requests.read_operations(frame, 0, PROFILES["3.8"]) == [
        Create(Opcode.CREATE, "/a", b"data", OPEN, 0),
        Create(Opcode.CREATE_TTL, "/t", b"", OPEN, 5, 1000),
        Delete("/a", 1),
        SetData("/a", b"x", 2),
        Check("/a", 3),
    ]


def test_reads_and_writes_are_not_mixed() -> None:
    reads = wire.multi([wire.get_data("/a"), wire.get_children("/b", opcode=Opcode.GET_CHILDREN)]).body
    assert requests.read_operations(reads, 0, PROFILES["3.8"]) == [
        Read(Opcode.GET_DATA, "/a"),
        Read(Opcode.GET_CHILDREN, "/b"),
    ]
    with pytest.raises(Malformed):
        requests.read_operations(wire.multi([wire.get_data("/a"), wire.delete("/a")]).body, 0, PROFILES["3.8"])


@pytest.mark.parametrize(
    ("opcode", "flags", "version", "expected"),
    [
        (Opcode.CREATE, 0, "3.8", Opcode.CREATE),
        (Opcode.CREATE2, 1, "3.8", Opcode.CREATE),
        (Opcode.CREATE2, 1, "3.9", Opcode.CREATE2),
        (Opcode.CREATE_CONTAINER, 0, "3.8", Opcode.CREATE),
        (Opcode.CREATE_CONTAINER, 1, "3.9", Opcode.CREATE_CONTAINER),
        (Opcode.CREATE, 4, "3.9", Opcode.CREATE_CONTAINER),
        (Opcode.CREATE_TTL, 6, "3.9", Opcode.CREATE_TTL),
        (Opcode.CREATE_TTL, 2, "3.9", Opcode.CREATE),
    ],
)
def test_flags_decide_in_a_transaction(opcode: int, flags: int, version: str, expected: int) -> None:
    taken = requests.as_in_transactions(creation(opcode, flags), PROFILES[version])
    assert isinstance(taken, Create)
    assert taken.opcode == expected


@pytest.mark.parametrize(("opcode", "flags"), [(Opcode.CREATE, 5), (Opcode.CREATE2, 6), (Opcode.CREATE, 99)])
def test_contradictions_are_seen_before_anything_is_tried_from_3_9(opcode: int, flags: int) -> None:
    body = wire.multi([wire.create("/a", opcode=opcode, flags=flags)]).body
    with pytest.raises(Malformed):
        requests.read_operations(body, 0, PROFILES["3.9"])
    (operation,) = requests.read_operations(body, 0, PROFILES["3.8"])
    assert isinstance(requests.as_in_transactions(operation, PROFILES["3.8"]), Create | Contradiction)


def creation(opcode: int, flags: int) -> Create:
    return Create(opcode, "/a", b"", OPEN, flags, 5 if opcode == Opcode.CREATE_TTL else -1)


def test_replies_to_a_transaction() -> None:
    operations: list[Operation] = [Create(Opcode.CREATE, "/a", b"", OPEN, 0), Delete("/b", -1)]
    applied = Transaction(1, results=(Result("/a", bytes(68)), Result("/b")))
    refused = Transaction(2, results=(OperationFailed(0), OperationFailed(-101)))
    told = [wire.Body(requests.several(operations, transaction)).results() for transaction in (applied, refused)]
    assert [(result.error, result.path) for result in told[0]] == [(0, "/a"), (0, None)]
    assert [result.error for result in told[1]] == [0, -101]


def test_identities_are_told_once_and_without_digests() -> None:
    known = [Identity("digest", "ada:x"), Identity("digest", "ada:y"), Identity("ip", "::1")]
    body = wire.Body(requests.identities(known))
    assert [(body.string(), body.string()) for _ in range(body.number())] == [("digest", "ada"), ("ip", "::1")]
