"""The text of a document, taken apart into the members of its JSON object as Jackson does. Pure."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NamedTuple, NoReturn

from aioregistry._errors import InvalidInstance
from aioregistry._frozen import MAX_DEPTH, TooDeep

__all__ = ["ABSENT", "MAX_DIGITS", "JsonMember", "encoded", "is_exact", "members_of", "repaired"]

_UTF8_BOM: Final = b"\xef\xbb\xbf"
# How Jackson tells encodings apart (RFC 4627, section 3): by a mark, else by where the zeros are in the first bytes.
_MARKS: Final = (
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"\xff\xfe", "utf-16-le"),
    (_UTF8_BOM, "utf-8"),
)
_ZEROS: Final = (
    (re.compile(rb"\0\0\0[^\0]"), "utf-32-be"),
    (re.compile(rb"[^\0]\0\0\0"), "utf-32-le"),
    (re.compile(rb"\0[^\0]\0[^\0]"), "utf-16-be"),
    (re.compile(rb"[^\0]\0[^\0]\0"), "utf-16-le"),
)
_OTHER_FORMATS: Final = {
    b"\x1f\x8b": "compressed by gzip, as by a Curator with compression on",
    b"\xac\xed\x00\x05": "a serialized object of Java",
}
"""The beginnings of what Java writes into nodes, too; no text in UTF-8 begins so."""
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
MAX_DIGITS: Final = 1000  # Jackson's limit too (StreamReadConstraints.DEFAULT_MAX_NUM_LEN); Python's own is 4300
_KINDS: Final[dict[type, str]] = {
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "a boolean",
}


class _NotJson(ValueError):
    """Something that is not JSON to Jackson, and would be to Python."""


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _NotJson(f"a number has more than {MAX_DIGITS} digits")
    return int(digits)


def _no_constant(word: str) -> NoReturn:
    raise _NotJson(f"{word} is not a number in JSON")


_read = json.JSONDecoder(parse_int=_whole, parse_constant=_no_constant).raw_decode


def members_of(data: bytes) -> dict[str, JsonMember]:
    """The members of the JSON object at the beginning of *data*; as Jackson, without a look at what follows it."""
    if not data.strip(b" \t\r\n\0"):
        raise InvalidInstance("the node is empty")
    for beginning, what in _OTHER_FORMATS.items():
        if data.startswith(beginning):
            raise InvalidInstance(f"not JSON: it is {what}")
    encoding, skipped = _encoding(data)
    undecodable: UnicodeDecodeError | None = None
    try:
        text = data[skipped:].decode(encoding, "surrogatepass")
    except UnicodeDecodeError as error:  # behind the object anything may follow
        undecodable = error
        text = data[skipped : skipped + error.start].decode(encoding, "surrogatepass")
    if _HALF_PAIR.search(text):  # two halves that were encoded one by one are a whole
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    try:
        return _object(text)
    except json.JSONDecodeError as error:
        if undecodable is not None:
            raise InvalidInstance(f"not {encoding.upper()} at byte {skipped + undecodable.start}") from undecodable
        at = skipped + len(text[: error.pos].encode(encoding, "surrogatepass"))
        is_cut_off = error.pos >= len(text) or (text[error.pos] == '"' and not _STRING.match(text, error.pos))
        problem = "it ends too early" if is_cut_off else f"{text[error.pos]!r} is unexpected"
        raise InvalidInstance(f"not JSON at byte {at}: {problem}") from error
    except _NotJson as error:
        raise InvalidInstance(f"not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidInstance(str(TooDeep())) from error


def _encoding(data: bytes) -> tuple[str, int]:
    """How *data* is encoded, and how many bytes of a mark precede it."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding, len(mark)
    return next((encoding for zeros, encoding in _ZEROS if zeros.match(data)), "utf-8"), 0


def _object(text: str) -> dict[str, JsonMember]:
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        value, end = _read(text, at)
        end = _skip(text, end)
        if text[end:].strip("\0"):
            raise json.JSONDecodeError("", text, end)
        kind = "null" if value is None else _KINDS[type(value)]
        raise InvalidInstance(f"not a Curator service instance: it is {kind}, not a JSON object")
    members: dict[str, JsonMember] = {}
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return members
    while True:
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("", text, at)
        key, at = _read(text, at)
        at = _skip(text, _passed(text, _skip(text, at), ":"))
        value, end = _read(text, at)
        members[_unicode(key)] = JsonMember(value, text[at:end])  # of several of one name the last counts
        at = _skip(text, end)
        if text[at : at + 1] == "}":
            return members
        at = _skip(text, _passed(text, at, ","))


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None, "it may be empty"
    return space.end()


def _passed(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise json.JSONDecodeError("", text, at)
    return at + 1


class JsonMember(NamedTuple):
    """A member of the document: its value, and the text that it was written as; without text it is absent."""

    value: Any
    text: str


ABSENT: Final = JsonMember(None, "")


def encoded(text: str) -> bytes:
    """*text* as it is written again: on one line, which changes white space only, and with halves of pairs escaped."""
    return text.replace("\r", " ").replace("\n", " ").encode("utf-8", "backslashreplace")


def repaired(key: str, member: JsonMember) -> JsonMember:
    try:
        return JsonMember(_unicode(member.value), member.text)
    except TooDeep as error:
        raise InvalidInstance(f"{key}: {error}") from error


def _unicode(value: Any, levels: int = MAX_DEPTH) -> Any:
    """*value* with U+FFFD for halves of surrogate pairs: Java's strings may hold them, and nothing else can.

    Raises:
        TooDeep: it is nested deeper than *levels*.
    """
    if isinstance(value, str):
        return _HALF_PAIR.sub("\ufffd", value)
    if not isinstance(value, list | dict):
        return value
    if not levels:
        raise TooDeep
    if isinstance(value, list):
        return [_unicode(item, levels - 1) for item in value]
    return {_unicode(key): _unicode(item, levels - 1) for key, item in value.items()}


def is_exact(value: Any) -> bool:
    """Whether *value* can be written: halves of surrogate pairs cannot, nor can numbers beyond the range of a float."""
    if isinstance(value, str):
        return _HALF_PAIR.search(value) is None
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(is_exact, value))
    return not isinstance(value, dict) or all(is_exact(key) and is_exact(item) for key, item in value.items())


_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")
