"""The JSON of an instance: read as Apache Curator reads it, written so that Curator can. Pure.

The document of an instance is what Curator's ``JsonInstanceSerializer`` writes (as of Curator 5.4), so that Java
services with Curator or Spring Cloud ZooKeeper read what is written here, and the other way round::

    {"name": "chat", "id": "10.0.0.7:7000", "address": "10.0.0.7", "port": 7000, "sslPort": null,
     "payload": {"zone": "eu-1"}, "registrationTimeUTC": 1763680000000, "serviceType": "DYNAMIC", "uriSpec": null}

* Nulls are written. ``enabled`` is written only when it is false, and ``sessionTimeoutMs``, which is none of Curator's,
  only when it is known: readers older than CURATOR-275 (2.11.1, 3.2.1) refuse documents with a field they do not know.
  Absent, the one means true, the other that nobody knows.
* Jackson marks a payload's class (see :mod:`._java`). The class is kept in ``payload_class``, written back, and no part
  of ``payload``. A list is always written with a class (as an ArrayList unless told otherwise), without which Jackson
  cannot read it.
* Fields that are not known here are kept in ``extra`` and written back.

**What Curator reads, we read.** Curator leaves the reading to Jackson, which coerces scalars: ``"8080"`` and 8080.0 are
ports, a number is an id, null is "not enabled", a text is a uriSpec. What is so repaired is remembered as it was
written, and written back so unless the field is changed. A document as the library writes it takes the fast way,
through msgspec; anything else takes the other, which is Jackson's, as measured with Curator 5.4 (tests/interop).

**What is no instance says why**, in words of our own that name the field and the value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, NamedTuple, NoReturn

import msgspec

from ._errors import InvalidInstance
from ._frozen import CONTAINERS, MAX_DEPTH, FrozenDict, TooDeep, freeze
from ._java import marked, unmarked
from ._model import DOCUMENT_NAMES, AsWritten, Draft, ServiceInstance, ServiceType
from ._payload import plain

__all__ = ["decode", "encode", "names_itself"]

_MAX_PORT: Final = 65535
_MAX_INT: Final = 2**31 - 1
_MAX_LONG: Final = 2**63 - 1

# ---------------------------------------------------------------- writing

_encode_json = msgspec.json.Encoder().encode


def encode(instance: ServiceInstance[Any]) -> bytes:
    """Return the document of *instance*."""
    document = {**_fields(instance), **instance.extra}
    for field in instance._as_written:
        if all(getattr(instance, attribute) == value for attribute, value in field.read_as.items()):
            if field.text is None:
                document.pop(field.name, None)
            else:
                document[field.name] = msgspec.Raw(field.text)
    return _encode_json(document)


def names_itself(instance: ServiceInstance[Any]) -> bool:
    """Return whether the document of *instance* alone tells its id."""
    return all(field.name != "id" for field in instance._as_written)


def _fields(instance: Draft[Any] | ServiceInstance[Any]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": instance.name,
        "id": instance.id,
        "address": instance.address,
        "port": instance.port,
        "sslPort": instance.ssl_port,
        "payload": marked(plain(instance.payload), instance.payload_class),
        "registrationTimeUTC": instance.registration_time_ms or 0,  # a Java long: there is no null
        "serviceType": instance.service_type.value,
        "uriSpec": instance.uri_spec,
    }
    if not instance.enabled:
        document["enabled"] = False
    if instance.session_timeout_ms:
        document["sessionTimeoutMs"] = instance.session_timeout_ms
    return document


# ---------------------------------------------------------------- reading, the fast way


class _Document(msgspec.Struct, gc=False, forbid_unknown_fields=True, rename="camel"):
    """A document in which there is nothing to repair."""

    name: str
    id: str
    address: str | None
    port: Annotated[int, msgspec.Meta(ge=0, le=_MAX_PORT)] | None = None
    ssl_port: Annotated[int, msgspec.Meta(ge=0, le=_MAX_PORT)] | None = None
    payload: Any = None
    registration_time_ms: Annotated[int, msgspec.Meta(ge=-_MAX_LONG - 1, le=_MAX_LONG)] = msgspec.field(
        default=0, name="registrationTimeUTC"
    )
    service_type: ServiceType = ServiceType.DYNAMIC
    uri_spec: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    session_timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=_MAX_INT)] | msgspec.UnsetType = msgspec.UNSET


_decode_document = msgspec.json.Decoder(_Document).decode
_NO_EXTRA: Final = FrozenDict()
_ENABLED_WRITTEN: Final = (AsWritten("enabled", {"enabled": True}, b"true"),)


class _Slow(Exception):
    """The fast way does not repair."""


def decode(data: bytes, *, name: str | None = None, id: str | None = None) -> ServiceInstance[Any]:
    """Return the instance that the document *data* describes; its payload as JSON, see :func:`with_payload_type`.

    The node's place is the identity: a document that names another service or id than *name* and *id* (where given) is
    refused, because a consumer could not tell which of two nodes describes the instance. A document without an id has
    that of its node, and so has a DYNAMIC_SEQUENTIAL one, to whose id the server appended a number to name the node.

    Raises:
        InvalidInstance: with the reason.
    """
    try:
        return _decode_fast(data, name, id)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, _Slow):
        return _decode_leniently(data, name, id)


def _decode_fast(data: bytes, name: str | None, id: str | None) -> ServiceInstance[Any]:
    document = _decode_document(data)
    if (name is not None and document.name != name) or (id is not None and document.id != id):
        raise _Slow
    draft: Draft[Any] = Draft()
    # The caller's strings where there are any, so that thousands of instances share one name.
    draft.name = name or document.name
    draft.id = id or document.id
    if not draft.name or not draft.id:
        raise _Slow
    draft.address = document.address
    draft.port = document.port
    draft.ssl_port = document.ssl_port
    draft.enabled = document.enabled is not False
    draft.service_type = document.service_type
    draft.registration_time_ms = document.registration_time_ms or None
    draft.session_timeout_ms = _shared(document.session_timeout_ms or None)
    draft.uri_spec = _shared_uri_spec(document.uri_spec)
    payload = document.payload
    if type(payload) in CONTAINERS:
        if _is_unusual(payload):
            raise _Slow
        draft.payload, draft.payload_class = _without_class(payload)
    else:
        draft.payload, draft.payload_class = payload, None
    draft.extra = _NO_EXTRA
    draft._as_written = _ENABLED_WRITTEN if document.enabled is True else ()
    return draft.frozen()


def _is_unusual(payload: Any) -> bool:
    """Whether the payload is a map in a list's form, or has a class of null: it would be written otherwise."""
    if type(payload) is dict:
        return payload.get("@class", "") is None
    return len(payload) == 2 and type(payload[1]) is dict


