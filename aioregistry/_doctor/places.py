"""The places in the registry that the checks look at, and their names. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from aioregistry._document import decode
from aioregistry._errors import InvalidInstance
from aioregistry._model import ServiceInstance

from .picture import Node, Picture, Server

__all__ = ["all_of", "decoded", "full_path", "instances", "path_of", "readable", "roots", "why_silent"]


def instances(picture: Picture) -> Iterator[tuple[str, str, Node]]:
    for name, nodes in picture.services.items():
        for id, node in nodes.items():
            yield name, id, node


def decoded(picture: Picture) -> Iterator[tuple[str, str, ServiceInstance[Any], Node]]:
    for name, id, node in instances(picture):
        try:
            instance = decode(node.data or b"", name=name, id=id)
        except InvalidInstance:
            continue
        yield name, id, instance, node


def readable(picture: Picture) -> Iterator[tuple[str, ServiceInstance[Any], Node]]:
    for name, id, instance, node in decoded(picture):
        yield path_of(picture, name, id), instance, node


def roots(picture: Picture) -> Iterator[Node]:
    yield from (node for node in (picture.base, picture.withdrawn, picture.overrides_root) if node is not None)


def path_of(picture: Picture, *names: str) -> str:
    return full_path(picture, "/".join([picture.base_path.rstrip("/"), *names]))


def full_path(picture: Picture, path: str) -> str:
    return f"{picture.chroot}{path}"


def all_of(servers: Sequence[Server]) -> str:
    return ",".join(server.address for server in servers)


def why_silent(server: Server, word: str) -> str:
    """Return why a server did not answer the four-letter *word*."""
    if server.refusal is not None:
        return f"{server.address} does not answer"
    admin = f", nor is its AdminServer of use ({server.admin_silence})" if server.admin_silence else ""
    return f"{server.address} does not allow {word} (4lw.commands.whitelist){admin}"
