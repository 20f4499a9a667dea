"""The documents: what the codec writes is read by Curator's own deserializer; what Curator writes is kept."""

from __future__ import annotations

from typing import Any

import pytest

from aioregistry._document import decode, encode
from tests.interop.curator import SPRING, CuratorFailed, CuratorPeer
from tests.interop.samples import PAYLOADS, SPRING_PAYLOAD, URI_SPEC, chat, java
from tests.support.judge import Judge

pytestmark = pytest.mark.interop


@pytest.fixture
def place(real_place: str) -> str:
    """What is written is read by the judge of the real server; most of it is not written at all."""
    return real_place


@pytest.mark.parametrize(("payload", "java_class"), PAYLOADS.values(), ids=PAYLOADS)
async def test_curator_reads_each_kind_of_payload(curator: CuratorPeer, payload: Any, java_class: str | None) -> None:
    seen = await curator.ask("decode", document=encode(chat(payload=payload)).decode())
    assert (seen["payload"], seen["payloadClass"]) == (payload, java_class)


async def test_curator_reads_every_field(curator: CuratorPeer) -> None:
    instance = chat(id="7", ssl_port=7443, uri_spec=URI_SPEC, registration_time_ms=1_763_680_000_123)
    assert await curator.ask("decode", document=encode(instance).decode()) == {
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
    seen = await curator.ask("decode", document=encode(chat(extra={"weight": 3})).decode())
    assert seen["id"] == "10.0.0.7:7000"


async def test_spring_refuses_a_payload_that_is_not_its_own(spring: CuratorPeer) -> None:
    with pytest.raises(CuratorFailed, match="ClassCastException"):
        await spring.ask("decode", document=encode(chat(payload=SPRING_PAYLOAD)).decode())


async def test_spring_reads_a_payload_of_its_class(spring: CuratorPeer) -> None:
    instance = chat(payload=SPRING_PAYLOAD, payload_class=SPRING)
    seen = await spring.ask("decode", document=encode(instance).decode())
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
