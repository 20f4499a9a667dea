"""The checks of an instance: its node, its document, its address, its name. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from aioregistry._addresses import ip_address, only_here
from aioregistry._document import decode
from aioregistry._errors import InvalidArgument, InvalidInstance
from aioregistry._registration.reach import check_reachable

from .picture import Picture
from .places import decoded, full_path, instances, path_of, readable

__all__ = ["alike", "duplicates", "large", "local", "persistent", "unreachable", "unreadable"]

LARGE: Final = 0.5
"""The share of jute.maxbuffer that is near it."""


def persistent(picture: Picture) -> Iterator[tuple[str, str]]:
    for place, instance, node in readable(picture):
        kind = instance.service_type
        if (
            node.stat is not None
            and not node.stat.ephemeral_owner
            and not str(kind).upper().endswith(("STATIC", "PERMANENT"))
        ):
            yield place, "is persistent: it stays listed when its process is gone"


def duplicates(picture: Picture) -> Iterator[tuple[str, str]]:
    by_place: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for name, id, instance, _ in decoded(picture):
        port = next((each for each in (instance.port, instance.ssl_port) if each is not None and each > 0), None)
        if instance.address and port is not None:
            by_place[name, _spelled(instance.address), port].append(id)
    for (name, address, port), ids in by_place.items():
        if len(ids) > 1:
            yield path_of(picture, name), f"{_shown_host(address)}:{port} is listed {len(ids)} times: {', '.join(ids)}"


def _spelled(host: str) -> str:
    """Return the one spelling of an address that has several."""
    address = ip_address(host)
    return host.lower().removesuffix(".") if address is None else str(address)


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def unreadable(picture: Picture) -> Iterator[tuple[str, str]]:
    for name, id, node in instances(picture):
        if node.data is None:
            yield path_of(picture, name, id), "may not be read by these credentials"
            continue
        reason = _reason(node.data, name, id)
        if reason is not None:
            yield path_of(picture, name, id), reason


def _reason(data: bytes, name: str, id: str) -> str | None:
    try:
        decode(data, name=name, id=id)
    except InvalidInstance as error:
        return error.reason
    return None


def unreachable(picture: Picture) -> Iterator[tuple[str, str]]:
    for place, instance, _ in readable(picture):
        try:
            check_reachable(instance)
        except InvalidArgument as wrong:
            what = wrong.value if wrong.field == "address" else f"port {wrong.value}"
            yield place, f"is at {what}, which cannot be connected to"


def local(picture: Picture) -> Iterator[tuple[str, str]]:
    servers = [server.address.rpartition(":")[0].strip("[]") for server in picture.servers]
    for place, instance, _ in readable(picture):
        host = instance.address or ""
        address = ip_address(host.partition("%")[0])
        if only_here(host, servers):
            yield place, f"is at {host}, its machine's own, while the ensemble is elsewhere"
        elif address is not None and address.is_link_local and not all(_is_link_local(each) for each in servers):
            yield place, f"is at {host}, which only its own link can reach"


def _is_link_local(host: str) -> bool:
    address = ip_address(host.partition("%")[0])
    return address is not None and address.is_link_local


def large(picture: Picture) -> Iterator[tuple[str, str]]:
    limit = picture.max_request
    for name, id, node in instances(picture):
        size = len(node.data or b"")
        if size > LARGE * limit:
            yield path_of(picture, name, id), f"has {size} bytes, jute.maxbuffer is {limit}"
    lists = {name: list(nodes) for name, nodes in picture.services.items()}
    for place, names in [
        (picture.base_path, [*lists]),
        *((f"{picture.base_path}/{name}", ids) for name, ids in lists.items()),
    ]:
        size = sum(len(each.encode(errors="replace")) + 4 for each in names)
        if size > LARGE * limit:
            yield full_path(picture, place), f"the list of its {len(names)} children takes {size} bytes of {limit}"


def alike(picture: Picture) -> Iterator[tuple[str, str]]:
    groups = [(picture.base_path, list(picture.services))]
    groups += [(f"{picture.base_path}/{name}", list(nodes)) for name, nodes in picture.services.items()]
    for place, names in groups:
        by_look: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_look[_look(name)].append(name)
        for same in by_look.values():
            if len(same) > 1:
                yield (
                    full_path(picture, place),
                    f"has names that differ by case or blanks only: {', '.join(map(repr, same))}",
                )


def _look(name: str) -> str:
    visible = (c for c in unicodedata.normalize("NFKC", name).casefold() if unicodedata.category(c) != "Cf")
    return re.sub(r"\s+", "", "".join(visible))