def _without_class(payload: Any) -> tuple[Any, str | None]:
    try:
        value, payload_class = unmarked(payload)
        return freeze(value), payload_class
    except TooDeep as error:
        raise InvalidInstance(f"payload: {error}") from error
    except ValueError as error:
        raise InvalidInstance(str(error)) from error


_shared_timeouts: Final[dict[int, int]] = {}
_shared_uri_specs: Final[dict[bytes, FrozenDict]] = {}
_MOST_SHARED: Final = 64


def _shared(timeout_ms: int | None) -> int | None:
    """Return one object for equal numbers: a service knows a few timeouts, and a hundred thousand instances."""
    if not timeout_ms or len(_shared_timeouts) == _MOST_SHARED:
        return _shared_timeouts.get(timeout_ms, timeout_ms) if timeout_ms else None
    return _shared_timeouts.setdefault(timeout_ms, timeout_ms)


def _shared_uri_spec(raw: msgspec.Raw) -> FrozenDict | None:
    """Return the uriSpec; one object for equal texts, for most services have one."""
    text = bytes(raw)
    if text == b"null":
        return None
    known = _shared_uri_specs.get(text)
    if known is None:
        value = msgspec.json.decode(text)
        known = _uri_spec("uriSpec", _Member(value, ""))
        if known is None or not _is_same(known, value):
            raise _Slow
        if len(_shared_uri_specs) < _MOST_SHARED:
            _shared_uri_specs[text] = known
    return known


# ---------------------------------------------------------------- reading, as Jackson does


class _Member(NamedTuple):
    """A member of the document: its value, and the text that it was written as; without text it is absent."""

    value: Any
    text: str


_ABSENT: Final = _Member(None, "")


def _decode_leniently(data: bytes, name: str | None, id: str | None) -> ServiceInstance[Any]:
    written = _members(data)
    members = {key: _repaired(key, member) for key, member in written.items()}
    draft: Draft[Any] = Draft()
    draft.name = _name(members.get("name", _ABSENT), name)
    for attribute, read in _READERS.items():
        field = DOCUMENT_NAMES[attribute]
        setattr(draft, attribute, read(field, members.get(field, _ABSENT)))
    given_id = _text("id", members.get("id", _ABSENT))
    draft.id = _id(given_id, id, draft.service_type)
    payload = members.get("payload", _ABSENT).value
    if type(payload) in CONTAINERS:
        draft.payload, draft.payload_class = _without_class(payload.copy())
    else:
        draft.payload, draft.payload_class = payload, None
    extra = {key: freeze(member.value) for key, member in members.items() if key not in _KNOWN}
    draft.extra = FrozenDict(extra) if extra else _NO_EXTRA
    draft._as_written = tuple(_remembered(draft, written, given_id))
    return draft.frozen()


