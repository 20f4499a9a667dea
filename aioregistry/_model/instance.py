"""One instance of a service, and what its fields may hold."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, NoReturn, TypeVar, overload

from aioregistry._addresses import check_address
from aioregistry._errors import InvalidArgument
from aioregistry._frozen import FrozenDict, freeze
from aioregistry._java import MARK, check_class, class_for
from aioregistry._paths import check_name, check_segment
from aioregistry._payload import convert, fresh_json, plain

__all__ = ["DOCUMENT_NAMES", "AsWritten", "Draft", "ServiceInstance", "ServiceType", "with_payload_type"]

P = TypeVar("P")
Q = TypeVar("Q")


class ServiceType(enum.Enum):
    """Curator's kinds of instances, in its order; what is registered here is DYNAMIC, the others are read."""

    DYNAMIC = "DYNAMIC"
    STATIC = "STATIC"
    PERMANENT = "PERMANENT"
    DYNAMIC_SEQUENTIAL = "DYNAMIC_SEQUENTIAL"


# ---------------------------------------------------------------- the instance


DOCUMENT_NAMES: Final[dict[str, str]] = {
    "name": "name",
    "id": "id",
    "address": "address",
    "port": "port",
    "ssl_port": "sslPort",
    "payload": "payload",
    "registration_time_ms": "registrationTimeUTC",
    "service_type": "serviceType",
    "uri_spec": "uriSpec",
    "enabled": "enabled",
    "session_timeout_ms": "sessionTimeoutMs",
}
"""What each field of an instance is called in its document."""


class AsWritten(NamedTuple):
    """A member of a document that another writer wrote otherwise than it would be written here.

    It is written back as it was while the instance's attributes are what it was read as.
    """

    name: str
    read_as: Mapping[str, Any]
    """Attributes of the instance, and their values."""
    text: bytes | None
    """JSON; None: the member was not there."""


class _Fields(Generic[P]):
    __slots__ = (
        "_as_written",
        "address",
        "enabled",
        "extra",
        "id",
        "name",
        "payload",
        "payload_class",
        "port",
        "registration_time_ms",
        "service_type",
        "session_timeout_ms",
        "ssl_port",
        "uri_spec",
    )

    name: str
    id: str
    address: str | None
    port: int | None
    ssl_port: int | None
    payload: P
    enabled: bool
    service_type: ServiceType
    uri_spec: Mapping[str, Any] | None
    registration_time_ms: int | None
    session_timeout_ms: int | None
    payload_class: str | None
    extra: Mapping[str, Any]
    _as_written: tuple[AsWritten, ...]


class Draft(_Fields[P]):
    """An instance before it is frozen: filled by plain assignments, which cost a fifth of ``object.__setattr__``."""

    __slots__ = ()

    def frozen(self) -> ServiceInstance[P]:
        """Make this object an instance: nothing is checked, and nothing can be set any more."""
        self.__class__ = ServiceInstance  # type: ignore[assignment]
        return self  # type: ignore[return-value]


