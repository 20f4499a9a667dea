"""Instances, their documents in both directions, and what is discovered."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from unittest import mock

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aioregistry._document import decode, encode
from aioregistry._document import scalars as coercion
from aioregistry._errors import InvalidArgument, InvalidInstance
from aioregistry._frozen import FrozenDict, FrozenList
from aioregistry._model import (
    Added,
    Entry,
    Invalid,
    Invalidated,
    Removed,
    Resynced,
    ServiceInstance,
    ServiceType,
    Snapshot,
    Suspicion,
    Updated,
    check_payload_type,
    with_payload_type,
)
from tests.support.checkers import OrderedConsumer
from tests.support.documents import PLAIN

SPRING = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance"
URI_SPEC = {"parts": [{"value": "scheme", "variable": True}, {"value": "://", "variable": False}]}


def chat(**fields: Any) -> ServiceInstance[Any]:
    defaults: dict[str, Any] = {"address": "10.0.0.7", "port": 7000}
    return ServiceInstance("chat", **defaults | fields)


def written(**fields: Any) -> bytes:
    """A document as Curator 5.4 writes it, with *fields* in the place of its own."""
    return json.dumps(PLAIN | {"id": "10.0.0.7:7000"} | fields).encode()


class Meta(msgspec.Struct, frozen=True):
    zone: str
    load: int = 0


# ---------------------------------------------------------------- arguments

_BAD_SPECS: list[Any] = ["{scheme}", {}, {"parts": [{}]}, {"parts": [{"value": 1}]}]
WRONG: list[tuple[str, Any]] = [
    *(
        ("name", name)
        for name in ("", ".", "..", "a//b", "a/./b", "/", "a\0b", "a\nb", "\x9f", "\ud800", "\ue000", "\ufff0", "😀")
    ),
    *(("name", name) for name in (None, 7, b"chat")),
    *(("id", id) for id in ("", ".", "..", "a/b", "\x7f", 7, b"a")),
    *(("address", address) for address in ("", "a b", " a", "a\n", "a\0", 7, b"10.0.0.7")),
    *((field, port) for field in ("port", "ssl_port") for port in (-1, 65536, "7000", 7000.0, True)),
    *(("payload", payload) for payload in (object(), {"a": object()}, {1j: 1}, "\ud800", {"a": "\ud800"})),
    *(("payload", payload) for payload in (float("nan"), [float("inf")], {"a": {"b": (-float("inf"),)}})),
    ("payload", {"@class": "java.util.HashMap"}),
    *(("enabled", enabled) for enabled in (None, 1, "true")),
    *(("status", status) for status in ("", "UP", 7, ["failing"], True)),
    *(("service_type", kind) for kind in (None, "DYNAMIC")),
    *(("uri_spec", spec) for spec in _BAD_SPECS),
    *(("registration_time_ms", time_ms) for time_ms in (-1, 1.0, True, "now")),
    *(("session_timeout_ms", time_ms) for time_ms in (-1, 1.0, True, "10 s", 2**31)),
    *(("payload_class", name) for name in ("", "Hash Map", "java..util", "java.util.", "java.util.7", 7)),
    *(("extra", extra) for extra in ([1], {"a": object()}, {"a": float("nan")}, {"id": "b"}, {"sslPort": 1})),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_argument_is_named_with_its_value(field: str, value: Any) -> None:
    fields = {"name": "chat", "address": "10.0.0.7", "port": 7000, field: value}
    with pytest.raises(InvalidArgument) as raised:
        ServiceInstance(**fields)
    assert raised.value.field == field
    assert raised.value.value is value
    assert field in str(raised.value)
    with pytest.raises(InvalidArgument) as raised:
        chat().replace(**{field: value} if (field, value) != ("id", None) else {"id": ""})
    assert raised.value.field == field


@pytest.mark.parametrize("status", ["", "UP", "Failing", 7, True, ["failing"], mock.ANY])
def test_an_instance_that_is_not_enabled_has_one_of_three_statuses(status: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        chat(enabled=False, status=status)
    assert raised.value.field == "status"
    assert isinstance(raised.value, TypeError) is not isinstance(status, str)


@pytest.mark.parametrize(("field", "most"), [("registration_time_ms", 2**63 - 1), ("session_timeout_ms", 2**31 - 1)])
def test_times_are_what_java_has_room_for_and_none_is_zero(field: str, most: int) -> None:
    assert [getattr(chat(**{field: time_ms}), field) for time_ms in (0, 1, most)] == [None, 1, most]
    for time_ms in (-1, most + 1):
        with pytest.raises(InvalidArgument) as raised:
            chat(**{field: time_ms})
        assert (raised.value.field, raised.value.value) == (field, time_ms)


def test_a_payload_that_contains_itself_is_refused() -> None:
    payload: list[Any] = []
    payload.append(payload)
    with pytest.raises(InvalidArgument, match="payload"):
        chat(payload=payload)


@pytest.mark.parametrize("fields", [{"port": 7000}, {"ssl_port": 7443}])
def test_an_id_is_needed_where_there_is_a_port_and_no_address(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        ServiceInstance("chat", **fields)
    assert (raised.value.field, raised.value.value) == ("id", None)


@pytest.mark.parametrize("address", ["10.0.0.7", "worker-3.example", "::1", None])
def test_without_a_port_each_id_tells_the_host_and_is_another(address: str | None) -> None:
    jobs = [ServiceInstance("jobs", address=address) for _ in range(20)]
    assert len({job.id for job in jobs}) == len(jobs)
    for job in jobs:
        host, _, number = job.id.rpartition("#")
        assert host == (socket.gethostname() if address is None else address)
        assert int(number, 16) < 2**32
    assert jobs[0].replace(payload=1).id == jobs[0].id
    assert jobs[0].replace(id=None).id not in {job.id for job in jobs}
    assert decode(encode(jobs[0])).id == jobs[0].id


@pytest.mark.parametrize(
    ("fields", "id"),
    [
        ({"address": "10.0.0.7", "port": 7000}, "10.0.0.7:7000"),
        ({"address": "10.0.0.7", "port": 7000, "ssl_port": 7443}, "10.0.0.7:7000"),
        ({"address": "10.0.0.7", "ssl_port": 7443}, "10.0.0.7:7443"),
        ({"address": "10.0.0.7", "port": 0}, "10.0.0.7:0"),
        ({"address": "::1", "port": 7000}, "[::1]:7000"),
        ({"address": "10.0.0.7", "port": 7000, "id": "10.0.0.7:7000#2"}, "10.0.0.7:7000#2"),
        ({"id": "a"}, "a"),
    ],
)
def test_the_id_is_address_and_port_unless_given(fields: dict[str, Any], id: str) -> None:
    assert ServiceInstance("chat", **fields).id == id


def test_path_segments_are_all_that_zookeeper_takes() -> None:
    for segment in ("a", "...", "a b", ".a", "größe", "☃", "10.0.0.7:7000#1", "zookeeper"):
        assert ServiceInstance(segment, id=segment).name == segment


# ---------------------------------------------------------------- frozen, equal, hashed, copied


def test_an_instance_cannot_be_changed() -> None:
    instance = chat(payload={"zone": "eu-1"})
    with pytest.raises(AttributeError, match="replace"):
        instance.port = 1
    with pytest.raises(AttributeError):
        instance.other = 1
    with pytest.raises(AttributeError):
        del instance.payload
    assert not hasattr(instance, "__dict__")


CHANGES_OF_DICTS: dict[str, Callable[[Any], object]] = {
    "set": lambda d: d.__setitem__("a", 1),
    "delete": lambda d: d.__delitem__("zone"),
    "merge": lambda d: d.__ior__({"a": 1}),
    "clear": lambda d: d.clear(),
    "pop": lambda d: d.pop("zone"),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("a", 1),
    "update": lambda d: d.update(a=1),
}
CHANGES_OF_LISTS: dict[str, Callable[[Any], object]] = {
    "set": lambda v: v.__setitem__(0, 1),
    "delete": lambda v: v.__delitem__(0),
    "add": lambda v: v.__iadd__([1]),
    "repeat": lambda v: v.__imul__(2),
    "append": lambda v: v.append(1),
    "clear": lambda v: v.clear(),
    "extend": lambda v: v.extend([1]),
    "insert": lambda v: v.insert(0, 1),
    "pop": lambda v: v.pop(),
    "remove": lambda v: v.remove("x"),
    "reverse": lambda v: v.reverse(),
    "sort": lambda v: v.sort(),
}


def frozen_everywhere(payload: Any) -> list[Any]:
    """The same payload by every way it may come: from a caller, from a document, from a pickle, from copying."""
    instance = chat(payload=payload)
    decoded = decode(encode(instance))
    return [each.payload for each in (instance, decoded, pickle.loads(pickle.dumps(decoded)), copy.deepcopy(decoded))]


@pytest.mark.parametrize("change", CHANGES_OF_DICTS.values(), ids=CHANGES_OF_DICTS)
def test_dicts_in_a_payload_are_frozen_at_any_depth(change: Callable[[Any], object]) -> None:
    for payload in frozen_everywhere({"zone": "eu-1", "deep": {"zone": 1}, "list": [{"zone": 2}]}):
        for each in (payload, payload["deep"], payload["list"][0]):
            before = json.dumps(each)
            with pytest.raises(TypeError, match="cannot be changed"):
                change(each)
            assert json.dumps(each) == before


@pytest.mark.parametrize("change", CHANGES_OF_LISTS.values(), ids=CHANGES_OF_LISTS)
def test_lists_in_a_payload_are_frozen_at_any_depth(change: Callable[[Any], object]) -> None:
    for payload in frozen_everywhere(["x", ["x"], {"list": ["x"]}]):
        for each in (payload, payload[1], payload[2]["list"]):
            before = json.dumps(each)
            with pytest.raises(TypeError, match="cannot be changed"):
                change(each)
            assert json.dumps(each) == before


def test_a_payload_is_no_longer_the_callers() -> None:
    payload: dict[str, Any] = {"tags": ["a"]}
    extra, uri_spec = {"weights": [1]}, copy.deepcopy(URI_SPEC)
    instance = chat(payload=payload, extra=extra, uri_spec=uri_spec)
    payload["tags"].append("b")
    extra["weights"].append(2)
    uri_spec["parts"].clear()
    assert instance.payload == {"tags": ["a"]}
    assert instance.extra == {"weights": [1]}
    assert instance.uri_spec == URI_SPEC


@pytest.mark.parametrize("payload", [(1, [2]), {"a": (1, [2])}, [{1}, ((2,),)], {1: {2: ()}}])
def test_a_payload_is_what_a_consumer_will_see(payload: Any) -> None:
    instance = chat(payload=payload)
    assert decode(encode(instance)) == instance
    assert repr(instance.payload) == repr(json.loads(encode(chat(payload={"": payload})))["payload"][""])


def test_a_payload_of_another_type_is_kept_as_it_is() -> None:
    meta = Meta("eu-1", 3)
    assert chat(payload=meta).payload is meta
    assert json.loads(encode(chat(payload=meta)))["payload"] == {"zone": "eu-1", "load": 3}


def test_frozen_containers_equal_and_show_as_plain_ones() -> None:
    payload = chat(payload={"a": [1, {"b": 2}]}).payload
    assert type(payload) is FrozenDict
    assert type(payload["a"]) is FrozenList
    assert payload == {"a": [1, {"b": 2}]}
    assert repr(payload) == "{'a': [1, {'b': 2}]}"
    thawed = dict(payload)
    thawed["a"] = [*payload["a"], 3]
    assert thawed == {"a": [1, {"b": 2}, 3]}


OTHERS: dict[str, Any] = {
    "name": "mail",
    "id": "b",
    "address": "10.0.0.8",
    "port": 1,
    "ssl_port": 7443,
    "payload": {"a": 1},
    "enabled": False,
    "service_type": ServiceType.PERMANENT,
    "uri_spec": URI_SPEC,
    "payload_class": SPRING,
    "extra": {"weight": 1},
}


@pytest.mark.parametrize("field", OTHERS)
def test_instances_differ_by_any_field_and_hash_by_identity(field: str) -> None:
    instance = chat(payload={"a": 0})
    other = instance.replace(**{field: OTHERS[field]})
    assert instance != other
    assert getattr(other, field) == OTHERS[field]
    assert (hash(instance) == hash(other)) is (field not in ("name", "id"))
    assert other.replace(**{field: getattr(instance, field)}) == instance


def test_the_session_timeout_is_no_part_of_the_data() -> None:
    published = chat().replace(session_timeout_ms=10_000)
    assert published == chat()
    assert hash(published) == hash(chat())
    assert repr(published).endswith(", session_timeout_ms=10000)")
    assert json.loads(encode(published))["sessionTimeoutMs"] == 10_000
    assert "sessionTimeoutMs" not in json.loads(encode(chat()))
    assert decode(encode(published)).session_timeout_ms == 10_000
    assert decode(encode(chat())).session_timeout_ms is None
    assert decode(written(sessionTimeoutMs=0)).session_timeout_ms is None
    assert with_payload_type(published, object).session_timeout_ms == 10_000
    assert pickle.loads(pickle.dumps(published)).session_timeout_ms == 10_000


def test_instances_share_the_timeout_that_they_have_in_common() -> None:
    first, second = (decode(written(sessionTimeoutMs=123_456)) for _ in range(2))
    assert first.session_timeout_ms is second.session_timeout_ms
    for timeout_ms in range(1000, 2000):  # anybody may write a node: what is shared is bounded
        assert decode(written(sessionTimeoutMs=timeout_ms)).session_timeout_ms == timeout_ms
    assert len(coercion._shared_timeouts) <= 64


def test_the_time_of_registration_is_no_part_of_the_data() -> None:
    registered = chat().replace(registration_time_ms=1763680000000)
    assert registered.registration_time_ms == 1763680000000
    assert registered == chat()
    assert chat() != "chat"
    assert len({registered, chat(), chat(port=1, id="10.0.0.7:7000")}) == 2


def test_replacing_keeps_the_id_and_the_original() -> None:
    instance = chat(payload={"load": 1}, extra={"weight": 1})
    moved = instance.replace(address="10.0.0.8", port=1)
    assert (moved.id, moved.address, moved.port) == ("10.0.0.7:7000", "10.0.0.8", 1)
    assert (moved.payload, moved.extra) == ({"load": 1}, {"weight": 1})
    assert (instance.address, instance.port) == ("10.0.0.7", 7000)
    with pytest.raises(TypeError):
        instance.replace(colour="red")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_everything(protocol: int) -> None:
    instance = ServiceInstance(**OTHERS | {"registration_time_ms": 5})
    restored = pickle.loads(pickle.dumps(instance, protocol))
    assert restored == instance
    assert restored.registration_time_ms == 5
    assert type(restored.payload) is FrozenDict
    assert copy.copy(instance) == copy.deepcopy(instance) == instance


def test_an_instance_can_be_matched_and_shows_what_is_not_as_usual() -> None:
    match chat(payload={"zone": "eu-1"}):
        case ServiceInstance("chat", id, payload={"zone": zone}):
            assert (id, zone) == ("10.0.0.7:7000", "eu-1")
        case other:
            raise AssertionError(other)
    assert repr(chat()) == "ServiceInstance('chat', id='10.0.0.7:7000', address='10.0.0.7', port=7000)"
    assert repr(chat(enabled=False, payload={"a": 1})).endswith("payload={'a': 1}, enabled=False)")


# ---------------------------------------------------------------- documents


def test_a_document_is_written_as_curator_writes_it() -> None:
    instance = chat(payload={"zone": "eu-1"}, registration_time_ms=1763680000000)
    assert encode(instance) == (
        b'{"name":"chat","id":"10.0.0.7:7000","address":"10.0.0.7","port":7000,"sslPort":null,"payload":{"zone":"eu-1"},'
        b'"registrationTimeUTC":1763680000000,"serviceType":"DYNAMIC","uriSpec":null}'
    )
    assert decode(encode(instance)) == instance
    assert json.loads(encode(chat(enabled=False)))["enabled"] is False
    assert json.loads(encode(chat()))["registrationTimeUTC"] == 0  # a Java long: there is no null


class Form(NamedTuple):
    """A payload as Java writes it, and what is shown of it."""

    document: Any
    payload: Any
    payload_class: str | None


SPRING_PAYLOAD = {"id": "application-1", "name": "chat", "metadata": {"instance_status": "UP"}}
FORMS = {
    "none": Form(None, None, None),
    "string": Form("eu-1", "eu-1", None),
    "number": Form(7, 7, None),
    "map": Form({"@class": "java.util.HashMap", "zone": "eu-1"}, {"zone": "eu-1"}, "java.util.HashMap"),
    "map of another library": Form({"zone": "eu-1"}, {"zone": "eu-1"}, None),
    "list": Form(["java.util.ArrayList", [1, 2]], [1, 2], None),
    "other list": Form(["java.util.LinkedList", [1, 2]], [1, 2], "java.util.LinkedList"),
    "long": Form(["java.lang.Long", 5], 5, "java.lang.Long"),
    "class of Spring": Form({"@class": SPRING, **SPRING_PAYLOAD}, SPRING_PAYLOAD, SPRING),
    "nested class": Form({"@class": "com.example.Outer$Inner"}, {}, "com.example.Outer$Inner"),
    "list in a list": Form(["java.util.ArrayList", ["a.B", [1]]], ["a.B", [1]], None),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_java_class_is_carried_and_not_shown(form: Form) -> None:
    instance = decode(written(payload=form.document))
    assert (instance.payload, instance.payload_class) == (form.payload, form.payload_class)
    assert json.loads(encode(instance)) == json.loads(written(payload=form.document))
    made = chat(payload=form.payload, payload_class=form.payload_class, registration_time_ms=1763680000000)
    assert made == instance
    assert json.loads(encode(made)) == json.loads(written(payload=form.document))
    same = instance.replace(payload=copy.deepcopy(form.payload))
    assert decode(encode(same)) == instance


@pytest.mark.parametrize("document", [["java.util.HashMap", {"@class": "a.B"}], ["java.util.ArrayList", {"@class": 5}]])
def test_a_map_that_is_marked_twice_is_written_back_as_it_was(document: Any) -> None:
    instance = decode(written(payload=document))
    assert instance.payload == document[1]
    assert json.loads(encode(instance)) == json.loads(written(payload=document))
    assert decode(encode(instance)) == instance


def test_a_list_without_a_class_is_read_too() -> None:
    assert decode(written(payload=[1, "a"])).payload == [1, "a"]
    assert decode(written(payload=["a", "b"])).payload == ["a", "b"]


def test_unknown_fields_are_kept_and_written_back() -> None:
    document = written(weight=3, tags=["a", {"b": None}])
    instance = decode(document)
    assert instance.extra == {"weight": 3, "tags": ["a", {"b": None}]}
    assert json.loads(encode(instance)) == json.loads(document)
    assert json.loads(encode(instance.replace(enabled=False))) == {**json.loads(document), "enabled": False}
    with pytest.raises(TypeError):
        instance.extra["tags"].append(1)


def test_absent_fields_have_curators_defaults() -> None:
    instance = decode(b'{"name": "chat", "id": "a", "address": null}')
    assert instance == ServiceInstance("chat", id="a")
    assert instance.enabled
    assert instance.registration_time_ms is None
    assert instance.extra == {}


@pytest.mark.parametrize(
    ("field", "value", "attribute", "expected"),
    [
        ("enabled", False, "enabled", False),
        ("enabled", True, "enabled", True),
        ("serviceType", "STATIC", "service_type", ServiceType.STATIC),
        ("serviceType", "DYNAMIC_SEQUENTIAL", "service_type", ServiceType.DYNAMIC_SEQUENTIAL),
        ("serviceType", None, "service_type", ServiceType.DYNAMIC),
        ("uriSpec", URI_SPEC, "uri_spec", URI_SPEC),
        ("sslPort", 7443, "ssl_port", 7443),
        ("registrationTimeUTC", 0, "registration_time_ms", None),
        ("registrationTimeUTC", None, "registration_time_ms", None),
        ("address", None, "address", None),
    ],
)
def test_every_field_is_read(field: str, value: Any, attribute: str, expected: Any) -> None:
    assert getattr(decode(written(**{field: value})), attribute) == expected


ANY = "."  # the decoder says it in words of its own
BAD_DOCUMENTS = {
    "nothing": (b"", ANY),
    "no JSON": (b"{chat}", ANY),
    "half of it": (written()[:-20], ANY),
    "no object": (b"[1]", "JSON object"),
    "null": (b"null", "JSON object"),
    "no UTF-8": (b'{"name": "\xff", "id": "a", "address": null}', ANY),
    "half a surrogate pair": (written(name="\ud800"), "name"),
    "no name": (b'{"id": "a", "address": null}', "name"),
    "no id": (b'{"name": "chat", "address": null}', "id"),
    "no text": (written(address=[7]), "address"),
    "port as text": (written(port="http"), "port is 'http'"),
    "port too large": (written(port=2**31), "port is 2147483648"),
    "time too large": (written(registrationTimeUTC=2**63), "registrationTimeUTC is 9223372036854775808"),
    "enabled as text": (written(enabled="yes"), "enabled"),
    "unknown type": (written(serviceType="DYNAMITE"), "serviceType"),
    "uriSpec as text": (written(uriSpec="{scheme"), "uriSpec"),
    "wrong beside unknown": (written(weight=1, port="http"), "port"),
}


@pytest.mark.parametrize(("document", "reason"), BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_a_bad_document_is_refused_with_the_reason(document: bytes, reason: str) -> None:
    with pytest.raises(InvalidInstance, match=reason):
        decode(document, name="chat")


def test_the_nodes_place_is_the_identity() -> None:
    assert decode(written(), name="chat", id="10.0.0.7:7000").id == "10.0.0.7:7000"
    with pytest.raises(InvalidInstance, match=r"'chat'.*'mail'"):
        decode(written(), name="mail", id="10.0.0.7:7000")
    with pytest.raises(InvalidInstance, match=r"'10.0.0.7:7000'.*'b'"):
        decode(written(), name="chat", id="b")


# ---------------------------------------------------------------- two steps


@pytest.mark.parametrize("payload", [None, 5, "eu-1", [1], {}, {"zone": 5}, {"zone": "eu-1", "load": "much"}])
def test_a_payload_that_does_not_fit_never_loses_the_instance(payload: Any) -> None:
    instance = decode(written(payload=payload, sslPort=7443))
    assert (instance.payload, instance.ssl_port) == (payload, 7443)
    with pytest.raises(InvalidInstance, match="payload: "):
        with_payload_type(instance, Meta)
    assert instance.payload == payload


def test_a_payload_that_fits_is_converted_and_all_else_stays() -> None:
    document = written(payload={"@class": SPRING, "zone": "eu-1"}, weight=1, enabled=False, uriSpec=URI_SPEC)
    instance = decode(document)
    typed = with_payload_type(instance, Meta)
    assert typed.payload == Meta("eu-1")
    assert typed.replace(payload=instance.payload) == instance
    assert typed.registration_time_ms == instance.registration_time_ms
    fields = json.loads(encode(typed))
    assert fields.pop("payload") == {"@class": SPRING, "zone": "eu-1", "load": 0}
    assert fields == {field: value for field, value in json.loads(document).items() if field != "payload"}


@pytest.mark.parametrize("payload_type", [Any, Meta, dict[str, int], int | None, list[Meta]])
def test_payload_types_are_what_msgspec_converts_to(payload_type: Any) -> None:
    assert check_payload_type(payload_type) is payload_type


def test_a_payload_type_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_payload_type("Meta")
    assert (raised.value.field, raised.value.value) == ("payload_type", "Meta")


# ---------------------------------------------------------------- for any instance, for any bytes

segments = st.text(st.characters(max_codepoint=0xD7FF, exclude_categories=["Cc", "Cs"]), min_size=1, max_size=9).filter(
    lambda segment: segment not in (".", "..") and "/" not in segment
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
ports = st.none() | st.integers(0, 65535)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
jsons = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
classes = st.sampled_from(["java.lang.Long", "java.util.HashMap", "com.example.Outer$Inner", SPRING])
unknown = st.dictionaries(texts.map("x".__add__), jsons, max_size=3)


def made(*names: str, payload_class: str | None, **fields: Any) -> ServiceInstance[Any]:
    """An instance; without the class where that is for payloads of another kind."""
    instance = ServiceInstance(*names, **fields)
    try:
        return instance.replace(payload_class=payload_class)
    except InvalidArgument:
        return instance


instances = st.builds(
    made,
    segments,
    id=segments,
    address=st.none() | st.sampled_from(["10.0.0.7", "::1", "chat.example"]),
    port=ports,
    ssl_port=ports,
    payload=jsons,
    enabled=st.booleans(),
    service_type=st.sampled_from(ServiceType),
    uri_spec=st.sampled_from([None, URI_SPEC]),
    registration_time_ms=st.none() | st.integers(1, 2**63 - 1),
    session_timeout_ms=st.none() | st.integers(1, 2**31 - 1),
    payload_class=st.none() | classes,
    extra=unknown,
)


@given(instances)
def test_what_is_written_is_read_as_it_was(instance: ServiceInstance[Any]) -> None:
    document = encode(instance)
    read = decode(document, name=instance.name, id=instance.id)
    assert read == instance
    assert read.registration_time_ms == instance.registration_time_ms
    assert read.session_timeout_ms == instance.session_timeout_ms
    assert encode(read) == document
    assert read.replace() == pickle.loads(pickle.dumps(read)) == read
    assert json.loads(document)["serviceType"] == instance.service_type.value  # JSON to others too


_FIELDS = [*json.loads(written()), "enabled", "weight"]
_NESTING = [b"[%s]", b'{"a":%s}', b'{"@class":%s}', b'["a.B",%s]']


def nested(depth: int, level: bytes) -> bytes:
    before, after = level.split(b"%s")
    return before * depth + b"1" + after * depth


documents = st.dictionaries(st.sampled_from(_FIELDS), jsons).map(lambda fields: written(**fields))
mutilated = st.builds(
    lambda document, at, length, junk: document[:at] + junk + document[at + length :],
    documents,
    st.integers(0, 250),
    st.integers(0, 20),
    st.binary(max_size=8) | st.sampled_from([b"null", b"1e999", b"-1", b"{", b'"', b"\\ud800", b"[[["]),
)
deep = st.builds(
    lambda field, depth, level: b"%s,%s:%s}" % (written()[:-1], json.dumps(field).encode(), nested(depth, level)),
    st.sampled_from(_FIELDS),
    st.integers(1, 2000),
    st.sampled_from(_NESTING),
)


@given(st.binary() | documents | mutilated | deep)
@example(written(payload={"@class": {"a": []}}))
@example(written(payload={"@class": ""}))
def test_any_bytes_are_an_instance_or_an_invalid_one(document: bytes) -> None:
    try:
        instance = decode(document)
    except InvalidInstance:
        return
    assert instance.payload_class is None or isinstance(instance.payload_class, str)
    again = decode(encode(instance))  # what was taken can be shown, compared and written back
    assert again == instance
    assert hash(again) == hash(instance)
    assert repr(instance)


@pytest.mark.parametrize("level", _NESTING)
@pytest.mark.parametrize("field", ["payload", "uriSpec", "weight"])
def test_what_is_nested_too_deep_is_invalid(field: str, level: bytes) -> None:
    for depth in range(110, 2000, 10):
        with pytest.raises(InvalidInstance):
            decode(b'%s,"%s":%s}' % (written()[:-1], field.encode(), nested(depth, level)))
    payload: Any = None
    for _ in range(110):
        payload = [payload]
    with pytest.raises(InvalidArgument, match="deep"):
        chat(payload=payload)


# ---------------------------------------------------------------- what is discovered


def entry(id: str, mzxid: int = 1, *, czxid: int = 1, payload: Any = None) -> Entry[Any]:
    return Entry(chat(id=id, payload=payload), 7, czxid, mzxid, 0, 1.0, 2.0)


def snapshot(*entries: Entry[Any], as_of: int = 9, **fields: Any) -> Snapshot[Any]:
    invalid = {"bad": Invalid("bad", "why")}
    return Snapshot("chat", {each.instance.id: each for each in entries}, invalid, as_of=as_of, **fields)


def test_an_entry_is_listed_and_gets_its_whole_share_unless_told_otherwise() -> None:
    assert (entry("a").suspicion, entry("a").weight) == (None, 1.0)


def test_a_snapshot_is_a_mapping_in_the_order_of_the_ids() -> None:
    entries = [entry(id) for id in ("b", "c", "a")]
    present = snapshot(*entries)
    assert list(present) == ["a", "b", "c"]
    assert [each.id for each in present.instances] == ["a", "b", "c"]
    assert [each.id for each in present.values()] == ["a", "b", "c"]
    assert present["b"] is entries[0].instance
    assert "b" in present
    assert "bad" not in present
    assert len(present) == 3
    assert present.get("d") is None
    with pytest.raises(KeyError):
        present["d"]
    assert present.invalid["bad"].reason == "why"
    assert repr(present) == "<Snapshot chat: 3 instances, 1 invalid, as of zxid 0x9>"


def test_the_order_is_found_once() -> None:
    class Counting(dict[str, Any]):
        looks = 0

        def __iter__(self) -> Iterator[str]:
            self.looks += 1
            return super().__iter__()

    entries = Counting({id: entry(id) for id in "ba"})
    present = Snapshot("chat", entries, {}, as_of=9)
    assert [list(present) for _ in range(3)] == [["a", "b"]] * 3
    assert entries.looks == 1


def test_a_node_that_cannot_be_read_has_no_zxids_and_no_owner() -> None:
    assert Invalid("a", "why") == Invalid("a", "why", owner=0, czxid=0, mzxid=0)


def test_a_snapshot_tells_suspects_from_those_that_are_confirmed() -> None:
    suspicion = Suspicion("disruption", 1.0, 31.0)
    suspect = entry("b").with_suspicion(suspicion)
    mixed = snapshot(entry("c"), suspect, entry("a"), stale_since=5.0)
    assert list(mixed) == ["a", "b", "c"]
    assert mixed.suspects == {"b": suspicion}
    assert mixed.suspects is mixed.suspects
    assert list(mixed.confirmed) == ["a", "c"]
    assert mixed.confirmed is mixed.confirmed
    assert mixed.confirmed.confirmed is mixed.confirmed
    assert (mixed.confirmed.as_of, mixed.confirmed.stale_since) == (9, 5.0)
    assert mixed.confirmed.invalid == mixed.invalid
    assert repr(mixed).startswith("<Snapshot chat: 3 instances (1 suspect), 1 invalid")
    sure = snapshot(entry("a"))
    assert sure.suspects == {}
    assert sure.confirmed is sure
    assert suspect != entry("b")
    assert suspect.with_suspicion(None) == entry("b")
    assert suspect.with_payload_type(object).suspicion is suspicion


@pytest.mark.parametrize("field", ["name", "entries", "invalid", "as_of", "stale_since", "_ids", "other"])
def test_a_snapshot_cannot_be_changed(field: str) -> None:
    present: Any = snapshot(entry("a"))
    with pytest.raises(AttributeError):
        setattr(present, field, None)
    for mapping in (present, present.entries, present.invalid):
        with pytest.raises(TypeError):
            mapping["a"] = None
    assert list(present) == ["a"]


def test_stale_and_fresh_snapshots_share_their_facts() -> None:
    present = snapshot(entry("a"))
    stale = present.with_stale_since(1763680000.5)
    assert stale.stale_since == 1763680000.5
    assert "stale since 1763680000.500" in repr(stale)
    assert stale.entries is present.entries
    assert (stale.name, stale.invalid, stale.as_of) == (present.name, present.invalid, present.as_of)
    assert present.stale_since is None
    assert stale == present  # the same instances


ONES: list[Any] = [
    entry("a"),
    Invalid("a", "why"),
    Suspicion("disruption", 1.0, 31.0),
    Added(entry("a"), 1),
    Updated(entry("a", 2), entry("a"), 2),
    Removed(entry("a"), 3),
    Resynced((Removed(entry("a"), 3),), snapshot(as_of=3)),
]


@pytest.mark.parametrize("one", ONES, ids=lambda one: type(one).__name__)
def test_what_is_told_cannot_be_changed(one: Any) -> None:
    for field in (*one.__struct_fields__, "other"):
        with pytest.raises(AttributeError):
            setattr(one, field, None)
    assert one == copy.copy(one)
    assert repr(one)


def test_changes_say_what_came_changed_and_went() -> None:
    before, after = entry("a", payload=1), entry("a", 2, payload=2)
    updated = Updated(after, before, 2)
    assert (updated.id, updated.instance, updated.previous) == ("a", after.instance, before.instance)
    assert (Added(after, 2).id, Added(after, 2).instance) == ("a", after.instance)
    assert Invalidated(Invalid("a", "why"), 3).id == "a"
    assert (Removed(before, 3).id, Removed(before, 3).instance) == ("a", before.instance)
    new, gone = entry("new"), entry("gone")
    resynced = Resynced((Added(new, 9), updated, Removed(gone, 9)), snapshot(after, new))
    assert resynced.added == (new.instance,)
    assert resynced.updated == (after.instance,)
    assert resynced.removed == (gone.instance,)
    assert resynced.zxid == 9


def test_an_entry_is_converted_with_its_instance() -> None:
    node = entry("a", payload={"zone": "eu-1"})
    typed = node.with_payload_type(Meta)
    assert typed.instance.payload == Meta("eu-1")
    assert [getattr(typed, field) for field in Entry.__struct_fields__[1:]] == [
        getattr(node, field) for field in Entry.__struct_fields__[1:]
    ]
    with pytest.raises(InvalidInstance):
        entry("a").with_payload_type(Meta)


def differences(before: Mapping[str, Entry[Any]], after: Mapping[str, Entry[Any]], zxid: int) -> tuple[Any, ...]:
    """The contents of a Resynced, from its definition."""
    removed = [Removed(before[id], zxid) for id in before.keys() - after.keys()]
    added = [Added(after[id], zxid) for id in after.keys() - before.keys()]
    changed = [id for id in before.keys() & after.keys() if before[id] != after[id]]
    return (*removed, *added, *(Updated(after[id], before[id], zxid) for id in changed))


@given(st.lists(st.dictionaries(st.sampled_from("abcde"), st.integers(0, 3)), min_size=2, max_size=5))
def test_the_differences_applied_to_one_snapshot_give_the_next(states: list[dict[str, int]]) -> None:
    kept: dict[str, Entry[Any]] = {}
    shots = []
    for number, state in enumerate(states, start=1):
        same = {id: node for id, node in kept.items() if id in state and node.instance.payload == state[id]}
        kept = {id: same.get(id) or entry(id, number, payload=payload) for id, payload in state.items()}
        shots.append(snapshot(*kept.values(), as_of=number))
    ordered = OrderedConsumer(shots[0].entries)
    for before, after in itertools.pairwise(shots):
        ordered.apply(Resynced(differences(before.entries, after.entries, after.as_of), after))
        ordered.check(after.entries)
