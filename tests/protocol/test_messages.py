from __future__ import annotations

import contextlib
import inspect
import subprocess
import sys
from typing import Any

import aiozk.protocol
import pytest
from aiozk.protocol import (
    AUTHED_UNRESTRICTED,
    AuthRequest,
    CheckVersionRequest,
    CloseRequest,
    ConnectRequest,
    Create2Request,
    CreateRequest,
    DeleteRequest,
    ExistsRequest,
    GetChildren2Request,
    GetChildrenRequest,
    GetDataRequest,
    PingRequest,
    SetDataRequest,
    SetWatchesRequest,
    SyncRequest,
    TransactionRequest,
)
from aiozk.protocol.part import Part
from aiozk.protocol.request import Request
from aiozk.protocol.response import response_xref
from hypothesis import given
from hypothesis import strategies as st

from aioregistry import _protocol as p
from aioregistry._errors import (
    BadVersion,
    NoNode,
    ProtocolError,
    RegistryError,
    RolledBack,
    RuntimeInconsistency,
    ServerError,
    TransactionAborted,
)
from aioregistry._protocol.records import STAT
from tests.protocol.examples import END, MESSAGES, error_result, for_each, header, replies
from tests.protocol.rendering import plain, rendered, response
from tests.support import messages as others

every_message = pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
xids = st.one_of(st.none(), st.integers(-8, 2**31 - 1))


def test_every_message_has_examples() -> None:
    public = {value for name in p.__all__ if inspect.isclass(value := getattr(p, name))}
    assert set(MESSAGES) >= {kind for kind in public if issubclass(kind, p.Message)} - {p.Message}


# ---------------------------------------------------------------- requests


@every_message
@for_each
@given(st.data(), xids)
def test_the_encoding_is_what_aiozk_makes_of_the_parts(kind: type[Any], data: st.DataObject, xid: int | None) -> None:
    message = data.draw(MESSAGES[kind])
    expected = Request.serialize(message, None if kind is p.Connect else xid)
    assert message.serialize(xid) == expected
    assert expected.endswith(message.encode())