class ServiceInstance(_Fields[P]):
    """One instance of a service, frozen.

    Two instances are equal when identity (name and id) and data are; ``registration_time_ms`` and
    ``session_timeout_ms`` are no part of the data, so that what a consumer sees equals what was registered. The hash is
    that of the identity.

    Args:
        name: the service; a path segment, or several with slashes between, as Curator takes them.
        id: the instance within the service; a path segment. Without it ``address:port``, so that a restarted process
            replaces its ghost; workers that share a port need ids of their own (``address:port#worker``).
        address: host name or IP address at which consumers reach the instance.
        port: 0 to 65535, or None.
        ssl_port: 0 to 65535, or None.
        payload: anything msgspec can write as JSON. Dicts, lists and other builtin containers are copied and frozen; an
            object of another type (a Struct, a dataclass) is kept as it is and should be frozen by its own type.
        enabled: False while draining: listed, but not to be given new work.
        service_type: DYNAMIC for whatever is registered by this library.
        uri_spec: Curator's UriSpec as JSON, ``{"parts": [{"value": "scheme", "variable": true}, ...]}``, or None.
        registration_time_ms: milliseconds since the epoch; None until the instance is published.
        session_timeout_ms: of the session that publishes it, milliseconds, as the server granted it: for so long it may
            stay listed when it is dead. None until it is published, and where its publisher does not tell.
        payload_class: the Java class that Jackson is to read the payload as, for consumers in Java with a payload class
            of their own (``org.springframework.cloud.zookeeper.discovery.ZookeeperInstance`` for Spring Cloud).
        extra: fields of the document that are not known here.

    Raises:
        InvalidArgument: at once, naming the field and its value.
    """

    __slots__ = ()
    __match_args__ = ("name", "id")

    @overload
    def __init__(
        self: ServiceInstance[Any],
        name: str,
        *,
        id: str | None = None,
        address: str | None = None,
        port: int | None = None,
        ssl_port: int | None = None,
        enabled: bool = True,
        service_type: ServiceType = ServiceType.DYNAMIC,
        uri_spec: Mapping[str, Any] | None = None,
        registration_time_ms: int | None = None,
        session_timeout_ms: int | None = None,
        payload_class: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        payload: P,
        id: str | None = None,
        address: str | None = None,
        port: int | None = None,
        ssl_port: int | None = None,
        enabled: bool = True,
        service_type: ServiceType = ServiceType.DYNAMIC,
        uri_spec: Mapping[str, Any] | None = None,
        registration_time_ms: int | None = None,
        session_timeout_ms: int | None = None,
        payload_class: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        id: str | None = None,
        address: str | None = None,
        port: int | None = None,
        ssl_port: int | None = None,
        payload: Any = None,
        enabled: bool = True,
        service_type: ServiceType = ServiceType.DYNAMIC,
        uri_spec: Mapping[str, Any] | None = None,
        registration_time_ms: int | None = None,
        session_timeout_ms: int | None = None,
        payload_class: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        fields = {
            "name": name,
            "id": _default_id(address, port, ssl_port) if id is None else id,
            "address": address,
            "port": port,
            "ssl_port": ssl_port,
            "payload": payload,
            "enabled": enabled,
            "service_type": service_type,
            "uri_spec": uri_spec,
            "registration_time_ms": registration_time_ms,
            "session_timeout_ms": session_timeout_ms,
            "extra": extra,
        }
        for field, value in fields.items():
            object.__setattr__(self, field, _CHECKS[field](field, value))
        object.__setattr__(self, "payload_class", check_class(payload_class, plain(self.payload)))
        object.__setattr__(self, "_as_written", ())

    def replace(self, **fields: Any) -> ServiceInstance[Any]:
        """Return a copy with *fields* replaced; those that differ are checked like a new instance's, and no others.

        The id stays, also when address or port change. A payload of another shape (a list for an object, say), or none,
        drops a ``payload_class`` that Java could not read it as, unless one is given with it.

        Raises:
            InvalidArgument: naming the field and its value.
        """
        for field in fields:
            if field not in _PUBLIC_FIELDS:
                raise TypeError(f"a ServiceInstance has no field {field!r}")
        values = {field: getattr(self, field) for field in _Fields.__slots__}
        if "id" in fields and fields["id"] is None:
            place = (fields.get(field, values[field]) for field in ("address", "port", "ssl_port"))
            fields["id"] = _default_id(*place)
        draft: Draft[Any] = Draft()
        for field, old in values.items():
            changed = field in fields and field in _CHECKS and not _is_unchanged(fields[field], old)
            setattr(draft, field, _CHECKS[field](field, fields[field]) if changed else old)
        if "payload_class" in fields:
            if not _is_unchanged(fields["payload_class"], self.payload_class) or draft.payload is not self.payload:
                draft.payload_class = check_class(fields["payload_class"], plain(draft.payload))
        elif self.payload_class is not None and draft.payload is not self.payload:
            draft.payload_class = class_for(self.payload_class, plain(self.payload), plain(draft.payload))
        return draft.frozen()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a ServiceInstance is frozen: use replace({name}=...)")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a ServiceInstance is frozen")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServiceInstance):
            return NotImplemented
        return all(getattr(self, field) == getattr(other, field) for field in _COMPARED)

    def __hash__(self) -> int:
        return hash((self.name, self.id))

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _restored, tuple(getattr(self, field) for field in _Fields.__slots__)

    def __repr__(self) -> str:
        shown = "".join(
            f", {field}={value!r}" for field, default in _SHOWN.items() if (value := getattr(self, field)) != default
        )
        return f"ServiceInstance({self.name!r}, id={self.id!r}{shown})"


_COMPARED: Final = (
    "id",
    "name",
    "address",
    "port",
    "payload",
    "enabled",
    "ssl_port",
    "service_type",
    "uri_spec",
    "payload_class",
    "extra",
)
_SHOWN: Final[dict[str, object]] = {
    "address": None,
    "port": None,
    "ssl_port": None,
    "payload": None,
    "enabled": True,
    "service_type": ServiceType.DYNAMIC,
    "uri_spec": None,
    "registration_time_ms": None,
    "session_timeout_ms": None,
    "payload_class": None,
    "extra": FrozenDict(),
}


def _restored(*values: Any) -> ServiceInstance[Any]:
    draft: Draft[Any] = Draft()
    for field, value in zip(_Fields.__slots__, values, strict=True):
        setattr(draft, field, value)
    return draft.frozen()


# ---------------------------------------------------------------- checks of the constructor

_MAX_PORT: Final = 65535
_MAX_TIME: Final = 2**63 - 1  # a Java long
_MAX_TIMEOUT: Final = 2**31 - 1  # the protocol's int
_NO_EXTRA: Final = FrozenDict()
_UNCHANGED: Final = (str, int, bool, type(None), ServiceType)


