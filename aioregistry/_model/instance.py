"""One instance of a service, and what its fields may hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Generic, NamedTuple, NoReturn, TypeVar, overload

from aioregistry import _foreign as foreign
from aioregistry._errors import InvalidArgument
from aioregistry._java import check_class, class_for
from aioregistry._payload import convert, fresh_json
from aioregistry._reprs import shown_half_made

from .fields import FIELDS, InstanceStatus, ServiceType, check_port

__all__ = ["AsWritten", "Draft", "ServiceInstance", "as_written", "with_payload_type"]

P = TypeVar("P")
Q = TypeVar("Q")


class AsWritten(NamedTuple):
    """A member of a document that another writer wrote otherwise than it would be written here.

    It is written back unchanged while the instance has the attributes that it was read with.
    """

    name: str
    read_as: Mapping[str, Any]
    """Attributes of the instance, and their values."""
    text: bytes | None
    """JSON; None: the member was not there."""


class _Fields(Generic[P]):
    __slots__ = ("_as_written", "payload_class", *(field.attribute for field in FIELDS))

    name: str
    id: str
    address: str | None
    port: int | None
    ssl_port: int | None
    payload: P
    enabled: bool
    status: InstanceStatus | None
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

    def frozen(self, as_written: tuple[AsWritten, ...] | None = None) -> ServiceInstance[P]:
        """Make this object an instance: nothing is checked, and nothing can be set any more.

        Args:
            as_written: what its document says otherwise than it would be written here; None where that was copied with
                the other fields.
        """
        if as_written is not None:
            self._as_written = as_written
        self.__class__ = ServiceInstance  # type: ignore[assignment]
        return self  # type: ignore[return-value]


@shown_half_made
class ServiceInstance(_Fields[P]):
    """One instance of a service, frozen.

    Two instances are equal if their identity (name and id) and their data are. ``registration_time_ms``,
    ``session_timeout_ms`` and ``status`` are not part of the data, so that a consumer's instance equals the registered
    one. The hash is that of the identity.

    Args:
        name: the service; a path segment, or several with slashes between, as Curator takes them.
        id: the instance within the service; a path segment. Without it ``address:port``, so that a restarted process
            replaces its ghost; workers that share a port need ids of their own (``address:port#worker``). Without a
            port either, for a worker without a server, ``address#`` (the host's name where there is no address)
            and eight random hexadecimal digits. That says where the worker runs, which a UUID (Curator's default) does
            not; a process id would not do, because two containers that share an address may have the same one. Every
            such instance gets a new id, so the ghost of a restarted worker stays until its session times out.
        address: host name or IP address at which consumers reach the instance; with a port it is needed for the id.
        port: 0 to 65535, or None.
        ssl_port: 0 to 65535, or None.
        payload: anything msgspec can write as JSON. Dicts, lists and other builtin containers are copied and frozen; an
            object of another type (a Struct, a dataclass) is kept as it is and should be frozen by its own type.
        enabled: False for an instance that is listed, but should not get new work.
        status: why it is not enabled: ``"failing"`` (its checks fail), ``"draining"`` or ``"maintenance"``. None if it
            is enabled, or if its publisher does not say why it is not.
        service_type: DYNAMIC for every instance that this library registers.
        uri_spec: Curator's UriSpec as JSON, ``{"parts": [{"value": "scheme", "variable": true}, ...]}``, or None.
        registration_time_ms: milliseconds since the epoch; None until the instance is published.
        session_timeout_ms: the timeout of the session that publishes it, in milliseconds, as the server granted it. A
            dead instance may stay listed for so long. None until it is published, or if its publisher does not say it.
        payload_class: the Java class that Jackson is to read the payload as, for consumers in Java with a payload class
            of their own (``org.springframework.cloud.zookeeper.discovery.ZookeeperInstance`` for Spring Cloud).
        extra: fields of the document that this library does not know.

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
        status: InstanceStatus | None = None,
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
        status: InstanceStatus | None = None,
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
        status: InstanceStatus | None = None,
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
            "status": status,
            "service_type": service_type,
            "uri_spec": uri_spec,
            "registration_time_ms": registration_time_ms,
            "session_timeout_ms": session_timeout_ms,
            "extra": extra,
        }
        for field, value in fields.items():
            object.__setattr__(self, field, _CHECKS[field](field, value))
        object.__setattr__(self, "payload_class", _checked_class(payload_class, self.payload))
        object.__setattr__(self, "_as_written", ())
        _check_status(self)

    def replace(self, **fields: Any) -> ServiceInstance[Any]:
        """Return a copy with *fields* replaced; those that change are checked like a new instance's, and no others.

        The id stays, even if address or port change. ``enabled=True`` removes the ``status``. A payload of another
        shape (a list for an object, say), or without one, drops a ``payload_class`` that Java could not read it as,
        unless one is given with it.

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
                draft.payload_class = _checked_class(fields["payload_class"], draft.payload)
        elif self.payload_class is not None and draft.payload is not self.payload:
            before, after = (fresh_json("payload", payload) for payload in (self.payload, draft.payload))
            draft.payload_class = class_for(self.payload_class, before, after)
        if draft.enabled and "status" not in fields:
            draft.status = None
        _check_status(draft)
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
        # A payload's own ``__eq__`` and ``__repr__`` may raise anything.
        shown = "".join(
            f", {field}={foreign.repr_of(value)}"
            for field, default in _SHOWN.items()
            if type(value := getattr(self, field)) is not type(default) or value != default
        )
        return f"ServiceInstance({self.name!r}, id={self.id!r}{shown})"


_COMPARED: Final = (*(field.attribute for field in FIELDS if field.is_data), "payload_class")
_SHOWN: Final[dict[str, object]] = {
    **{field.attribute: field.default for field in FIELDS if field.attribute not in ("name", "id")},
    "payload_class": None,
}


def _restored(*values: Any) -> ServiceInstance[Any]:
    draft: Draft[Any] = Draft()
    for field, value in zip(_Fields.__slots__, values, strict=True):
        setattr(draft, field, value)
    return draft.frozen()


_CHECKS: Final = {field.attribute: field.check for field in FIELDS}
_PUBLIC_FIELDS: Final = frozenset({*_CHECKS, "payload_class"})
_UNCHANGED: Final = (str, int, bool, type(None), ServiceType)


def _is_unchanged(new: Any, old: Any) -> bool:
    """Whether both are one and the same; equal texts and numbers too, but no code of a payload's is run."""
    return new is old or (type(new) is type(old) and isinstance(new, _UNCHANGED) and new == old)


def _checked_class(payload_class: object, payload: Any) -> str | None:
    return None if payload_class is None else check_class(payload_class, fresh_json("payload", payload))


def _check_status(instance: _Fields[Any]) -> None:
    if instance.status is not None and instance.enabled:
        raise InvalidArgument(
            "status", instance.status, "gives the reason why an instance is not enabled, and this one is enabled"
        )


_RANDOM_BYTES: Final = 4
"""Of an id without a port: of a thousand workers on one host two have the same once in ten thousand times."""


def _host_name() -> str:
    from socket import gethostname

    return gethostname()


def _default_id(address: str | None, port: int | None, ssl_port: int | None) -> str:
    # No id is made from a wrong value: that value gets an error of its own.
    _CHECKS["address"]("address", address)
    check_port("port", port)
    check_port("ssl_port", ssl_port)
    port = ssl_port if port is None else port
    if port is None:
        return f"{_host_name() if address is None else address}#{os.urandom(_RANDOM_BYTES).hex()}"
    if address is None:
        raise InvalidArgument("id", None, "is needed if there is a port and no address: by default it is made of both")
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def as_written(instance: ServiceInstance[Any]) -> tuple[AsWritten, ...]:
    """Return the parts of the document of *instance* that differ from how this library would write them."""
    return instance._as_written


# ---------------------------------------------------------------- two steps


def with_payload_type(instance: ServiceInstance[Any], payload_type: type[Q]) -> ServiceInstance[Q]:
    """Return *instance* with its payload converted from JSON to *payload_type*, see :func:`check_payload_type`.

    Raises:
        InvalidInstance: the payload does not fit; says where.
    """
    payload = convert(instance.payload, payload_type)
    draft: Draft[Any] = Draft()
    for field in _Fields.__slots__:
        setattr(draft, field, getattr(instance, field))
    draft.payload = payload
    return draft.frozen()
