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
from aioregistry.server._nodes import Node
from aioregistry.server._operations import (
    Check,
    Contradiction,
    Create,
    Delete,
    DeleteContainer,
    Kind,
    Moment,
    Operation,
    Result,
    SetACL,
    SetData,
)
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


# ---------------------------------------------------------------- the bytes


CONNECT = struct.pack(">iqiq", 0, 5, 10_000, 7)


@pytest.mark.parametrize(
    ("end", "password", "read_only"),
    [
        (b"\0\0\0\2pw\1", b"pw", True),
        (b"\0\0\0\2pw\0", b"pw", False),
        (b"\0\0\0\2pw", b"pw", None),
        (b"\xff\xff\xff\xff", None, None),
    ],
)
def test_a_connect_request_of_an_old_client_and_of_a_new_one(
    end: bytes, password: bytes | None, read_only: bool | None
) -> None:
    request = requests.read_connect(CONNECT + end)
    assert request == (5, 10_000, 7, password, read_only)
    body = struct.pack(">iiqi", 0, 4000, 9, 2) + b"xy" + (b"" if read_only is None else b"\0")
    answer = requests.connected(request, timeout_ms=4000, session_id=9, password=b"xy")
    assert answer == struct.pack(">i", len(body)) + body


@pytest.mark.parametrize("length", [-2, -(2**31), 1, 2**31 - 1])
def test_a_length_that_nothing_can_have_is_malformed(length: int) -> None:
    with pytest.raises(Malformed):
        Reader(struct.pack(">i", length)).buffer()


def test_a_buffer_and_a_flag_may_end_with_the_frame() -> None:
    reader = Reader(b"\0\0\0\1x\2")
    assert (reader.buffer(), reader.flag()) == (b"x", True)
    with pytest.raises(Malformed):
        reader.flag()


def test_a_reply_and_an_event_in_bytes() -> None:
    assert requests.reply(3, 5, -101, b"xy") == struct.pack(">iiqi", 18, 3, 5, -101) + b"xy"
    event = struct.pack(">iiqiiii", 30, -1, 5, 0, 2, 3, 2) + b"/a"
    assert requests.event(5, 2, "/a") == event


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("a", b"a"),
        ("\u00e9", b"\xc3\xa9"),
        ("\uffff", b"\xef\xbf\xbf"),
        ("\U0001f600", b"\xed\xa0\xbd\xed\xb8\x80"),  # the two surrogates of UTF-16
        ("a\U00010000", b"a\xed\xa0\x80\xed\xb0\x80"),
        ("\ud800", b"?"),
    ],
)
def test_texts_are_those_of_java(text: str, raw: bytes) -> None:
    assert requests.string(text) == struct.pack(">i", len(raw)) + raw
    assert requests.string(None) == struct.pack(">i", -1)


def test_a_node_is_packed_once_for_each_of_its_states() -> None:
    node = Node(b"data", OPEN, Kind.PERSISTENT, 0, -1, Moment(5, 7))
    first = requests.data(node)
    assert first == struct.pack(">i", 4) + b"data" + node.stat()
    assert requests.data(node) is first


STAT = bytes(range(68))
ANSWERS: list[tuple[int, bytes]] = [
    (Opcode.CREATE, b"\0\0\0\2/a"),
    *((opcode, b"\0\0\0\2/a" + STAT) for opcode in (Opcode.CREATE2, Opcode.CREATE_TTL, Opcode.CREATE_CONTAINER)),
    *((opcode, STAT) for opcode in (Opcode.SET_DATA, Opcode.SET_ACL)),
    *((opcode, b"") for opcode in (Opcode.DELETE, Opcode.CHECK, Opcode.DELETE_CONTAINER)),
]


@pytest.mark.parametrize(("opcode", "answer"), ANSWERS)
def test_what_a_write_is_answered_with(opcode: int, answer: bytes) -> None:
    assert requests.written(opcode, Result("/a", STAT)) == answer