def _is_unchanged(new: Any, old: Any) -> bool:
    """Whether both are one and the same; equal texts and numbers too, but no code of a payload's is run."""
    return new is old or (type(new) is type(old) and isinstance(new, _UNCHANGED) and new == old)


def _check_type(field: str, value: object, expected: type) -> Any:
    if not isinstance(value, expected):
        raise InvalidArgument(field, value, f"must be {expected.__name__}, not {type(value).__name__}")
    return value


def _checked_address(field: str, address: object) -> str | None:
    return None if address is None else check_address(field, address)


def _checked_port(field: str, port: Any) -> int | None:
    if port is None:
        return None
    if not isinstance(port, int) or isinstance(port, bool):
        raise InvalidArgument(field, port, f"must be int, not {type(port).__name__}")
    if not 0 <= port <= _MAX_PORT:
        raise InvalidArgument(field, port, f"must be within 0..{_MAX_PORT}")
    return port


def _milliseconds(most: int) -> Callable[[str, Any], int | None]:
    def checked(field: str, value: Any) -> int | None:
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise InvalidArgument(field, value, f"must be milliseconds, an int within 0..{most}, or None")
        return value

    return checked


def _default_id(address: str | None, port: int | None, ssl_port: int | None) -> str:
    # Of what is wrong in itself no id is made: it is told as what it is.
    _checked_address("address", address)
    _checked_port("port", port)
    _checked_port("ssl_port", ssl_port)
    port = ssl_port if port is None else port
    if address is None or port is None:
        raise InvalidArgument("id", None, "is needed where there is no address and port to make it of")
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _checked_payload(field: str, payload: Any) -> Any:
    json = fresh_json(field, payload)
    if isinstance(json, dict) and MARK in json:
        raise InvalidArgument(field, payload, f"the Java class is given as payload_class, not as {MARK!r}")
    return freeze(json) if isinstance(payload, Mapping | list | tuple | set | frozenset) else payload


def _checked_uri_spec(field: str, uri_spec: Any) -> Mapping[str, Any] | None:
    if uri_spec is None:
        return None
    parts = uri_spec.get("parts") if isinstance(uri_spec, Mapping) else None
    if not isinstance(parts, list | tuple):
        raise InvalidArgument(field, uri_spec, "must be a mapping with a list of parts")
    for index, part in enumerate(parts):
        if (
            not isinstance(part, Mapping)
            or not isinstance(part.get("value"), str)
            or not isinstance(part.get("variable", False), bool)
        ):
            raise InvalidArgument(
                field, uri_spec, f"parts[{index}] must have value, a str, and may have variable, a bool"
            )
    frozen: FrozenDict = freeze(fresh_json(field, uri_spec))
    return frozen


def _checked_extra(field: str, extra: Any) -> Mapping[str, Any]:
    if not extra:
        return _NO_EXTRA
    _check_type(field, extra, Mapping)
    if known := set(DOCUMENT_NAMES.values()) & extra.keys():
        raise InvalidArgument(field, extra, f"{', '.join(sorted(known))}: no unknown field")
    frozen: FrozenDict = freeze(fresh_json(field, extra))
    return frozen


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "name": check_name,
    "id": check_segment,
    "address": _checked_address,
    "port": _checked_port,
    "ssl_port": _checked_port,
    "payload": _checked_payload,
    "enabled": lambda field, value: _check_type(field, value, bool),
    "service_type": lambda field, value: _check_type(field, value, ServiceType),
    "uri_spec": _checked_uri_spec,
    "registration_time_ms": _milliseconds(_MAX_TIME),
    "session_timeout_ms": _milliseconds(_MAX_TIMEOUT),
    "extra": _checked_extra,
}
_PUBLIC_FIELDS: Final = frozenset({*_CHECKS, "payload_class"})


# ---------------------------------------------------------------- two steps


def with_payload_type(instance: ServiceInstance[Any], payload_type: type[Q]) -> ServiceInstance[Q]:
    """Return *instance* with its payload converted from JSON to *payload_type*, see :func:`check_payload_type`.

    Raises:
        InvalidInstance: the payload does not fit; says where.
    """
    draft: Draft[Any] = Draft()
    draft.payload = convert(instance.payload, payload_type)
    draft.name = instance.name
    draft.id = instance.id
    draft.address = instance.address
    draft.port = instance.port
    draft.ssl_port = instance.ssl_port
    draft.enabled = instance.enabled
    draft.service_type = instance.service_type
    draft.uri_spec = instance.uri_spec
    draft.registration_time_ms = instance.registration_time_ms
    draft.session_timeout_ms = instance.session_timeout_ms
    draft.payload_class = instance.payload_class
    draft.extra = instance.extra
    draft._as_written = instance._as_written
    return draft.frozen()
