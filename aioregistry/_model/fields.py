"""The fields of an instance, a row each: its allowed values, and its name in the document. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

from aioregistry._addresses import check_address
from aioregistry._arguments import is_whole
from aioregistry._errors import InvalidArgument, InvalidType, wrong_argument
from aioregistry._frozen import FrozenDict, freeze
from aioregistry._java import MARK
from aioregistry._paths import check_name, check_segment
from aioregistry._payload import fresh_json

__all__ = [
    "DOCUMENT_NAMES",
    "FIELDS",
    "NO_EXTRA",
    "STATUSES",
    "Field",
    "InstanceStatus",
    "ServiceType",
    "check_port",
]


class ServiceType(enum.Enum):
    """Curator's kinds of instances, in its order; you register DYNAMIC ones, and the others are only read."""

    DYNAMIC = "DYNAMIC"
    """In an ephemeral node, which goes with its session."""
    STATIC = "STATIC"
    """In a persistent node."""
    PERMANENT = "PERMANENT"
    """In a persistent node, too."""
    DYNAMIC_SEQUENTIAL = "DYNAMIC_SEQUENTIAL"
    """In an ephemeral node, to whose name ZooKeeper appends a counter."""


InstanceStatus = Literal["failing", "draining", "maintenance"]
"""Why an instance is not enabled."""

STATUSES: Final[tuple[InstanceStatus, ...]] = get_args(InstanceStatus)

# ---------------------------------------------------------------- checks

_MAX_PORT: Final = 65535
_MAX_TIME: Final = 2**63 - 1  # a Java long
_MAX_TIMEOUT: Final = 2**31 - 1  # the protocol's int
NO_EXTRA: Final = FrozenDict()


def _of_type(expected: type) -> Callable[[str, Any], Any]:
    def checked(field: str, value: Any) -> Any:
        if not isinstance(value, expected):
            raise InvalidType(field, value, f"must be {expected.__name__}, not {type(value).__name__}")
        return value

    return checked


def _checked_address(field: str, address: object) -> str | None:
    return None if address is None else check_address(field, address)


def check_port(field: str, port: Any) -> int | None:
    if port is None:
        return None
    if not is_whole(port):
        raise InvalidType(field, port, f"must be int, not {type(port).__name__}")
    if not 0 <= port <= _MAX_PORT:
        raise InvalidArgument(field, port, f"must be within 0..{_MAX_PORT}")
    return port


def _milliseconds(most: int) -> Callable[[str, Any], int | None]:
    def checked(field: str, value: Any) -> int | None:
        if value is None:
            return None
        if not is_whole(value) or not 0 <= value <= most:
            raise wrong_argument(field, value, f"must be milliseconds, an int within 0..{most}, or None", int)
        return value or None

    return checked


def _checked_payload(field: str, payload: Any) -> Any:
    json = fresh_json(field, payload)
    if isinstance(json, dict) and MARK in json:
        raise InvalidArgument(field, payload, f"give the Java class as payload_class, not as {MARK!r}")
    return freeze(json) if isinstance(payload, Mapping | list | tuple | set | frozenset) else payload


def _checked_uri_spec(field: str, uri_spec: Any) -> Mapping[str, Any] | None:
    if uri_spec is None:
        return None
    parts = uri_spec.get("parts") if isinstance(uri_spec, Mapping) else None
    if not isinstance(parts, list | tuple):
        raise wrong_argument(field, uri_spec, "must be a mapping with a list of parts", Mapping)
    for index, part in enumerate(parts):
        if (
            not isinstance(part, Mapping)
            or not isinstance(part.get("value"), str)
            or ("variable" in part and not isinstance(part["variable"], bool))
        ):
            raise InvalidArgument(
                field, uri_spec, f"parts[{index}] must have value, a str, and may have variable, a bool"
            )
    frozen: FrozenDict = freeze(fresh_json(field, uri_spec))
    return frozen


def _checked_extra(field: str, extra: Any) -> Mapping[str, Any]:
    if not extra:
        return NO_EXTRA
    _of_type(Mapping)(field, extra)
    if known := set(DOCUMENT_NAMES.values()) & extra.keys():
        raise InvalidArgument(field, extra, f"{', '.join(sorted(known))}: give known fields as arguments of their own")
    frozen: FrozenDict = freeze(fresh_json(field, extra))
    return frozen


def _checked_status(field: str, status: Any) -> InstanceStatus | None:
    if status is not None and (not isinstance(status, str) or status not in STATUSES):
        raise wrong_argument(field, status, f"must be one of {', '.join(map(repr, STATUSES))}, or None", str)
    return status


# ---------------------------------------------------------------- the table


class Field(NamedTuple):
    """A field of an instance."""

    attribute: str
    name: str | None
    """Its name in the document; None: it is not a member of that by itself."""
    check: Callable[[str, Any], Any]
    default: object
    is_data: bool = True
    """Whether two instances that differ in it are different."""
    is_optional: bool = False
    """Whether it is written only where it differs from the default: older readers of Curator's refuse what they do not
    know."""


_MUST: Final = object()


FIELDS: Final[tuple[Field, ...]] = (
    Field("id", "id", check_segment, _MUST),  # the first to differ, where instances are compared
    Field("name", "name", check_name, _MUST),
    Field("address", "address", _checked_address, None),
    Field("port", "port", check_port, None),
    Field("ssl_port", "sslPort", check_port, None),
    Field("payload", "payload", _checked_payload, None),
    Field("enabled", "enabled", _of_type(bool), True, is_optional=True),
    Field("status", "status", _checked_status, None, is_data=False, is_optional=True),
    Field("service_type", "serviceType", _of_type(ServiceType), ServiceType.DYNAMIC),
    Field("uri_spec", "uriSpec", _checked_uri_spec, None),
    Field("registration_time_ms", "registrationTimeUTC", _milliseconds(_MAX_TIME), None, is_data=False),
    Field("session_timeout_ms", "sessionTimeoutMs", _milliseconds(_MAX_TIMEOUT), None, is_data=False, is_optional=True),
    Field("extra", None, _checked_extra, NO_EXTRA),
)
"""A row each. A field needs more: its type and its place in the constructor's signature (``instance.py``), and how
it is read (``_document/scalars.py``, and ``_document/reading.py`` for the fast way)."""

DOCUMENT_NAMES: Final[dict[str, str]] = {field.attribute: field.name for field in FIELDS if field.name is not None}
"""The names of an instance's fields in its document."""
