"""The facts gathered of an ensemble and of a registry in it. Pure: no check sends a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aioregistry._protocol import AclEntry, Stat

from .words import ClientConnection

__all__ = ["Node", "Picture", "Server"]


@dataclass(frozen=True)
class Server:
    """One server, by its answers to four-letter words.

    Args:
        address: ``host:port``, as it was given.
        refusal: why it answered nothing; None where it answered.
        summary: what ``srvr`` says, by name; empty where it is not allowed.
        monitor: the answer to ``mntr``.
        settings: the answer to ``conf``.
        members: how many servers the ensemble has by ``conf``; 0 where that does not say.
        connections: what ``cons`` says, or else its AdminServer; None where neither does.
        admin_silence: where its AdminServer was asked, and why it did not answer; empty if it was not asked, or did.
    """

    address: str
    refusal: str | None = None
    summary: Mapping[str, str] = field(default_factory=dict)
    monitor: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    members: int = 0
    connections: Sequence[ClientConnection] | None = None
    admin_silence: str = ""


@dataclass(frozen=True)
class Node:
    """A node of the registry.

    Args:
        path: below the chroot.
        data: its data; None if this client may not read it.
        stat: its Stat; None if this client may not read it.
        acl: who may do what; None if this client may not read it.
    """

    path: str
    data: bytes | None
    stat: Stat | None
    acl: Sequence[AclEntry] | None = None


@dataclass(frozen=True)
class Picture:
    """All that the checks go by.

    Args:
        servers: the connect string's.
        chroot: of the connect string, or "".
        base_path: below the chroot.
        now: seconds since the epoch, by this machine's clock, when the picture was complete.
        connected_at: the same, when the session was made.
        session: its id; 0 without one.
        requested: seconds of session timeout that were asked for.
        granted: seconds that were granted; 0.0 without a session.
        connection: why there is no session; None where there is one.
        base: the node of the base path, or None if it does not exist.
        refused: paths that may not be listed.
        services: instances by service, their nodes by id.
        withdrawn: the root of the markers of withdrawals, or None if it does not exist.
        overrides_root: the root of the overrides, or None if it does not exist.
        overrides: their nodes, by service and id.
        between: nodes below the base path or the root of the overrides that are above others, and nothing else.
        members: how many servers the ensemble has by its own configuration; 0 where that does not say.
        elsewhere: how many services are at other paths where the registry could be, the likeliest first.
        max_request: jute.maxbuffer, bytes.
    """

    servers: Sequence[Server]
    chroot: str = ""
    base_path: str = "/services"
    now: float = 0.0
    connected_at: float = 0.0
    session: int = 0
    requested: float = 15.0
    granted: float = 0.0
    connection: str | None = None
    base: Node | None = None
    refused: Sequence[str] = ()
    services: Mapping[str, Mapping[str, Node]] = field(default_factory=dict)
    service_nodes: Mapping[str, Node] = field(default_factory=dict)
    withdrawn: Node | None = None
    overrides_root: Node | None = None
    overrides: Mapping[tuple[str, str], Node] = field(default_factory=dict)
    between: Sequence[Node] = ()
    members: int = 0
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    max_request: int = 0xFFFFF
