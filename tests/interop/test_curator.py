"""Java Curator and Python see each other's instances."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import aioregistry
from aioregistry import Check, Registry, ServiceInstance
from tests.interop.curator import SPRING, CuratorPeer
from tests.interop.samples import PAYLOADS, SPRING_PAYLOAD, URI_SPEC, chat, java

pytestmark = pytest.mark.interop

DEADLINE = 100.0


@pytest.fixture
async def registry(place: str) -> AsyncIterator[Registry]:
    async with aioregistry.connect(place) as registry:
        yield registry


class TestFromPythonToJava:
    async def test_what_python_registers_is_listed_and_cached(self, registry: Registry, curator: CuratorPeer) -> None:
        payload = {"zone": "eu-1", "load": 12}
        async with registry.register(chat(payload=payload, uri_spec=URI_SPEC)) as registration:
            assert await curator.ask("names") == ["chat"]
            (listed,) = await curator.ask("list", name="chat")
            (cached,) = await curator.ask("follow", name="chat", ids=["10.0.0.7:7000"])
            assert listed == cached
            assert (listed["payload"], listed["uri"], listed["enabled"]) == (payload, "http://10.0.0.7:7000", True)
            assert listed["registrationTimeUTC"] > 0
            await registration.update(enabled=False)
            (drained,) = await curator.ask("list", name="chat")
            assert (drained["enabled"], drained["payload"]) == (False, payload)
        assert await curator.ask("follow", name="chat", ids=[]) == []

    @pytest.mark.parametrize("status", ["failing", "maintenance", "draining"])
    async def test_what_is_not_to_be_used_is_disabled_there_listed_and_not_picked(
        self, registry: Registry, curator: CuratorPeer, status: str
    ) -> None:
        well = [status != "failing"]

        async def probe() -> bool:
            return well[0]

        async def seen(enabled: bool) -> None:
            async with asyncio.timeout(DEADLINE):
                while (listed := await curator.ask("list", name="chat"))[0]["enabled"] is not enabled:
                    await asyncio.sleep(0.05)
            assert [each["payload"] for each in listed] == [{"zone": "eu-1"}]
            (cached,) = await curator.ask("follow", name="chat", ids=["10.0.0.7:7000"])
            assert cached["id"] == "10.0.0.7:7000"
            picked = await curator.ask("pick", name="chat")
            assert (picked["id"] if picked else None) == ("10.0.0.7:7000" if enabled else None)

        checks = {"self": Check(probe, interval=0.05, timeout=30, fall=1)}
        async with (
            registry.register(chat(payload={"zone": "eu-1"}), checks=checks) as registration,
            registry.discover("chat") as view,
        ):
            if status == "failing":
                await seen(False)  # until the first success
                well[0] = True
            await seen(True)
            match status:
                case "failing":
                    well[0] = False
                case "maintenance":
                    await registry.overrides.drain("chat", "10.0.0.7:7000", reason="new disk")
                case "draining":
                    await registration.drain()
            await view.wait_for(lambda snapshot: [each.status for each in snapshot.values()] == [status], DEADLINE)
            await seen(False)
            if status != "draining":  # which is for good
                well[0] = True
                if status == "maintenance":
                    await registry.overrides.enable("chat", "10.0.0.7:7000")
                await seen(True)

    @pytest.mark.parametrize(("payload", "java_class"), PAYLOADS.values(), ids=PAYLOADS)
    async def test_each_kind_of_payload_arrives(
        self, registry: Registry, curator: CuratorPeer, payload: Any, java_class: str | None
    ) -> None:
        async with registry.register(chat(payload=payload)):
            (seen,) = await curator.ask("list", name="chat")
            assert (seen["payload"], seen["payloadClass"]) == (payload, java_class)

    async def test_spring_sees_an_instance_of_its_payload_class(self, registry: Registry, spring: CuratorPeer) -> None:
        async with registry.register(chat(payload=SPRING_PAYLOAD, payload_class=SPRING)):
            (seen,) = await spring.ask("follow", name="chat", ids=["10.0.0.7:7000"])
            assert seen["payload"] == SPRING_PAYLOAD


class TestFromJavaToPython:
    @pytest.mark.parametrize(
        ("java_class", "payload", "kept"),
        [
            ("java.util.HashMap", {"zone": "eu-1", "deep": {"list": [1, None]}}, "java.util.HashMap"),
            ("java.util.ArrayList", [1, "two", {"three": [3]}], None),
            ("java.lang.String", "grüße ☃", None),
            ("java.lang.Integer", 7, None),
            (SPRING, SPRING_PAYLOAD, SPRING),
            ("", None, None),
        ],
    )
    async def test_each_kind_of_payload_arrives(
        self, registry: Registry, curator: CuratorPeer, java_class: str, payload: Any, kept: str | None
    ) -> None:
        await curator.ask("register", instance=java(payloadClass=java_class, payload=payload))
        async with registry.discover("chat") as view:
            instance = view.snapshot["java-1"]
            assert (instance.payload, instance.payload_class) == (payload, kept)

    async def test_every_field_arrives(self, registry: Registry, curator: CuratorPeer) -> None:
        await curator.ask("register", instance=java(sslPort=8443, uriSpec="{scheme}://{address}:{port}"))
        async with registry.discover("chat") as view:
            instance = view.snapshot["java-1"]
            expected: ServiceInstance[Any] = ServiceInstance(
                "chat", id="java-1", address="10.0.0.8", port=8000, ssl_port=8443, uri_spec=URI_SPEC
            )
            assert instance == expected
            assert instance.registration_time_ms

    async def test_enabled_is_what_java_says_where_it_says_so(
        self, registry: Registry, curator: CuratorPeer, full_curator: CuratorPeer
    ) -> None:
        await curator.ask("register", instance=java(id="silent", enabled=False))
        await full_curator.ask("register", instance=java(id="enabled", enabled=True))
        await full_curator.ask("register", instance=java(id="draining", enabled=False))
        async with registry.discover("chat") as view:
            enabled = {id: instance.enabled for id, instance in view.snapshot.items()}
            assert enabled == {"silent": True, "enabled": True, "draining": False}

    async def test_java_comes_changes_and_goes(self, registry: Registry, curator: CuratorPeer) -> None:
        async with registry.discover("chat") as view:
            assert len(view.snapshot) == 0
            first, second = (
                java(payloadClass="java.util.HashMap", payload={"load": load}, port=8000 + load) for load in (1, 2)
            )
            await curator.ask("register", instance=first)
            await view.wait_for(lambda snapshot: len(snapshot) == 1, timeout=DEADLINE)
            await curator.ask("update", instance=second)
            await view.wait_for(lambda snapshot: snapshot["java-1"].payload == {"load": 2}, timeout=DEADLINE)
            await curator.ask("unregister", instance=second)
            await view.wait_for(lambda snapshot: len(snapshot) == 0, timeout=DEADLINE)


class TestBothWays:
    async def test_both_are_seen_by_both(self, registry: Registry, curator: CuratorPeer) -> None:
        async with registry.register(chat()), registry.discover("chat") as view:
            await curator.ask("register", instance=java())
            await view.wait_for(lambda snapshot: set(snapshot) == {"10.0.0.7:7000", "java-1"}, timeout=DEADLINE)
            await curator.ask("follow", name="chat", ids=["10.0.0.7:7000", "java-1"])

    async def test_fields_that_one_side_does_not_know_do_not_hurt(
        self, registry: Registry, curator: CuratorPeer
    ) -> None:
        async with registry.register(chat(extra={"weight": 3})), registry.discover("chat") as view:
            await curator.ask("follow", name="chat", ids=["10.0.0.7:7000"])
            assert view.snapshot["10.0.0.7:7000"].extra == {"weight": 3}

    @pytest.mark.parametrize("name", ["/a/b/anotherservice", "a/b"])
    async def test_a_name_with_slashes_is_one_service_to_both(
        self, registry: Registry, curator: CuratorPeer, name: str
    ) -> None:
        mine = ServiceInstance(name, id="python-1", address="10.0.0.7", port=7000)
        async with registry.register(mine), registry.discover(name) as view:
            await curator.ask("register", instance=java(name=name))
            await view.wait_for(lambda snapshot: set(snapshot) == {"python-1", "java-1"}, timeout=DEADLINE)
            assert not view.snapshot.invalid
            assert {each.name for each in view.snapshot.values()} == {name}
            assert {each["id"] for each in await curator.ask("list", name=name)} == {"python-1", "java-1"}
            assert await curator.ask("names") == await registry.services() == ["a"]

    async def test_a_sequential_instance_has_its_nodes_name(self, registry: Registry, curator: CuratorPeer) -> None:
        for _ in range(2):
            await curator.ask("register", instance=java(id="node", serviceType="DYNAMIC_SEQUENTIAL", port=8000))
        async with registry.discover("chat") as view:
            assert not view.snapshot.invalid
            assert all(id.startswith("node00000000") and instance.id == id for id, instance in view.snapshot.items())
            assert {instance.port for instance in view.snapshot.values()} == {8000}
            assert [each["id"] for each in await curator.ask("list", name="chat")] == ["node"] * len(view.snapshot)
            assert view.snapshot

    async def test_curators_query_survives_what_an_update_writes(
        self, registry: Registry, curator: CuratorPeer
    ) -> None:
        mine = chat(payload={"a": 1}, payload_class="java.util.TreeMap")
        async with registry.register(mine) as registration:
            for payload in (None, [1, None], "text", {"b": None}, 5):
                await registration.update(payload=payload)
                (seen,) = await curator.ask("list", name="chat")
                assert seen["payload"] == payload
