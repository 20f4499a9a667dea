"""What is registered and discovered: instances, snapshots, changes; and the JSON of an instance, as Apache Curator's.

The document of an instance is what Curator's ``JsonInstanceSerializer`` writes (as of Curator 5.4), so that Java
services with Curator or Spring Cloud ZooKeeper read what is written here, and the other way round::

    {"name": "chat", "id": "10.0.0.7:7000", "address": "10.0.0.7", "port": 7000, "sslPort": null,
     "payload": {"zone": "eu-1"}, "registrationTimeUTC": 1763680000000, "serviceType": "DYNAMIC", "uriSpec": null}

* Nulls are written. ``enabled`` is written only when it is false, and ``sessionTimeoutMs``, which is none of Curator's,
  only when it is known: readers older than CURATOR-275 (2.11.1, 3.2.1) refuse documents with a field they do not know.
  Absent, the one means true, the other that nobody knows.
* Jackson marks a payload's class as ``{"@class": "java.util.HashMap", ...}`` or ``["java.util.ArrayList", [...]]``. The
  class is kept in ``payload_class``, written back, and no part of ``payload``. A list is always written in the second
  form (as an ArrayList unless told otherwise), without which Jackson cannot read it.
* Fields that are not known here are kept in ``extra`` and written back.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterator, Mapping, ValuesView
from types import MappingProxyType
from typing import Annotated, Any, Final, Generic, NoReturn, Self, TypeAlias, TypeVar, overload

import msgspec

from . import _foreign as foreign
from ._errors import InvalidArgument, InvalidInstance, session_name
from ._paths import check_segment

__all__ = [
    "Added",
    "Change",
    "Difference",
    "Entry",
    "FrozenDict",
    "FrozenList",
    "Invalid",
    "Removed",
    "Resynced",
    "ServiceInstance",
    "ServiceType",
    "Snapshot",
    "Suspicion",
    "Updated",
    "check_payload_type",
    "decode",
    "encode",
    "with_payload_type",
]

P = TypeVar("P")
Q = TypeVar("Q")


class ServiceType(enum.Enum):
    """Curator's kinds of instances; what is registered here is DYNAMIC, the others are read."""

    DYNAMIC = "DYNAMIC"
    DYNAMIC_SEQUENTIAL = "DYNAMIC_SEQUENTIAL"
    STATIC = "STATIC"
    PERMANENT = "PERMANENT"


# ---------------------------------------------------------------- frozen JSON


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError(f"{type(self).__name__} is shared and cannot be changed: make a copy with dict() or list()")


class FrozenDict(dict[str, Any]):
    """A JSON object that cannot be changed: everybody who looks at an instance is given the same one."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]:
        return type(self), (dict(self),)  # pickle's default fills an empty one item by item


class FrozenList(list[Any]):
    """A JSON array that cannot be changed; equal to a list of the same items."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[type[Self], tuple[list[Any]]]:
        return type(self), (list(self),)


_CONTAINERS: Final = frozenset((dict, list))


# Whoever compares, shows or pickles what is nested deeper than Python's stack reaches fails, and so would a view. Far
# more than anybody nests, and a tenth of what Jackson bears (StreamReadConstraints.DEFAULT_MAX_DEPTH, 1000).
_MAX_DEPTH: Final = 100
_TOO_DEEP: Final = f"it is nested deeper than {_MAX_DEPTH} levels"


def _freeze(value: Any, levels: int = _MAX_DEPTH) -> Any:
    """Return *value*, fresh from a decoder, with its containers frozen; what *value* was is used up.

    Raises:
        ValueError: it is nested deeper than *levels*.
    """
    if type(value) is dict:
        if not levels:
            raise ValueError(_TOO_DEEP)
        for key, item in value.items():
            if type(item) in _CONTAINERS:
                value[key] = _freeze(item, levels - 1)  # in the place of another: the iteration does not mind
        return FrozenDict(value)
    if type(value) is list:
        if not levels:
            raise ValueError(_TOO_DEEP)
        for item in value:
            if type(item) in _CONTAINERS:
                return FrozenList([_freeze(item, levels - 1) for item in value])
        return FrozenList(value)
    return value


def _json(field: str, value: Any) -> Any:
    """Return *value* as fresh builtin JSON values; raises :class:`InvalidArgument` where it has no such form."""
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
        _check_json(plain, _MAX_DEPTH)
        return msgspec.json.decode(msgspec.json.encode(plain))  # what a consumer will see: no tuples, say
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidArgument(field, value, f"cannot be written as JSON: {error}") from error


