"""A document read as an instance: the fast way as the library writes it, otherwise as Jackson does. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec

from aioregistry._errors import InvalidInstance
from aioregistry._frozen import CONTAINERS, FrozenDict, TooDeep, freeze
from aioregistry._java import NoClass, unmarked
from aioregistry._model import DOCUMENT_NAMES, NO_EXTRA, AsWritten, Draft, InstanceStatus, ServiceInstance, ServiceType

from .scalars import MAX_INT, MAX_LONG, MAX_PORT, MOST_SHARED, READERS, as_text, as_uri_spec, shared
from .text import ABSENT, JsonMember, encoded, is_exact, members_of, repaired
from .writing import encode_json, fields_of

__all__ = ["decode"]

# ---------------------------------------------------------------- the fast way


_shared_uri_specs: Final[dict[bytes, FrozenDict]] = {}


class _Document(msgspec.Struct, gc=False, forbid_unknown_fields=True, rename="camel"):
    """A document in which there is nothing to repair."""

    name: str
    id: str
    address: str | None
    port: Annotated[int, msgspec.Meta(ge=0, le=MAX_PORT)] | None = None
    ssl_port: Annotated[int, msgspec.Meta(ge=0, le=MAX_PORT)] | None = None
    payload: Any = None
    registration_time_ms: Annotated[int, msgspec.Meta(ge=-MAX_LONG - 1, le=MAX_LONG)] = msgspec.field(
        default=0, name="registrationTimeUTC"
    )
    service_type: ServiceType = ServiceType.DYNAMIC
    uri_spec: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    status: InstanceStatus | msgspec.UnsetType = msgspec.UNSET
    session_timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=MAX_INT)] | msgspec.UnsetType = msgspec.UNSET


_decode_document = msgspec.json.Decoder(_Document).decode
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
    draft.status = None if isinstance(document.status, msgspec.UnsetType) else document.status
    if draft.enabled and draft.status:
        raise _Slow
    draft.service_type = document.service_type
    draft.registration_time_ms = document.registration_time_ms or None
    timeout_ms = document.session_timeout_ms
    draft.session_timeout_ms = None if isinstance(timeout_ms, msgspec.UnsetType) else shared(timeout_ms)
    draft.uri_spec = _shared_uri_spec(document.uri_spec)
    payload = document.payload
    if type(payload) in CONTAINERS:
        if _is_unusual(payload):
            raise _Slow
        draft.payload, draft.payload_class = _without_class(payload)
    else:
        draft.payload, draft.payload_class = payload, None
    draft.extra = NO_EXTRA
    return draft.frozen(_ENABLED_WRITTEN if document.enabled is True else ())


def _is_unusual(payload: Any) -> bool:
    """Whether the payload is a map or null in a list's form, or has a class of null: it would be written otherwise."""
    if type(payload) is dict:
        return payload.get("@class", "") is None
    return len(payload) == 2 and (type(payload[1]) is dict or payload[1] is None)


def _without_class(payload: Any) -> tuple[Any, str | None]:
    try:
        value, payload_class = unmarked(payload)
        return freeze(value), payload_class
    except TooDeep as error:
        raise InvalidInstance(f"payload: {error}") from error
    except NoClass as error:
        raise InvalidInstance(str(error)) from error


def _shared_uri_spec(raw: msgspec.Raw) -> FrozenDict | None:
    """Return the uriSpec; one object for equal texts, for most services have one."""
    text = bytes(raw)
    if text == b"null":
        return None
    known = _shared_uri_specs.get(text)
    if known is None:
        value = msgspec.json.decode(text)
        known = as_uri_spec("uriSpec", JsonMember(value, ""))
        if known is None or not _is_same(known, value):
            raise _Slow
        if len(_shared_uri_specs) < MOST_SHARED:
            _shared_uri_specs[text] = known
    return known


# ---------------------------------------------------------------- as Jackson does


def _decode_leniently(data: bytes, name: str | None, id: str | None) -> ServiceInstance[Any]:
    written = members_of(data)
    members = {key: repaired(key, member) for key, member in written.items()}
    draft: Draft[Any] = Draft()
    draft.name = _name(members.get("name", ABSENT), name)
    for attribute, read in READERS.items():
        field = DOCUMENT_NAMES[attribute]
        setattr(draft, attribute, read(field, members.get(field, ABSENT)))
    if draft.enabled:
        draft.status = None
    given_id = as_text("id", members.get("id", ABSENT))
    draft.id = _id(given_id, id, draft.service_type)
    payload = members.get("payload", ABSENT).value
    if type(payload) in CONTAINERS:
        draft.payload, draft.payload_class = _without_class(payload.copy())
    else:
        draft.payload, draft.payload_class = payload, None
    extra = {key: freeze(member.value) for key, member in members.items() if key not in _KNOWN}
    draft.extra = FrozenDict(extra) if extra else NO_EXTRA
    return draft.frozen(tuple(_remembered(draft, written, given_id)))


def _remembered(draft: Draft[Any], written: dict[str, JsonMember], given_id: str | None) -> Iterator[AsWritten]:
    """A value that was read otherwise than it would be written."""
    by_itself = fields_of(draft)
    for attribute, field in DOCUMENT_NAMES.items():
        read_as = {attribute: getattr(draft, attribute)}
        if field not in written:
            if field in _KEPT_ABSENT:
                yield AsWritten(field, read_as, None)
            continue
        if field == "id" and given_id and given_id != draft.id:
            read_as["service_type"] = draft.service_type  # of no other type may it differ from its node's
        if field == "payload":
            read_as["payload_class"] = draft.payload_class
        if field == "status":
            read_as["enabled"] = draft.enabled  # an enabled instance does not have one, whatever is written
        value, text = written[field]
        if not is_exact(value) or not (
            _is_same(by_itself.get(field, ABSENT), value) or _is_bare_list(draft, field, value)
        ):
            yield AsWritten(field, read_as, encoded(text))
    for key in draft.extra:
        if not is_exact(written[key].value):
            yield AsWritten(key, {"extra": draft.extra}, encoded(written[key].text))


def _is_bare_list(draft: Draft[Any], field: str, value: Any) -> bool:
    """Whether it is a payload that Jackson cannot read, a list without a class; it is written with one."""
    return field == "payload" and type(value) is list and draft.payload_class is None and draft.payload == value


def _is_same(ours: Any, theirs: Any) -> bool:
    """Whether both are written alike: 1, 1.0 and true are equal to Python only."""
    return ours is not ABSENT and encode_json(ours) == encode_json(theirs)


# If one of these is absent, readers fill it in, and not with the value that is written for it: an empty id.
_KEPT_ABSENT: Final = frozenset({"id", "address"})
_KNOWN: Final = frozenset(DOCUMENT_NAMES.values())


# ------------------------------------------------------------ whose document it is

# The suffix of a sequential node's name: ZooKeeper's counter in ten places, which may overflow.
_COUNTER: Final = re.compile(r"\d{10}|-\d{9,10}")


def _name(member: JsonMember, wanted: str | None) -> str:
    name = as_text("name", member)
    if not name:
        raise InvalidInstance("not a Curator service instance: it has no `name`")
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
