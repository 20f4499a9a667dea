"""A registry on a real ZooKeeper, and faults to plant in it: one for each kind of finding."""

from __future__ import annotations

import contextlib
import json
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aioregistry._doctor.admin_words import AdminPlace
from aioregistry._doctor.checks import examine, unknown
from aioregistry._doctor.findings import Finding, Unknown
from aioregistry._doctor.gather import gather
from aioregistry._doctor.server_checks import END_OF_LIFE
from tests.support import wire
from tests.support.wire import Wire
from tests.support.zookeeper import RELEASE

EPHEMERAL = 1
ADA = ("digest", "ada:lovelace")
OPEN, READ, ALL = (31, "world", "anyone"), (1, "world", "anyone"), 31
LONG = 30_000  # milliseconds
OLD = RELEASE <= END_OF_LIFE


def document(name: str, id: str, **fields: Any) -> bytes:
    whole = {
        "name": name, "id": id, "address": "10.0.0.7", "port": 7000 + sum(id.encode()), "sslPort": None,
        "payload": None, "registrationTimeUTC": 1763680000000, "serviceType": "DYNAMIC", "uriSpec": None,
    } | fields  # fmt: skip
    return json.dumps(whole).encode()


def acl(*entries: tuple[int, str, str]) -> bytes:
    parts = [struct.pack(">i", len(entries))]
    for permissions, scheme, id in entries:
        parts += [
            struct.pack(">i", permissions),
            *(struct.pack(">i", len(each)) + each.encode() for each in (scheme, id)),
        ]
    return b"".join(parts)


@dataclass
class Scene:
    """A chroot of a server, and sessions in it that last as long as the scene.

    Args:
        address: of the server.
        chroot: in which there is one healthy service, unless it is to be empty.
        others: addresses that stand before the server's in the connect string.
    """

    address: str
    chroot: str
    others: tuple[str, ...] = ()
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    session: Wire = field(init=False)

    async def begin(self, *, healthy: bool = True) -> None:
        self.session = await self.connect()
        if self.chroot and await self.session.exists(self.chroot) is None:
            await self.session.create(self.chroot)
        if healthy:
            for path in ("/services", "/services/auth"):
                await self.make(path)
            await self.enlist("auth", "a")

    async def connect(self, timeout_ms: int = LONG) -> Wire:
        session = await wire.connect(self.address, timeout_ms=timeout_ms)
        self.stack.push_async_callback(_closed, session)
        return session

    @property
    def servers(self) -> str:
        return f"{','.join([*self.others, self.address])}{self.chroot}"

    async def make(self, path: str, data: bytes = b"", *, entries: tuple[tuple[int, str, str], ...] = (OPEN,)) -> None:
        body = wire._buffer(f"{self.chroot}{path}") + wire._buffer(data) + acl(*entries) + struct.pack(">i", 0)
        await self.session.ask(wire.Operation(wire.CREATE, body))

    async def service(self, name: str) -> None:
        with contextlib.suppress(wire.WireError):
            await self.make(f"/services/{name}")

    async def enlist(
        self, name: str, id: str, *, by: Wire | None = None, data: bytes | None = None, **fields: Any
    ) -> None:
        await self.service(name)
        path = f"{self.chroot}/services/{name}/{id}"
        await (by or self.session).create(path, document(name, id, **fields) if data is None else data, flags=EPHEMERAL)

    async def diagnosis(
        self, *, max_request: int = 0xFFFFF, admin: AdminPlace | None = None, with_age: bool = False, **options: Any
    ) -> tuple[list[Finding], list[Unknown]]:
        """Return the doctor's findings and unknowns.

        On a release that is no longer supported each diagnosis says so; *with_age* keeps that.
        """
        connection = {
            "servers": self.servers,
            "session_timeout": 10.0,
            "base_path": "/services",
            "tls": None,
            "auth": [],
        }
        picture = await gather(connection | options, max_request=max_request, admin=admin)
        findings = [each for each in examine(picture) if with_age or not OLD or each.anchor != "end-of-life"]
        return findings, unknown(picture)


async def _closed(session: Wire) -> None:
    session.abandon()


# ---------------------------------------------------------------- the faults


