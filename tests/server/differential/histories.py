"""Random histories, for Hypothesis: simple values first, since that is where shrinking goes.

Few paths, few pieces of data, few clients: what is tested are meetings, of a watch with its node, of a version with
another, of two owners.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.server.differential.language import (
    OPEN,
    Acl,
    Acls,
    AddWatch,
    Ask,
    Auth,
    Check,
    CheckWatches,
    Close,
    CountChildren,
    Create,
    CreateTTL,
    Cut,
    Delete,
    Exists,
    Expire,
    Frame,
    GetACL,
    GetChildren,
    GetData,
    GetEphemerals,
    History,
    Mangled,
    Multi,
    Open,
    Path,
    Ping,
    Raw,
    Reconfig,
    RemoveWatches,
    Request,
    Resume,
    SetACL,
    SetData,
    SetWatches,
    SetWatches2,
    Silence,
    Step,
    Swept,
    Sync,
    WhoAmI,
)

T = TypeVar("T")

NODES: tuple[Path, ...] = ("/a", "/", "/b", "/a/b", "/a/c", "/b/c", "/a/b/c", "/c", "/é☃")
SEQUENTIAL: tuple[Path, ...] = ("/a/s-", "/s-", "/a/b/", "/")
NUMBERED: tuple[Path, ...] = ("/a/s-0000000000", "/s-0000000001", "/a/b/0000000000", "/s-0000000002")
STRANGE: tuple[Path, ...] = (
    *("/a/", "/a//b", "/a/./b", "/a/../b", "/.", "/..", "/a/...", "/zookeeper", "a", "a/b"),
    *("/nul\0", "/control\x01", "/delete\x7f", "/c1\x85", "/😀", "/private\ue000", "/\ufffe", b"/\xff\xfe", "/ "),
)
NULL: tuple[Path, ...] = (None,)
# ZooKeeper's own nodes outlive the history: it may look at them, and write where nobody may.
OWN: tuple[Path, ...] = ("@/zookeeper", "@/zookeeper/quota", "@/zookeeper/config")
FORBIDDEN: tuple[Path, ...] = ("@/zookeeper/config", "@/zookeeper/config/x")
DATA: tuple[bytes | None, ...] = (b"", b"x", b"more", None, bytes(range(256)) * 4)
VERSIONS = (-1, 0, 1, 2, -2, 2**31 - 1)
SECRET = "user:5w9W4eL3797Y4Wq8AcKUPPk8ha4="  # base64 of the SHA-1 of "user:secret"
ACLS: tuple[Acls, ...] = (
    OPEN,
    (Acl(31, "auth", ""),),
    (Acl(1, "world", "anyone"),),
    (Acl(30, "world", "anyone"),),
    (Acl(31, "digest", SECRET),),
    (Acl(1, "world", "anyone"), Acl(31, "digest", SECRET)),
    (Acl(9, "digest", "user:other"), Acl(17, "ip", "127.0.0.1")),
    (Acl(31, "ip", "127.0.0.1"),),
    (Acl(31, "ip", "10.0.0.0/8"), Acl(1, "ip", "127.0.0.0/8")),
    (Acl(1, "world", "anyone"), Acl(1, "world", "anyone"), Acl(2, "world", "anyone")),
    (Acl(0, "world", "anyone"),),
    (Acl(-1, "world", "anyone"),),
    (),
    None,
    (Acl(31, "world", "nobody"),),
    (Acl(31, "auth", "whatever"),),
    (Acl(31, "nobody", "knows"),),
    (Acl(31, "digest", "malformed"),),
    (Acl(31, "ip", "malformed"),),
    (Acl(31, "ip", "127.0.0.1/99"),),
    (Acl(31, None, "x"),),
    (Acl(31, "digest", None),),
)
CREDENTIALS: tuple[tuple[str | None, bytes | None], ...] = (
    ("digest", b"user:secret"),
    ("digest", b"second:other"),
    ("digest", b"super:duper"),
    ("digest", b"nocolon"),
    ("digest", b""),
    ("ip", b""),
    ("world", b"anyone"),
    ("unheard-of", b""),
)
CREATE, CREATE2, CREATE_CONTAINER = 1, 15, 19
FLAGS = (0, 1, 2, 3, 4, 5, 6, 7, -1)
TTLS = (10_000_000, 1_000_000, 0, -1, 2**40 - 1, 2**40, 2**62)
AHEAD = 10**9  # zxids that no server has reached
TIMEOUTS = (30_000, 10_000, 0, -1, 2**31 - 1)


def often(usual: Sequence[T], seldom: Sequence[T], odds: int = 12) -> SearchStrategy[T]:
    """Mostly one of the usual."""
    return st.integers(0, odds).flatmap(lambda drawn: st.sampled_from(seldom if drawn == odds else usual))


clients = st.sampled_from((0, 1, 2))
nodes = st.sampled_from(NODES)
paths = often(NODES, STRANGE + NULL + OWN + NUMBERED)
write_paths = often(NODES, STRANGE + NULL + FORBIDDEN + NUMBERED)
new_paths = often(NODES + NODES + SEQUENTIAL, STRANGE + NULL + FORBIDDEN)
data = often(DATA[:3], DATA)
versions = often((-1, -1, -1, 0, 1), VERSIONS)
acls = often((OPEN,) * 6 + ACLS[1:5], ACLS, 6)
flags = often((0, 0, 0, 1, 1, 2, 3), FLAGS)
watch = st.booleans()
since = st.integers(0, 40)

creates = st.one_of(
    st.builds(Create, new_paths, data, acls, flags, st.sampled_from((CREATE, CREATE2))),
    st.builds(Create, new_paths, data, acls, st.sampled_from((4, 0)), st.just(CREATE_CONTAINER)),
    st.builds(CreateTTL, new_paths, data, acls, st.sampled_from((5, 6)), often(TTLS[:2], TTLS)),
    # Not with a negative time: ZooKeeper would apply that, and end over what it then finds in its log.
    st.builds(CreateTTL, new_paths, data, acls, st.sampled_from(FLAGS), st.sampled_from(TTLS[:3])),
)
plain_creates = st.builds(Create, nodes, data, opcode=st.sampled_from((CREATE, CREATE2)))
ephemerals = st.builds(Create, nodes, data, flags=st.just(1))
deletes = st.builds(Delete, write_paths, versions)
sets = st.builds(SetData, write_paths, data, versions)
writes = st.one_of(plain_creates, creates, deletes, sets, st.builds(SetACL, write_paths, acls, versions))
reads = st.one_of(
    st.builds(Exists, paths, watch),
    st.builds(GetData, paths, watch),
    st.builds(GetChildren, paths, watch, st.sampled_from((8, 12))),
    st.builds(GetACL, paths),
    st.builds(CountChildren, paths),
    st.builds(GetEphemerals, paths),
    st.builds(Sync, paths),
    st.builds(WhoAmI),
    # One that succeeds outside of a transaction is never answered: ZooKeeper trips over the Stat that it lacks.
    st.builds(Check, paths, st.just(77)),
    st.builds(Ping),
)
kinds = often((3, 1, 2), (0, 1, 2, 3, 4, 5, 6, -1))
watched = st.lists(often(NODES, STRANGE + NULL), max_size=3).map(tuple)
# A watch on null is kept by ZooKeeper, which stumbles over it when it is removed: the connection then never ends.
watched_always = st.lists(often(NODES, STRANGE), max_size=3).map(tuple)
watches = st.one_of(
    st.builds(Exists, paths, st.just(True)),
    st.builds(GetData, paths, st.just(True)),
    st.builds(GetChildren, paths, st.just(True), st.sampled_from((8, 12))),
    st.builds(AddWatch, often(NODES, STRANGE + OWN), often((1, 1, 0), (0, 1, 2, -1))),
    st.builds(AddWatch, nodes, st.sampled_from((1, 0))),
)
watch_keeping = st.one_of(
    # Of null and of a path without a leading slash the answer depends on whether anybody on the server ever had a
    # recursive watch: only then ZooKeeper walks up to its parents, and stumbles.
    st.builds(CheckWatches, often(NODES, tuple(path for path in STRANGE + OWN if path not in ("a", "a/b"))), kinds),
    st.builds(RemoveWatches, paths, kinds),
    st.builds(SetWatches, since, watched, watched, watched),
    st.builds(SetWatches2, since, watched, watched, watched, watched_always, watched_always),
)
# A transaction with a path that is null, or from 3.9 an ACL, uses up a zxid that shows only with the next write.
part_acls = acls.filter(lambda drawn: drawn is not None)
part_paths = often(NODES + NODES + SEQUENTIAL, STRANGE + FORBIDDEN)
parts = st.one_of(
    plain_creates,
    st.builds(Delete, part_paths, versions),
    st.builds(SetData, part_paths, data, versions),
    st.builds(Check, part_paths, versions),
    st.builds(Create, part_paths, data, part_acls, flags, st.sampled_from((CREATE, CREATE2, CREATE_CONTAINER))),
    st.builds(CreateTTL, part_paths, data, part_acls, st.sampled_from((5, 6)), often(TTLS[:2], TTLS)),
    st.builds(CreateTTL, part_paths, data, part_acls, st.sampled_from(FLAGS), st.sampled_from(TTLS[:3])),
    ephemerals,
    # `getData`, `multi` and what nobody knows have no place in a transaction.
    often((Check("/a"),), (GetData("/a"), Multi(()), Exists("/a"), SetACL("/a"), Raw(999)), 3),
)
read_parts = often((GetData("/a"), GetChildren("/a"), GetData("/a/b", watch=True), GetChildren("/")), (
    *(GetChildren("/a", opcode=12), Exists("/a"), Create("/a"), Check("/a"), GetData(None), GetChildren("/absent")),
))  # fmt: skip
multis = st.one_of(
    st.builds(Multi, st.lists(parts, max_size=5).map(tuple)),
    st.builds(Multi, st.lists(read_parts, max_size=4).map(tuple), st.just(22)),
    st.builds(Multi, st.lists(parts, max_size=2).map(tuple), st.just(22)),
)
requests = st.one_of(writes, reads, watches, writes, watches, watch_keeping, multis)
bad_requests: SearchStrategy[Request] = st.one_of(
    st.builds(Mangled, requests, st.integers(1, 30)),
    st.builds(Mangled, requests, st.just(0), st.sampled_from((b"\0", b"more"))),
    st.builds(Raw, st.sampled_from((0, 10, 20, 99, 108, 999, -1, -2)), st.sampled_from((b"", b"\0" * 8))),
    st.builds(Raw, st.just(102), st.sampled_from((b"", b"\0\0\0\4some", b"\0\0\0\5some", b"\xff\xff\xff\xff"))),
    st.builds(Reconfig, st.none(), st.none(), st.sampled_from((None, "server.1=localhost:1:2;3"))),
)
credentials = st.builds(lambda pair: Auth(*pair), often(CREDENTIALS[:2], CREDENTIALS, 3))

openings = st.builds(Open, clients, often(TIMEOUTS[:2], TIMEOUTS, 3), watch, watch, often((None, 0), (AHEAD,)))
resumptions = st.builds(Resume, clients, often((None, None, 0, 3, 8), (AHEAD,)), often((False,), (True,), 6))
frames = st.builds(Frame, clients, st.sampled_from((-1, 2**20, 2**31 - 1, 0, 3)), st.sampled_from((b"", b"\0\0\0")))


def asked(request: SearchStrategy[Request]) -> SearchStrategy[tuple[Step, ...]]:
    return st.builds(lambda who, asked: (Ask(who, asked),), clients, request)


def alone(step: SearchStrategy[Step]) -> SearchStrategy[tuple[Step, ...]]:
    return step.map(lambda taken: (taken,))


# ---------------------------------------------------------------- what meets


def beneath(path: str, name: str) -> str:
    return f"{path.rstrip('/')}/{name}"


def touching(path: str) -> SearchStrategy[Request]:
    """Writes that somebody who watches *path*, or something near it, hears of."""
    child = beneath(path, "b")
    touches = st.sampled_from(
        (
            SetData(path, b"x"),
            Create(path),
            Delete(path),
            Create(child),
            SetData(child, b"x"),
            Delete(child),
            Create(beneath(child, "c"), opcode=CREATE2),
            Create(path, flags=1),
            Create(child, flags=1),
            Create(beneath(path, "s-"), flags=2),
            Create(beneath(path, "s-"), flags=3),
        )
    )
    return st.one_of(
        touches,
        touches,
        touches,
        st.builds(SetACL, st.just(path), acls),
        st.builds(Multi, st.lists(touches, min_size=1, max_size=4).map(tuple)),
        st.sampled_from(
            (
                Multi((Delete(path), Create(path, flags=1), SetData(path, b"x", 0))),
                Multi((Create(child, flags=1), Delete(child), Delete(path))),
            )
        ),
    )


def watching(path: str) -> SearchStrategy[Request]:
    child = beneath(path, "b")
    return st.one_of(
        st.sampled_from(
            (
                Exists(path, watch=True),
                GetData(path, watch=True),
                GetChildren(path, watch=True),
                AddWatch(path),
                AddWatch(path, mode=0),
                Exists(child, watch=True),
                GetData(child, watch=True),
                AddWatch(child),
            )
        ),
        st.builds(CheckWatches, st.sampled_from((path, child)), kinds),
        st.builds(RemoveWatches, st.sampled_from((path, child)), kinds),
        st.builds(SetWatches, since, *[st.sampled_from(((path,), ()))] * 3),
        st.builds(SetWatches2, since, *[st.sampled_from(((path,), ()))] * 5),
    )


def seeing(path: str) -> SearchStrategy[Request]:
    return st.sampled_from(
        (
            GetData(path),
            GetACL(path),
            GetChildren(path, opcode=12),
            Exists(path),
            GetEphemerals(path),
            CountChildren(path),
        )
    )


def meetings(path: str) -> SearchStrategy[tuple[Step, ...]]:
    """Several clients at one place."""
    step = st.one_of(
        asked(watching(path)),
        asked(touching(path)),
        asked(watching(path)),
        asked(touching(path)),
        asked(seeing(path)),
        alone(st.builds(Cut, clients)),
        alone(st.builds(Resume, clients, often((None,), (0, 5), 3))),
        alone(st.builds(Expire, clients)),
    )
    return st.lists(step, max_size=12).map(joined)


def guarded(who: int, path: str, acl: Acls, credentials: Auth, requests: list[Request]) -> tuple[Step, ...]:
    """A node that not everybody may do everything with, and what two clients try to."""
    return (
        Ask(who, credentials),
        Ask(who, Create(path, acl=acl)),
        *(Ask((who + number) % 2, request) for number, request in enumerate(requests)),
    )


def guards(path: str) -> SearchStrategy[tuple[Step, ...]]:
    child = beneath(path, "b")
    requests = st.one_of(
        touching(path),
        seeing(path),
        watching(path),
        st.sampled_from(
            (Check(path, 77), Multi((Check(path), Check(child))), Multi((GetData(path), GetChildren(path)), 22))
        ),
    )
    return st.builds(
        guarded, clients, st.just(path), st.sampled_from(ACLS), credentials, st.lists(requests, min_size=1, max_size=6)
    )


def restored(who: int, request: Request, meanwhile: Request, since: int, truthful: bool) -> tuple[Step, ...]:
    """A client is cut off while something happens, and comes back with its watches."""
    return (Cut(who), Ask((who + 1) % 3, meanwhile), Resume(who, None if truthful else since), Ask(who, request))


def joined(many: list[tuple[Step, ...]]) -> History:
    return tuple(itertools.chain.from_iterable(many))


by_one = st.builds(lambda who, many: tuple(Ask(who, one) for one in many), clients, st.lists(requests, max_size=8))
anything = st.one_of(
    asked(requests),
    asked(writes),
    asked(watches),
    by_one,
    asked(ephemerals),
    asked(multis),
    asked(credentials),
    alone(st.one_of(st.builds(Cut, clients), resumptions, openings)),
    alone(st.builds(Expire, clients)),
    st.builds(restored, clients, watch_keeping, writes, since, watch),
    asked(st.just(Close())),
    asked(bad_requests),
    alone(frames),
)
phrases = st.one_of(
    st.lists(anything, max_size=8).map(joined),
    st.one_of([meetings(path) for path in ("/a", "/a/b", "/b", "/")]),
    st.one_of([guards(path) for path in ("/c", "/a/c", "/a")]),
)

GROVE = tuple(Ask(0, Create(path, b"0")) for path in ("/a", "/a/b", "/b", "/a/b/c"))
SURVEY = (*(Ask(0, Exists(path)) for path in NODES), Ask(0, GetChildren("/")), Ask(0, GetChildren("/a")))


def grown_from(grove: int, phrases: list[tuple[Step, ...]]) -> History:
    return (GROVE if grove else ()) + joined(phrases) + SURVEY


def histories() -> SearchStrategy[History]:
    """The histories that need no timers of the server's."""
    return st.builds(grown_from, st.integers(0, 3), st.lists(phrases, max_size=6))


