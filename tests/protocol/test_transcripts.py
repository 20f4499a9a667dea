"""The messages against what a real ZooKeeper said: see ``record.py``."""

from __future__ import annotations

import functools
import json
from itertools import count
from typing import Any, NamedTuple

import pytest
from aiozk.protocol.response import response_xref

from aioregistry._errors import (
    AuthFailed,
    BadVersion,
    MarshallingError,
    NodeExists,
    NoNode,
    NotEmpty,
    NotReadOnly,
    NoWatcher,
    ProtocolError,
    RolledBack,
    RuntimeInconsistency,
    ServerError,
    Unimplemented,
)
from aioregistry._protocol import (
    NOTIFICATION_XID,
    AclEntry,
    Connect,
    ConnectReply,
    EventKind,
    Stat,
    WatchedEvent,
    decode_event,
    decode_header,
    decode_reply,
)
from aioregistry._protocol.messages import SASLToken
from tests.protocol.conversations import CONVERSATIONS
from tests.protocol.examples import MESSAGES
from tests.protocol.record import TRANSCRIPTS
from tests.protocol.rendering import plain
from tests.support.messages import ClientInfo


class Exchange(NamedTuple):
    """A request, the frames that came up to its reply, and the reply."""

    request: Any
    xid: int | None
    sent: bytes
    events: list[WatchedEvent]
    frame: bytes

    @property
    def value(self) -> Any:
        """The value that the reply decodes to."""
        if isinstance(self.request, Connect):
            return self.request.decode(self.frame)
        return decode_reply(self.request, self.frame).value

    @property
    def error(self) -> ServerError:
        """The error it is."""
        with pytest.raises(ServerError) as raised:
            decode_reply(self.request, self.frame)
        return raised.value


@functools.cache
def recorded(name: str) -> dict[str, Any]:
    transcript: dict[str, Any] = json.loads((TRANSCRIPTS / f"{name}.json").read_text())
    return transcript


@functools.cache
def exchanges(name: str) -> dict[str, Exchange]:
    xids = count(1)
    found = {}
    steps = recorded(name)["steps"]
    assert [step["step"] for step in steps] == list(CONVERSATIONS[name])
    for step, request in zip(steps, CONVERSATIONS[name].values(), strict=True):
        *events, frame = map(bytes.fromhex, step["received"])
        assert {decode_header(event).xid for event in events} <= {NOTIFICATION_XID}
        xid = None if step["step"] == "connect" else request.special_xid or next(xids)
        found[step["step"]] = Exchange(
            request, xid, bytes.fromhex(step["sent"]), list(map(decode_event, events)), frame
        )
    return found


def everything(step: str) -> Exchange:
    return exchanges("everything")[step]


EXCHANGES = [pytest.param(name, step, id=f"{name}-{step}") for name in CONVERSATIONS for step in CONVERSATIONS[name]]


@pytest.mark.parametrize(("name", "step"), EXCHANGES)
def test_the_request_is_encoded_as_recorded(name: str, step: str) -> None:
    exchange = exchanges(name)[step]
    assert exchange.request.serialize(exchange.xid) == exchange.sent


@pytest.mark.parametrize(("name", "step"), [item for item in EXCHANGES if item.values[1] != "connect"])
def test_aiozk_decodes_the_reply_to_the_same(name: str, step: str) -> None:
    request, xid, _, _, frame = exchanges(name)[step]
    assert decode_header(frame).xid == xid
    if decode_header(frame).error:
        assert len(frame) == 16
        return
    theirs = plain(response_xref[request.opcode].deserialize(frame[16:]))
    ours = plain(getattr(exchanges(name)[step].value, "results", exchanges(name)[step].value))
    assert with_nulls_as_empty(theirs) == with_nulls_as_empty(ours)


def with_nulls_as_empty(value: Any) -> Any:
    """aiozk says None where ours say empty, () where ours say None, and only the path of a Create2 without its Stat.

    Of an entry of an ACL it makes two levels.
    """
    match value:
        case None | () | 0 | b"":
            return ()
        case (str() as path, None):
            return path
        case (int() as permissions, (str() as scheme, str() as id)):
            return (permissions, scheme, id)
        case tuple():
            return tuple(map(with_nulls_as_empty, value))
    return value


@pytest.mark.parametrize(("name", "step"), EXCHANGES)
def test_a_recorded_reply_cut_short_is_an_error(name: str, step: str) -> None:
    request, _, _, _, frame = exchanges(name)[step]
    decode = request.decode if step == "connect" else functools.partial(decode_reply, request)
    for size in range(len(frame)):
        if step == "connect" and size == len(frame) - 1:
            continue  # without the last byte it is an old server's
        with pytest.raises(ProtocolError):
            decode(frame[:size])


