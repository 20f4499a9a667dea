"""The texts for other programs: what is in them, and that no name, id or payload can be more than it is."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest
from hypothesis import given

from aioregistry._document import decode
from aioregistry._exports import CONTENT_TYPES, FORMATS, render, usable, weights_of
from aioregistry._model import Entry, ServiceInstance
from tests.exports.hostile import documents

SPRING = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance"
CHAT = ServiceInstance(
    "chat", address="10.0.0.7", port=7000, payload={"zone": "eu-1", "weight": 3, "metadata": {"a-b": True, "n": [1]}}
)
SIX = ServiceInstance("chat", address="2001:db8::1", ssl_port=7443)
NAMED = ServiceInstance("chat", address="chat-1.example.com", port=7000)
SERVICES = {"chat": usable([SIX, NAMED, CHAT]), "empty": ()}


def test_those_that_are_not_to_be_sent_work_are_left_out() -> None:
    others = [
        CHAT.replace(id="a", enabled=False),
        ServiceInstance("chat", id="no port", address="10.0.0.7"),
        ServiceInstance("chat", id="no address", port=80),
        ServiceInstance("chat", id="port 0", address="10.0.0.7", port=0),
        CHAT.replace(id="spring", payload_class=SPRING, payload={"metadata": {"instance_status": "OUT_OF_SERVICE"}}),
    ]
    assert usable([SIX, *others, CHAT]) == (CHAT, SIX)


def test_prometheus() -> None:
    rendered = render("prometheus", SERVICES)
    groups = json.loads(rendered.text)
    assert [group["targets"] for group in groups] == [
        ["10.0.0.7:7000"], ["[2001:db8::1]:7443"], ["chat-1.example.com:7000"],
    ]  # fmt: skip
    assert groups[0]["labels"] == {
        "__meta_aioregistry_service": "chat",
        "__meta_aioregistry_id": "10.0.0.7:7000",
        "__meta_aioregistry_payload_zone": "eu-1",
        "__meta_aioregistry_payload_weight": "3",
        "__meta_aioregistry_payload_metadata_a_b": "true",
    }
    assert rendered.left_out == ()
    assert json.loads(render("prometheus", {}).text) == []


def test_envoy() -> None:
    rendered = render("envoy", SERVICES)
    response = json.loads(rendered.text)
    assert response.keys() == {"version_info", "type_url", "resources"}
    chat, empty = response["resources"]
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    assert {response["type_url"], chat["@type"], empty["@type"]} == {kind}
    assert [resource["cluster_name"] for resource in (chat, empty)] == ["chat", "empty"]
    addresses = [each["endpoint"]["address"]["socket_address"] for each in chat["endpoints"][0]["lb_endpoints"]]
    assert addresses == [
        {"address": "10.0.0.7", "port_value": 7000},
        {"address": "2001:db8::1", "port_value": 7443},
    ]
    assert empty["endpoints"] == [{"lb_endpoints": []}]
    assert [each.partition(":")[0] for each in rendered.left_out] == ["chat/chat-1.example.com"]
    assert render("envoy", {"chat": ()}).text != render("envoy", {"chat": (CHAT,)}).text


def test_haproxy() -> None:
    lines = render("haproxy", SERVICES).text.splitlines()[1:]
    assert lines[0] == "backend chat"
    assert [line.split()[2:] for line in lines[1:4]] == [
        ["10.0.0.7:7000"], ["[2001:db8::1]:7443"], ["chat-1.example.com:7000", "init-addr", "libc,none"],
    ]  # fmt: skip
    assert lines[4:] == ["backend empty"]


def test_nginx() -> None:
    assert render("nginx", SERVICES).text.splitlines()[1:] == [
        "upstream chat {", "    server 10.0.0.7:7000;", "    server [2001:db8::1]:7443;", "}",
        "upstream empty {", "    server 127.0.0.1:1 down;", "}",
    ]  # fmt: skip


HALF = {"chat": {CHAT.id: 0.5, NAMED.id: 0.001}}


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("envoy", [50, 100]),
        ("haproxy", ["weight 50", "weight 100", "weight 1 init-addr libc,none"]),
        ("nginx", ["10.0.0.7:7000 weight=50;", "[2001:db8::1]:7443 weight=100;"]),
    ],
)
def test_weights_are_in_proportion_where_an_operator_gave_one(format: str, expected: list[Any]) -> None:
    text = render(format, SERVICES, HALF).text
    if format == "envoy":
        endpoints = json.loads(text)["resources"][0]["endpoints"][0]["lb_endpoints"]
        assert [each["load_balancing_weight"] for each in endpoints] == expected
    else:
        servers = [line.strip() for line in text.splitlines() if line.startswith("    server ")]
        for line, end in zip(servers, expected, strict=False):
            assert line.endswith(end)
    without = {name: {"gone": 0.5} for name in SERVICES}
    assert render(format, SERVICES, without) == render(format, SERVICES)


def test_prometheus_and_json_have_the_weight_itself() -> None:
    labels = [group["labels"] for group in json.loads(render("prometheus", SERVICES, HALF).text)]
    assert [each.get("__meta_aioregistry_weight") for each in labels] == ["0.5", None, "0.001"]
    instances = json.loads(render("json", SERVICES, HALF).text)["chat"]
    assert [each.get("weight") for each in instances] == [0.5, None, 0.001]


@pytest.mark.parametrize("weights", [{}, {"chat": {"a": 0.25}}])
def test_a_weight_that_its_owner_wrote_is_not_the_operators(weights: dict[str, dict[str, float]]) -> None:
    own = decode(b'{"name": "chat", "id": "a", "address": "10.0.0.7", "port": 1, "weight": 9}')
    (shown,) = json.loads(render("json", {"chat": (own,)}, weights).text)["chat"]
    assert shown.get("weight") == weights.get("chat", {}).get("a")


def test_who_weighs_nothing_is_left_out() -> None:
    entries = [Entry(CHAT, 1, 1, 1, 0, 0.0, 0.0, weight=0.0), Entry(SIX, 1, 1, 1, 0, 0.0, 0.0)]
    weights = weights_of(entries)
    assert weights == {CHAT.id: 0.0}
    assert usable([CHAT, SIX], weights) == (SIX,)


def test_one_address_of_two_instances_is_one_server_of_nginx_with_the_larger_weight() -> None:
    again = CHAT.replace(id="again")
    text = render("nginx", {"chat": (CHAT, again)}, {"chat": {CHAT.id: 0.5}}).text
    assert [line.strip() for line in text.splitlines() if "server" in line] == ["server 10.0.0.7:7000 weight=100;"]


def test_json() -> None:
    parsed = json.loads(render("json", SERVICES).text)
    assert [each["id"] for each in parsed["chat"]] == [CHAT.id, SIX.id, NAMED.id]
    assert parsed["chat"][0]["payload"] == {"zone": "eu-1", "weight": 3, "metadata": {"a-b": True, "n": [1]}}
    assert parsed["empty"] == []


# ---------------------------------------------------------------- hostile names


@given(documents())
def test_no_name_is_more_than_a_name(services: dict[str, tuple[ServiceInstance[Any], ...]]) -> None:
    count = sum(map(len, services.values()))
    for format in FORMATS:
        rendered = render(format, services)
        assert render(format, dict(reversed(services.items()))) == rendered
        kept = count - len(rendered.left_out)
        if CONTENT_TYPES[format] == "application/json":
            json.loads(rendered.text)
        text = rendered.text.partition("\n")[2]
        if format == "prometheus":
            groups = json.loads(rendered.text)
            assert len(groups) == kept
            for group in groups:
                assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", label) for label in group["labels"])
                assert all(isinstance(value, str) for value in group["labels"].values())
        if format == "haproxy":
            lines = text.splitlines()
            names = [line.split()[1] for line in lines if line.startswith("backend ")]
            assert len(set(names)) == len(names) == len(services)
            servers = [line for line in lines if line.startswith("    server ")]
            assert len(servers) == kept == len(lines) - len(names)
            assert all(
                re.fullmatch(r"    server [\w.-]+ [\w.:\[\]-]+( init-addr libc,none)?", line, re.ASCII)
                for line in servers
            )
        if format == "nginx":
            rest = re.sub(r"upstream [\w.-]+ \{\n(    server [\w.:\[\]-]+( down)?;\n)+\}\n", "", text, flags=re.ASCII)
            assert rest == ""


def test_no_two_names_become_one() -> None:
    digest = render("haproxy", {"a b": ()}).text.split()[-1]
    names = ["a b", "a_b", "a/b", "a\nb", digest]
    rendered = render("haproxy", dict.fromkeys(names, ())).text.partition("\n")[2]
    assert len(set(rendered.split()) - {"backend"}) == len(names)


@pytest.mark.parametrize("format", FORMATS)
def test_numbers_that_json_has_no_form_for(format: str) -> None:
    odd = decode(
        b'{"name": "chat", "id": "a", "address": "10.0.0.7", "port": 1, "payload": {"x": 1e999, "y": "\\ud800"}}'
    )
    assert render(format, {"chat": (odd,)}).text.encode()


# ---------------------------------------------------------------- bounds


def labels_of(instance: ServiceInstance[Any]) -> dict[str, str]:
    (group,) = json.loads(render("prometheus", {"chat": (instance,)}).text)
    found: dict[str, str] = group["labels"]
    return found


def test_prometheus_has_64_labels_of_1024_characters_at_most() -> None:
    many = CHAT.replace(payload={f"k{number:03}": number for number in range(100)})
    assert len(labels_of(many)) == 64
    long = labels_of(CHAT.replace(payload={"k" * 2000: "v" * 2000, "short": "v" * 1024}))
    values = {name.removeprefix("__meta_aioregistry_payload_"): value for name, value in long.items()}
    assert values["k" * 1024] == values["short"] == "v" * 1024


def test_of_two_payload_fields_with_one_label_the_first_counts() -> None:
    labels = labels_of(CHAT.replace(payload={"a-b": 1, "a_b": 2, "": 3}))
    assert labels["__meta_aioregistry_payload_a_b"] == "1"
    assert labels_of(CHAT.replace(payload="text")).keys() == {"__meta_aioregistry_service", "__meta_aioregistry_id"}


def test_the_port_without_tls_counts_first() -> None:
    both = ServiceInstance("chat", address="10.0.0.7", port=80, ssl_port=443)
    for format in ("haproxy", "nginx", "prometheus"):
        assert "10.0.0.7:80" in render(format, {"chat": (both,)}).text
    assert usable([both.replace(port=None)]) == (both.replace(port=None),)


@pytest.mark.parametrize(("weight", "share"), [(0.5, 50), (0.994, 99), (0.996, 100), (0.016, 2), (0.001, 1)])
def test_a_weight_is_rounded_and_never_nothing(weight: float, share: int) -> None:
    text = render("haproxy", {"chat": (CHAT,)}, {"chat": {CHAT.id: weight}}).text
    assert f"10.0.0.7:7000 weight {share}\n" in text
    assert "weight" not in render("haproxy", {"chat": (CHAT,)}, {"chat": {CHAT.id: 1.0}}).text


def test_a_server_of_nginx_without_a_weight_says_none() -> None:
    assert "    server 10.0.0.7:7000;\n" in render("nginx", {"chat": (CHAT,)}).text


@pytest.mark.parametrize(
    ("address", "formats"),
    [
        ("größe.example", {"json"}),
        ("fe80::1%eth0", {"json"}),
        ("chat.example", {"json", "haproxy", "prometheus"}),
        ("10.0.0.7", set(FORMATS)),
    ],
)
def test_an_address_that_a_format_cannot_name_is_left_out(address: str, formats: set[str]) -> None:
    instance = decode(json.dumps({"name": "chat", "id": "a", "address": address, "port": 1}).encode())
    assert {format for format in FORMATS if not render(format, {"chat": (instance,)}).left_out} == formats


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("n" * 128, "n" * 128),
        ("n" * 129, f"{'n' * 64}-{hashlib.sha256(b'n' * 129).hexdigest()[:8]}"),
        ("a b", f"a_b-{hashlib.sha256(b'a b').hexdigest()[:8]}"),
    ],
)
def test_a_name_is_its_own_or_has_a_digest(name: str, backend: str) -> None:
    assert render("haproxy", {name: ()}).text.split()[-1] == backend


@pytest.mark.parametrize("lengths", [(8,), (8, 9), (8, 9, 10)])
def test_a_digest_grows_by_a_digit_where_the_name_is_taken(lengths: tuple[int, ...]) -> None:
    digest = hashlib.sha256(b"a b").hexdigest()
    taken = [f"a_b-{digest[:length]}" for length in lengths]
    text = render("haproxy", dict.fromkeys(["a b", *taken], ())).text
    backends = {line.split()[1] for line in text.splitlines() if line.startswith("backend")}
    assert backends == {*taken, f"a_b-{digest[: lengths[-1] + 1]}"}


def test_infinite_numbers_are_texts_in_json() -> None:
    odd = decode(b'{"name": "chat", "id": "a", "address": "x", "port": 1, "payload": [1e999, -1e999, 1.5]}')
    (shown,) = json.loads(render("json", {"chat": (odd,)}).text)["chat"]
    assert shown["payload"] == ["Infinity", "-Infinity", 1.5]


def test_an_entry_of_full_weight_needs_no_weight() -> None:
    assert weights_of([Entry(CHAT, 1, 1, 1, 0, 0.0, 0.0, weight=1.0)]) == {}


def test_the_version_of_envoys_answer_is_a_digest_of_16_digits() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", json.loads(render("envoy", SERVICES).text)["version_info"])
