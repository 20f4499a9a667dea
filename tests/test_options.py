"""The types of options are those of the functions that take them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from aioregistry import Check, CommandCheck, HttpCheck, LoopLagCheck, Registry, TcpCheck, View, connect
from aioregistry._maintenance import Overrides
from aioregistry._options import BalancerOptions, ConnectOptions, DiscoverOptions, DrainOptions, RegisterOptions
from aioregistry._parameters import checked_parameters
from aioregistry.integrations._arguments import RoutingOptions
from aioregistry.integrations._routing import Router


@pytest.mark.parametrize(
    ("options", "function", "besides"),
    [
        (ConnectOptions, connect, {"thread", "lag_check"}),
        (ConnectOptions, checked_parameters, set()),
        (RegisterOptions, Registry.register, set()),
        (DiscoverOptions, Registry.discover, {"payload_type"}),
        (BalancerOptions, View.balancer, set()),
        (DrainOptions, Overrides.drain, set()),
        (RoutingOptions, Router, set()),
    ],
)
def test_every_keyword_argument_is_an_option(
    options: type[Any], function: Callable[..., object], besides: set[str]
) -> None:
    parameters = inspect.signature(function).parameters.values()
    keywords = {each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
    assert set(options.__annotations__) == keywords - besides


def test_only_connect_says_the_defaults() -> None:
    defaults = {each.default for each in inspect.signature(checked_parameters).parameters.values()}
    assert defaults == {inspect.Parameter.empty}


@pytest.mark.parametrize("check", [HttpCheck, TcpCheck, CommandCheck, LoopLagCheck])
def test_a_ready_made_check_takes_what_a_check_takes(check: type[Check]) -> None:
    taken = inspect.signature(check).parameters
    for name, parameter in inspect.signature(Check).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            assert taken[name] == parameter
