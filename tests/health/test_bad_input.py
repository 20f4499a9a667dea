"""Wrong checks are refused at once, by every class of checks and by everything that takes checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import aioregistry
from aioregistry import (
    Check,
    CommandCheck,
    HttpCheck,
    InvalidArgument,
    LoopLagCheck,
    ServiceInstance,
    TcpCheck,
    blocking,
)
from aioregistry.integrations.membership import Membership

NOWHERE = "127.0.0.1:1"
"""No server is there: a wrong argument is found before a server is asked."""


async def well() -> None:
    pass


CHECKS: dict[str, Callable[..., Check]] = {
    "Check": partial(Check, well),
    "HttpCheck": partial(HttpCheck, "http://localhost/"),
    "TcpCheck": partial(TcpCheck, "localhost:7000"),
    "CommandCheck": partial(CommandCheck, "true"),
    "LoopLagCheck": LoopLagCheck,
}
NO_SECONDS: list[Any] = [0, 0.0, -1, -0.001, math.nan, math.inf, -math.inf, "5", None, True, [5]]
NO_COUNT: list[Any] = [0, -1, 1.0, math.nan, "3", None, True, 1_000_001, 10**18]
NO_STATE: list[Any] = ["", "PASSING", "warning", None, True]
WRONG = [
    *(("interval", value) for value in NO_SECONDS),
    *(("timeout", value) for value in NO_SECONDS),
    *(("rise", value) for value in NO_COUNT),
    *(("fall", value) for value in NO_COUNT),
    *(("initial", value) for value in NO_STATE),
]


def test_every_class_of_checks_is_tried() -> None:
    exported = {name for name in aioregistry.__all__ if name.endswith("Check")}
    assert exported == set(CHECKS)


@pytest.mark.parametrize(("field", "value"), WRONG)
@pytest.mark.parametrize("check", CHECKS)
def test_an_option_that_is_wrong_is_named_with_its_value(check: str, field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        CHECKS[check](**{field: value})
    assert raised.value.field == field
    assert raised.value.value is value
    assert str(raised.value).startswith(f"{field}={value!r}")


NO_CHECKS: list[tuple[Any, str]] = [
    (7, "checks"),
    ([well], "checks"),
    ("db", "checks"),
    ({"": well}, "checks"),
    ({7: well}, "checks"),
    ({"two\nlines": well}, "checks"),
    ({"x" * 101: well}, "checks"),
    ({"db": 7}, "checks['db']"),
    ({"db": None}, "checks['db']"),
    ({"db": "http://localhost/"}, "checks['db']"),
]


def _me() -> ServiceInstance[Any]:
    return ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)


@pytest.mark.parametrize(("checks", "field"), NO_CHECKS)
def test_a_membership_refuses_what_is_no_check(checks: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        Membership(NOWHERE, "chat", port=7000, checks=checks)
    assert raised.value.field == field
    assert field in str(raised.value)


@pytest.mark.parametrize(("checks", "field"), NO_CHECKS)
async def test_a_registry_refuses_what_is_no_check(checks: Any, field: str) -> None:
    async with aioregistry.connect(NOWHERE, wait=False) as registry:
        with pytest.raises(InvalidArgument) as raised:
            _ = registry.register(_me(), checks=checks)
    assert raised.value.field == field
    assert field in str(raised.value)


@pytest.mark.parametrize(("checks", "field"), NO_CHECKS)
async def test_the_registry_on_a_thread_refuses_it_on_the_caller_s_side(checks: Any, field: str) -> None:
    async with aioregistry.connect(NOWHERE, wait=False, thread=True) as registry:
        with pytest.raises(InvalidArgument) as raised:
            _ = registry.register(_me(), checks=checks)
    assert raised.value.field == field


@pytest.mark.parametrize(("checks", "field"), NO_CHECKS)
def test_the_blocking_registry_refuses_it_when_it_registers(checks: Any, field: str) -> None:
    with blocking.connect(NOWHERE, wait=False) as registry, pytest.raises(InvalidArgument) as raised:
        registry.register(_me(), checks=checks).open()
    assert raised.value.field == field