@pytest.mark.parametrize(
    ("operation", "opcode"),
    [
        (creation(Opcode.CREATE, 0), Opcode.CREATE),
        (creation(Opcode.CREATE2, 0), Opcode.CREATE2),
        (creation(Opcode.CREATE_CONTAINER, 4), Opcode.CREATE2),
        (creation(Opcode.CREATE_TTL, 5), Opcode.CREATE2),
        (Delete("/a", -1), Opcode.DELETE),
        (DeleteContainer("/a"), Opcode.DELETE),
        (SetData("/a", b"", -1), Opcode.SET_DATA),
        (SetACL("/a", OPEN, -1), Opcode.SET_ACL),
        (Check("/a", -1), Opcode.CHECK),
    ],
)
def test_which_opcode_an_operation_of_a_transaction_is_answered_with(operation: Operation, opcode: int) -> None:
    body = requests.several([operation], Transaction(1, results=(Result("/a", STAT),)))
    assert body == struct.pack(">i?i", opcode, False, 0) + dict(ANSWERS)[opcode] + END


END = struct.pack(">i?i", -1, True, -1)


def test_the_parts_of_a_multi_read_in_bytes() -> None:
    parts = [requests.success(4, b"x"), requests.failure(-101)]
    told = struct.pack(">i?i", 4, False, 0) + b"x" + struct.pack(">i?ii", -1, False, -101, -101)
    assert requests.several_read(parts) == told + END


# ---------------------------------------------------------------- what a release takes for what


@pytest.mark.parametrize(("version", "path"), [("3.8", "\0\0\0\2/a"), ("3.9", "/a")])
def test_a_container_s_removal_was_a_bare_path(version: str, path: str) -> None:
    operation = requests.read_write(b"\0\0\0\2/a", 0, Opcode.DELETE_CONTAINER, PROFILES[version])
    assert operation == DeleteContainer(path)
    assert requests.read_write(wire.delete("/a", 3).body, 0, Opcode.DELETE, PROFILES[version]) == Delete("/a", 3)


@pytest.mark.parametrize("version", ["3.8", "3.9"])
@pytest.mark.parametrize("operation", [Read(Opcode.GET_DATA, "/a"), Delete(None, -1), Check(None, 0)])
def test_what_is_no_operation_of_a_transaction(version: str, operation: Any) -> None:
    with pytest.raises(Malformed):
        requests.as_in_transactions(operation, PROFILES[version])


def test_a_creation_without_an_acl_from_3_9_needs_a_ttl() -> None:
    plain = creation(Opcode.CREATE, 0)._replace(acl=None)
    assert requests.as_in_transactions(plain, PROFILES["3.8"]) == plain
    with pytest.raises(Malformed):
        requests.as_in_transactions(plain, PROFILES["3.9"])
    lasting = creation(Opcode.CREATE_TTL, 0)._replace(acl=None)
    assert requests.as_in_transactions(lasting, PROFILES["3.9"]) == plain
    with_ttl = creation(Opcode.CREATE_TTL, 5)._replace(acl=None)
    assert requests.as_in_transactions(with_ttl, PROFILES["3.9"]) == with_ttl


def test_a_ttl_that_the_flags_do_not_want_is_none() -> None:
    taken = requests.as_in_transactions(creation(Opcode.CREATE_TTL, 0), PROFILES["3.9"])
    assert isinstance(taken, Create)
    assert (taken.opcode, taken.ttl_ms) == (Opcode.CREATE, -1)
    assert requests.WRITES[Opcode.CREATE](Reader(wire.create("/a").body), Opcode.CREATE) == creation(Opcode.CREATE, 0)


def test_flags_with_a_ttl_without_one_are_a_contradiction_when_it_is_tried() -> None:
    assert requests.as_in_transactions(creation(Opcode.CREATE, 5), PROFILES["3.8"]) == Contradiction("/a")
