"""The differences between the releases that the server can speak as."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from aioregistry.server._codes import Opcode


@dataclass(frozen=True)
class Profile:
    """The ways of one release.

    Args:
        release: as the four-letter words tell it.
        unknown: opcodes that came later, or that clients may no longer send (a Check outside of a transaction, in 3.9);
            answered as unknown ones are.
        forbidden: opcodes that only servers use; the connection of a client that sends one is closed without an answer.
        watches_combine: watches of different kinds on one path live side by side (ZOOKEEPER-4466); before, the latest
            replaces the others.
        watcher_types: the kinds that CheckWatches and RemoveWatches know: 1 children, 2 data, 3 any, then persistent
            and recursive.
        events_have_zxid: ZOOKEEPER-4655.
        events_need_read: no events for nodes that their receiver may not read (CVE-2024-23944: from 3.8.4, and in
            the 3.8.0 that Debian ships).
        missed_need_read: the same for what SetWatches tells of nodes that are there.
        multi_create2_has_stat: a Create2 in a transaction is answered as such (ZOOKEEPER-4026).
        exists_needs_read: Exists asks the ACL of a node that is there.
        foreign_watch_counts: CheckWatches finds any client's watches on the path.
        absence_before_acl: a Delete is told that there is no such node before the ACL of the parent is asked.
        tells_more: average latencies have a fraction in the four-letter words, ``mntr`` and ``conf`` more lines.
        null_acls: an ACL that is null is refused as an empty one is; before, the server stumbled over it.
        reads_first: a write that cannot be read uses up no zxid, and a transaction is looked through for contradictions
            before any of it is tried.
    """

    release: str
    unknown: frozenset[int]
    forbidden: frozenset[int]
    watches_combine: bool
    watcher_types: frozenset[int]
    events_have_zxid: bool
    events_need_read: bool
    missed_need_read: bool
    multi_create2_has_stat: bool
    exists_needs_read: bool
    foreign_watch_counts: bool
    absence_before_acl: bool
    tells_more: bool
    null_acls: bool
    reads_first: bool


_SINCE_3_6 = frozenset(
    {
        Opcode.MULTI_READ,
        Opcode.GET_EPHEMERALS,
        Opcode.GET_ALL_CHILDREN_NUMBER,
        Opcode.SET_WATCHES2,
        Opcode.ADD_WATCH,
        Opcode.WHO_AM_I,
    }
)

_NEWEST: Final = {
    "3.5": Profile(
        release="3.5.9",
        unknown=_SINCE_3_6,
        forbidden=frozenset(),
        watches_combine=False,
        watcher_types=frozenset({1, 2, 3}),
        events_have_zxid=False,
        events_need_read=False,
        missed_need_read=False,
        multi_create2_has_stat=False,
        exists_needs_read=False,
        foreign_watch_counts=False,
        absence_before_acl=True,
        tells_more=False,
        null_acls=False,
        reads_first=False,
    ),
    "3.8": Profile(
        release="3.8.0",
        unknown=frozenset(),
        forbidden=frozenset(),
        watches_combine=False,
        watcher_types=frozenset({1, 2, 3}),
        events_have_zxid=False,
        events_need_read=True,
        missed_need_read=False,
        multi_create2_has_stat=False,
        exists_needs_read=False,
        foreign_watch_counts=True,
        absence_before_acl=False,
        tells_more=True,
        null_acls=True,
        reads_first=False,
    ),
    "3.9": Profile(
        release="3.9.6",
        unknown=frozenset({Opcode.CHECK}),
        forbidden=frozenset({Opcode.DELETE_CONTAINER}),
        watches_combine=True,
        watcher_types=frozenset({1, 2, 3, 4, 5}),
        events_have_zxid=True,
        events_need_read=True,
        missed_need_read=True,
        multi_create2_has_stat=True,
        exists_needs_read=True,
        foreign_watch_counts=False,
        absence_before_acl=False,
        tells_more=True,
        null_acls=True,
        reads_first=True,
    ),
}

PROFILES: Final = {
    **_NEWEST,
    # The holes that 3.9.6 closed are open on servers that are not updated yet.
    "3.9.5": replace(_NEWEST["3.9"], release="3.9.5", forbidden=frozenset(), missed_need_read=False),
}
"""By name: a release stands for its newest patch; the last patch before a difference has an entry of its own."""
