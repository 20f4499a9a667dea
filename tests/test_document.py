"""A document that Curator reads is read, and written back as it was; any other says why not."""

from __future__ import annotations

import inspect
import json
import pickle
from typing import Any, get_overloads

import pytest

from aioregistry._document import decode, encode, reading, scalars
from aioregistry._errors import InvalidArgument, InvalidInstance
from aioregistry._java import check_class, class_for
from aioregistry._model import DOCUMENT_NAMES, FIELDS, STATUSES, InstanceStatus, ServiceInstance, ServiceType
from tests.support.documents import PLAIN, READ, REFUSED, STRICTER, WRITERS, Read, written

ATTRIBUTES = {field: attribute for attribute, field in DOCUMENT_NAMES.items()} | {"payloadClass": "payload_class"}


def text_of(document: bytes) -> str:
    """The document in its encoding, without what precedes and follows the object."""
    encoding = json.detect_encoding(document)
    return document.decode(encoding, "replace").strip("\ufeff \r\n\0")


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_what_curator_reads_is_read_to_the_same(read: Read) -> None:
    wanted = PLAIN | {"enabled": True} | {key: each for key, each in read.curator.items() if key != "uri"} | read.ours
    instance = decode(read.document, name=wanted["name"], id=wanted["id"])
    shown = {field: getattr(instance, ATTRIBUTES[field]) for field in wanted}
    assert shown | {"serviceType": instance.service_type.value} == wanted
    assert instance.session_timeout_ms is None


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_what_is_repaired_is_written_back_as_it_was(read: Read) -> None:
    written_as, _ = json.JSONDecoder().raw_decode(text_of(read.document))
    before = {"serviceType": "DYNAMIC", "registrationTimeUTC": 0} | written_as  # Curator's own, where they are absent
    instance = decode(read.document, id="a" if "id" in read.ours else None)
    for each in (
        instance,
        instance.replace(),
        pickle.loads(pickle.dumps(instance)),
        instance.replace(payload={"a": 1}),
    ):
        after = json.loads(encode(each))
        unchanged = set(PLAIN | before) - {"payload"}
        assert {key: repr(after.get(key)) for key in unchanged} == {key: repr(before.get(key)) for key in unchanged}
        assert ("id" in after, "address" in after) == ("id" in before, "address" in before)
    assert b"\n" not in encode(instance)  # kept snapshots have a line for each
    again = decode(encode(instance), name=instance.name, id=instance.id)
    assert again == instance
    assert again.registration_time_ms == instance.registration_time_ms
    drained = instance.replace(enabled=False)
    assert not decode(encode(drained), name=instance.name, id=instance.id).enabled
    assert drained.replace(enabled=instance.enabled) == instance


@pytest.mark.parametrize("read", WRITERS.values(), ids=WRITERS)
def test_what_a_program_wrote_keeps_its_payload_and_class(read: Read) -> None:
    before, after = json.loads(read.document), json.loads(encode(decode(read.document).replace(enabled=False)))
    assert after | before | {"enabled": False} == after
    assert after["payload"] == before["payload"]