def test_the_server_is_the_one_the_facts_are_about() -> None:
    assert {recorded(name)["server"] for name in CONVERSATIONS} == {"3.8.0"}


# ---------------------------------------------------------------- sessions


def test_a_new_session() -> None:
    reply = everything("connect").value
    assert isinstance(reply, ConnectReply)
    assert (reply.protocol_version, reply.timeout_ms, reply.read_only) == (0, 10_000, False)
    assert reply.session_id != 0
    assert len(reply.password) == 16
    assert any(reply.password)


def test_a_refused_session_has_no_timeout_and_the_connection_is_closed() -> None:
    assert exchanges("refused_session")["connect"].value == (0, 0, 0, bytes(16), False)
    assert recorded("refused_session")["closed_by_server"]


def test_a_client_before_3_4_is_answered_without_the_read_only_byte() -> None:
    old, new = exchanges("old_client")["connect"], everything("connect")
    assert len(old.frame) == len(new.frame) - 1
    assert (old.value.timeout_ms, old.value.read_only) == (10_000, False)


def test_a_read_only_server_says_so_and_takes_no_writes() -> None:
    conversation = exchanges("read_only")
    assert conversation["connect"].value.read_only
    assert conversation["get_children"].value == ["zookeeper"]
    assert isinstance(conversation["create"].error, NotReadOnly)
    assert not recorded("read_only")["closed_by_server"]


def test_a_read_only_server_without_local_sessions_answers_with_a_header_and_falls_silent() -> None:
    with pytest.raises(ProtocolError, match="answered Connect with an error: state-changing request on a read-only"):
        _ = exchanges("read_only_refused")["connect"].value
    assert not recorded("read_only_refused")["closed_by_server"]


def test_credentials() -> None:
    assert everything("auth").value is None
    identities = [ClientInfo("ip", "127.0.0.1"), ClientInfo("digest", "user")]
    assert everything("who_am_i").value == identities
    assert isinstance(exchanges("wrong_credentials")["auth"].error, AuthFailed)
    assert recorded("wrong_credentials")["closed_by_server"]


def test_an_unknown_operation_is_answered_without_a_zxid_and_the_connection_is_closed() -> None:
    error = exchanges("unknown_operation")["unknown"].error
    assert isinstance(error, Unimplemented)
    assert error.zxid == -1
    assert recorded("unknown_operation")["closed_by_server"]


def test_the_end_of_a_session() -> None:
    assert everything("close").value is None
    assert recorded("everything")["closed_by_server"]


# ---------------------------------------------------------------- single operations


def test_creating() -> None:
    assert everything("create").value == "/t/é"
    assert everything("create_sequential").value.startswith("/t/s-00000")
    path, stat = everything("create2").value
    assert path == "/t/ephemeral"
    assert stat.ephemeral_owner == everything("connect").value.session_id
    assert stat.czxid == stat.mzxid == decode_header(everything("create2").frame).zxid
    assert isinstance(everything("create_existing").error, NodeExists)


def test_containers_and_nodes_with_a_ttl_show_no_owner() -> None:
    path, stat = everything("create_container").value
    assert (path, stat.ephemeral_owner) == ("/t", 0)
    path, stat = exchanges("extended_types")["create_ttl"].value
    assert (path, stat.ephemeral_owner, stat.data_length) == ("/ttl", 0, len("soon gone"))
    _, stat = exchanges("extended_types")["get_data_ttl"].value
    assert stat.ephemeral_owner == 0


def test_a_ttl_is_unimplemented_unless_enabled_and_the_connection_stays() -> None:
    assert isinstance(everything("create_ttl").error, Unimplemented)


def test_reading() -> None:
    data, stat = everything("get_data").value
    assert (data, stat.version, stat.data_length) == (b"data", 0, 4)
    assert everything("exists").value == stat
    assert isinstance(everything("exists_absent").error, NoNode)
    assert everything("get_data_null").value[0] == b""
    names = everything("get_children").value
    assert set(names) >= {"é", "null", "ephemeral", "protected"}
    assert everything("get_children2").value[0] == names
    assert everything("get_children2").value[1].num_children == len(names)


def test_reading_an_acl() -> None:
    entries, stat = exchanges("acl")["get_acl"].value
    assert entries == [AclEntry(31, "world", "anyone"), AclEntry(1, "ip", "127.0.0.2")]
    assert stat.aversion == 0
    assert isinstance(exchanges("acl")["get_acl_absent"].error, NoNode)


def test_writing() -> None:
    stat = everything("set_data_watched").value
    assert (stat.version, stat.data_length) == (1, len("more data"))
    error = everything("set_data_version").error
    assert isinstance(error, BadVersion)
    # A write that fails moves the quorum's zxid all the same: what a probe for a roll-back rests on.
    assert error.zxid == stat.mzxid + 1
    assert isinstance(everything("delete_parent").error, NotEmpty)
    assert everything("delete").value is None