# ---------------------------------------------------------------- what takes a server's timers


def silent(who: int, meanwhile: list[Request], done: list[Request]) -> tuple[Step, ...]:
    return (*(Ask((who + 1) % 3, request) for request in meanwhile), Silence(who, tuple(done)))


def reaped(who: int, watch: Request, short_lived: Create | CreateTTL) -> tuple[Step, ...]:
    """A node of one's own, which the server takes away when it was used."""
    asked: list[Request] = [watch, short_lived]
    if isinstance(short_lived, Create):
        # Only a container that had a child is ever swept.
        asked += [Create("/swept/child"), Delete("/swept/child")]
    return (*(Ask(who, request) for request in asked), Swept(who, "/swept"))


def slow_histories() -> SearchStrategy[History]:
    """A server's own acts: the end of silent sessions, of used containers and of nodes with a TTL."""
    calm = st.one_of(plain_creates, ephemerals, sets, watches)
    watching = st.builds(AddWatch, st.sampled_from(("/swept", "/")), st.sampled_from((0, 1))) | st.sampled_from(
        (Exists("/swept", watch=True), GetChildren("/", watch=True))
    )
    short_lived = st.sampled_from((Create("/swept", flags=4, opcode=CREATE_CONTAINER), CreateTTL("/swept", ttl=1)))
    slow = st.one_of(
        st.builds(silent, clients, st.lists(watches, max_size=3), st.lists(calm, min_size=1, max_size=4)),
        st.builds(reaped, clients, watching, short_lived),
    )
    return st.lists(st.one_of(asked(calm), slow), min_size=1, max_size=4).map(joined)
