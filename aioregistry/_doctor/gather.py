"""Reads a live ensemble and a registry in it. Nothing is written, and nothing decided but what to read."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

import aioregistry
from aioregistry import AuthenticationFailed, ConnectTimeout, NoAuth, Registry, RequestTimeout
from aioregistry._errors import NoNode
from aioregistry._protocol import AclEntry, GetAcl, GetChildren2, GetData, Stat
from aioregistry._reasons import reason_of
from aioregistry._registry import parts_of
from aioregistry._session import parse_connect_string

from . import slips, words
from .admin_words import AdminPlace
from .asking import ask
from .picture import Node, Picture, Server

__all__ = ["gather"]

MOST_ELSEWHERE: Final = 100
AT_ONCE: Final = 100
SECOND_LOOK: Final = 1.0
"""Seconds until an owner without a connection is looked for again: a client may be changing its server."""

LONGEST: Final = 60.0
TIMEOUTS: Final = 6
"""Seconds, and session timeouts, that reading may take."""

DEEPEST: Final = 8
"""Slashes in the name of a service."""


async def gather(connection: Mapping[str, Any], *, max_request: int, admin: AdminPlace | None = None) -> Picture:
    """Return a picture of what *connection* leads to.

    Args:
        connection: what :func:`aioregistry.connect` takes.
        max_request: the servers' jute.maxbuffer, bytes.
        admin: where the servers' AdminServers are; None if they are not to be asked.

    Raises what :func:`aioregistry.connect` raises for arguments. Servers that do not answer are part of the picture.
    Cancelling it leaves nothing behind.
    """
    connect_string = parse_connect_string(connection["servers"])
    requested = connection["session_timeout"]
    servers = partial(_asked, connect_string.servers, connection["tls"], admin, requested)
    found: dict[str, Any] = {
        "chroot": connect_string.chroot,
        "base_path": connection["base_path"],
        "requested": requested,
        "max_request": max_request,
    }
    try:
        async with aioregistry.connect(**connection, max_request=max_request) as registry, _in_time(requested):
            found |= {"connected_at": time.time(), "session": registry.session.id, "granted": registry.session.timeout}
            found |= await _registry(registry, connect_string.chroot, connection["base_path"])
            found["servers"] = await servers()
            owners = {
                node.stat.ephemeral_owner
                for nodes in found["services"].values()
                for node in nodes.values()
                if node.stat
            }
            found["servers"] = await _looked_again(owners, found["servers"], servers)
    except (ConnectTimeout, AuthenticationFailed) as error:
        found |= {"connection": reason_of(error), "servers": await servers()}
    return Picture(now=time.time(), **found)


@contextlib.asynccontextmanager
async def _in_time(requested: float) -> AsyncIterator[None]:
    patience = max(LONGEST, TIMEOUTS * requested)
    try:
        async with asyncio.timeout(patience):
            yield
    except TimeoutError:
        raise RequestTimeout(f"the registry was not read within {patience:g} s") from None


# ---------------------------------------------------------------- the registry


class _Tree:
    """Reads nodes on a session, a bounded number at a time.

    Args:
        registry: whose session it is.
        chroot: before every path.
    """

    def __init__(self, registry: Registry, chroot: str) -> None:
        self._session = parts_of(registry).session
        self._chroot = chroot
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.refused: list[str] = []

    async def children(self, path: str) -> list[str] | None:
        """Return the names below *path*, sorted; None where there is no such node or it may not be listed."""
        try:
            async with self._turns:
                names, _ = (await self._session.read(GetChildren2(f"{self._chroot}{path}" or "/"))).value
        except NoNode:
            return None
        except NoAuth:
            self.refused.append(path)
            return None
        return sorted(names)

    async def node(self, path: str) -> Node | None:
        """Return the node at *path*, or None if it does not exist."""
        full = f"{self._chroot}{path}" or "/"
        data: bytes | None = None
        stat: Stat | None = None
        acl: list[AclEntry] | None = None
        async with self._turns:
            try:
                with contextlib.suppress(NoAuth):
                    data, stat = (await self._session.read(GetData(full))).value
                with contextlib.suppress(NoAuth):  # until 3.5 everybody may ask
                    acl, stat = (await self._session.read(GetAcl(full))).value
            except NoNode:
                return None
        return Node(path, data, stat, acl)

    async def nodes(self, paths: Iterable[str]) -> list[Node]:
        """Return those of *paths* that are there."""
        return [node for node in await asyncio.gather(*map(self.node, paths)) if node is not None]


async def _registry(registry: Registry, chroot: str, base_path: str) -> dict[str, Any]:
    tree = _Tree(registry, chroot)
    base = base_path.rstrip("/")
    services: dict[str, dict[str, Node]] = {}
    for name in await tree.children(base) or ():
        if (base, name) != ("", "zookeeper"):  # ZooKeeper's own
            services |= await _services(tree, base, name)
    above = {parent for name in services for parent in _above(name)} - set(services)
    overrides, between = await _overrides(tree, f"{base}-overrides", "") if base else ({}, [])
    return {
        "base": await tree.node(base),
        "services": services,
        "service_nodes": {node.path: node for node in await tree.nodes(f"{base}/{name}" for name in services)},
        "withdrawn": await tree.node(f"{base}-withdrawn") if base else None,
        "overrides_root": await tree.node(f"{base}-overrides") if base else None,
        "overrides": overrides,
        "between": (*await tree.nodes(f"{base}/{name}" for name in sorted(above)), *between),
        "refused": tuple(tree.refused),
        "members": _members(await _Tree(registry, "").node("/zookeeper/config")),
        "elsewhere": {} if services else await _elsewhere(registry, chroot, base),
    }


async def _services(tree: _Tree, base: str, name: str) -> dict[str, dict[str, Node]]:
    """Return the service *name*, and those whose names begin with its and a slash."""
    ids = await tree.children(f"{base}/{name}") or []
    nodes = {_last(node.path): node for node in await tree.nodes(f"{base}/{name}/{id}" for id in ids)}
    inner = {id: node for id, node in nodes.items() if _holds_services(node) and name.count("/") < DEEPEST}
    found = {name: {id: node for id, node in nodes.items() if id not in inner}}
    for id in inner:
        found |= await _services(tree, base, f"{name}/{id}")
    return found if found[name] or not inner else {key: each for key, each in found.items() if key != name}


def _holds_services(node: Node) -> bool:
    stat = node.stat
    return stat is not None and stat.num_children > 0 and not stat.ephemeral_owner and not node.data


def _above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:number]) for number in range(1, len(parts))]


async def _overrides(tree: _Tree, root: str, place: str) -> tuple[dict[tuple[str, str], Node], list[Node]]:
    """Return the overrides of the service *place*, and of those whose names begin so, and the nodes above them."""
    found: dict[tuple[str, str], Node] = {}
    between: list[Node] = []
    above = f"{root}/{place}" if place else root
    for node in await tree.nodes(f"{above}/{name}" for name in await tree.children(above) or ()):
        name = _last(node.path)
        is_above = node.stat is not None and node.stat.num_children > 0
        if place and (node.data or (node.data is None and not is_above)):
            found[place, name] = node
        else:
            between.append(node)
        if is_above and place.count("/") < DEEPEST:
            inner, more = await _overrides(tree, root, f"{place}/{name}" if place else name)
            found |= inner
            between += more
    return found, between


async def _elsewhere(registry: Registry, chroot: str, base: str) -> dict[str, int]:
    """Count the services where a registry could be instead, if the chroot or the base path has a slip."""
    if not base:  # below a root any node could be anything
        return {}
    whole = _Tree(registry, "")
    children = {path: await whole.children(path) or () for path in slips.looked_at(chroot, base)}
    for path in slips.below(chroot, children)[:MOST_ELSEWHERE]:
        children[path] = await whole.children(path) or ()
    found: dict[str, int] = {}
    for path in slips.instead(chroot, base, children)[:MOST_ELSEWHERE]:
        found[path] = len(await whole.children(path) or ())
    return found


def _members(config: Node | None) -> int:
    """Return how many servers the ensemble's configuration names, which servers keep in a node since 3.5."""
    return 0 if config is None or config.data is None else words.members(config.data.decode(errors="replace"))


