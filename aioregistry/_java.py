"""The Java class that Jackson marks a payload with: read, written, and dropped where a new payload does not fit. Pure.

Curator has Jackson write the class of each payload but text, numbers of the usual kinds and booleans: an object has it
as a member, ``{"@class": "java.util.HashMap", ...}``, anything else stands in a list behind it, ``["[I", [1, 2]]``.
Arrays have their JVM names (``[Ljava.lang.String;``), enum sets and maps what they are of
(``java.util.EnumSet<com.acme.Day>``).

Jackson fails for a class that it cannot make of what stands there, and with it fails Curator's query for the whole
service. So a class stays only as long as the payload is of its shape; a payload without one reads as a map, a list or a
scalar, whatever it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from ._arguments import is_number, is_whole
from ._errors import InvalidArgument, wrong_argument

__all__ = ["MARK", "NoClass", "check_class", "class_for", "marked", "unmarked"]

MARK: Final = "@class"
_LIST: Final = "java.util.ArrayList"

_IDENTIFIER: Final = r"[^\W\d][\w$]*|\$[\w$]+"
_NAME: Final = rf"(?:{_IDENTIFIER})(?:\.(?:{_IDENTIFIER}))*"
_ARRAY: Final = rf"\[+(?:[BCDFIJSZ]|L{_NAME};)"
# The arguments of a generic type are not looked into: they may be generic themselves.
_CLASS: Final = re.compile(rf"{_ARRAY}|{_NAME}(?:<[\w$.,<>\[\];? ]+>)?")
# By Java's conventions a package is in lower case and a class is not; host names are, and so two of them are not a
# class and its value.
_BY_CONVENTION: Final = re.compile(rf"{_ARRAY}|(?:[a-z_][a-z0-9_]*\.)+[A-Z](?:[\w$])*(?:<.+>)?|[A-Z]\w*\$[\w$]+")
_MAX_LENGTH: Final = 1000


class NoClass(ValueError):
    """The mark of a payload is not a name of a Java class."""


def _is_class(text: object) -> bool:
    """Return whether *text* can be the name of a Java class as Jackson writes it."""
    return isinstance(text, str) and len(text) <= _MAX_LENGTH and _CLASS.fullmatch(text) is not None


def check_class(payload_class: object, payload: Any) -> str | None:
    """Return the class to publish *payload*, plain JSON, with; null has no class.

    Raises:
        InvalidArgument: it is not a class, or Jackson cannot make it of such a payload.
    """
    if payload_class is None:
        return None
    if not _is_class(payload_class):
        raise wrong_argument("payload_class", payload_class, "must be the full name of a Java class", str)
    assert isinstance(payload_class, str)
    if payload is None:
        return None
    if not _fits(payload_class, payload):
        problem = f"Java cannot read it from a payload that is {_shape(payload)}"
        raise InvalidArgument("payload_class", payload_class, problem)
    return payload_class


def class_for(payload_class: str | None, before: Any, after: Any) -> str | None:
    """Return the class that remains when the payload, plain JSON, changes; None where the old one does not fit."""
    if payload_class is None or after is None or _shape(before) != _shape(after):
        return None
    # Which names an enum has is not known here.
    return payload_class if "<" not in payload_class and _fits(payload_class, after) else None


def marked(payload: Any, payload_class: str | None) -> Any:
    """Return *payload*, plain JSON, with its class, as Jackson writes it."""
    if isinstance(payload, dict) and MARK not in payload:
        return {MARK: payload_class, **payload} if payload_class else payload
    if isinstance(payload, dict | list | tuple):  # a map may have come in a list's form, with a mark of its own
        return [payload_class or _LIST, payload]
    return [payload_class, payload] if payload_class and payload is not None else payload


def unmarked(payload: dict[str, Any] | list[Any]) -> tuple[Any, str | None]:
    """Return the payload without the mark, and the class; *payload* is used up.

    A list without a class reads as a list, though Jackson cannot read it.

    Raises:
        NoClass: the mark of an object is not a class.
    """
    if type(payload) is dict:
        payload_class = payload.pop(MARK, None)
        if payload_class is not None and not _is_class(payload_class):
            raise NoClass(f"payload.{MARK} is {payload_class!r:.80}, not the name of a Java class")
        return payload, payload_class
    match payload:
        case [str(payload_class), value] if _is_class(payload_class) and _is_meant(payload_class, value):
            return value, None if payload_class == _LIST else payload_class
    return payload, None


def _is_meant(payload_class: str, value: Any) -> bool:
    return _BY_CONVENTION.fullmatch(payload_class) is not None or ("." in payload_class and not isinstance(value, str))


# ---------------------------------------------------------------- what Jackson can make of a value

_INTEGERS: Final = {"Byte": 7, "Short": 15, "Integer": 31, "Long": 63}


def _shape(payload: Any) -> str:
    if isinstance(payload, dict):
        return "an object"
    if isinstance(payload, list | tuple):
        return "a list"
    if isinstance(payload, str):
        return "text"
    if isinstance(payload, bool):
        return "true or false"
    return "null" if payload is None else "a number"


def _is_integer(bits: int) -> Callable[[Any], bool]:
    return lambda value: is_whole(value) and -(2**bits) <= value < 2**bits


def _is_list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(fits, value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_value(value: Any) -> bool:
    return value is not None and not isinstance(value, dict | list | tuple)


_PRIMITIVES: Final[dict[str, Callable[[Any], bool]]] = {
    "I": _is_integer(31),
    "J": _is_integer(63),
    "S": _is_integer(15),
    "D": is_number,
    "F": is_number,
    "Z": _is_bool,
}

_UUID: Final = re.compile("-".join(f"[0-9A-Fa-f]{{{digits}}}" for digits in (8, 4, 4, 4, 12)))

_SCALARS: Final[dict[str, Callable[[Any], bool]]] = {
    **{f"java.lang.{name}": _is_integer(bits) for name, bits in _INTEGERS.items()},
    "java.math.BigInteger": is_whole,
    **dict.fromkeys(("java.lang.Double", "java.lang.Float", "java.math.BigDecimal"), is_number),
    "java.util.Date": _is_integer(62),
    "java.util.UUID": lambda value: isinstance(value, str) and _UUID.fullmatch(value) is not None,
    "java.lang.Boolean": _is_bool,
    "java.lang.String": _is_text,
    "java.lang.Object": lambda _: True,
}

_MAPS: Final = re.compile(r"java\.util\.(?:concurrent\.)?(?:\w*Map|Hashtable|Properties|Dictionary)(?:<.+>)?")
_LISTS: Final = re.compile(
    r"java\.util\.(?:concurrent\.)?(?:\w*(?:List|Set|Queue|Deque)|Collection|Vector|Stack)(?:<.+>)?"
)
_SORTED: Final = re.compile(r"java\.util\.(?:concurrent\.)?(?:TreeSet|ConcurrentSkipListSet|Priority\w*Queue)")
_WITHOUT_NULLS: Final = re.compile(r"java\.util\.(?:concurrent\.Concurrent\w*|Hashtable|Properties)|.*Deque|.*Queue")


def _known(payload_class: str) -> Callable[[Any], bool] | None:
    """The test of a payload for a class that Jackson is known to be strict with, None for classes not known here."""
    if payload_class in _SCALARS:
        return _SCALARS[payload_class]
    if payload_class.startswith("["):
        return lambda value: _fits_array(payload_class, value)
    no_nulls = _WITHOUT_NULLS.match(payload_class) is not None
    if _MAPS.fullmatch(payload_class):
        if payload_class == "java.util.Properties":
            return lambda value: _is_object(value) and all(map(_is_value, value.values()))
        return lambda value: _is_object(value) and not (no_nulls and None in value.values())
    if _SORTED.fullmatch(payload_class):  # its elements are compared with each other
        return lambda value: _is_list(value) and all(map(_is_value, value)) and len(set(map(type, value))) <= 1
    if _LISTS.fullmatch(payload_class):
        return lambda value: _is_list(value) and not (no_nulls and None in value)
    return None


def _fits(payload_class: str, payload: Any) -> bool:
    test = _known(payload_class)
    return test is None or test(payload)


def _fits_array(payload_class: str, payload: Any) -> bool:
    inner = payload_class[1:]
    if inner.startswith("["):
        return _is_list_of(lambda item: item is None or _fits_array(inner, item))(payload)
    if inner in "BC":  # bytes come in base64, characters as one text
        return isinstance(payload, str) and (inner == "C" or _is_base64(payload))
    if inner in _PRIMITIVES:
        return _is_list_of(_PRIMITIVES[inner])(payload)
    element = inner[1:-1]
    return _is_list_of(lambda item: item is None or _fits(element, item))(payload)


def _is_base64(text: str) -> bool:
    return re.fullmatch(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", text) is not None
