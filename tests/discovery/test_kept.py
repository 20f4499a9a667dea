"""The bytes of a kept snapshot."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aioregistry._discovery.kept import VERSION, Damaged, Foreign, Kept, from_bytes, to_bytes
from aioregistry._document import decode
from aioregistry._errors import InvalidInstance
from aioregistry._model import Entry, ServiceInstance
from tests.discovery.scene import BASE, chat

NOW = 1_763_680_000.25


def entry(instance: ServiceInstance[Any], number: int = 1) -> Entry[Any]:
    return Entry(instance, 0x1000 + number, number, number + 1, number % 3, NOW - number, NOW)


def kept(*instances: ServiceInstance[Any], known_at: float = NOW) -> Kept:
    entries = {instance.id: entry(instance, number) for number, instance in enumerate(instances)}
    return Kept("chat", BASE, known_at, 0x500000007, entries)


def read(data: bytes, service: str = "chat", base_path: str = BASE) -> Kept:
    return from_bytes(data, service, base_path)


def sealed(body: bytes, version: int = VERSION) -> bytes:
    """A file with a true checksum, whatever is in it."""
    title = b"aioregistry-kept %d " % version
    return title + hashlib.sha256(title + body).hexdigest().encode() + b"\n" + body


def lines_of(data: bytes) -> list[bytes]:
    return data.split(b"\n")[1:-1]


def resealed(lines: Iterable[bytes]) -> bytes:
    return sealed(b"".join(line + b"\n" for line in lines))


TWO = kept(chat("b", {"zone": "eu-1"}), chat("a", [1, "ü", None]))


# ---------------------------------------------------------------- there and back


def test_a_file_is_text_that_says_what_it_is() -> None:
    first, head, *instances = to_bytes(TWO).decode().splitlines()
    assert first.startswith("aioregistry-kept 1 ")
    assert json.loads(head) == {
        "service": "chat",
        "base_path": "/services",
        "known_at": NOW,
        "as_of": 0x500000007,
        "instances": 2,
    }
    assert [json.loads(line)["instance"]["id"] for line in instances] == ["a", "b"]
    assert json.loads(instances[0]) | {"instance": None} == {
        "owner": 0x1001,
        "czxid": 1,
        "mzxid": 2,
        "version": 1,
        "created": NOW - 1,
        "modified": NOW,
        "instance": None,
    }


def test_what_was_written_is_read() -> None:
    assert read(to_bytes(TWO)) == TWO
    assert read(to_bytes(kept())) == kept()


def test_an_instance_whose_document_says_no_id_keeps_that_of_its_node() -> None:
    for document in (
        b'{"name": "chat", "address": "10.0.0.7"}',
        b'{"name": "chat", "id": null, "address": "10.0.0.7"}',
    ):
        instance = decode(document, name="chat", id="a")
        assert read(to_bytes(kept(instance))).entries["a"].instance == instance


def test_equal_states_give_equal_files() -> None:
    other_order = TWO._replace(entries=dict(reversed(list(TWO.entries.items()))))
    assert to_bytes(other_order) == to_bytes(TWO)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | st.sampled_from(["@class", "a.B"])
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
jsons = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=9
)
fields = st.fixed_dictionaries(
    {"payload": jsons},
    optional={
        "port": st.none() | st.integers(0, 65535),
        "enabled": st.booleans(),
        "registrationTimeUTC": st.none() | st.integers(-(2**63), 2**63),
        "serviceType": st.sampled_from([None, "STATIC"]),
        "sessionTimeoutMs": st.none() | st.integers(0, 2**31 - 1),
        "uriSpec": st.none() | st.dictionaries(texts, jsons, max_size=2),
        "weight": jsons,
    },
)
numbers = st.integers(-(2**63), 2**63 - 1)
times = st.floats(0, 1e11)
nodes = st.tuples(fields, numbers, numbers, numbers, st.integers(0, 2**31 - 1), times, times)


@settings(max_examples=30)
@given(st.dictionaries(texts.filter(bool), nodes, max_size=4), times, numbers)
@example({"a": ({"payload": ["java.util.ArrayList", {"@class": 5}]}, 0, 0, 0, 0, 0.0, 0.0)}, 0.0, 0)
@example({"a": ({"payload": ["A.A", None]}, 0, 0, 0, 0, 0.0, 0.0)}, 0.0, 0)
def test_whatever_a_node_can_say_is_kept(nodes: dict[str, Any], known_at: float, as_of: int) -> None:
    entries = {}
    for id, (document, *stat) in nodes.items():
        data = json.dumps({"name": "chat", "id": id, "address": "a"} | document).encode()
        try:
            entries[id] = Entry(decode(data, name="chat", id=id), *stat)
        except InvalidInstance:
            continue
    before = Kept("chat", BASE, known_at, as_of, entries)
    after = read(to_bytes(before))
    assert after == before
    for id, found in after.entries.items():
        assert repr(found) == repr(entries[id])  # what equality leaves out, too


# ---------------------------------------------------------------- damage


@given(st.integers(0), st.integers(1, 255))
def test_a_byte_that_changed_is_damage(at: int, mask: int) -> None:
    data = bytearray(to_bytes(TWO))
    data[at % len(data)] ^= mask
    with pytest.raises(Damaged):
        read(bytes(data))


def test_every_bit_that_flips_is_damage() -> None:
    data = to_bytes(kept(chat("a")))
    for at, bit in itertools.product(range(len(data)), range(8)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        with pytest.raises(Damaged):
            read(bytes(flipped))


def test_every_truncation_is_damage() -> None:
    data = to_bytes(TWO)
    for length in range(len(data)):
        with pytest.raises(Damaged):
            read(data[:length])


@given(st.binary() | st.binary().map(to_bytes(TWO).__add__) | st.binary(min_size=1).map(lambda b: b + to_bytes(TWO)))
@example(bytes(4096))
@example(b"aioregistry-kept 1 " + b"0" * 64 + b"\n")
def test_any_other_bytes_are_damage(data: bytes) -> None:
    if data != to_bytes(TWO):
        with pytest.raises(Damaged):
            read(data)


HEAD, ONE = lines_of(to_bytes(kept(chat("a"))))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (sealed(b""), "last line does not end"),
        (sealed(HEAD + b"\n" + ONE), "last line does not end"),
        (resealed([b"{}", ONE]), "line 2 does not describe a snapshot"),
        (resealed([b"[" * 5000]), "line 2 does not describe a snapshot"),
        (resealed([HEAD.replace(b'"known_at":', b'"known_at":-'), ONE]), "line 2 does not describe a snapshot"),
        (resealed([HEAD]), "instances=1, and holds 0 in 0 lines"),
        (resealed([HEAD, ONE, ONE]), "instances=1, and holds 1 in 2 lines"),
        (resealed([HEAD, b"nonsense"]), "line 3 holds no entry"),
        (resealed([HEAD, b""]), "line 3 holds no entry"),
        (resealed([HEAD, ONE.replace(b'"owner":', b'"lender":')]), "line 3 holds no entry"),
        (resealed([HEAD, ONE.replace(b'"name":"chat"', b'"name":"mail"')]), "line 3 holds no instance$"),
        (resealed([HEAD, ONE.replace(b'"port":7000', b'"port":2147483648')]), "line 3 holds no instance$"),
        (resealed([HEAD, ONE.replace(b'"payload":null', b'"payload":"\xff"')]), "line 3 holds no"),
    ],
)
def test_nonsense_with_a_true_checksum_is_damage(data: bytes, reason: str) -> None:
    with pytest.raises(Damaged, match=reason):
        read(data)


# ---------------------------------------------------------------- whole, and another's


@pytest.mark.parametrize(
    ("data", "field", "found", "wanted"),
    [
        (to_bytes(TWO._replace(service="mail", entries={})), "service", "mail", "chat"),
        (to_bytes(TWO._replace(base_path="/prod/services")), "base_path", "/prod/services", BASE),
        (sealed(b"\x00 whatever a version to come may write", 2), "format version", 2, VERSION),
    ],
)
def test_a_file_of_another_is_told_from_a_damaged_one(data: bytes, field: str, found: object, wanted: object) -> None:
    with pytest.raises(Foreign) as raised:
        read(data)
    assert (raised.value.field, raised.value.found, raised.value.wanted) == (field, found, wanted)
    assert str(raised.value) == f"holds a snapshot of {field}={found!r}, not of {wanted!r}"


@pytest.mark.parametrize("line", [0, 1])
def test_a_field_that_nobody_wrote_is_damage(line: int) -> None:
    lines = lines_of(to_bytes(TWO))
    fields = json.loads(lines[line])
    assert read(resealed(lines)) == TWO
    lines[line] = json.dumps(fields | {"more": 1}).encode()
    with pytest.raises(Damaged):
        read(resealed(lines))


@pytest.mark.parametrize("line", [0, 1])
def test_what_is_nested_too_deep_is_damage_and_no_error_of_the_interpreter(line: int) -> None:
    lines = lines_of(to_bytes(TWO))
    deep = b"[" * 100_000 + b"]" * 100_000
    lines[line] = b'{"service":' + deep + b"}" if line == 0 else lines[1].replace(b'[1,"\xc3\xbc",null]', deep)
    assert deep in lines[line]
    with pytest.raises(Damaged):
        read(resealed(lines))