@every_message
@for_each
@given(st.data())
def test_a_message_can_be_read_back_from_its_encoding(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    read_as = p.MultiRead if kind is p.MultiReadData else kind
    copy, at = read_as.parse(message.encode(), 0)
    assert at == len(message.encode())
    assert copy.serialize(1) == message.serialize(1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            p.Connect(2**33, 4000, -5, b"secret", True),
            ConnectRequest(
                protocol_version=0,
                last_seen_zxid=2**33,
                timeout=4000,
                session_id=-5,
                password=b"secret",
                read_only=True,
            ),
        ),
        (p.Auth("digest", b"user:secret"), AuthRequest(type=0, scheme="digest", auth=b"user:secret")),
        (others.Ping(), PingRequest()),
        (p.CloseSession(), CloseRequest()),
        (p.GetData("/é", True), GetDataRequest(path="/é", watch=True)),
        (p.Exists("/a"), ExistsRequest(path="/a", watch=False)),
        (p.GetChildren("/a", True), GetChildrenRequest(path="/a", watch=True)),
        (p.GetChildren2("/a"), GetChildren2Request(path="/a", watch=False)),
        (p.Sync("/a"), SyncRequest(path="/a")),
        (
            p.Create("/a", b"1", flags=3),
            CreateRequest(path="/a", data=b"1", acl=[aiozk.protocol.UNRESTRICTED_ACCESS], flags=3),
        ),
        (
            p.Create2("/a", b"1", [AUTHED_UNRESTRICTED]),
            Create2Request(path="/a", data=b"1", acl=[AUTHED_UNRESTRICTED], flags=0),
        ),
        (p.Delete("/a", 7), DeleteRequest(path="/a", version=7)),
        (p.Delete("/a"), DeleteRequest(path="/a", version=-1)),
        (others.Check("/a", 7), CheckVersionRequest(path="/a", version=7)),
        (p.SetData("/a", b"1", 7), SetDataRequest(path="/a", data=b"1", version=7)),
        (
            p.SetWatches(9, ["/d"], ["/e", "/f"], []),
            SetWatchesRequest(relative_zxid=9, data_watches=["/d"], exist_watches=["/e", "/f"], child_watches=[]),
        ),
        (others.CheckWatches("/a", 1), aiozk.protocol.CheckWatchesRequest(path="/a", type=1)),
        (p.RemoveWatches("/a", 3), aiozk.protocol.RemoveWatchesRequest(path="/a", type=3)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_aiozk_has_is_encoded_the_same(ours: p.Message[Any], theirs: Request) -> None:
    xid = None if isinstance(ours, p.Connect) else 5
    assert ours.serialize(xid) == theirs.serialize(xid)
    assert ours.special_xid == theirs.special_xid or isinstance(ours, p.SetWatches)


def test_a_transaction_is_encoded_as_aiozk_does() -> None:
    operations = [p.Create("/a", b""), p.SetData("/a", b"1", 0), p.Delete("/b", 2), others.Check("/c", 3)]
    theirs = TransactionRequest()
    for operation in operations:
        theirs.add(operation)
    assert p.Multi(operations).serialize(5) == theirs.serialize(5)


@for_each
@given(st.text(max_size=5).map("/{}".format), st.lists(st.text(max_size=5)))
def test_reading_many_children_is_reading_each(parent: str, names: list[str]) -> None:
    many = p.MultiReadData(parent, names)
    single = p.MultiRead([p.GetData(f"{parent.removesuffix('/')}/{name}") for name in names])
    assert many.serialize(7) == single.serialize(7)


def test_the_children_of_the_root() -> None:
    assert p.MultiReadData("/", ["a"]).ops == [p.GetData("/a")]


def test_only_known_operations_are_read_back_from_a_transaction() -> None:
    with pytest.raises(ProtocolError, match="operation 99 inside a transaction"):
        p.Multi.parse(header(99) + END, 0)


@every_message
@for_each
@given(st.data())
def test_writes_are_told_from_reads(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    assert message.writes == (message.opcode in p.WRITE_OPCODES)


def test_what_a_quorum_agrees_on_is_known_by_zookeepers_numbers() -> None:
    """ZooDefs.OpCode: create, delete, setData, setACL, check, multi, create2, reconfig, containers, TTL, the end."""
    assert {1, 2, 5, 7, 13, 14, 15, 16, 19, 20, 21, -11} == p.WRITE_OPCODES


def test_writes_of_aiozk_are_known_too() -> None:
    requests: list[Any] = [
        value for value in vars(aiozk.protocol).values() if inspect.isclass(value) and issubclass(value, Request)
    ]
    declared = {request.opcode for request in requests if request.writes_data}
    assert declared
    assert declared < p.WRITE_OPCODES


def test_special_xids() -> None:
    assert (p.NOTIFICATION_XID, p.PING_XID) == (aiozk.protocol.WATCH_XID, aiozk.protocol.PING_XID)
    assert others.Ping.special_xid == p.PING_XID
    assert p.Auth.special_xid == p.AUTH_XID == aiozk.protocol.AUTH_XID
    assert p.SetWatches.special_xid == p.SetWatches2.special_xid == p.SET_WATCHES_XID == -8
    assert p.GetData.special_xid is None


# ---------------------------------------------------------------- printing and comparing


def test_messages_print_like_those_of_aiozk() -> None:
    assert repr(p.GetData("/a")) == str(GetDataRequest(path="/a", watch=False)).replace("Request", "")
    assert str(p.Multi([p.Delete("/a", 1)])) == "Multi(ops=[Delete(path=/a, version=1)])"
    assert str(p.SetWatches(1, ["/a"])) == "SetWatches(child=[], data=[/a], exist=[], relative_zxid=1)"


@pytest.mark.parametrize("message", [p.Auth("digest", b"user:secret"), p.Connect(1, 2, 3, b"secret")])
def test_credentials_are_not_printed(message: p.Message[Any]) -> None:
    assert "secret" not in str(message) + repr(message) + message.subject


def test_messages_are_equal_by_class_and_parts() -> None:
    assert p.GetData("/a") == p.GetData("/a")
    assert p.GetData("/a") != p.GetData("/b")
    assert p.GetData("/a") != p.Exists("/a")
    assert p.GetData("/a") != "/a"
    assert p.Multi([p.Delete("/a")]) == p.Multi([p.Delete("/a")])
    assert p.Multi([p.Delete("/a")]) != p.Multi([p.Delete("/b")])


def test_messages_are_mutable_and_so_not_hashable() -> None:
    with pytest.raises(TypeError):
        hash(p.GetData("/a"))


# ---------------------------------------------------------------- replies


@every_message
@for_each
@given(st.data(), st.binary(max_size=20))
def test_a_reply_decodes_to_what_was_answered(kind: type[Any], data: st.DataObject, before: bytes) -> None:
    message = data.draw(MESSAGES[kind])
    value, body = data.draw(replies(message))
    decoded = message.decode(before + body, len(before))
    if isinstance(value, p.MultiReply):
        assert isinstance(decoded, p.MultiReply)
        value, decoded = value.results, decoded.results
    assert plain(decoded) == plain(value)
    assert type(decoded) is type(value)


@every_message
@for_each
@given(st.data())
def test_a_reply_cut_short_or_too_long_is_an_error(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    _, body = data.draw(replies(message))
    whole_without_its_end = len(body) - 1 if kind is p.Connect else None  # as servers before 3.4 answer
    for size in range(len(body)):
        if size != whole_without_its_end:
            with pytest.raises(ProtocolError):
                message.decode(body[:size])
    with pytest.raises(ProtocolError):
        message.decode(body + b"\x00")


@every_message
@for_each
@given(st.data())
def test_a_damaged_reply_decodes_or_is_an_error(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    _, body = data.draw(replies(message))
    at = data.draw(st.integers(0, len(body)))
    damage = data.draw(st.one_of(st.binary(max_size=4), st.sampled_from([b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80"])))
    try:
        message.decode(body[:at] + damage + body[at + len(damage) :])
    except ProtocolError as error:
        assert kind.__name__ in str(error) or error.__cause__ is None  # noqa: PT017  # decoding may also succeed


@every_message
@for_each
@given(st.data(), st.binary(max_size=200))
def test_garbage_is_no_reply(kind: type[Any], data: st.DataObject, garbage: bytes) -> None:
    message = data.draw(MESSAGES[kind])
    # Fails by raising: anything but a ProtocolError.
    with contextlib.suppress(ProtocolError):
        message.decode(garbage)


def test_an_error_names_the_message_and_its_path() -> None:
    with pytest.raises(ProtocolError, match="malformed reply to Exists /a/b: "):
        p.Exists("/a/b").decode(b"")
    with pytest.raises(ProtocolError, match="the reply to Delete /a has 3 bytes, its content takes 0"):
        p.Delete("/a").decode(b"abc")


def test_an_old_server_says_nothing_of_read_only_mode() -> None:
    body = rendered(aiozk.protocol.ConnectResponse(protocol_version=0, timeout=4000, session_id=5, password=b"p"))
    assert p.Connect(0, 0).decode(body) == p.ConnectReply(0, 4000, 5, b"p", False)


def test_null_data_reads_as_empty_alone_and_among_others() -> None:
    stat = p.Stat(*range(11))
    body = b"\xff\xff\xff\xff" + STAT.pack(*stat)
    assert p.GetData("/a").decode(body) == (b"", stat)
    assert p.MultiReadData("/", ["a", "b"]).decode((header(4) + body) * 2 + END) == [(b"", stat)] * 2


@pytest.mark.parametrize("length", [-2, -(2**31)])
def test_data_of_negative_length_among_others(length: int) -> None:
    body = header(4) + length.to_bytes(4, "big", signed=True) + bytes(68) + END
    with pytest.raises(ProtocolError, match=f"length {length}"):
        p.MultiReadData("/", ["a"]).decode(body)


@pytest.mark.parametrize(
    ("message", "body", "expected"),
    [
        (p.Multi([p.Delete("/a")]), header(5) + bytes(68) + END, "operation 0, Delete /a, was answered as type 5"),
        (p.Multi([p.SetData("/a", b"")]), header(1) + END, "operation 0, SetData /a, was answered as type 1"),
        (p.Multi([p.Delete("/a")]), END, "operation 0, Delete /a, was answered as type -1"),
        (p.Multi([]), header(2) + END, r"goes on with \(2, False, 0\)"),
        (p.MultiRead([p.GetChildren("/a")]), header(4) + bytes(72) + END, "the read of /a was answered as type 4"),
        (p.MultiReadData("/a", ["b"]), header(8) + bytes(4) + END, "the read of /a/b was answered as type 8"),
        (p.MultiReadData("/a", ["b"]), END + bytes(4), "the read of /a/b was answered as type -1"),
        (p.MultiReadData("/a", []), error_result(-101) + END, "goes on"),
        (p.AddWatch("/a"), b"\xff\xff\xff\x9b", "AddWatch /a was answered with error -101"),
    ],
)
def test_an_answer_to_something_else_is_an_error(message: p.Message[Any], body: bytes, expected: str) -> None:
    with pytest.raises(ProtocolError, match=expected):
        message.decode(body)


def test_errors_among_reads_name_their_paths() -> None:
    body = error_result(-101) + header(8) + response(8, children=["x"]) + error_result(-102) + END
    missing, names, forbidden = p.MultiRead([p.GetData("/a"), p.GetChildren("/b"), p.GetData("/c")]).decode(body)
    assert (missing.path, names, forbidden.path) == ("/a", ["x"], "/c")
    (missing,) = p.MultiReadData("/a", ["b"]).decode(error_result(-101) + END)
    assert isinstance(missing, NoNode)
    assert missing.path == "/a/b"


# ---------------------------------------------------------------- transactions


def failed_transaction(*codes: int) -> p.MultiReply:
    operations = [p.Delete(f"/{index}") for index in range(len(codes))]
    return p.Multi(operations).decode(b"".join(map(error_result, codes)) + END)


def test_the_culprit_of_a_failed_transaction() -> None:
    reply = failed_transaction(0, 0, -103, -2)
    assert [type(error) for error in reply.results] == [RolledBack, RolledBack, BadVersion, RuntimeInconsistency]
    assert reply.failed is not None
    assert (reply.failed.index, reply.failed.error) == (2, reply.results[2])
    assert reply.failed.error.path == "/2"
    with pytest.raises(TransactionAborted) as raised:
        reply.raise_for_error()
    assert (raised.value.index, raised.value.cause, raised.value.path) == (2, reply.results[2], "/2")
    assert raised.value.__cause__ is reply.results[2]


def test_the_culprit_is_found_wherever_it_stands() -> None:
    for codes in ((-2, -103), (0, -103), (-103, -2), (-103, 0)):
        failed = failed_transaction(*codes).failed
        assert failed is not None
        assert failed.index == codes.index(-103)


def test_an_acl_of_many_small_entries_is_read_and_one_that_is_cut_short_is_not() -> None:
    """An entry takes twelve bytes at least."""
    stat = bytes(68)
    entries, _ = p.GetAcl("/a").decode((100).to_bytes(4, "big") + bytes(12) * 100 + stat)
    assert entries == [p.AclEntry(0, "", "")] * 100
    with pytest.raises(ProtocolError, match="a list of 1 items in 11 bytes"):
        p.GetAcl("/a").decode((1).to_bytes(4, "big") + bytes(11))


def test_a_failed_transaction_without_a_culprit_is_failed_all_the_same() -> None:
    reply = failed_transaction(-2, -2)
    assert reply.failed is not None
    assert reply.failed.index == 0
    with pytest.raises(RegistryError):
        reply.raise_for_error()


def test_a_transaction_that_was_applied() -> None:
    reply = p.Multi([p.Delete("/a"), others.Check("/b", 1)]).decode(header(2) + header(13) + END)
    assert reply == p.MultiReply([None, None])
    assert reply.failed is None
    reply.raise_for_error()


@pytest.mark.parametrize("code", [-101, -110, -112, -118, -12345])
def test_every_code_makes_an_error_of_it(code: int) -> None:
    failed = failed_transaction(code).failed
    assert failed is not None
    assert isinstance(failed.error, ServerError)


# ---------------------------------------------------------------- aiozk is left as it was

NEW_OPCODES = {19, 21, 22, 103, 104, 105, 106, 107}

LEAVES_AIOZK_ALONE = """
from aiozk.protocol import response_xref
before = dict(response_xref)
import aioregistry._protocol
print(response_xref == before)
"""


def test_the_responses_of_aiozk_stay_what_they_are() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_AIOZK_ALONE], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize(
    "kind", [kind for kind in MESSAGES if kind.opcode in NEW_OPCODES], ids=lambda kind: kind.__name__
)
@for_each
@given(st.data())
def test_aiozk_decodes_the_responses_it_lacked(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    _, body = data.draw(replies(message))
    decoded = response_xref[message.opcode].deserialize(body)
    assert isinstance(decoded, Part)
    assert str(decoded)
    ours = message.decode(body)
    if ours is not None:
        assert plain(decoded) == plain(ours)
