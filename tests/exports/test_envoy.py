"""The files for Envoy, read by Envoy's own schema, which refuses unknown fields, and judged by its rules."""

from __future__ import annotations

import asyncio
import operator
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import httpx
import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse
from google.protobuf.json_format import Parse, ParseError
from hypothesis import given
from hypothesis import strategies as st
from validate import validate_pb2

import aioregistry
from aioregistry import Registry, ServiceInstance, Snapshot
from aioregistry._exports import Services, render
from aioregistry.integrations.exports import Exports
from tests.cli.command import TIMEOUT, Command
from tests.exports.hostile import documents
from tests.support.zookeeper import ZooKeeperServer

# ---------------------------------------------------------------- Envoy's schema

RULES: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "defined_only": lambda _, __: True,  # the parser refuses other names of an enumeration
    "gte": operator.ge,
    "lte": operator.le,
    "min_len": lambda value, least: len(value) >= least,
}
"""protoc-gen-validate's rules that the fields of these messages have; of another one nothing is known here."""


def parsed(text: str) -> dict[str, ClusterLoadAssignment]:
    """The cluster's endpoints by its name. Raises ParseError where it is not what Envoy reads."""
    response = Parse(text, DiscoveryResponse())
    assignments = []
    for resource in response.resources:
        assignment = ClusterLoadAssignment()
        assert resource.type_url == response.type_url
        assert resource.Unpack(assignment), resource.type_url
        assignments.append(assignment)
    assert [*problems(response), *(each for assignment in assignments for each in problems(assignment))] == []
    clusters = {assignment.cluster_name: assignment for assignment in assignments}
    assert len(clusters) == len(assignments), "two clusters have one name"
    return clusters


def problems(message: Any, where: str = "") -> Iterator[str]:
    """The objections of the rules in Envoy's schema to a message, and to those in it."""
    for oneof in message.DESCRIPTOR.oneofs:
        if oneof.GetOptions().Extensions[validate_pb2.required] and message.WhichOneof(oneof.name) is None:
            yield f"{where}: {oneof.name} is missing"
    for field in message.DESCRIPTOR.fields:
        path, value = f"{where}.{field.name}", getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            if field.GetOptions().Extensions[validate_pb2.rules].message.required:
                yield f"{path} is missing"
            continue
        yield from broken(field.GetOptions().Extensions[validate_pb2.rules], value, path)
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else [value]:
                yield from problems(inner, path)


def broken(rules: Any, value: Any, path: str) -> Iterator[str]:
    kind = rules.WhichOneof("type")
    for rule, bound in () if kind is None else getattr(rules, kind).ListFields():
        # UInt32Value, a number that may be missing, has the rules of the number.
        if not RULES[rule.name](getattr(value, "value", value), bound):
            yield f"{path}: {value!r} against {rule.name}: {bound}"


def places(assignment: ClusterLoadAssignment) -> list[tuple[str, int, int | None]]:
    """Address, port and weight of each endpoint; None is no weight."""
    (locality,) = assignment.endpoints
    found = []
    for each in locality.lb_endpoints:
        place = each.endpoint.address.socket_address
        weight = each.load_balancing_weight.value if each.HasField("load_balancing_weight") else None
        found.append((place.address, place.port_value, weight))
    return found


def response(endpoint: str, cluster: str = '"cluster_name": "chat"', more: str = "") -> str:
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    resource = f'{{"@type": "{kind}", {cluster}, "endpoints": [{{"lb_endpoints": [{endpoint}]}}]}}'
    return f'{{"type_url": "{kind}"{more}, "resources": [{resource}]}}'


@pytest.mark.parametrize(
    "text",
    [
        response("{}", more=', "versionn": "1"'),
        response('{"weight": 1}'),
        response('{"health_status": "WELL"}'),
        response('{"load_balancing_weight": -1}'),
        response('{"load_balancing_weight": 0.5}'),
        response('{"endpoint": {"address": {"socket_address": {"address": "::1", "port_value": "http"}}}}'),
        response("{}").replace("ClusterLoadAssignment", "Cluster"),
    ],
)
def test_the_schema_refuses(text: str) -> None:
    with pytest.raises(ParseError):
        parsed(text)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (response("{}", cluster='"cluster_name": ""'), ".cluster_name"),
        (response('{"load_balancing_weight": 0}'), ".load_balancing_weight"),
        (response('{"endpoint": {"address": {}}}'), ": address is missing"),
        (response('{"endpoint": {"address": {"socket_address": {"address": "::1"}}}}'), ": port_specifier is missing"),
        (response('{"endpoint": {"address": {"socket_address": {"port_value": 1}}}}'), ".address"),
        (
            response('{"endpoint": {"address": {"socket_address": {"address": "::1", "port_value": 65536}}}}'),
            ".port_value",
        ),
    ],
)
def test_the_rules_refuse(text: str, field: str) -> None:
    with pytest.raises(AssertionError) as refused:
        parsed(text)
    assert field in str(refused.value)


