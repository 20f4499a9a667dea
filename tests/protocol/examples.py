"""Hypothesis strategies: every message the library sends, and a value and body of a good reply to it."""

from __future__ import annotations

import struct
from typing import Any

from aiozk.protocol import AUTHED_UNRESTRICTED, ConnectResponse
from aiozk.protocol.acl import ACL, ID
from aiozk.protocol.response import response_xref
from aiozk.protocol.stat import Stat as AiozkStat
from hypothesis import settings
from hypothesis import strategies as st

from aioregistry import _protocol as p
from aioregistry._errors import server_error
from aioregistry._protocol.records import OPEN_ACL, STAT
from aioregistry._secrets import Secret
from tests.protocol.rendering import rendered, response
from tests.support import messages as others

ints = st.integers(-(2**31), 2**31 - 1)
longs = st.integers(-(2**63), 2**63 - 1)
stats = st.builds(p.Stat, longs, longs, longs, longs, ints, ints, ints, longs, ints, ints, longs)
texts = st.text(max_size=8)
paths = texts.map("/{}".format)
datas = st.binary(max_size=8)
names = st.lists(texts, max_size=4)
acls = st.sampled_from([OPEN_ACL, (AUTHED_UNRESTRICTED,), [ACL.make("digest", "a:b", read=True), *OPEN_ACL], ()])

reads = st.one_of(st.builds(p.GetData, paths), st.builds(p.GetChildren, paths))
creations = st.one_of(
    st.builds(p.Create, paths, datas, acls, ints),
    st.builds(p.Create2, paths, datas, acls, ints),
    st.builds(p.CreateContainer, paths, datas, acls),
)
operations = st.one_of(
    creations,
    st.builds(p.Delete, paths, ints),
    st.builds(p.SetData, paths, datas, ints),
)
vectors = st.lists(paths, max_size=3)

for_each = settings(deadline=None, max_examples=25)
"""For tests that are run with every kind of message."""

MESSAGES: dict[type[p.Message[Any]], st.SearchStrategy[Any]] = {
    p.Connect: st.builds(p.Connect, longs, ints, longs, datas, st.booleans(), ints),
    p.Auth: st.builds(p.Auth, texts, datas),
    p.SASLToken: st.builds(p.SASLToken, datas),
    others.Ping: st.builds(others.Ping),
    p.CloseSession: st.builds(p.CloseSession),
    p.GetData: st.builds(p.GetData, paths, st.booleans()),
    p.Exists: st.builds(p.Exists, paths, st.booleans()),
    p.GetChildren: st.builds(p.GetChildren, paths, st.booleans()),
    p.GetChildren2: st.builds(p.GetChildren2, paths, st.booleans()),
    p.Sync: st.builds(p.Sync, paths),
    p.GetAcl: st.builds(p.GetAcl, paths),
    others.GetAllChildrenNumber: st.builds(others.GetAllChildrenNumber, paths),
    others.GetEphemerals: st.builds(others.GetEphemerals, paths),
    others.WhoAmI: st.builds(others.WhoAmI),
    p.Create: st.builds(p.Create, paths, datas, acls, ints),
    p.Create2: st.builds(p.Create2, paths, datas, acls, ints),
    p.CreateContainer: st.builds(p.CreateContainer, paths, datas, acls),
    others.CreateTTL: st.builds(others.CreateTTL, paths, datas, longs, acls),
    p.Delete: st.builds(p.Delete, paths, ints),
    others.Check: st.builds(others.Check, paths, ints),
    p.SetData: st.builds(p.SetData, paths, datas, ints),
    p.Multi: st.builds(p.Multi, st.lists(operations, max_size=4)),
    p.MultiRead: st.builds(p.MultiRead, st.lists(reads, max_size=4)),
    p.MultiReadData: st.builds(p.MultiReadData, paths, names),
    p.AddWatch: st.builds(p.AddWatch, paths, st.sampled_from(p.AddWatchMode)),
    others.CheckWatches: st.builds(others.CheckWatches, paths, st.sampled_from(p.WatcherType)),
    p.RemoveWatches: st.builds(p.RemoveWatches, paths, st.sampled_from(p.WatcherType)),
    p.SetWatches: st.builds(p.SetWatches, longs, vectors, vectors, vectors),
    p.SetWatches2: st.builds(p.SetWatches2, longs, vectors, vectors, vectors, vectors, vectors),
}


@st.composite
def replies(draw: st.DrawFn, message: p.Message[Any]) -> tuple[Any, bytes]:
    """The value that the message may decode to, and the body that aiozk renders for it."""
    match message:
        case p.Connect():
            reply = draw(st.builds(p.ConnectReply, ints, ints, longs, datas, st.booleans()))
            *fields, read_only = reply
            layout = ("protocol_version", "timeout", "session_id", "password")
            return reply, rendered(ConnectResponse(**dict(zip(layout, fields, strict=True)))) + bytes([read_only])
        case p.SASLToken():  # aiozk's response has its layout written wrong
            token = draw(datas)
            return Secret(token), len(token).to_bytes(4, "big") + token
        case p.Multi():
            return draw(transactions(message))
        case p.MultiRead() | p.MultiReadData():
            return draw(several_reads(message))
    return draw(single_replies(message))


