"""Hosts of the registry, and where instances are reached: every rule, and never a wrong service."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry import InvalidArgument, ServiceInstance
from aioregistry._document import decode
from aioregistry.integrations._hosts import check_label, is_registry_host, label_of, led_back, upstream_of


@pytest.mark.parametrize(
    ("host", "label"),
    [
        ("chat.registry", "chat"),
        ("CHAT.Registry", "chat"),
        ("chat.registry.", "chat"),
        ("com.example.chat-v2.registry", "com.example.chat-v2"),
        ("my_service.registry", "my_service"),
        ("registry.registry", "registry"),
        ("1.registry", "1"),
    ],
)
def test_a_host_names_a_service(host: str, label: str) -> None:
    assert is_registry_host(host)
    assert label_of("http", host) == label
    assert check_label("services", label) == label


@pytest.mark.parametrize(
    "host", ["chat", "", ".", "chat.registry.example", "chatregistry", "10.0.0.7", "::1", "example.org"]
)
def test_other_hosts_are_told_apart(host: str) -> None:
    assert not is_registry_host(host)
    with pytest.raises(InvalidArgument, match=f"^host={re.escape(repr(host))}: is not <service>.registry$"):
        label_of("http", host)


@pytest.mark.parametrize(
    "host",
    [
        "registry", ".registry", "a..registry", ".a.registry", "-a.registry", "a-.registry", "a b.registry",
        "%63hat.registry", "chat%2fv2.registry", "chät.registry", "xn--cht-qla.registry", "a.xn--cht-qla.registry",
        "\N{KELVIN SIGN}ey.registry",
        f"{'a' * 64}.registry", "chat.registry..",
    ],
)  # fmt: skip
def test_hosts_that_name_no_service_are_refused(host: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^host={re.escape(repr(host))}: "):
        label_of("http", host)


@pytest.mark.parametrize(
    ("scheme", "port", "field"), [("ftp", None, "scheme"), ("", None, "scheme"), ("http", 8080, "port")]
)
def test_what_else_a_url_must_not_say(scheme: str, port: int | None, field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field}="):
        label_of(scheme, "chat.registry", port)


@given(st.text(st.characters(codec="ascii"), max_size=20))
def test_a_label_is_taken_for_itself_or_refused(text: str) -> None:
    try:
        label = label_of("http", f"{text}.registry")
    except InvalidArgument:
        return
    assert label == text.lower()


@pytest.mark.parametrize("label", ["Chat", "", "a/b", "chat.", 7, None])
def test_no_label(label: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^services="):
        check_label("services", label)


FULL = ServiceInstance("chat", address="10.0.0.7", port=80, ssl_port=443)


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("ws", 80), ("https", 443), ("wss", 443)])
def test_the_scheme_decides_about_the_port(scheme: str, port: int) -> None:
    assert upstream_of(FULL, scheme) == ("10.0.0.7", port)


@pytest.mark.parametrize(
    ("instance", "scheme", "problem"),
    [
        (
            ServiceInstance("chat", id="a", port=80),
            "http",
            "address=None: chat/a cannot be reached by that: it publishes no address",
        ),
        (
            ServiceInstance("chat", id="a", address="x", port=80),
            "https",
            "ssl_port=None: chat/a cannot be reached by https",
        ),
        (ServiceInstance("chat", id="a", address="x", ssl_port=443), "ws", "port=None: chat/a cannot be reached by ws"),
        (ServiceInstance("chat", id="a", address="x", port=0), "http", "port=0: chat/a cannot be reached by http"),
    ],
)
def test_an_instance_without_an_endpoint_is_refused(instance: ServiceInstance, scheme: str, problem: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InvalidArgument, match=f"^{re.escape(problem)}$"):
        upstream_of(instance, scheme)


@pytest.mark.parametrize("address", ["10.0.0.7", "::1", "fe80::1%eth0", "node-7.example.", "node_7", "mün.example"])
def test_an_address(address: str) -> None:
    assert upstream_of(ServiceInstance("chat", address=address, port=80), "http") == (address, 80)


@pytest.mark.parametrize(
    "address", ["a/b", "a?b", "a@b", "a:80", "[::1]", "a..b", ".", "a" * 64, "%00", "ä..b", "ä" * 64]
)
def test_what_is_no_address(address: str) -> None:
    unusable = decode(json.dumps({"name": "chat", "id": "a", "address": address, "port": 80}).encode())
    with pytest.raises(InvalidArgument, match=f"^address={re.escape(repr(address))}: chat/a cannot be reached"):
        upstream_of(unusable, "http")


HERE = ServiceInstance("chat", id="a", address="Host.example", port=8080, ssl_port=443)


@pytest.mark.parametrize(
    ("location", "led"),
    [
        ("http://host.example:8080/a?b=c#d", "http://chat.registry/a?b=c#d"),
        ("http://HOST.example:8080", "http://chat.registry"),
        ("https://host.example/", "https://chat.registry/"),
        ("https://host.example:443/", "https://chat.registry/"),
        ("http://me:secret@host.example:8080/", "http://me:secret@chat.registry/"),
        ("http://host.example/", None),
        ("http://host.example:443/", None),
        ("https://host.example:8080/", None),
        ("http://other.example:8080/", None),
        ("ftp://host.example:8080/", None),
        ("//host.example:8080/there", "//chat.registry/there"),
        ("//host.example:443/", None),
        ("//host.example/", None),
        ("/there", None),
        ("there", None),
        ("", None),
        ("http://host.example:port/", None),
        ("http://host.example:99999/", None),
        ("http://[host.example:8080/", None),
    ],
)
def test_a_redirect_to_the_instance_leads_back_to_the_service(location: str, led: str | None) -> None:
    assert led_back(location, HERE, "http", "chat.registry") == led


def test_a_redirect_without_a_scheme_has_that_of_the_request() -> None:
    assert led_back("//host.example/a", HERE, "https", "chat.registry") == "//chat.registry/a"
    assert led_back("//host.example:8080/a", HERE, "https", "chat.registry") is None


@pytest.mark.parametrize("scheme", ["http", "ws", "https", "wss"])
def test_a_redirect_without_a_port_is_to_the_scheme_s(scheme: str) -> None:
    usual = ServiceInstance("chat", id="a", address="host.example", port=80, ssl_port=443)
    assert led_back(f"{scheme}://host.example/a", usual, "http", "chat.registry") == f"{scheme}://chat.registry/a"


def test_a_redirect_to_an_address_of_ipv6_leads_back() -> None:
    here = ServiceInstance("chat", id="a", address="::1", port=8080)
    for rubbish in ("http://[::1]x:8080/there", "http://x[::1]:8080/there"):
        assert led_back(rubbish, here, "https", "chat.registry") is None
    assert led_back("http://[::1]:8080/there", here, "https", "chat.registry") == "http://chat.registry/there"


def test_an_instance_without_an_address_leads_nowhere() -> None:
    assert led_back("http://host.example:8080/", ServiceInstance("chat", id="a"), "http", "chat.registry") is None