async def persistent(scene: Scene) -> None:
    await scene.service("p")
    await scene.make("/services/p/a", document("p", "a"))


async def unreadable(scene: Scene) -> None:
    await scene.enlist("u", "a", data=b'{"name": "u", oops}')


async def port_zero(scene: Scene) -> None:
    await scene.enlist("z", "a", port=0)


async def nowhere(scene: Scene) -> None:
    await scene.enlist("n", "a", address="0.0.0.0")


async def ghost(scene: Scene) -> None:
    owner = await scene.connect(60_000)
    await scene.enlist("g", "a", by=owner)
    owner.abandon()


async def duplicate(scene: Scene) -> None:
    await scene.enlist("d", "a", port=7000)
    await scene.enlist("d", "b", port=7000)


async def duplicate_in_another_spelling(scene: Scene) -> None:
    for name, addresses in {"d6": ("2001:db8::1", "2001:DB8:0:0::1"), "dn": ("n.example", "N.example.")}.items():
        for id, address in zip("ab", addresses, strict=True):
            await scene.enlist(name, id, address=address, port=7000)


async def everybody(scene: Scene) -> None:
    await scene.enlist("y", "a", address="255.255.255.255")


async def override_unreadable(scene: Scene) -> None:
    await override(scene, "j", {"enabled": True, "seconds": 3600})


async def override_of_a_longer_name(scene: Scene) -> None:
    await override(scene, "o/o/o", {"enabled": False, "seconds": None})


async def override_ending(scene: Scene) -> None:
    await override(scene, "e", {"enabled": False, "seconds": 60})


async def override_endless(scene: Scene) -> None:
    await override(scene, "f", {"enabled": False, "seconds": None})


async def override(scene: Scene, name: str, fields: dict[str, Any]) -> None:
    parts = ("services-overrides", *name.split("/"))
    for number in range(1, len(parts) + 1):
        with contextlib.suppress(wire.WireError):
            await scene.make(f"/{'/'.join(parts[:number])}")
    await scene.make(f"/services-overrides/{name}/a", json.dumps(fields).encode())


async def slow_to_be_noticed(scene: Scene) -> None:
    await scene.enlist("s", "a", by=await scene.connect(100_000))


async def near_maxbuffer(scene: Scene) -> None:
    await scene.enlist("l", "a", payload="x" * 700_000)


async def alike_services(scene: Scene) -> None:
    for name in ("Chat", "chat "):
        await scene.enlist(name, "a")


async def alike_ids(scene: Scene) -> None:
    for id in ("node-1", "NODE-1"):
        await scene.enlist("i", id, port=8000 + ord(id[0]))


async def clock_of_a_publisher(scene: Scene) -> None:
    await scene.enlist("t", "a", registrationTimeUTC=int(time.time() * 1000) + 3_600_000)


async def ephemeral_marker_root(scene: Scene) -> None:
    await scene.session.create(f"{scene.chroot}/services-withdrawn", flags=EPHEMERAL)


async def open_service(scene: Scene) -> None:
    await scene.make("/services/guarded", entries=((ALL, "digest", "ada:x"), READ))


Plant = Callable[[Scene], Awaitable[None]]

FAULTS: dict[str, tuple[str, Plant]] = {
    plant.__name__: (anchor, plant)
    for anchor, plant in [
        ("persistent-instance", persistent),
        ("unreadable", unreadable),
        ("unreachable", port_zero),
        ("unreachable", nowhere),
        ("unreachable", everybody),
        ("ghost", ghost),
        ("duplicate", duplicate),
        ("duplicate", duplicate_in_another_spelling),
        ("override-unreadable", override_unreadable),
        ("override-ending", override_ending),
        ("override-endless", override_endless),
        ("override-endless", override_of_a_longer_name),
        ("session-timeout", slow_to_be_noticed),
        ("near-maxbuffer", near_maxbuffer),
        ("names-alike", alike_services),
        ("names-alike", alike_ids),
        ("publisher-clock", clock_of_a_publisher),
        ("root-strange", ephemeral_marker_root),
        ("acl-open", open_service),
    ]
}
"""Each by name: what finds it, and how it is made."""