def _remembered(draft: Draft[Any], written: dict[str, _Member], given_id: str | None) -> Iterator[AsWritten]:
    """What was read otherwise than it would be written."""
    by_itself = _fields(draft)
    for attribute, field in DOCUMENT_NAMES.items():
        read_as = {attribute: getattr(draft, attribute)}
        if field not in written:
            if field in _KEPT_ABSENT:
                yield AsWritten(field, read_as, None)
            continue
        if field == "id" and given_id and given_id != draft.id:
            read_as["service_type"] = draft.service_type  # of no other type may it differ from its node's
        value, text = written[field]
        if not _is_exact(value) or not (
            _is_same(by_itself.get(field, _ABSENT), value) or _is_bare_list(draft, field, value)
        ):
            yield AsWritten(field, read_as, _encoded(text))
    for key in draft.extra:
        if not _is_exact(written[key].value):
            yield AsWritten(key, {"extra": draft.extra}, _encoded(written[key].text))


def _is_bare_list(draft: Draft[Any], field: str, value: Any) -> bool:
    """Whether it is a payload that Jackson cannot read, a list without a class; it is written with one."""
    return field == "payload" and type(value) is list and draft.payload_class is None and draft.payload == value


def _is_same(ours: Any, theirs: Any) -> bool:
    """Whether both are written alike: 1, 1.0 and true are equal to Python only."""
    return ours is not _ABSENT and _encode_json(ours) == _encode_json(theirs)


def _encoded(text: str) -> bytes:
    """*text* as it is written again: on one line, which changes white space only, and with halves of pairs escaped."""
    return text.replace("\r", " ").replace("\n", " ").encode("utf-8", "backslashreplace")


def _repaired(key: str, member: _Member) -> _Member:
    try:
        return _Member(_unicode(member.value), member.text)
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


def _is_exact(value: Any) -> bool:
    """Whether *value* can be written: halves of surrogate pairs cannot, nor what is beyond the range of a float."""
    if isinstance(value, str):
        return _HALF_PAIR.search(value) is None
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_is_exact, value))
    return not isinstance(value, dict) or all(_is_exact(key) and _is_exact(item) for key, item in value.items())


_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")


# ------------------------------------------------------------ whose document it is

# What ZooKeeper appends to the name of a sequential node: the counter in ten places, which may overflow.
_COUNTER: Final = re.compile(r"\d{10}|-\d{9,10}")


def _name(member: _Member, wanted: str | None) -> str:
    name = _text("name", member)
    if not name:
        raise InvalidInstance("no Curator service instance: it has no `name`")
    if wanted is None or name == wanted:
        return wanted or name
    ours, theirs = wanted.strip("/"), name.strip("/")
    if ours == theirs:
        return name
    if theirs.endswith(f"/{ours}"):  # a service with slashes, looked at from below a part of its name
        return wanted
    raise InvalidInstance(f"name is {name!r}, but the node belongs to service {wanted!r}")


def _id(given: str | None, node: str | None, service_type: ServiceType) -> str:
    if given and (node is None or given == node):
        return node or given
    if node is None:
        raise InvalidInstance("it has no `id`")
    if not given:
        return node
    if (
        service_type is ServiceType.DYNAMIC_SEQUENTIAL
        and node.startswith(given)
        and _COUNTER.fullmatch(node[len(given) :])
    ):
        return node
    raise InvalidInstance(f"id is {given!r}, but the node is {node!r}")


# ------------------------------------------------------------ JSON

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
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_MAX_DIGITS: Final = 1000  # Jackson's limit too (StreamReadConstraints.DEFAULT_MAX_NUM_LEN); Python's own is 4300
_KINDS: Final[dict[type, str]] = {
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "a boolean",
}


class _NotJson(ValueError):
    """Something that is no JSON to Jackson, and would be to Python."""


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise _NotJson(f"a number has more than {_MAX_DIGITS} digits")
    return int(digits)


def _no_constant(word: str) -> NoReturn:
    raise _NotJson(f"{word} is no number in JSON")


_read = json.JSONDecoder(parse_int=_whole, parse_constant=_no_constant).raw_decode