@st.composite
def single_replies(draw: st.DrawFn, message: p.Message[Any]) -> tuple[Any, bytes]:
    """The same for what asks one thing."""
    values = [draw(FIELDS[field]) for field in ANSWERS[type(message)]]
    rendered_values = [theirs(value) for value in values]
    layout = [name for name, _ in response_xref[message.opcode].parts]
    body = response(message.opcode, **dict(zip(layout, rendered_values, strict=True)))
    if isinstance(message, p.AddWatch):
        return None, body
    return (tuple(values) if len(values) > 1 else values[0] if values else None), body


@st.composite
def transactions(draw: st.DrawFn, message: p.Multi) -> tuple[Any, bytes]:
    """A transaction that was applied, creations answered in any of the ways known, or one that failed somewhere."""
    ops: list[p.Message[Any]] = list(message.ops)
    failed: bool = draw(st.booleans())
    if ops and failed:
        culprit = draw(st.integers(0, len(ops) - 1))
        codes = [0] * culprit + [draw(error_codes)] + [-2] * (len(ops) - culprit - 1)
        errors = [server_error(code, op.path) for code, op in zip(codes, ops, strict=True)]
        return p.MultiReply(errors), b"".join(map(error_result, codes)) + END
    results: list[Any] = []
    body = b""
    for op in ops:
        if isinstance(op, p.Create | p.Create2):
            path, stat = draw(paths), draw(stats)
            if draw(st.booleans()):
                stat_given, part = stat, header(15) + response(15, path=path, stat=theirs(stat))
            else:
                stat_given, part = None, header(1) + response(1, path=path)
            results.append(path if isinstance(op, p.Create) else (path, stat_given))
        else:
            result, single = draw(single_replies(op))
            results.append(result)
            part = header(op.opcode) + single
        body += part
    return p.MultiReply(results), body + END


@st.composite
def several_reads(draw: st.DrawFn, message: p.MultiRead | p.MultiReadData) -> tuple[Any, bytes]:
    """Reads, each of which may have failed."""
    results: list[Any] = []
    body = b""
    for op in message.ops:
        if draw(st.booleans()):
            code = draw(error_codes)
            results.append(server_error(code, op.path))
            body += error_result(code)
        else:
            result, single = draw(single_replies(op))
            results.append(result)
            body += header(op.opcode) + single
    return results, body + END


error_codes = st.sampled_from([-101, -102, -103, -110, -111, -112, -118])
END = struct.pack(">i?i", -1, True, -1)

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "data": datas,
    "stat": stats,
    "path": paths,
    "names": names,
    "acl": st.lists(st.builds(p.AclEntry, st.integers(0, 31), texts, texts), max_size=3),
    "total": ints,
    "none": st.just(0),
    "identities": st.lists(st.builds(others.ClientInfo, texts, texts), max_size=3),
}

ANSWERS: dict[type[p.Message[Any]], list[str]] = {
    p.Auth: [],
    others.Ping: [],
    p.CloseSession: [],
    p.GetData: ["data", "stat"],
    p.Exists: ["stat"],
    p.GetChildren: ["names"],
    p.GetChildren2: ["names", "stat"],
    p.Sync: ["path"],
    p.GetAcl: ["acl", "stat"],
    others.GetAllChildrenNumber: ["total"],
    others.GetEphemerals: ["names"],
    others.WhoAmI: ["identities"],
    p.Create: ["path"],
    p.Create2: ["path", "stat"],
    p.CreateContainer: ["path", "stat"],
    others.CreateTTL: ["path", "stat"],
    p.Delete: [],
    others.Check: [],
    p.SetData: ["stat"],
    p.AddWatch: ["none"],
    others.CheckWatches: [],
    p.RemoveWatches: [],
    p.SetWatches: [],
    p.SetWatches2: [],
}
"""The parts of a reply's body."""


def header(opcode: int, error: int = 0) -> bytes:
    return struct.pack(">i?i", opcode, False, error)


def error_result(code: int) -> bytes:
    return header(-1, code) + struct.pack(">i", code)


def theirs(value: Any) -> Any:
    """A field as aiozk's parts take it."""
    match value:
        case p.Stat():
            return AiozkStat.parse(STAT.pack(*value), 0)[0]
        case [p.AclEntry(), *_]:
            return [ACL(perms=permissions, id=ID(scheme=scheme, id=id)) for permissions, scheme, id in value]
        case [others.ClientInfo(), *_]:
            return [others.ClientInfoPart(auth_scheme=scheme, user=user) for scheme, user in value]
    return value
