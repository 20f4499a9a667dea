"""The documents: what the codec writes is read by Curator's own deserializer; what Curator writes is kept."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest

from aioregistry._document import decode, encode
from tests.interop.curator import SPRING, CuratorFailed, CuratorPeer
from tests.interop.samples import PAYLOADS, SPRING_PAYLOAD, URI_SPEC, chat, java
from tests.support.documents import PLAIN, READ, REFUSED, STRICTER, written
from tests.support.judge import Judge
from tests.test_document import CONTAINERS

pytestmark = pytest.mark.interop


@pytest.fixture
def place(real_place: str) -> str:
    """The real server's judge reads every document that is written; most of them are not written at all."""
    return real_place


async def read_by(peer: CuratorPeer, document: bytes) -> Any:
    """Curator's reading of *document*."""
    return await peer.ask("decode", document=base64.b64encode(document).decode())


@pytest.mark.parametrize(("payload", "java_class"), PAYLOADS.values(), ids=PAYLOADS)
async def test_curator_reads_each_kind_of_payload(curator: CuratorPeer, payload: Any, java_class: str | None) -> None:
    seen = await read_by(curator, encode(chat(payload=payload)))
    assert (seen["payload"], seen["payloadClass"]) == (payload, java_class)


async def test_curator_reads_every_field(curator: CuratorPeer) -> None:
    instance = chat(id="7", ssl_port=7443, uri_spec=URI_SPEC, registration_time_ms=1_763_680_000_123)
    assert await read_by(curator, encode(instance)) == {
        "name": "chat",
        "id": "7",
        "address": "10.0.0.7",
        "port": 7000,
        "sslPort": 7443,
        "enabled": True,
        "serviceType": "DYNAMIC",
        "registrationTimeUTC": 1_763_680_000_123,
        "uri": "https://10.0.0.7:7000",
        "payload": None,
        "payloadClass": None,
    }


async def test_curator_takes_a_document_with_fields_it_does_not_know(curator: CuratorPeer) -> None:
    seen = await read_by(curator, encode(chat(extra={"weight": 3})))
    assert seen["id"] == "10.0.0.7:7000"


async def test_spring_refuses_a_payload_that_is_not_its_own(spring: CuratorPeer) -> None:
    with pytest.raises(CuratorFailed, match="ClassCastException"):
        await read_by(spring, encode(chat(payload=SPRING_PAYLOAD)))


async def test_spring_reads_a_payload_of_its_class(spring: CuratorPeer) -> None:
    instance = chat(payload=SPRING_PAYLOAD, payload_class=SPRING)
    seen = await read_by(spring, encode(instance))
    assert (seen["payload"], seen["payloadClass"]) == (SPRING_PAYLOAD, SPRING)


@pytest.mark.parametrize(
    ("java_class", "payload"),
    [
        (SPRING, SPRING_PAYLOAD),
        ("java.util.HashMap", {"a": 1}),
        ("java.util.ArrayList", [1]),
        ("java.lang.String", "a"),
    ],
)
async def test_what_java_wrote_is_written_back_to_the_byte(
    curator: CuratorPeer, judge: Judge, chroot: str, java_class: str, payload: Any
) -> None:
    instance = java(payloadClass=java_class, payload=payload, uriSpec="{scheme}://{address}:{port}")
    await curator.ask("register", instance=instance)
    node = await judge.node(f"{chroot}/services/chat/java-1")
    assert node is not None
    assert encode(decode(node.data)) == node.data


async def test_curator_reads_what_is_said_that_it_reads(curator: CuratorPeer) -> None:
    wrong = {}
    for name, read in READ.items():
        wanted = PLAIN | {"enabled": True, "uri": None, "payloadClass": None} | read.curator
        del wanted["uriSpec"]
        seen = await read_by(curator, read.document)
        if seen != wanted:
            wrong[name] = seen
    assert wrong == {}


async def test_curator_reads_what_is_written_back(curator: CuratorPeer) -> None:
    wrong = {}
    for name, read in READ.items():
        back = encode(decode(read.document, id="a" if "id" in read.ours else None))
        if await read_by(curator, back) != await read_by(curator, read.document):
            wrong[name] = back
    assert wrong == {}


async def test_curator_refuses_what_is_said_that_it_refuses(curator: CuratorPeer) -> None:
    read = []
    for name, (document, _) in REFUSED.items():
        with contextlib.suppress(CuratorFailed):
            await read_by(curator, document)
            read.append(name)
    assert read == []


async def test_curator_reads_what_is_refused_here(curator: CuratorPeer) -> None:
    """docs/compatibility.md says why each is refused."""
    refused = {}
    for name, (document, _) in STRICTER.items():
        try:
            await read_by(curator, document)
        except CuratorFailed as error:
            refused[name] = str(error)
    assert refused == {}


JAVA = {name: payload for name, (payload, _, _) in CONTAINERS.items() if "acme" not in json.dumps(payload)}
JAVA |= {
    "no package": {"@class": "CuratorPeer$Point", "x": 1},
    "enum": ["org.apache.curator.x.discovery.ServiceType", "STATIC"],
    "enum set": ["java.util.EnumSet<org.apache.curator.x.discovery.ServiceType>", ["STATIC"]],
    "enum map": {
        "@class": "java.util.EnumMap<org.apache.curator.x.discovery.ServiceType,java.lang.Object>",
        "STATIC": "x",
    },
}
del JAVA["no package and flat"]
OWN = {"no package": dict, "enum": str}


@pytest.mark.parametrize("payload", JAVA.values(), ids=JAVA)
async def test_curator_reads_a_payload_that_was_read_and_written_back(curator: CuratorPeer, payload: Any) -> None:
    document = written(payload=payload)
    back = encode(decode(document).replace(enabled=False))
    seen, before = await read_by(curator, back), await read_by(curator, document)
    assert (seen["payload"], seen["payloadClass"]) == (before["payload"], before["payloadClass"])


async def test_curator_reads_every_payload_that_takes_anothers_place(curator: CuratorPeer) -> None:
    values: tuple[Any, ...] = (
        None,
        {},
        {"a": None, "b": {"c": [1]}},
        [],
        [1],
        ["a", None],
        [{}],
        ["a.B", 1],
        "text",
        "",
        7,
        2**40,
        1.5,
        True,
    )
    unread = []
    for name, payload in JAVA.items():
        instance = decode(written(payload=payload))
        for value in values:
            if isinstance(value, OWN.get(name, ())):
                continue  # of a class of one's own only its owner knows what it takes
            document = encode(instance.replace(payload=value))
            try:
                seen = await read_by(curator, document)
            except CuratorFailed as error:
                unread.append((name, value, error))
                continue
            if seen["payload"] != value:
                unread.append((name, value, seen["payload"]))
    assert unread == []
