"""A server's words while a history was played, in a form in which those of two servers can be compared.

Left as it is: every error code, version, count, name, path and piece of data, and the order of all of it. Made
comparable, because two servers cannot agree in it:

- zxids are counted from the creation of the history's own root, so that every write, whether it fails or not, has to
  use up as many as a real server's does;
- session ids are the names of the history's sessions, passwords are known by their length;
- times are there (``NOW``) or not;
- the history's root is cut off from paths.

Sorted, because ZooKeeper keeps it in hash sets and playing a history twice, below roots of different names, shows it
in different orders (`test_reference.py`):

- the names of children, the paths of a session's ephemeral nodes, the ids of a connection that authenticated twice,
  and therefore the entries that ``auth`` becomes in an ACL: those that stand together with equal permissions;
- the events of one session's end, whose nodes go in the order of such a set (`player.py` does that: only it knows which
  events came of what).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.server.differential.language import History, Place

NOW = "now"
A_TIME = 1_000_000_000_000
"""Milliseconds since 1970 that lie before any history."""


class Stat(NamedTuple):
    czxid: int
    mzxid: int
    ctime: str | int
    mtime: str | int
    version: int
    cversion: int
    aversion: int
    owner: str | int
    data_length: int
    children: int
    pzxid: int


# No named tuples: those are equal to whatever has equal fields, be there none.
@dataclass(frozen=True)
class Reply:
    request: str
    xid: int
    zxid: int
    error: int
    value: object = ()


@dataclass(frozen=True)
class Event:
    kind: int
    path: str | None
    state: int
    zxid: int


@dataclass(frozen=True)
class Connected:
    session: str
    timeout_ms: int
    password_length: int
    version: int
    tail: bytes
    """The byte that says whether the server is read-only; clients before 3.4 get none."""


@dataclass(frozen=True)
class Refused:
    """The session is not known, or over."""

    timeout_ms: int
    password: bytes
    version: int
    tail: bytes


@dataclass(frozen=True)
class Ended:
    """The server closed the connection."""


@dataclass(frozen=True)
class Silent:
    """The server did not answer in time."""


Said = Reply | Event | Connected | Refused | Ended | Silent


@dataclass(frozen=True)
class Entry:
    step: int
    connection: str
    said: Said


@dataclass
class Names:
    """How what differs between servers is told in transcripts."""

    place: Place
    sessions: dict[int, str] = field(default_factory=dict)

    def zxid(self, zxid: int) -> int:
        """0 and -1 stand for none; what was before the history is -2."""
        if zxid <= 0:
            return zxid
        return -2 if zxid < self.place.base else zxid - self.place.base

    def owner(self, session_id: int) -> str | int:
        return self.sessions.get(session_id, session_id)

    def path(self, path: str | None) -> str | None:
        if path is None or not path.startswith(self.place.root):
            return path
        return path[len(self.place.root) :] or "/"


class Cursor:
    """Reads jute."""

    def __init__(self, raw: bytes, names: Names) -> None:
        self._raw = raw
        self._at = 0
        self._names = names

    def unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._raw, self._at)
        self._at += struct.calcsize(layout)
        return values

    def rest(self) -> bytes:
        rest = self._raw[self._at :]
        self._at = len(self._raw)
        return rest

    def number(self) -> int:
        (number,) = self.unpack(">i")
        assert isinstance(number, int)
        return number

    def buffer(self) -> bytes | None:
        size = self.number()
        if size < 0:
            return None
        self._at += size
        return self._raw[self._at - size : self._at]

    def string(self) -> str | None:
        raw = self.buffer()
        # Java's jute writes what lies beyond U+FFFF as two surrogates of three bytes each.
        return None if raw is None else raw.decode(errors="surrogatepass")

    def path(self) -> str | None:
        return self._names.path(self.string())

    def vector(self, read: Callable[[], Any]) -> list[Any] | None:
        size = self.number()
        return None if size < 0 else [read() for _ in range(size)]

    def stat(self) -> Stat:
        values = list(self.unpack(">qqqqiiiqiiq"))
        for zxid in (0, 1, 10):
            values[zxid] = self._names.zxid(values[zxid])
        for time in (2, 3):
            values[time] = NOW if values[time] > A_TIME else values[time]
        values[7] = self._names.owner(values[7])
        return Stat(*values)

    def names(self) -> list[str] | None:
        return in_order(self.vector(self.string))

    def paths(self) -> list[str] | None:
        return in_order(self.vector(self.path))

    def ids(self) -> list[Any] | None:
        return in_order(self.vector(lambda: (self.string(), self.string())))

    def acls(self) -> list[Any] | None:
        acls = self.vector(lambda: (self.number(), self.string(), self.string()))
        if acls is None:
            return None
        groups = itertools.groupby(acls, key=lambda acl: acl[0])
        return [acl for _, group in groups for acl in sorted(group, key=repr)]

    def results(self) -> list[Any]:
        results: list[Any] = []
        while True:
            opcode, done, error = self.unpack(">i?i")
            if done:
                return [*results, ("end", opcode, error)]
            results.append((opcode, error, self.read(RESULTS.get(opcode, ""))))

    def read(self, layout: str) -> tuple[Any, ...]:
        return tuple(READERS[part](self) for part in layout.split())


READERS: dict[str, Callable[[Cursor], Any]] = {
    "int": Cursor.number,
    "data": Cursor.buffer,
    "path": Cursor.path,
    "stat": Cursor.stat,
    "acls": Cursor.acls,
    "names": Cursor.names,
    "paths": Cursor.paths,
    "ids": Cursor.ids,
    "results": Cursor.results,
}
RESULTS = {
    -1: "int",
    1: "path",
    15: "path stat",
    19: "path stat",
    21: "path stat",
    4: "data stat",
    5: "stat",
    8: "names",
}


def in_order(values: list[Any] | None) -> list[Any] | None:
    return None if values is None else sorted(values, key=repr)


def read_event(body: bytes, zxid: int, names: Names) -> Event:
    cursor = Cursor(body, names)
    kind, state = cursor.unpack(">ii")
    return Event(kind, cursor.path(), state, names.zxid(zxid))


def read_value(layout: str, body: bytes, names: Names) -> object:
    """The value of a reply, and what there was behind it, if anything."""
    cursor = Cursor(body, names)
    try:
        value = cursor.read(layout)
    except (struct.error, UnicodeDecodeError) as error:
        return ("unreadable", layout, body, str(error))
    rest = cursor.rest()
    return (*value, ("more", rest)) if rest else value


# ---------------------------------------------------------------- the comparison


def first_difference(expected: Sequence[Entry], found: Sequence[Entry]) -> int | None:
    """Where two transcripts part, None if they do not."""
    for number, (one, other) in enumerate(itertools.zip_longest(expected, found)):
        if one != other:
            return number
    return None


def explain(history: History, expected: Sequence[Entry], found: Sequence[Entry], at: int) -> str:
    """The history, what both said last, and where they part."""
    parting = [transcript[at] for transcript in (expected, found) if at < len(transcript)]
    step = min(entry.step for entry in parting)
    lines = ["The history:", "", "(", *(f"    {taken!r}," for taken in history), ")", ""]
    lines.append(f"They part at step {step}: {history[step]!r}" if step < len(history) else "They part at the end.")
    lines += ["", "Both said:", *(f"  {shown(entry)}" for entry in expected[max(at - 8, 0) : at])]
    for name, transcript in (("ZooKeeper then said:", expected), ("This server said:", found)):
        lines += ["", name, *(f"  {shown(entry)}" for entry in transcript[at : at + 3])]
        if at >= len(transcript):
            lines.append("  nothing more")
    return "\n".join(lines)


def shown(entry: Entry) -> str:
    return f"step {entry.step}, {entry.connection}: {entry.said!r}"