def test_asking_the_server() -> None:
    assert everything("sync").value == "/t"
    assert everything("ping").value is None
    ephemerals = everything("get_ephemerals").value
    assert set(ephemerals) == {"/t/ephemeral", everything("create_sequential").value}
    assert everything("get_all_children_number").value == 5


# ---------------------------------------------------------------- watches


def events(step: str) -> list[tuple[EventKind, str]]:
    assert all((event.state, event.zxid) == (3, -1) for event in everything(step).events)
    return [(event.kind, event.path) for event in everything(step).events]


def test_one_shot_watches_report_before_the_reply() -> None:
    assert events("set_data_watched") == [(EventKind.DATA_CHANGED, "/t/é")]
    assert events("create_watched") == [(EventKind.CREATED, "/t/absent"), (EventKind.CHILDREN_CHANGED, "/t")]
    assert events("delete") == []


def test_a_recursive_watch_reports_everything_below_but_no_child_events() -> None:
    assert everything("add_watch").value is None
    assert events("create_below") == [(EventKind.CREATED, "/t/below")]
    assert events("set_data_below") == [(EventKind.DATA_CHANGED, "/t/below")]
    assert events("delete_below") == [(EventKind.DELETED, "/t/below")]


def test_a_removed_watch_is_gone() -> None:
    assert everything("check_watches").value is None
    assert everything("remove_watches").value is None
    assert isinstance(everything("check_watches_none").error, NoWatcher)


def test_watches_set_anew_report_what_was_missed() -> None:
    assert events("set_watches") == [
        (EventKind.DATA_CHANGED, "/t/é"),
        (EventKind.CREATED, "/t/null"),
        (EventKind.CHILDREN_CHANGED, "/t"),
    ]
    assert decode_header(everything("set_watches").frame).xid == -8
    assert events("set_watches2") == []
    assert events("multi") == [(EventKind.CHILDREN_CHANGED, "/t")]


# ---------------------------------------------------------------- several operations


def test_a_transaction() -> None:
    check, created, stat, created2, container, deleted = everything("multi").value.results
    assert (check, created, deleted) == (None, "/t/m", None)
    assert stat.version == 1
    # Before ZOOKEEPER-4026 a Create2 in a transaction is answered as a Create; a container's Stat comes.
    assert created2 == ("/t/m/2", None)
    assert container[0] == "/t/c"
    assert container[1].czxid == stat.czxid == decode_header(everything("multi").frame).zxid
    assert everything("multi").value.failed is None


def test_a_node_with_a_ttl_in_a_transaction_comes_with_its_stat() -> None:
    deleted, (path, stat) = exchanges("extended_types")["multi_ttl"].value.results
    assert (deleted, path, type(stat)) == (None, "/ttl", Stat)


def test_a_failed_transaction() -> None:
    reply = everything("multi_failed").value
    assert [type(error) for error in reply.results] == [
        RolledBack,
        BadVersion,
        RuntimeInconsistency,
        RuntimeInconsistency,
    ]
    assert reply.failed.index == 1
    assert reply.failed.error.path == "/t/é"
    (only,) = everything("multi_failed_first").value.results
    assert isinstance(only, NoNode)


def test_an_empty_transaction() -> None:
    assert everything("multi_empty").value.results == []


def test_several_reads() -> None:
    (data, stat), names, (null, _), missing = everything("multi_read").value
    assert (data, stat.version, null) == (b"more data", 1, b"")
    assert set(names) >= {"é", "m", "c"}
    assert (type(missing), missing.path) == (NoNode, "/t/absent")
    assert everything("multi_read_empty").value == []


def test_the_data_of_many_children() -> None:
    changed, missing, made, protected, null = everything("multi_read_data").value
    assert (changed[0], made[0], protected[0], null[0]) == (b"more data", b"22", b"mine", b"")
    assert all(type(stat) is Stat for _, stat in (changed, made, protected, null))
    assert (type(missing), missing.path) == (NoNode, "/t/absent")
    (data, container), _ = everything("multi_read_root").value
    assert (data, container.ephemeral_owner) == (b"", 0)


@pytest.mark.parametrize("step", ["multi_read_exists", "multi_read_create"])
def test_anything_else_among_reads_fails_them_all(step: str) -> None:
    assert isinstance(everything(step).error, MarshallingError)


def test_every_message_has_been_said_to_a_real_server() -> None:
    requests = [request for conversation in CONVERSATIONS.values() for request in conversation.values()]
    operations = [operation for request in requests for operation in getattr(request, "ops", ())]
    # A challenge is another one each time: tests/integration/test_sasl.py says these to real servers.
    assert set(MESSAGES) - {SASLToken} <= {type(said) for said in requests + operations}