def _last(path: str) -> str:
    return path.rpartition("/")[2]


# ---------------------------------------------------------------- the servers


_Ask: TypeAlias = Callable[[], Coroutine[Any, Any, tuple[Server, ...]]]


async def _asked(
    servers: Iterable[tuple[str, int]], tls: ssl.SSLContext | None, admin: AdminPlace | None, patience: float
) -> tuple[Server, ...]:
    return tuple(await asyncio.gather(*(ask(host, port, tls, admin, patience) for host, port in servers)))


async def _looked_again(owners: set[int], servers: tuple[Server, ...], servers_again: _Ask) -> tuple[Server, ...]:
    """Add the connections of a moment later, if an owner has no connection."""
    connected = {each.session for server in servers for each in server.connections or ()}
    if owners <= connected | {0} or any(server.connections is None for server in servers):
        return servers
    await asyncio.sleep(SECOND_LOOK)
    later = await servers_again()
    return tuple(
        dataclasses.replace(server, connections=_joined(server, again))
        for server, again in zip(servers, later, strict=True)
    )


def _joined(server: Server, again: Server) -> tuple[words.ClientConnection, ...]:
    known = {each.session for each in server.connections or ()}
    return (*(server.connections or ()), *(each for each in again.connections or () if each.session not in known))
