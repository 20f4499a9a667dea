from __future__ import annotations

from typing import Any

import pytest

from aioregistry import InvalidArgument, ServiceInstance
from aioregistry._registration.reach import check_reachable


def instance(**fields: Any) -> ServiceInstance[Any]:
    instance: ServiceInstance[Any] = ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)
    return instance.replace(**fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "0.0.0.0"),
        ("address", "::"),
        ("address", "0:0:0:0:0:0:0:0"),
        ("address", "::ffff:0.0.0.0"),
        ("address", "224.0.0.251"),
        ("address", "239.255.255.255"),
        ("address", "ff02::1"),
        ("address", "::ffff:224.0.0.1"),
        ("address", "255.255.255.255"),
        ("port", 0),
        ("ssl_port", 0),
    ],
)
def test_nobody_can_connect(field: str, value: object) -> None:
    only = {"port": None} if field == "ssl_port" else {}
    with pytest.raises(InvalidArgument) as refused:
        check_reachable(instance(**only, **{field: value}))
    assert f"{field}={value!r}" in str(refused.value)


def test_no_port_but_one_of_tls_that_is_none() -> None:
    with pytest.raises(InvalidArgument, match="ssl_port=0"):
        check_reachable(instance(port=None, ssl_port=0))
    with pytest.raises(InvalidArgument, match="port=0"):
        check_reachable(instance(port=0, ssl_port=0))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"address": "chat-0.chat"},
        {"address": "127.0.0.1"},
        {"address": "2001:db8::7"},
        {"address": "fe80::1%eth0"},
        {"address": "223.255.255.254"},
        {"address": None},
        {"port": None},
        {"port": 0, "ssl_port": 8443},
        {"port": 8080, "ssl_port": 0},
        {"port": 65535},
        {"port": 1},
        {"port": None, "ssl_port": 1},
        {"port": 1, "ssl_port": 0},
    ],
)
def test_somebody_may(fields: dict[str, Any]) -> None:
    check_reachable(instance(**fields))
