"""The members of a document read as the fields of an instance, coerced as Jackson coerces them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

from aioregistry._errors import InvalidInstance
from aioregistry._frozen import FrozenDict, freeze
from aioregistry._model import STATUSES, InstanceStatus, ServiceType

from .text import MAX_DIGITS, JsonMember

__all__ = ["MAX_INT", "MAX_LONG", "MAX_PORT", "MOST_SHARED", "READERS", "as_text", "as_uri_spec", "shared"]

MAX_PORT: Final = 65535
MAX_INT: Final = 2**31 - 1
MAX_LONG: Final = 2**63 - 1

_JAVA_SPACE: Final = "".join(map(chr, range(0x21)))  # what String.trim() takes away
_WHOLE_NUMBER: Final = re.compile(r"[+-]?\d+")
_TRUTHS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS: Final = ("", "null")
_IN_JAVAS_ORDER: Final = tuple(ServiceType)


def _refuse(field: str, value: Any, wanted: str) -> NoReturn:
    text = repr(value)
    raise InvalidInstance(f"{field} is {text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '...'}, not {wanted}")


_MAX_SHOWN: Final = 80


def as_text(field: str, member: JsonMember) -> str | None:
    value = member.value
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        _refuse(field, value, "text")
    return member.text  # 1.50 is not 1.5


def _integer(field: str, value: Any, bits: int) -> int | None:
    """*value* as Java's int or long; None for null, and texts that stand for it."""
    number: Any = value
    if isinstance(value, str):
        trimmed = value.strip(_JAVA_SPACE)
        if trimmed in _NULLS:
            return None
        number = int(trimmed) if len(trimmed) <= MAX_DIGITS and _WHOLE_NUMBER.fullmatch(trimmed) else None
    elif isinstance(value, bool | list | dict):
        number = None
    elif value is None:
        return None
    most: int = 2**bits - 1
    # Java compares a double with the largest number as a double, which is one more where that has 64 bits.
    if number is None or not -(2**bits) <= number <= (float(most) if isinstance(number, float) else most):
        _refuse(field, value, f"a whole number of {bits + 1} bits")
    return min(int(number), most)  # a fraction is cut off


def _port(field: str, member: JsonMember) -> int | None:
    """A port; None for numbers that are not ports, such as -1, which Druid writes for "no TLS"."""
    port = _integer(field, member.value, 31)
    return port if port is not None and 0 <= port <= MAX_PORT else None


def _time(field: str, member: JsonMember) -> int | None:
    return _integer(field, member.value, 63) or None


def _timeout(_: str, member: JsonMember) -> int | None:
    """The session timeout; unknown if of another type, for the field is not Curator's and may be another writer's."""
    value = member.value
    return shared(value) if type(value) is int and 0 < value <= MAX_INT else None


def _enabled(field: str, member: JsonMember) -> bool:
    value = member.value
    if not member.text:
        return True
    if isinstance(value, str):
        trimmed = value.strip(_JAVA_SPACE)
        value = None if trimmed in _NULLS else _TRUTHS.get(trimmed, value)
    if value is None:
        return False
    if not isinstance(value, int):
        _refuse(field, member.value, "true or false")
    return value != 0


def _status(_: str, member: JsonMember) -> InstanceStatus | None:
    """Why an instance is not enabled; None where it says something else, for the field is not Curator's either."""
    return next((status for status in STATUSES if member.value == status), None)


def _service_type(field: str, member: JsonMember) -> ServiceType:
    value = member.value
    if value is None:
        return ServiceType.DYNAMIC
    found: ServiceType | None = None
    if isinstance(value, str):
        name = value.strip(_JAVA_SPACE)
        found = ServiceType.__members__.get(name)
        value = int(name) if found is None and len(name) < _MAX_SHOWN and _WHOLE_NUMBER.fullmatch(name) else value
    if type(value) is int and 0 <= value < len(_IN_JAVAS_ORDER):
        found = _IN_JAVAS_ORDER[value]
    if found is None:
        _refuse(field, member.value, f"one of {', '.join(ServiceType.__members__)}")
    return found


def as_uri_spec(field: str, member: JsonMember) -> FrozenDict | None:
    value = member.value
    if value is None:
        return None
    if isinstance(value, str):
        parts = _template(field, value)
    elif isinstance(value, dict):
        given = value.get("parts", [])
        if not isinstance(given, list):
            _refuse(f"{field}.parts", given, "a list")
        written = _numbers_as_text(member.text)["parts"] if given and member.text else given
        parts = [_part(f"{field}.parts[{index}]", *pair) for index, pair in enumerate(zip(given, written, strict=True))]
    else:
        _refuse(field, value, "an object with parts")
    frozen: FrozenDict = freeze({"parts": parts})
    return frozen


_numbers_as_text: Final = json.JSONDecoder(parse_int=str, parse_float=str).decode


def _part(field: str, part: Any, written: Any) -> dict[str, Any]:
    """A part; *written* is the same with its numbers as texts."""
    if not isinstance(part, dict):
        _refuse(field, part, "an object with value and variable")
    value, variable = part.get("value", ""), part.get("variable", False)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = as_text(f"{field}.value", JsonMember(value, str(written["value"]) if number else json.dumps(value)))
    if text is None:
        text = "null"  # as Curator puts it into a URI
    return {"value": text, "variable": _enabled(f"{field}.variable", JsonMember(variable, "written"))}


def _template(field: str, template: str) -> list[dict[str, Any]]:
    """The parts of ``{scheme}://{address}:{port}``, as Curator's UriSpec takes it apart."""
    parts: list[dict[str, Any]] = []
    inside = False
    for token in filter(None, re.split(r"([{}])", template)):
        if token in "{}":
            if inside is (token == "{"):
                _refuse(field, template, "a template with variables in pairs of braces")
            inside = not inside
        else:
            parts.append({"value": token.strip(_JAVA_SPACE) if inside else token, "variable": inside})
    if inside:
        _refuse(field, template, "a template with variables in pairs of braces")
    return parts


READERS: Final[dict[str, Callable[[str, JsonMember], Any]]] = {
    "service_type": _service_type,
    "address": as_text,
    "port": _port,
    "ssl_port": _port,
    "enabled": _enabled,
    "status": _status,
    "uri_spec": as_uri_spec,
    "registration_time_ms": _time,
    "session_timeout_ms": _timeout,
}


_shared_timeouts: Final[dict[int, int]] = {}
MOST_SHARED: Final = 64


def shared(timeout_ms: int | None) -> int | None:
    """Return one object for equal numbers: a service knows a few timeouts, and a hundred thousand instances."""
    if not timeout_ms or len(_shared_timeouts) == MOST_SHARED:
        return _shared_timeouts.get(timeout_ms, timeout_ms) if timeout_ms else None
    return _shared_timeouts.setdefault(timeout_ms, timeout_ms)
