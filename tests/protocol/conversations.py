"""The requests to a real ZooKeeper in the recorded transcripts: the same requests are encoded again by the tests."""

from __future__ import annotations

from typing import Any, cast

from aiozk.protocol import AUTHED_UNRESTRICTED, UNRESTRICTED_ACCESS, CreateRequest
from aiozk.protocol.acl import ACL

from aioregistry._protocol import (
    AddWatch,
    AddWatchMode,
    Auth,
    CloseSession,
    Connect,
    Create,
    Create2,
    CreateContainer,
    CreateFlag,
    Delete,
    Exists,
    GetAcl,
    GetChildren,
    GetChildren2,
    GetData,
    Message,
    Multi,
    MultiRead,
    MultiReadData,
    RemoveWatches,
    SetData,
    SetWatches,
    SetWatches2,
    Sync,
    WatcherType,
)
from tests.support.messages import Check, CheckWatches, CreateTTL, GetAllChildrenNumber, GetEphemerals, Ping, WhoAmI

CONNECT = Connect(last_zxid=0, timeout_ms=10_000)

READ_ONLY = ACL.make(scheme="ip", id="127.0.0.2", read=True)


class OldConnect(Connect):
    """As clients before 3.4 connect: without the readOnly byte, which the server then leaves out too."""

    parts = Connect.parts[:-1]

    def encode(self) -> bytes:
        return super().encode()[:-1]


class UnknownOperation(Message[None]):
    """An opcode that no server knows."""

    opcode = 999


Conversation = dict[str, Any]
"""Requests by the name of their step, in order; the first is the Connect."""

CONVERSATIONS: dict[str, Conversation] = {
    "everything": {
        "connect": CONNECT,
        "auth": Auth("digest", b"user:secret"),
        "ping": Ping(),
        "who_am_i": WhoAmI(),
        "create_container": CreateContainer("/t"),
        "create": Create("/t/é", b"data"),
        "create_null": CreateRequest(path="/t/null", data=None, acl=[UNRESTRICTED_ACCESS], flags=0),
        "create2": Create2("/t/ephemeral", b"", flags=CreateFlag.EPHEMERAL),
        "create_sequential": Create("/t/s-", b"", flags=CreateFlag.EPHEMERAL_SEQUENTIAL),
        "create_protected": Create2("/t/protected", b"mine", acl=(AUTHED_UNRESTRICTED,)),
        "create_existing": Create("/t/é", b"data"),
        "exists_absent": Exists("/t/absent", watch=True),
        "exists": Exists("/t/é"),
        "get_data_null": GetData("/t/null"),
        "get_data": GetData("/t/é", watch=True),
        "get_children": GetChildren("/t"),
        "get_children2": GetChildren2("/t", watch=True),
        "set_data_watched": SetData("/t/é", b"more data", version=0),
        "set_data_version": SetData("/t/é", b"", version=7),
        "create_watched": Create2("/t/absent", b""),
        "delete_parent": Delete("/t"),
        "delete": Delete("/t/absent", version=0),
        "sync": Sync("/t"),
        "get_ephemerals": GetEphemerals("/t"),
        "get_all_children_number": GetAllChildrenNumber("/t"),
        "add_watch": AddWatch("/t", AddWatchMode.PERSISTENT_RECURSIVE),
        "create_below": Create2("/t/below", b""),
        "set_data_below": SetData("/t/below", b"1"),
        "delete_below": Delete("/t/below"),
        "check_watches": CheckWatches("/t", WatcherType.ANY),
        "remove_watches": RemoveWatches("/t", WatcherType.ANY),
        "check_watches_none": CheckWatches("/t", WatcherType.ANY),
        "set_watches": SetWatches(1, data=["/t/é"], exist=["/t/null"], child=["/t"]),
        "set_watches2": SetWatches2(2**40, child=["/t"], persistent=["/t/é"], persistent_recursive=["/t/null"]),
        "multi": Multi(
            [
                Check("/t", 0),
                Create("/t/m", b"1"),
                SetData("/t/m", b"22", version=0),
                Create2("/t/m/2", b"", flags=CreateFlag.EPHEMERAL),
                CreateContainer("/t/c"),
                Delete("/t/m/2", version=0),
            ]
        ),
        "multi_failed": Multi([Delete("/t/m"), Check("/t/é", 9), Create2("/t/n", b""), Delete("/t/absent")]),
        "multi_failed_first": Multi([Create("/t/absent/x", b"")]),
        "multi_empty": Multi([]),
        "multi_read": MultiRead([GetData("/t/é"), GetChildren("/t"), GetData("/t/null"), GetChildren("/t/absent")]),
        "multi_read_data": MultiReadData("/t", ["é", "absent", "m", "protected", "null"]),
        "multi_read_root": MultiReadData("/", ["t", "zookeeper"]),
        "multi_read_empty": MultiReadData("/t", []),
        "multi_read_exists": MultiRead([GetData("/t/é"), cast(Any, Exists("/t"))]),
        "multi_read_create": MultiRead([GetData("/t/é"), cast(Any, Create("/t/x", b""))]),
        "create_ttl": CreateTTL("/t/ttl", b"", ttl_ms=60_000),
        "close": CloseSession(),
    },
    "extended_types": {
        "connect": CONNECT,
        "create_ttl": CreateTTL("/ttl", b"soon gone", ttl_ms=60_000),
        "get_data_ttl": GetData("/ttl"),
        "multi_ttl": Multi([Delete("/ttl"), CreateTTL("/ttl", b"", ttl_ms=1_000)]),
        "close": CloseSession(),
    },
    "acl": {
        "connect": CONNECT,
        "create": Create("/t", b"", acl=[UNRESTRICTED_ACCESS, READ_ONLY]),
        "get_acl": GetAcl("/t"),
        "get_acl_absent": GetAcl("/t/absent"),
        "close": CloseSession(),
    },
    "old_client": {"connect": OldConnect(last_zxid=0, timeout_ms=10_000), "close": CloseSession()},
    "refused_session": {"connect": Connect(last_zxid=0, timeout_ms=10_000, session_id=0x123456789, password=bytes(16))},
    "unknown_operation": {"connect": CONNECT, "unknown": UnknownOperation()},
    "wrong_credentials": {"connect": CONNECT, "auth": Auth("nonsense", b"user:secret")},
    "read_only_refused": {"connect": Connect(last_zxid=0, timeout_ms=10_000, read_only=True)},
    "read_only": {
        "connect": Connect(last_zxid=0, timeout_ms=10_000, read_only=True),
        "get_children": GetChildren("/"),
        "create": Create("/t", b""),
    },
}
