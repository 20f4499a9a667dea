"""A node, and the rules of paths (pure)."""

from __future__ import annotations

import re
import struct

from aioregistry.server._acl import ACL
from aioregistry.server._codes import Code, Malformed, Refused
from aioregistry.server._operations import Kind, Moment

# ---------------------------------------------------------------- paths

# A slash at the end, an empty name, a name of one or two dots, or a character that PathUtils refuses. Java sees what is
# beyond the basic plane as surrogates.
_BAD_PATH = re.compile(
    r"/\Z|//|/\.\.?(?:/|\Z)|[\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff\U00010000-\U0010ffff]", re.DOTALL
)
SPECIAL = {"/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"}


def parent_of(path: str) -> str:
    """``/`` for a node right below the root."""
    return path[: path.rindex("/")] or "/"


def is_valid(path: str | None) -> bool:
    """Whether a node may have this path (``PathUtils.validatePath``)."""
    return path == "/" or (path is not None and path.startswith("/") and not _BAD_PATH.search(path))


def require_valid(path: str | None) -> str:
    if path is None or not is_valid(path):
        raise Refused(Code.BAD_ARGUMENTS)
    return path


def split_path(path: str | None) -> str:
    """The parent's path as the real server cuts it off: empty for a node right below the root."""
    if path is None:
        raise Malformed
    parent, slash, _ = path.rpartition("/")
    if not slash or "\0" in path:
        raise Refused(Code.BAD_ARGUMENTS)
    return parent


# ---------------------------------------------------------------- nodes

_STAT = struct.Struct(">qqqqiiiqiiq")  # zookeeper.jute's Stat, in its order


class Node:
    """A node. *packed* is what a read answers of it (data and Stat), kept until it changes."""

    __slots__ = (
        "acl", "aversion", "children", "created", "ctime", "cversion", "data", "kind", "mtime", "mzxid", "owner",
        "packed", "pzxid", "ttl_ms", "version",
    )  # fmt: skip

    def __init__(self, data: bytes | None, acl: ACL, kind: Kind, owner: int, ttl_ms: int, moment: Moment) -> None:
        self.data: bytes | None = data
        self.acl: ACL = acl
        self.kind: Kind = kind
        self.owner: int = owner
        self.ttl_ms: int = ttl_ms
        self.created: int = moment.zxid
        self.mzxid: int = moment.zxid
        self.pzxid: int = moment.zxid
        self.ctime: int = moment.time_ms
        self.mtime: int = moment.time_ms
        self.version: int = 0
        self.cversion: int = 0
        self.aversion: int = 0
        self.children: dict[str, None] = {}
        self.packed: bytes | None = None

    def stat(self) -> bytes:
        """The Stat, packed. The cversion counts deletions too: those are the changes without a child that is there."""
        children = len(self.children)
        return _STAT.pack(
            self.created,
            self.mzxid,
            self.ctime,
            self.mtime,
            self.version,
            int32(self.cversion * 2 - children),
            self.aversion,
            self.owner,
            len(self.data) if self.data else 0,
            children,
            self.pzxid,
        )


def int32(number: int) -> int:
    """The number as a Java int has it."""
    return (number + 2**31) % 2**32 - 2**31