@pytest.mark.parametrize(("document", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_curator_refuses_says_why(document: bytes, reason: str) -> None:
    with pytest.raises(InvalidInstance) as raised:
        decode(document, name="chat", id="a")
    assert reason in raised.value.reason


@pytest.mark.parametrize(("document", "reason"), STRICTER.values(), ids=STRICTER)
def test_what_is_refused_although_curator_reads_it_says_why(document: bytes, reason: str) -> None:
    with pytest.raises(InvalidInstance) as raised:
        decode(document, name="chat", id="a")
    assert reason in raised.value.reason


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_says_why_an_instance_is_not_enabled(status: InstanceStatus) -> None:
    disabled = ServiceInstance("chat", id="a", enabled=False, status=status)
    document = json.loads(encode(disabled))
    assert (document["enabled"], document["status"]) == (False, status)
    assert decode(encode(disabled)).status == status
    assert decode(encode(disabled)) == disabled == disabled.replace(status=None)
    enabled = disabled.replace(enabled=True)
    assert enabled.status is None
    assert not {"enabled", "status"} & json.loads(encode(enabled)).keys()
    with pytest.raises(InvalidArgument) as raised:
        ServiceInstance("chat", id="a", status=status)
    assert (raised.value.field, raised.value.value) == ("status", status)
    with pytest.raises(InvalidArgument) as raised:
        enabled.replace(status=status)
    assert (raised.value.field, raised.value.value) == ("status", status)


def test_a_status_that_was_meant_for_nothing_is_not_meant_for_what_comes_later() -> None:
    """Beside `enabled: true` it was ignored: an instance that is disabled later is not therefore failing."""
    instance = decode(written(status="failing", enabled=True))
    assert json.loads(encode(instance))["status"] == "failing"
    assert "status" not in json.loads(encode(instance.replace(enabled=False)))
    ours = instance.replace(enabled=False, status="draining")
    assert json.loads(encode(ours))["status"] == "draining"
    others = decode(written(status="UP"))
    assert json.loads(encode(others.replace(enabled=False, status="draining")))["status"] == "draining"


def test_every_field_is_read_and_written_in_both_ways() -> None:
    """The table of fields and what is written beside it: signatures, readers, the fast way."""
    attributes = {field.attribute for field in FIELDS}
    own = {"payload_class"}  # stands inside the payload
    assert set(inspect.signature(ServiceInstance).parameters) == attributes | own
    for overload in get_overloads(ServiceInstance.__init__):
        assert set(inspect.signature(overload).parameters) - {"self", "payload"} == (attributes | own) - {"payload"}
    assert set(reading._Document.__struct_fields__) == set(DOCUMENT_NAMES)
    assert set(reading._Document.__struct_encode_fields__) == set(DOCUMENT_NAMES.values())
    assert set(scalars.READERS) | {"id", "name", "payload"} == set(DOCUMENT_NAMES)


def test_a_changed_field_is_written_as_it_is_now() -> None:
    instance = decode(written({"port": '"8080"', "sslPort": "-1", "registrationTimeUTC": '"5"'}))
    changed = json.loads(encode(instance.replace(port=1, registration_time_ms=6)))
    assert (changed["port"], changed["sslPort"], changed["registrationTimeUTC"]) == (1, -1, 6)
    assert json.loads(encode(instance.replace(port=1).replace(port=8080)))["port"] == "8080"


@pytest.mark.parametrize("field", ["port", "ssl_port", "address", "uri_spec", "registration_time_ms"])
def test_a_field_that_is_changed_to_what_is_wrong_is_refused(field: str) -> None:
    wrong: dict[str, Any] = {"address": "my other host", "uri_spec": {}}
    instance = decode(written(port=-1, sslPort=-1, address="my host", uriSpec={}, registrationTimeUTC=-1))
    with pytest.raises(InvalidArgument) as raised:
        instance.replace(**{field: wrong.get(field, -5)})
    assert raised.value.field == field


@pytest.mark.parametrize("name", ["/a/b", "a/b", "/a/b/", "/x/a/b"])
def test_a_name_with_slashes_is_the_place_of_its_node(name: str) -> None:
    document = written(name=name)
    assert decode(document, name="a/b").name == ("a/b" if name == "/x/a/b" else name)
    assert json.loads(encode(decode(document, name="a/b")))["name"] == name
    for other in ("b/a", "xa/b", "a"):
        with pytest.raises(InvalidInstance, match="name is "):
            decode(document, name=other)


@pytest.mark.parametrize("suffix", ["0000000000", "0000000017", "2147483647", "-2147483648", "-000000007"])
def test_a_sequential_instance_has_its_nodes_name(suffix: str) -> None:
    document = written(serviceType="DYNAMIC_SEQUENTIAL")
    instance = decode(document, name="chat", id=f"a{suffix}")
    assert instance.id == f"a{suffix}"
    assert json.loads(encode(instance))["id"] == "a"
    moved = instance.replace(service_type=ServiceType.DYNAMIC)
    assert json.loads(encode(moved))["id"] == f"a{suffix}"  # else nobody could read it at its node


@pytest.mark.parametrize("id", ["b", "a1", "a00000000017", "b0000000000", "a0000000000x", "0000000000"])
@pytest.mark.parametrize("kind", ["DYNAMIC", "DYNAMIC_SEQUENTIAL"])
def test_any_other_id_than_the_nodes_is_refused(id: str, kind: str) -> None:
    with pytest.raises(InvalidInstance, match="id is 'a', but the node is"):
        decode(written(serviceType=kind), name="chat", id=id)


def test_halves_of_surrogate_pairs_are_shown_as_unknown_and_written_back() -> None:
    document = written({"payload": '{"a":"\\ud800","b":"\\ud83d\\ude00"}', "weight": '"\\udc00"'})
    instance = decode(document)
    assert instance.payload == {"a": "\ufffd", "b": "😀"}
    assert instance.extra == {"weight": "\ufffd"}
    assert json.loads(encode(instance)) == json.loads(document)
    assert json.loads(encode(instance.replace(payload=None)))["payload"] is None


@pytest.mark.parametrize("field", ["payload", "weight"])
@pytest.mark.parametrize(("begin", "end"), [('{"a":', "}"), ("[", "]")])
def test_what_is_repaired_may_be_nested_as_deep_as_what_is_not(field: str, begin: str, end: str) -> None:
    deepest = begin * 100 + "1" + end * 100
    assert decode(written({field: deepest, "port": '"8080"'})).port == 8080
    with pytest.raises(InvalidInstance):
        decode(written({field: begin + deepest + end, "port": '"8080"'}))


def test_only_the_names_of_variables_lose_the_space_around_them() -> None:
    spec = decode(written(uriSpec=" { scheme } ://x ")).uri_spec
    assert spec is not None
    assert spec["parts"] == [
        {"value": " ", "variable": False},
        {"value": "scheme", "variable": True},
        {"value": " ://x ", "variable": False},
    ]


def test_unknown_fields_are_kept_as_values_and_not_as_texts() -> None:
    assert b'"weight":[1,2]' in encode(decode(written({"weight": "[1,  2]"})))


@pytest.mark.parametrize("id", ["", None])
def test_an_id_that_is_not_written_stays_so_whatever_the_kind(id: str | None) -> None:
    instance = decode(written(id=id), id="a")
    assert json.loads(encode(instance.replace(service_type=ServiceType.STATIC)))["id"] == id


def test_an_infinite_number_is_read_as_java_reads_it_and_written_back() -> None:
    instance = decode(written({"payload": "[1e999]", "weight": "-1e999"}))
    assert instance.payload == [float("inf")]
    assert b'"weight":-1e999' in encode(instance)
    assert b'"payload":[1e999]' in encode(instance)


@pytest.mark.parametrize(("length", "shown"), [(78, f"'{'x' * 78}'"), (79, f"'{'x' * 79}...")])
def test_what_is_refused_is_shown_whole_up_to_80_characters(length: int, shown: str) -> None:
    with pytest.raises(InvalidInstance) as raised:
        decode(written(port="x" * length))
    assert raised.value.reason == f"port is {shown}, not a whole number of 32 bits"


def test_a_number_has_a_thousand_digits_at_most() -> None:
    longest = "1" * 1000
    assert decode(written({"weight": longest, "port": '"8080"'})).extra == {"weight": int(longest)}
    with pytest.raises(InvalidInstance, match="more than 1000 digits"):
        decode(written({"weight": f"{longest}1", "port": '"8080"'}))
    assert decode(written(port="8080".rjust(1000, "0"))).port == 8080
    with pytest.raises(InvalidInstance, match="port is"):
        decode(written(port="8080".rjust(1001, "0")))


def test_the_first_64_timeouts_and_uri_specs_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service has a few of them, and 100,000 instances."""
    monkeypatch.setattr(scalars, "_shared_timeouts", {})
    monkeypatch.setattr(reading, "_shared_uri_specs", {})
    documents = [
        written(sessionTimeoutMs=10_000 + number, uriSpec={"parts": [{"value": f"{number}", "variable": False}]})
        for number in range(65)
    ]
    firsts = [decode(document) for document in documents]
    assert [each.session_timeout_ms for each in firsts] == [*range(10_000, 10_065)]
    for number, (first, again) in enumerate(zip(firsts, map(decode, documents), strict=True)):
        assert again == first
        assert (again.session_timeout_ms is first.session_timeout_ms) is (number < 64)
        assert (again.uri_spec is first.uri_spec) is (number < 64)


# ---------------------------------------------------------------- Java's classes

CONTAINERS: dict[str, tuple[Any, Any, str | None]] = {
    "array of texts": (["[Ljava.lang.String;", ["a", "b"]], ["a", "b"], "[Ljava.lang.String;"),
    "array of ints": (["[I", [1, 2]], [1, 2], "[I"),
    "array of arrays": (["[[J", [[1], [2]]], [[1], [2]], "[[J"),
    "bytes": (["[B", "AQI="], "AQI=", "[B"),
    "characters": (["[C", "ab"], "ab", "[C"),
    "enum set": (["java.util.EnumSet<com.acme.Day>", ["MONDAY"]], ["MONDAY"], "java.util.EnumSet<com.acme.Day>"),
    "enum map": (
        {"@class": "java.util.EnumMap<com.acme.Day,java.lang.Object>", "MONDAY": 1},
        {"MONDAY": 1},
        "java.util.EnumMap<com.acme.Day,java.lang.Object>",
    ),
    "no package": ({"@class": "Peek$Point", "x": 1}, {"x": 1}, "Peek$Point"),
    "no package and flat": ({"@class": "Point", "x": 1}, {"x": 1}, "Point"),
    "unmodifiable": (
        ["java.util.Collections$UnmodifiableRandomAccessList", [1]],
        [1],
        "java.util.Collections$UnmodifiableRandomAccessList",
    ),
    "enum": (["com.acme.Day", "MONDAY"], "MONDAY", "com.acme.Day"),
    "UUID": (
        ["java.util.UUID", "123e4567-e89b-12d3-a456-426614174000"],
        "123e4567-e89b-12d3-a456-426614174000",
        "java.util.UUID",
    ),
    "map in a list": (["java.util.HashMap", {"a": 1}], {"a": 1}, "java.util.HashMap"),
    "null in a list": (["com.acme.Day", None], None, "com.acme.Day"),
    "null class": ({"@class": None, "a": 1}, {"a": 1}, None),
}
LISTS: list[list[Any]] = [
    ["db1.example.com", "db2.example.com"],
    ["a", "b"],
    ["RED", "BLUE"],
    ["10.0.0.7", "10.0.0.8"],
    ["db1.example.com:80", ["x"]],
    ["java.util.ArrayList"],
    [1, 2],
    [],
]


@pytest.mark.parametrize(("payload", "value", "java_class"), CONTAINERS.values(), ids=CONTAINERS)
def test_javas_containers_keep_their_class_and_go_back_unchanged(
    payload: Any, value: Any, java_class: str | None
) -> None:
    instance = decode(written(payload=payload))
    assert (instance.payload, instance.payload_class) == (value, java_class)
    for each in (instance, instance.replace(enabled=False), pickle.loads(pickle.dumps(instance))):
        assert json.loads(encode(each))["payload"] == payload


@pytest.mark.parametrize("payload", LISTS)
def test_a_list_is_no_class_and_its_second(payload: list[Any]) -> None:
    instance = decode(written(payload=payload))
    assert (instance.payload, instance.payload_class) == (payload, None)
    assert json.loads(encode(instance))["payload"] == ["java.util.ArrayList", payload]  # which Java can read


# class, payload, another payload → the class that remains with it
CHANGES: list[tuple[str, Any, Any, bool]] = [
    ("java.util.TreeMap", {"a": 1}, {"b": 2}, True),
    ("java.util.TreeMap", {"a": 1}, None, False),
    ("java.util.TreeMap", {"a": 1}, [1], False),
    ("java.util.TreeMap", {"a": 1}, "a", False),
    ("java.util.concurrent.ConcurrentHashMap", {"a": 1}, {"a": None}, False),
    ("java.util.Properties", {"a": "b"}, {"a": {}}, False),
    ("java.util.LinkedList", [1], ["a", None], True),
    ("java.util.LinkedList", [1], {"a": 1}, False),
    ("java.util.TreeSet", [1], [1, "a"], False),
    ("java.util.TreeSet", [1], [{}], False),
    ("[I", [1], [2, 3], True),
    ("[I", [1], ["a"], False),
    ("[I", [1], [2**31], False),
    ("[B", "AQI=", "no base 64", False),
    ("[Ljava.lang.Long;", [1], [None, 2], True),
    ("[Ljava.lang.Long;", [1], ["a"], False),
    ("java.lang.Long", 5, 6, True),
    ("java.lang.Long", 5, "x", False),
    ("java.lang.Long", 5, 2**63, False),
    ("java.lang.Integer", 5, True, False),
    ("com.acme.Meta", {"a": 1}, {"a": 2}, True),
    ("com.acme.Meta", {"a": 1}, [1], False),
    ("java.util.EnumSet<com.acme.Day>", ["MONDAY"], ["FRIDAY"], False),
]


@pytest.mark.parametrize(("java_class", "before", "after", "remains"), CHANGES)
def test_a_class_that_does_not_fit_the_new_payload_is_dropped(
    java_class: str, before: Any, after: Any, remains: bool
) -> None:
    instance = ServiceInstance("chat", id="a", payload=before, payload_class=java_class)
    changed = instance.replace(payload=after)
    assert changed.payload_class == (java_class if remains else None)
    read = decode(encode(changed))
    assert (read.payload, read.payload_class) == (after, changed.payload_class)


@pytest.mark.parametrize(
    ("java_class", "payload"),
    [
        ("java.util.HashMap", [1]),
        ("java.util.HashMap", 5),
        ("java.util.ArrayList", {"a": 1}),
        ("[I", {}),
        ("[I", ["a"]),
    ],
)
def test_a_class_that_java_cannot_make_of_the_payload_is_refused(java_class: str, payload: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        ServiceInstance("chat", id="a", payload=payload, payload_class=java_class)
    assert (raised.value.field, raised.value.value) == ("payload_class", java_class)


UUID = "123e4567-e89b-12d3-a456-426614174000"

# class, payloads that Jackson can make it of, and payloads that it cannot
FITS: list[tuple[str, list[Any], list[Any]]] = [
    ("java.lang.Byte", [-128, 127], [-129, 128, 1.0, True, "1"]),
    ("java.lang.Short", [-(2**15), 2**15 - 1], [-(2**15) - 1, 2**15]),
    ("java.lang.Integer", [-(2**31), 2**31 - 1], [-(2**31) - 1, 2**31]),
    ("java.lang.Long", [-(2**63), 2**63 - 1], [-(2**63) - 1, 2**63]),
    ("java.util.Date", [0, 2**62 - 1], [2**62, "today"]),
    ("java.math.BigInteger", [10**40], [1.5, True]),
    ("java.math.BigDecimal", [1.5, 10**40], ["1.5", True]),
    ("java.lang.Boolean", [True, False], [1, "true"]),
    ("java.lang.String", ["", "a"], [1, ["a"]]),
    ("java.lang.Object", ["a", 1, {}, []], []),
    ("java.util.UUID", [UUID, UUID.upper()], [UUID[:-1], f"{UUID}0", 5]),
    ("java.util.Hashtable", [{}, {"a": 1}], [{"a": None}, [1]]),
    ("java.util.TreeMap", [{"a": None}], [[1]]),
    ("java.util.Properties", [{"a": "b"}], [{"a": None}, {"a": ["b"]}, ["b"]]),
    ("java.util.concurrent.ConcurrentSkipListMap", [{"a": 1}], [{"a": None}]),
    ("java.util.ArrayDeque", [[], [1, "a"]], [[None], {}]),
    ("java.util.concurrent.LinkedBlockingQueue", [[1]], [[None]]),
    ("java.util.LinkedHashSet", [[1, None, "a"]], [{}]),
    ("java.util.Vector", [[None]], ["a"]),
    ("java.util.TreeSet", [[], [1, 2], ["a"]], [[None], [1, "a"], [[1]], {}]),
    ("java.util.PriorityQueue", [[1, 2]], [[1, "a"], [None]]),
    ("[I", [[], [1]], [[None], [2**31], [1.5], "a"]),
    ("[S", [[2**15 - 1]], [[2**15]]),
    ("[J", [[2**63 - 1]], [[2**63]]),
    ("[D", [[1.5, 2]], [["a"]]),
    ("[F", [[1.5]], [[True]]),
    ("[Z", [[True]], [[1]]),
    ("[[I", [[[1], None, []]], [[1], [["a"]]]),
    ("[C", ["any text"], [["a"], 1]),
    ("[B", ["", "AQI=", "AQ==", "AQID"], ["AQI", "AQ=", "A", "*QID", [1]]),
    ("[Ljava.lang.Integer;", [[1, None]], [[2**31], ["a"], {}]),
    ("[[Ljava.lang.String;", [[["a"], None]], [["a"], [[1]]]),
    ("com.acme.Anything", [1, "a", {}, []], []),
]


@pytest.mark.parametrize(("java_class", "fit", "unfit"), FITS)
def test_what_jackson_can_make_a_class_of(java_class: str, fit: list[Any], unfit: list[Any]) -> None:
    for payload in fit:
        assert check_class(java_class, payload) == java_class, payload
    for payload in unfit:
        with pytest.raises(InvalidArgument) as raised:
            check_class(java_class, payload)
        assert (raised.value.field, raised.value.value) == ("payload_class", java_class), payload
    assert check_class(java_class, None) is None


@pytest.mark.parametrize(
    "name",
    [
        *("Meta", "a.B", "a.b.C$D", "_a.B", "$Proxy1", "größe.Maß", "[I", "[[Z", "[La.B;", "[[La.B;", "a.B<a.C>"),
        "a" * 1000,
    ],
)
def test_names_of_java_classes(name: str) -> None:
    assert check_class(name, {} if not name.startswith("[") else None) == (None if name.startswith("[") else name)


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..B", "1a", "a b", "[", "[X", "[La.B", "La.B;[", "a.B<>", "a.B<a", "a" * 1001]
)
def test_what_is_no_name_of_a_java_class(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_class(name, None)


OTHER_KINDS: list[tuple[Any, Any]] = [(True, 1), (1, True), ("a", 1), ({}, []), ([], {}), (1, None)]
SAME_KINDS: list[tuple[Any, Any]] = [(True, False), (1, 2.5), ("a", "b"), ({}, {"a": 1}), ([], [1]), ([], (1,))]


def test_the_class_of_a_payload_of_another_kind_goes() -> None:
    assert [class_for("com.acme.Meta", *each) for each in OTHER_KINDS] == [None] * len(OTHER_KINDS)
    assert [class_for("com.acme.Meta", *each) for each in SAME_KINDS] == ["com.acme.Meta"] * len(SAME_KINDS)
    assert class_for(None, 1, 2) is None


def test_null_in_a_list_goes_with_its_class_only() -> None:
    changed = decode(written(payload=["com.acme.Day", None])).replace(payload_class=None)
    assert json.loads(encode(changed))["payload"] is None


def test_null_has_no_class() -> None:
    assert ServiceInstance("chat", id="a", payload_class="java.util.HashMap").payload_class is None