def _members(data: bytes) -> dict[str, _Member]:
    """The members of the JSON object at the beginning of *data*; as Jackson, without a look at what follows it."""
    if not data.strip(b" \t\r\n\0"):
        raise InvalidInstance("the node is empty")
    encoding, skipped = _encoding(data)
    try:
        text = data[skipped:].decode(encoding, "surrogatepass")
    except UnicodeDecodeError as error:
        raise InvalidInstance(f"not {encoding.upper()} at byte {skipped + error.start}") from error
    if _HALF_PAIR.search(text):  # two halves that were encoded one by one are a whole
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    try:
        return _object(text)
    except json.JSONDecodeError as error:
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


def _object(text: str) -> dict[str, _Member]:
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        value, end = _read(text, at)
        end = _skip(text, end)
        if text[end:].strip("\0"):
            raise json.JSONDecodeError("", text, end)
        kind = "null" if value is None else _KINDS[type(value)]
        raise InvalidInstance(f"no Curator service instance: it is {kind}, not a JSON object")
    members: dict[str, _Member] = {}
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return members
    while True:
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("", text, at)
        key, at = _read(text, at)
        at = _skip(text, _passed(text, _skip(text, at), ":"))
        value, end = _read(text, at)
        members[_unicode(key)] = _Member(value, text[at:end])  # of several of one name the last counts
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


# ------------------------------------------------------------ scalars, as Jackson coerces them

_JAVA_SPACE: Final = "".join(map(chr, range(0x21)))  # what String.trim() takes away
_WHOLE_NUMBER: Final = re.compile(r"[+-]?\d+")
_TRUTHS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS: Final = ("", "null")
_IN_JAVAS_ORDER: Final = tuple(ServiceType)


def _refuse(field: str, value: Any, wanted: str) -> NoReturn:
    text = repr(value)
    raise InvalidInstance(f"{field} is {text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '...'}, not {wanted}")


_MAX_SHOWN: Final = 80


def _text(field: str, member: _Member) -> str | None:
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
        number = int(trimmed) if len(trimmed) <= _MAX_DIGITS and _WHOLE_NUMBER.fullmatch(trimmed) else None
    elif isinstance(value, bool | list | dict):
        number = None
    elif value is None:
        return None
    if number is None or not -(2**bits) <= number < 2**bits:
        _refuse(field, value, f"a whole number of {bits + 1} bits")
    return int(number)  # a fraction is cut off


def _port(field: str, member: _Member) -> int | None:
    """A port; None for numbers that are none, as -1, which Druid writes for "no TLS"."""
    port = _integer(field, member.value, 31)
    return port if port is not None and 0 <= port <= _MAX_PORT else None


def _time(field: str, member: _Member) -> int | None:
    return _integer(field, member.value, 63) or None


def _timeout(_: str, member: _Member) -> int | None:
    """The session timeout; unknown where it is of another type, for the field is not Curator's and may be anybody's."""
    value = member.value
    return _shared(value) if type(value) is int and 0 < value <= _MAX_INT else None


def _enabled(field: str, member: _Member) -> bool:
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


def _service_type(field: str, member: _Member) -> ServiceType:
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


def _uri_spec(field: str, member: _Member) -> FrozenDict | None:
    value = member.value
    if value is None:
        return None
    if isinstance(value, str):
        parts = _template(field, value)
    elif isinstance(value, dict):
        given = value.get("parts", [])
        if not isinstance(given, list):
            _refuse(f"{field}.parts", given, "a list")
        parts = [_part(f"{field}.parts[{index}]", part) for index, part in enumerate(given)]
    else:
        _refuse(field, value, "an object with parts")
    frozen: FrozenDict = freeze({"parts": parts})
    return frozen


def _part(field: str, part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        _refuse(field, part, "an object with value and variable")
    value, variable = part.get("value", ""), part.get("variable", False)
    text = _text(f"{field}.value", _Member(value, json.dumps(value)))
    if text is None:
        _refuse(f"{field}.value", value, "text")
    return {"value": text, "variable": _enabled(f"{field}.variable", _Member(variable, "written"))}


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


_READERS: Final[dict[str, Callable[[str, _Member], Any]]] = {
    "service_type": _service_type,
    "address": _text,
    "port": _port,
    "ssl_port": _port,
    "enabled": _enabled,
    "uri_spec": _uri_spec,
    "registration_time_ms": _time,
    "session_timeout_ms": _timeout,
}
# Readers make something of these where they are not there, and it is not what is written for it: an empty id.
_KEPT_ABSENT: Final = frozenset({"id", "address"})
_KNOWN: Final = frozenset(DOCUMENT_NAMES.values())