def _check_json(plain: Any, levels: int) -> None:
    # msgspec writes nan and the infinities as null: a consumer would see something else than what was registered.
    if isinstance(plain, float) and not math.isfinite(plain):
        raise ValueError("a number is not finite")
    if isinstance(plain, dict | list | tuple):
        if not levels:
            raise ValueError(_TOO_DEEP)
        for item in plain.values() if isinstance(plain, dict) else plain:
            _check_json(item, levels - 1)


# ---------------------------------------------------------------- the instance


class _Fields(Generic[P]):
    __slots__ = (
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


class _Draft(_Fields[P]):
    """An instance before it is frozen: filled by plain assignments, which cost a fifth of ``object.__setattr__``."""

    __slots__ = ()

    def frozen(self) -> ServiceInstance[P]:
        self.__class__ = ServiceInstance  # type: ignore[assignment]
        return self  # type: ignore[return-value]


class ServiceInstance(_Fields[P]):
    """One instance of a service, frozen.

    Two instances are equal when identity (name and id) and data are; ``registration_time_ms`` and
    ``session_timeout_ms`` are no part of the data, so that what a consumer sees equals what was registered. The hash is
    that of the identity.

    Args:
        name: the service; a path segment.
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
        _check_address(address)
        _check_port("port", port)
        _check_port("ssl_port", ssl_port)
        _check_type("enabled", enabled, bool)
        _check_type("service_type", service_type, ServiceType)
        _check_milliseconds("registration_time_ms", registration_time_ms, _MAX_TIME)
        _check_milliseconds("session_timeout_ms", session_timeout_ms, _MAX_TIMEOUT)
        fields = {
            "name": check_segment("name", name),
            "id": check_segment("id", _default_id(address, port, ssl_port) if id is None else id),
            "address": address,
            "port": port,
            "ssl_port": ssl_port,
            "payload": _checked_payload(payload),
            "enabled": enabled,
            "service_type": service_type,
            "uri_spec": _checked_uri_spec(uri_spec),
            "registration_time_ms": registration_time_ms,
            "session_timeout_ms": session_timeout_ms,
            "payload_class": _checked_class(payload_class),
            "extra": _checked_extra(extra),
        }
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    def replace(self, **fields: Any) -> ServiceInstance[Any]:
        """Return a copy with *fields* replaced, checked like a new one. The id stays, also when address or port change.

        Raises:
            InvalidArgument: naming the field and its value.
        """
        return ServiceInstance(**{field: getattr(self, field) for field in _Fields.__slots__} | fields)

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
    draft: _Draft[Any] = _Draft()
    for field, value in zip(_Fields.__slots__, values, strict=True):
        setattr(draft, field, value)
    return draft.frozen()


# ---------------------------------------------------------------- checks of the constructor


def _check_type(field: str, value: object, expected: type) -> None:
    if not isinstance(value, expected):
        raise InvalidArgument(field, value, f"must be {expected.__name__}, not {type(value).__name__}")


def _check_address(address: object) -> None:
    if address is None:
        return
    _check_type("address", address, str)
    if not address or any(character.isspace() or not character.isprintable() for character in str(address)):
        raise InvalidArgument("address", address, "must be a host name or an IP address")


def _check_port(field: str, port: object) -> None:
    if port is None:
        return
    if not isinstance(port, int) or isinstance(port, bool):
        raise InvalidArgument(field, port, f"must be int, not {type(port).__name__}")
    if not 0 <= port <= _MAX_PORT:
        raise InvalidArgument(field, port, f"must be within 0..{_MAX_PORT}")


def _check_milliseconds(field: str, value: object, most: int) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise InvalidArgument(field, value, f"must be milliseconds, an int within 0..{most}, or None")


def _default_id(address: str | None, port: int | None, ssl_port: int | None) -> str:
    port = ssl_port if port is None else port
    if address is None or port is None:
        raise InvalidArgument("id", None, "is needed where there is no address and port to make it of")
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _checked_payload(payload: Any) -> Any:
    plain = _json("payload", payload)
    if isinstance(plain, dict) and _CLASS in plain:
        raise InvalidArgument("payload", payload, f"the Java class is given as payload_class, not as {_CLASS!r}")
    return _freeze(plain) if isinstance(payload, Mapping | list | tuple | set | frozenset) else payload


def _checked_uri_spec(uri_spec: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if uri_spec is None:
        return None
    try:
        msgspec.convert(uri_spec, _UriSpec)
    except msgspec.ValidationError as error:
        raise InvalidArgument("uri_spec", uri_spec, str(error)) from error
    frozen: FrozenDict = _freeze(_json("uri_spec", uri_spec))
    return frozen


def _checked_class(payload_class: str | None) -> str | None:
    if payload_class is None:
        return None
    _check_type("payload_class", payload_class, str)
    if not _JAVA_CLASS.fullmatch(payload_class):
        raise InvalidArgument("payload_class", payload_class, "must be the full name of a Java class")
    return payload_class


def _checked_extra(extra: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not extra:
        return _NO_EXTRA
    _check_type("extra", extra, Mapping)
    if known := _DOCUMENT_FIELDS & extra.keys():
        raise InvalidArgument("extra", extra, f"{', '.join(sorted(known))}: no unknown field")
    frozen: FrozenDict = _freeze(_json("extra", extra))
    return frozen


# ---------------------------------------------------------------- the document

_MAX_PORT: Final = 65535
_MAX_TIME: Final = 2**63 - 1  # a Java long
_MAX_TIMEOUT: Final = 2**31 - 1  # the protocol's int
_CLASS: Final = "@class"
_JAVA_LIST: Final = "java.util.ArrayList"
_JAVA_CLASS: Final = re.compile(r"(?:[A-Za-z_]\w*\.)+[A-Za-z_][\w$]*")
_NO_EXTRA: Final = FrozenDict()

_Port = Annotated[int, msgspec.Meta(ge=0, le=_MAX_PORT)]
_Timeout = Annotated[int, msgspec.Meta(ge=0, le=_MAX_TIMEOUT)]


class _UriPart(msgspec.Struct):
    value: str
    variable: bool = False


class _UriSpec(msgspec.Struct):
    parts: list[_UriPart]


class _Document(msgspec.Struct, gc=False, forbid_unknown_fields=True, rename="camel"):
    name: str
    id: str
    address: str | None
    port: _Port | None = None
    ssl_port: _Port | None = None
    payload: Any = None
    registration_time_ms: int | None = msgspec.field(default=0, name="registrationTimeUTC")
    service_type: ServiceType | None = ServiceType.DYNAMIC  # null is what Curator makes of an unset one
    uri_spec: dict[str, Any] | None = None
    enabled: bool = True
    session_timeout_ms: _Timeout | None = None


_DOCUMENT_FIELDS: Final = frozenset(_Document.__struct_encode_fields__)
_decode_document = msgspec.json.Decoder(_Document).decode
_encode_json = msgspec.json.Encoder().encode


def encode(instance: ServiceInstance[Any]) -> bytes:
    """Return the document of *instance*."""
    document = {
        "name": instance.name,
        "id": instance.id,
        "address": instance.address,
        "port": instance.port,
        "sslPort": instance.ssl_port,
        "payload": _with_class(instance.payload, instance.payload_class),
        "registrationTimeUTC": instance.registration_time_ms or 0,  # a Java long: there is no null
        "serviceType": instance.service_type.value,
        "uriSpec": instance.uri_spec,
    }
    if not instance.enabled:
        document["enabled"] = False
    if instance.session_timeout_ms:
        document["sessionTimeoutMs"] = instance.session_timeout_ms
    return _encode_json({**document, **instance.extra})


def decode(data: bytes, *, name: str | None = None, id: str | None = None) -> ServiceInstance[Any]:
    """Return the instance that the document *data* describes; its payload as JSON, see :func:`with_payload_type`.

    The node's place is the identity: a document that names another service or id than *name* and *id* (where given) is
    refused, because a consumer could not tell which of two nodes describes the instance.

    Raises:
        InvalidInstance: with the reason.
    """
    try:
        document = _decode_document(data)
        extra: Mapping[str, Any] = _NO_EXTRA
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        document, extra = _decode_leniently(data)
    if name is not None and document.name != name:
        raise InvalidInstance(f"name is {document.name!r}, but the node belongs to service {name!r}")
    if id is not None and document.id != id:
        raise InvalidInstance(f"id is {document.id!r}, but the node is {id!r}")
    draft: _Draft[Any] = _Draft()
    # The caller's strings where there are any, so that thousands of instances share one name.
    draft.name = name or document.name
    draft.id = id or document.id
    draft.address = document.address
    draft.port = document.port
    draft.ssl_port = document.ssl_port
    draft.enabled = document.enabled
    draft.service_type = document.service_type or ServiceType.DYNAMIC
    draft.registration_time_ms = document.registration_time_ms or None
    draft.session_timeout_ms = _shared(document.session_timeout_ms)
    payload = document.payload
    try:
        draft.uri_spec = None if document.uri_spec is None else _freeze(document.uri_spec)
        if type(payload) in _CONTAINERS:
            draft.payload, draft.payload_class = _without_class(payload)
        else:
            draft.payload, draft.payload_class = payload, None
    except ValueError as error:
        raise InvalidInstance(str(error)) from error
    draft.extra = extra
    return draft.frozen()


_shared_timeouts: Final[dict[int, int]] = {}
_MOST_SHARED: Final = 64


def _shared(timeout_ms: int | None) -> int | None:
    """Return one object for equal numbers: a service knows a few timeouts, and a hundred thousand instances."""
    if not timeout_ms or len(_shared_timeouts) == _MOST_SHARED:
        return _shared_timeouts.get(timeout_ms, timeout_ms) if timeout_ms else None
    return _shared_timeouts.setdefault(timeout_ms, timeout_ms)


def with_payload_type(instance: ServiceInstance[Any], payload_type: type[Q]) -> ServiceInstance[Q]:
    """Return *instance* with its payload converted from JSON to *payload_type*, any type that msgspec converts to.

    Raises:
        InvalidInstance: the payload does not fit; says where.
    """
    try:
        payload = foreign.call(msgspec.convert, instance.payload, payload_type, str_keys=True)
    except foreign.ForeignError as failure:  # a type of the caller's has code of its own
        error = failure.error
        said = error if isinstance(error, msgspec.ValidationError | RecursionError) else f"its type raised {failure}"
        raise InvalidInstance(f"payload: {said}") from error
    draft: _Draft[Any] = _Draft()
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
    draft.payload = payload
    draft.payload_class = instance.payload_class
    draft.extra = instance.extra
    return draft.frozen()


def check_payload_type(payload_type: Any) -> Any:
    """Return *payload_type* if msgspec can convert to it; raises :class:`InvalidArgument`."""
    try:
        msgspec.json.Decoder(payload_type)
    except TypeError as error:
        raise InvalidArgument("payload_type", payload_type, str(error)) from error
    return payload_type


def _decode_leniently(data: bytes) -> tuple[_Document, FrozenDict]:
    """Decode a document that may have unknown fields; raises :class:`InvalidInstance` for whatever else is wrong."""
    try:
        fields = msgspec.json.decode(data)
        if not isinstance(fields, dict):
            raise InvalidInstance(f"a service instance is a JSON object, not {type(fields).__name__}")
        extra = {field: fields.pop(field) for field in [*fields] if field not in _DOCUMENT_FIELDS}  # in their order
        return msgspec.convert(fields, _Document), _freeze(extra)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise InvalidInstance(str(error)) from error


def _with_class(payload: Any, payload_class: str | None) -> Any:
    plain = msgspec.to_builtins(payload, str_keys=True)
    if isinstance(plain, dict) and _CLASS not in plain:
        return {_CLASS: payload_class, **plain} if payload_class else plain
    if isinstance(plain, dict | list | tuple):  # a map may have come in a list's form, with a mark of its own
        return [payload_class or _JAVA_LIST, plain]
    return [payload_class, plain] if payload_class else plain


def _without_class(payload: dict[str, Any] | list[Any]) -> tuple[Any, str | None]:
    if type(payload) is dict:
        payload_class = payload.pop(_CLASS, None)
        if payload_class is not None and not (isinstance(payload_class, str) and _JAVA_CLASS.fullmatch(payload_class)):
            raise ValueError(f"payload: {_CLASS} is {payload_class!r}, which is no Java class")
        return _freeze(payload), payload_class
    match payload:
        case [str(payload_class), value] if _JAVA_CLASS.fullmatch(payload_class):
            return _freeze(value), None if payload_class == _JAVA_LIST else payload_class
    return _freeze(payload), None


# ---------------------------------------------------------------- what is discovered


class Suspicion(msgspec.Struct, frozen=True, gc=False):
    """Why an instance is shown that ZooKeeper does not list, or has not been asked about yet."""

    reason: str
    """``"mass removal"``, ``"disruption"`` or ``"new leader"``: what the guard went by when it held a removal back.
    ``"file"``: known from a kept snapshot only."""
    since: float
    """Seconds since the epoch: when it became suspect."""
    until: float
    """Seconds since the epoch: when it is let go unless it comes back. Later by as long as the view is not fresh.
    Infinite for what is known from a file: that ends when all was read."""


class Entry(msgspec.Struct, Generic[P], frozen=True, gc=False):
    """An instance as a consumer sees it, with what ZooKeeper knows of its node, or knew.

    Within one history of the ensemble ``(czxid, mzxid)`` identifies a state of a node; the version does not, for every
    new node starts at 0.
    """

    instance: ServiceInstance[P]
    owner: int
    """The session that owns the node, 0 for a persistent one; compare by equality only."""
    czxid: int
    mzxid: int
    version: int
    created: float
    """Seconds since the epoch, by the server's clock."""
    modified: float
    suspicion: Suspicion | None = None
    """None for what is listed; else its node is gone, or is known from a file only."""

    def with_payload_type(self, payload_type: type[Q]) -> Entry[Q]:
        """Return this entry with its instance's payload converted, see :func:`with_payload_type`."""
        instance = with_payload_type(self.instance, payload_type)
        return Entry(
            instance, self.owner, self.czxid, self.mzxid, self.version, self.created, self.modified, self.suspicion
        )

    def with_suspicion(self, suspicion: Suspicion | None) -> Entry[P]:
        """Return this entry with another ``suspicion``."""
        return Entry(
            self.instance, self.owner, self.czxid, self.mzxid, self.version, self.created, self.modified, suspicion
        )


class Invalid(msgspec.Struct, frozen=True, gc=False):
    """A node that is listed and shows no instance: the reason, and the node's zxids and owner (0 where unreadable)."""

    id: str
    reason: str
    owner: int = 0
    czxid: int = 0
    mzxid: int = 0


class Snapshot(Mapping[str, ServiceInstance[P]]):
    """What was known of a service at one moment: its instances by id, in the order of their ids. Immutable.

    A snapshot holds facts; whether they are fresh *now* is asked of the view.

    Attributes:
        name: the service.
        entries: the instances with what ZooKeeper knows of their nodes, by id, in no particular order.
        invalid: nodes that are no instances, by id, with the reason.
        as_of: the zxid of the latest observation that the snapshot includes, 0 before the first.
        stale_since: None while the view was fresh; else the time, in seconds since the epoch, of the last evidence that
            the quorum answered: what happened after it is not in the snapshot.
    """

    __slots__ = ("_confirmed", "_ids", "_suspects", "as_of", "entries", "invalid", "name", "stale_since")

    name: str
    entries: Mapping[str, Entry[P]]
    invalid: Mapping[str, Invalid]
    as_of: int
    stale_since: float | None

    def __init__(
        self,
        name: str,
        entries: Mapping[str, Entry[P]],
        invalid: Mapping[str, Invalid],
        *,
        as_of: int,
        stale_since: float | None = None,
    ) -> None:
        values = {
            "name": name,
            "entries": _read_only(entries),
            "invalid": _read_only(invalid),
            "as_of": as_of,
            "stale_since": stale_since,
            "_ids": None,
            "_suspects": None,
            "_confirmed": None,
        }
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @property
    def instances(self) -> tuple[ServiceInstance[P], ...]:
        """The instances, in the order of their ids."""
        entries = self.entries
        return tuple([entries[id].instance for id in self])

    @property
    def suspects(self) -> Mapping[str, Suspicion]:
        """Of the instances those that ZooKeeper does not list any more, and why they are shown nevertheless, by id."""
        suspects: Mapping[str, Suspicion] | None = self._suspects  # type: ignore[attr-defined]
        if suspects is None:
            found = {id: entry.suspicion for id, entry in self.entries.items() if entry.suspicion is not None}
            suspects = MappingProxyType(found)
            object.__setattr__(self, "_suspects", suspects)
        return suspects

    @property
    def confirmed(self) -> Snapshot[P]:
        """This snapshot without the suspects; itself where there are none."""
        if not self.suspects:
            return self
        confirmed: Snapshot[P] | None = self._confirmed  # type: ignore[attr-defined]
        if confirmed is None:
            listed = {id: entry for id, entry in self.entries.items() if entry.suspicion is None}
            confirmed = Snapshot(self.name, listed, self.invalid, as_of=self.as_of, stale_since=self.stale_since)
            object.__setattr__(self, "_confirmed", confirmed)
        return confirmed

    def values(self) -> ValuesView[ServiceInstance[P]]:
        """The instances, in the order of their ids."""
        return _Values(self)

    def with_stale_since(self, stale_since: float | None) -> Snapshot[P]:
        """Return the same facts with another ``stale_since``; they are shared, not copied."""
        return Snapshot(self.name, self.entries, self.invalid, as_of=self.as_of, stale_since=stale_since)

    def __getitem__(self, id: str) -> ServiceInstance[P]:
        return self.entries[id].instance

    def __contains__(self, id: object) -> bool:
        return id in self.entries

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        # Sorted by whoever iterates first: most snapshots are only looked up in.
        ids: tuple[str, ...] | None = self._ids  # type: ignore[attr-defined]
        if ids is None:
            ids = tuple(sorted(self.entries))
            object.__setattr__(self, "_ids", ids)
        return iter(ids)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Snapshot is immutable")

    def __repr__(self) -> str:
        suspects = len(self.suspects)
        bad = f" ({suspects} suspect)" if suspects else ""
        bad += f", {len(self.invalid)} invalid" if self.invalid else ""
        stale = "" if self.stale_since is None else f", stale since {self.stale_since:.3f}"
        return f"<Snapshot {self.name}: {len(self)} instances{bad}, as of zxid {self.as_of:#x}{stale}>"


class _Values(ValuesView[ServiceInstance[P]]):
    """Without a look-up through the snapshot for each of what may be 100,000 instances."""

    _mapping: Snapshot[P]

    def __iter__(self) -> Iterator[ServiceInstance[P]]:
        return iter(self._mapping.instances)


def _read_only(mapping: Mapping[str, Q]) -> Mapping[str, Q]:
    return mapping if isinstance(mapping, MappingProxyType) else MappingProxyType(mapping)


class Added(msgspec.Struct, Generic[P], frozen=True):
    """An instance came. ``zxid`` is that of the observation, as in every change."""

    entry: Entry[P]
    zxid: int

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.entry.instance.id

    @property
    def instance(self) -> ServiceInstance[P]:
        """The instance that came."""
        return self.entry.instance

    def __repr__(self) -> str:
        return f"<Added {self.instance!r}, zxid {self.zxid:#x}>"


class Updated(msgspec.Struct, Generic[P], frozen=True):
    """An instance's node was changed or replaced (by another owner, say); its data may be what it was."""

    entry: Entry[P]
    previous_entry: Entry[P]
    zxid: int

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.entry.instance.id

    @property
    def instance(self) -> ServiceInstance[P]:
        """The instance as it is now."""
        return self.entry.instance

    @property
    def previous(self) -> ServiceInstance[P]:
        """The instance as it was."""
        return self.previous_entry.instance

    def __repr__(self) -> str:
        return f"<Updated {self.instance!r}, owner {session_name(self.entry.owner)}, zxid {self.zxid:#x}>"


class Removed(msgspec.Struct, Generic[P], frozen=True):
    """An instance went: its node is gone, or shows no instance any more."""

    entry: Entry[P]
    zxid: int

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.entry.instance.id

    @property
    def instance(self) -> ServiceInstance[P]:
        """The instance as it was last."""
        return self.entry.instance

    def __repr__(self) -> str:
        return f"<Removed {self.instance!r}, zxid {self.zxid:#x}>"


class Resynced(msgspec.Struct, Generic[P], frozen=True):
    """The view was behind and is not any more: after a reconnect, or because this consumer was too slow.

    ``changes`` are the true differences since what the consumer got last, one for each id at most; empty if there are
    none, which says that what came and went meanwhile is not to be had any more.
    """

    changes: tuple[Added[P] | Updated[P] | Removed[P], ...]
    snapshot: Snapshot[P]

    @property
    def zxid(self) -> int:
        """The zxid of the latest observation included."""
        return self.snapshot.as_of

    @property
    def added(self) -> tuple[ServiceInstance[P], ...]:
        """The instances that came."""
        return tuple(change.instance for change in self.changes if isinstance(change, Added))

    @property
    def updated(self) -> tuple[ServiceInstance[P], ...]:
        """The instances that changed, as they are now."""
        return tuple(change.instance for change in self.changes if isinstance(change, Updated))

    @property
    def removed(self) -> tuple[ServiceInstance[P], ...]:
        """The instances that went, as they were last."""
        return tuple(change.instance for change in self.changes if isinstance(change, Removed))

    def __repr__(self) -> str:
        return f"<Resynced {list(self.changes)!r}, now {self.snapshot!r}>"


Difference: TypeAlias = Added[P] | Updated[P] | Removed[P]
Change: TypeAlias = Added[P] | Updated[P] | Removed[P] | Resynced[P]