# ---------------------------------------------------------------- what is written


@st.composite
def weighted(draw: st.DrawFn) -> tuple[Services, dict[str, dict[str, float]]]:
    services = draw(documents())
    factors = st.floats(0, 1, exclude_min=True)
    return services, {
        name: {each.id: draw(factors) for each in instances if draw(st.booleans())}
        for name, instances in services.items()
    }


@given(weighted())
def test_envoy_takes_whatever_anybody_wrote(case: tuple[Services, dict[str, dict[str, float]]]) -> None:
    services, weights = case
    rendered = render("envoy", services, weights)
    clusters = parsed(rendered.text)
    assert clusters.keys() == services.keys()
    assert sum(len(places(each)) for each in clusters.values()) + len(rendered.left_out) == sum(
        map(len, services.values())
    )
    for name, assignment in clusters.items():
        found = places(assignment)
        assert all(each.health_status == 1 for each in assignment.endpoints[0].lb_endpoints), "1 is HEALTHY"
        # All have a weight or none: Envoy takes one that is missing for 1, beside others of 100.
        assert len({weight is None for _, _, weight in found}) <= 1
        assert any(weight is not None for _, _, weight in found) == any(
            weights[name].get(each.id, 1) < 1
            and not any(line.startswith(f"{name}/{each.id}: ") for line in rendered.left_out)
            for each in services[name]
        )
        assert sum(weight or 0 for _, _, weight in found) < 2**32, "Envoy refuses a larger sum"
        for address, port, _ in found:
            assert port > 0
            socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def test_names_of_any_length_are_clusters_of_their_own() -> None:
    names = ["n" * 5000, "n" * 5001]
    assert parsed(render("envoy", dict.fromkeys(names, ())).text).keys() == set(names)


# ---------------------------------------------------------------- the command and the route

HOSTILE: Final[list[ServiceInstance[Any]]] = [
    ServiceInstance("chat", id='a"; }', address="10.0.0.7", port=7000, payload={"@type": "x", "health_status": 7}),
    ServiceInstance("chat", id="\u202e\\", address="2001:db8::1", ssl_port=65535, payload=[{"\ud7ff": "\x00"}]),
    ServiceInstance("chat", id="named", address="host.example", port=1),
]
EXPECTED: Final = [("10.0.0.7", 7000, 1), ("2001:db8::1", 65535, 100)]
FACTOR: Final = 0.001


@pytest.fixture
async def registry(zookeeper: ZooKeeperServer, chroot: str) -> AsyncIterator[Registry]:
    async with aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=60) as registry:
        for instance in HOSTILE:
            _ = await registry.register(instance)
        await registry.overrides.drain("chat", HOSTILE[0].id, reason="canary", weight=FACTOR)
        yield registry


async def test_the_file_that_the_command_writes(
    registry: Registry, zookeeper: ZooKeeperServer, chroot: str, tmp_path: Path
) -> None:
    out = tmp_path / "eds.json"
    options = (
        "--format",
        "envoy",
        "--out",
        str(out),
        "--wait",
        "0.05:1",
        "--zookeeper",
        f"{zookeeper.address}{chroot}",
    )
    async with Command("export", *options, "chat", "empty") as command:
        async with asyncio.timeout(TIMEOUT):
            while not out.exists() or places(parsed(out.read_text())["chat"]) != EXPECTED:
                await asyncio.sleep(0.02)
        assert places(parsed(out.read_text())["empty"]) == []
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_what_the_route_answers(registry: Registry) -> None:
    def is_seen(snapshot: Snapshot[Any]) -> bool:
        return len(snapshot) == len(HOSTILE) and snapshot.entries[HOSTILE[0].id].weight == FACTOR

    async with registry.discover("chat") as chat, registry.discover("empty") as empty:
        await chat.wait_for(is_seen, timeout=TIMEOUT)
        app = cast(Any, Exports({"chat": chat, "empty": empty}))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://sd") as client:
            clusters = parsed((await client.get("/envoy")).text)
            assert {name: places(each) for name, each in clusters.items()} == {"chat": EXPECTED, "empty": []}
            assert parsed((await client.get("/envoy", params={"service": "empty"})).text).keys() == {"empty"}
