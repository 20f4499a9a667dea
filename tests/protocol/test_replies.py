from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from aiozk.protocol import (
    UNRESTRICTED_ACCESS,
    CreateRequest,
    GetChildrenRequest,
    GetDataRequest,
    SASLRequest,
    TransactionRequest,
    WatchEvent,
    response_xref,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aioregistry._errors import NoNode, ProtocolError, ServerError, SessionMoved, Unimplemented, UnknownServerError
from aioregistry._protocol import (
    NOTIFICATION_XID,
    AddWatch,
    Delete,
    EventKind,
    GetChildren,
    GetData,
    Message,
    Multi,
    Reply,
    WatchedEvent,
    decode_event,
    decode_header,
    decode_reply,
)
from tests.protocol.examples import END, MESSAGES, for_each, header, ints, longs, paths, replies
from tests.protocol.rendering import plain, rendered, response
from tests.support.messages import GetEphemerals, Ping


def framed(body: bytes, xid: int = 1, zxid: int = 7, error: int = 0) -> bytes:
    return struct.pack(">iqi", xid, zxid, error) + body


def event(kind: int, path: str | None, state: int = 3, zxid: int = -1) -> bytes:
    return framed(rendered(WatchEvent(type=kind, state=state, path=path)), NOTIFICATION_XID, zxid)


# ---------------------------------------------------------------- headers


@settings(deadline=None)
@given(ints, longs, ints, st.binary())
def test_a_header(xid: int, zxid: int, error: int, body: bytes) -> None:
    assert decode_header(framed(body, xid, zxid, error)) == (xid, zxid, error)


@pytest.mark.parametrize("size", range(16))
def test_a_frame_without_a_whole_header(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"a reply of {size} bytes has no header"):
        decode_header(bytes(size))
    with pytest.raises(ProtocolError, match=f"a reply of {size} bytes has no header"):
        decode_reply(Ping(), bytes(size))


# ---------------------------------------------------------------- events


@settings(deadline=None)
@given(st.sampled_from(EventKind), ints, paths, longs)
def test_an_event(kind: EventKind, state: int, path: str, zxid: int) -> None:
    decoded = decode_event(event(kind, path, state, zxid))
    assert decoded == WatchedEvent(kind, state, path, zxid)
    assert decoded.kind is kind


def test_an_event_without_a_path() -> None:
    assert decode_event(event(-1, None)).path == ""


@pytest.mark.parametrize("kind", [0, 8, -2, 2**31 - 1])
def test_an_event_of_unknown_kind(kind: int) -> None:
    with pytest.raises(ProtocolError, match=f"unknown kind {kind} for '/a'"):
        decode_event(event(kind, "/a"))


def test_an_event_cut_short_or_too_long() -> None:
    frame = event(EventKind.CREATED, "/a/é")
    for size in range(len(frame)):
        with pytest.raises(ProtocolError):
            decode_event(frame[:size])
    with pytest.raises(ProtocolError, match="event"):
        decode_event(frame + b"\x00")


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_garbage_is_no_event(garbage: bytes) -> None:
    # Fails by raising: anything but a ProtocolError.
    with contextlib.suppress(ProtocolError):
        decode_event(garbage)


# ---------------------------------------------------------------- replies


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@for_each
@given(st.data())
def test_a_reply_is_the_zxid_and_what_the_message_decodes(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    _, body = data.draw(replies(message))
    assume(not isinstance(message, Multi) or body[9:13] != struct.pack(">i", SessionMoved.code))  # a test of its own
    reply = decode_reply(message, framed(body, zxid=2**40))
    assert reply.zxid == 2**40
    assert repr(reply.value) == repr(message.decode(body))


@pytest.mark.parametrize(
    ("request_", "path"),
    [(GetData("/a"), "/a"), (GetDataRequest(path="/b"), "/b"), (Ping(), None), (GetEphemerals("/c"), "/c")],
)
def test_an_error_names_path_and_zxid(request_: Any, path: str | None) -> None:
    with pytest.raises(NoNode) as raised:
        decode_reply(request_, framed(b"", zxid=9, error=-101))
    assert (raised.value.path, raised.value.zxid) == (path, 9)


@pytest.mark.parametrize(
    ("code", "kind"), [(-6, Unimplemented), (-12345, UnknownServerError), (17, UnknownServerError)]
)
def test_every_code_is_an_error(code: int, kind: type[ServerError]) -> None:
    with pytest.raises(kind):
        decode_reply(AddWatch("/a"), framed(b"", error=code))


def test_what_follows_an_error_is_not_read() -> None:
    with pytest.raises(NoNode):
        decode_reply(GetData("/a"), framed(b"half a reply", error=-101))


def test_a_reply_without_what_it_should_hold() -> None:
    with pytest.raises(ProtocolError, match="GetData /a"):
        decode_reply(GetData("/a"), framed(b""))
    with pytest.raises(ProtocolError, match="Delete /a"):
        decode_reply(Delete("/a"), framed(b"more"))


# ---------------------------------------------------------------- requests of aiozk's


def test_a_request_of_aiozk_is_answered_with_its_response() -> None:
    request = GetChildrenRequest(path="/a", watch=False)
    zxid, value = decode_reply(request, framed(response(8, children=["x", "y"])))
    assert (zxid, type(value), value.children) == (7, response_xref[8], ["x", "y"])


def test_ours_and_aiozk_decode_the_same() -> None:
    frame = framed(response(8, children=["x", "é"]))
    theirs = decode_reply(GetChildrenRequest(path="/a", watch=False), frame)
    assert decode_reply(GetChildren("/a"), frame) == Reply(7, list(plain(theirs.value)))


def test_a_transaction_of_aiozk() -> None:
    request = TransactionRequest()
    request.add(CreateRequest(path="/a", data=b"", acl=[UNRESTRICTED_ACCESS], flags=0))
    _, value = decode_reply(request, framed(header(1) + response(1, path="/a") + END))
    assert [created.path for created in value.responses] == ["/a"]


@pytest.mark.parametrize(
    "request_", [Multi([Delete("/a"), Delete("/b")]), TransactionRequest()], ids=["ours", "aiozk's"]
)
def test_a_transaction_that_tells_inside_that_the_session_has_moved(request_: Any) -> None:
    moved, behind = (struct.pack(">i?ii", -1, False, code, code) for code in (-118, -2))
    with pytest.raises(SessionMoved) as raised:
        decode_reply(request_, framed(moved + behind + END, zxid=9))
    assert raised.value.zxid == 9


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\x00\x00\x09abc",
        b"\x7f\xff\xff\xff",
        struct.pack(">ii", 1, 2) + b"\xff\xff",
        struct.pack(">ii", 1, -2) + b"abc",
    ],
)
def test_a_malformed_response_of_aiozk(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed reply to GetChildrenRequest"):
        decode_reply(GetChildrenRequest(path="/a", watch=False), framed(body))


def test_a_transaction_of_aiozk_answered_with_an_unknown_type() -> None:
    with pytest.raises(ProtocolError, match="malformed reply to TransactionRequest"):
        decode_reply(TransactionRequest(), framed(header(99)))


def test_a_request_that_nobody_can_decode() -> None:
    class Unheard(SASLRequest):
        opcode = 4711
        parts = ()

    with pytest.raises(ProtocolError, match="no response class for Unheard, opcode 4711"):
        decode_reply(Unheard(), framed(b""))


@settings(deadline=None)
@given(st.sampled_from(sorted(set(response_xref) - {None, 102})), st.binary(max_size=100))
def test_garbage_leaks_no_other_exception_out_of_aiozk(opcode: int, garbage: bytes) -> None:
    class Asked(GetDataRequest):
        pass

    Asked.opcode = opcode
    # Fails by raising: anything but a ProtocolError.
    with contextlib.suppress(ProtocolError):
        decode_reply(Asked(path="/a", watch=False), framed(garbage))


def test_an_abstract_message_has_no_reply() -> None:
    with pytest.raises(NotImplementedError):
        Message[Any]().decode(b"")
