"""The arguments of a membership, checked."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

from aioregistry import Check, InvalidArgument, Registry, ServiceInstance
from aioregistry._arguments import check_choice, check_seconds
from aioregistry._errors import InvalidType
from aioregistry._model import check_payload_type

__all__ = [
    "KeptAt",
    "Settings",
    "check_drain",
    "check_ports",
    "checked_conflict",
    "checked_displaced",
    "checked_drain",
    "checked_kept",
    "checked_services",
]

KeptAt: TypeAlias = str | os.PathLike[str]


class Settings(NamedTuple):
    servers: str
    place: tuple[str, str, str]
    registry: Callable[[], Registry]
    instance: ServiceInstance[Any]
    address: str | None
    id: str | None
    shared: bool
    on_conflict: Literal["takeover", "wait", "fail"]
    on_displaced: Literal["stop", "standby"]
    checks: Mapping[str, Check]
    discover: Mapping[str, Any]
    keep: Mapping[str, KeptAt]
    drain: float
    ready_in_outage: bool
    wait: bool
    check_port: bool


def checked_services(discover: object) -> Mapping[str, Any]:
    if isinstance(discover, (str, bytes)) or not isinstance(discover, Iterable):
        raise InvalidType("discover", discover, "give names of services, or a mapping of names to payload types")
    services = {}
    for name in discover:
        try:
            services[ServiceInstance(name, id="any").name] = Any
        except InvalidArgument as error:
            raise type(error)("discover", name, error.reason) from None
    if isinstance(discover, Mapping):
        services = {name: _checked_type(f"discover[{name!r}]", discover[name]) for name in services}
    return MappingProxyType(services)


def _checked_type(field: str, payload_type: Any) -> Any:
    try:
        return check_payload_type(payload_type)
    except InvalidArgument as error:
        raise type(error)(field, payload_type, error.reason) from None


def check_ports(port: object, ssl_port: object, id: object, shared: bool) -> None:
    """Raise InvalidArgument if a port cannot be connected to, or siblings have nothing that makes them one."""
    for field, number in (("port", port), ("ssl_port", ssl_port)):
        if number == 0 and number is not False:
            raise InvalidArgument(field, number, "give the port that consumers connect to")
    if shared and port is None and ssl_port is None and id is None:
        raise InvalidArgument("id", id, 'siblings with workers="one" share one id: without a port, give id=')


def checked_conflict(on_conflict: Any, shared: bool) -> Literal["takeover", "wait", "fail"]:
    if on_conflict is None:
        return "wait" if shared else "takeover"
    if shared and on_conflict != "wait":
        raise InvalidArgument("on_conflict", on_conflict, 'siblings with workers="one" stand by: give "wait"')
    return check_choice("on_conflict", on_conflict, ("takeover", "wait", "fail"))


def checked_displaced(on_displaced: Any, shared: bool) -> Literal["stop", "standby"]:
    if shared and on_displaced == "stop":
        raise InvalidArgument("on_displaced", on_displaced, 'siblings with workers="one" stand by: give "standby"')
    return check_choice("on_displaced", on_displaced, ("stop", "standby"))


def checked_kept(keep: object, services: Mapping[str, Any]) -> Mapping[str, KeptAt]:
    if keep is None:
        return {}
    if not isinstance(keep, Mapping):
        if len(services) != 1:
            raise InvalidArgument("keep", keep, "give a mapping of the services that discover= names to files")
        keep = dict.fromkeys(services, keep)
    for name, path in keep.items():
        if name not in services:
            raise InvalidArgument("keep", name, "is not one of the services that discover= names")
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidType("keep", path, "give the path of a file")
    return MappingProxyType(dict(keep))


def check_drain(seconds: object) -> None:
    check_seconds("drain", seconds, or_zero=True)


def checked_drain(drain: Any) -> tuple[float | None, Callable[[], Awaitable[object]] | None]:
    """Return the seconds, or the function, that *drain* is; raises InvalidArgument where it is neither."""
    if drain is None or callable(drain):
        return None, drain
    check_drain(drain)
    return drain, None
