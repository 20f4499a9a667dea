"""Of a wrong type, or a wrong value: every public constructor and call says so at once, as what it is."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

import aioregistry
from aioregistry import (
    Check,
    CommandCheck,
    Ejection,
    Guard,
    HttpCheck,
    InvalidArgument,
    InvalidType,
    OwnZone,
    RegistryError,
    RoundRobin,
    ServiceInstance,
    TcpCheck,
    Weighted,
)
from aioregistry._arguments import (
    as_written,
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_optional,
    check_seconds,
    is_number,
    is_whole,
    key_and_timeout,
)
from aioregistry._errors import wrong_argument
from aioregistry.integrations.membership import Membership

SERVERS = "127.0.0.1:2181"


async def healthy() -> bool:
    return True


def connect(**options: Any) -> Any:
    given: dict[str, Any] = {"servers": SERVERS} | options
    return aioregistry.connect(**given)


def instance(**fields: Any) -> Any:
    given: dict[str, Any] = {"name": "chat", "id": "a"} | fields
    return ServiceInstance(**given)


def replaced(**fields: Any) -> Any:
    return ServiceInstance("chat", id="a").replace(**fields)


def member(**options: Any) -> Any:
    given: dict[str, Any] = {"servers": SERVERS, "service": "chat", "port": 80} | options
    return Membership(**given)


def check(**options: Any) -> Any:
    given: dict[str, Any] = {"probe": healthy} | options
    return Check(**given)


WRONG_TYPES: list[tuple[Callable[..., Any], str, list[Any]]] = [
    (connect, "servers", [None, 7, b"127.0.0.1"]),
    *((connect, field, ["10", [1], True]) for field in ("session_timeout", "connect_timeout", "close_timeout")),
    *((connect, field, [5, None, "yes", 0]) for field in ("wait", "create_chroot", "allow_read_only")),
    (connect, "base_path", [None, 7, b"/services"]),
    (connect, "auth", ["digest", 7, b"x"]),
    (connect, "acl", [7, ["world"]]),
    (connect, "tls", ["yes", True, ssl]),
    (connect, "max_request", ["1", 1.5, True, None]),
    (connect, "watches", [7, None, ["auto"]]),
    (connect, "guard", [7, True, "off"]),
    (connect, "on_event", [7, "print"]),
    (connect, "runtime", [7]),
    *((make, "address", [7, b"10.0.0.7"]) for make in (instance, replaced, member)),
    *((make, field, ["80", 80.0, True]) for make in (instance, replaced) for field in ("port", "ssl_port")),
    *((make, "enabled", [1, None, "true"]) for make in (instance, replaced, member)),
    *((make, "status", [7, ["failing"]]) for make in (instance, replaced)),
    (instance, "name", [7, None, b"chat"]),
    (instance, "id", [7, b"a"]),
    (instance, "service_type", ["DYNAMIC", None]),
    (instance, "uri_spec", ["{scheme}", 7]),
    (instance, "payload_class", [7]),
    (instance, "extra", [[1], "a"]),
    *((instance, field, ["now", 1.0, True]) for field in ("registration_time_ms", "session_timeout_ms")),
    (member, "workers", [7, None]),
    (member, "on_displaced", [7]),
    (member, "on_conflict", [7]),
    (member, "drain", ["1", True]),
    *((member, field, [5, None]) for field in ("wait", "check_port", "ready_in_outage", "create_chroot")),
    (member, "discover", ["chat", 7]),
    *((Guard, field, ["1", None, True]) for field in ("hold", "share", "within", "longest")),
    (check, "probe", ["probe", 7]),
    *((check, field, ["1", None, True]) for field in ("interval", "timeout")),
    *((check, field, ["1", 1.5, True]) for field in ("rise", "fall")),
    (check, "initial", [7, None]),
    (HttpCheck, "url", [7, None]),
    (TcpCheck, "address", [7, None]),
    (CommandCheck, "command", [7, [7]]),
    (Ejection, "errors", [7, "OSError"]),
    (Weighted, "weight", [7]),
]
WRONG_VALUES: list[tuple[Callable[..., Any], str, list[Any]]] = [
    (connect, "servers", ["", "a b", "h:0"]),
    *((connect, field, [0, -1.5, float("nan")]) for field in ("session_timeout", "connect_timeout", "close_timeout")),
    (connect, "base_path", ["services", "/a//b"]),
    (connect, "acl", [[]]),
    (connect, "max_request", [0, -1]),
    (connect, "watches", ["", "often"]),
    *((make, "address", ["", "a b"]) for make in (instance, replaced, member)),
    *((make, "port", [-1, 65536]) for make in (instance, replaced)),
    *((make, "status", ["", "UP"]) for make in (instance, replaced)),
    (member, "workers", ["two"]),
    (member, "drain", [-1]),
    (Guard, "share", [-0.1, 1.1]),
    (check, "interval", [0, -1]),
    (check, "initial", ["well"]),
    (HttpCheck, "url", ["ftp://a"]),
    (TcpCheck, "address", ["a"]),
    (CommandCheck, "command", ["", []]),
]


def cases(table: list[tuple[Callable[..., Any], str, list[Any]]]) -> list[Any]:
    return [
        pytest.param(make, field, value, id=f"{make.__name__} {field}={value!r:.30}")
        for make, field, values in table
        for value in values
    ]


@pytest.mark.parametrize(("make", "field", "value"), cases(WRONG_TYPES))
def test_a_wrong_type_is_a_type_error(make: Callable[..., Any], field: str, value: Any) -> None:
    with pytest.raises(TypeError) as raised:
        make(**{field: value})
    error = raised.value
    assert isinstance(error, InvalidType)
    assert isinstance(error, RegistryError)
    assert isinstance(error, InvalidArgument)
    assert error.field.startswith(field)
    assert field in str(error)


@pytest.mark.parametrize(("make", "field", "value"), cases(WRONG_VALUES))
def test_a_wrong_value_is_a_value_error(make: Callable[..., Any], field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        make(**{field: value})
    assert not isinstance(raised.value, TypeError)
    assert isinstance(raised.value, ValueError)
    assert field in str(raised.value)


def test_a_zone_is_text() -> None:
    with pytest.raises(InvalidType):
        OwnZone(7, RoundRobin())  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument) as raised:
        OwnZone("", RoundRobin())
    assert not isinstance(raised.value, InvalidType)


# ---------------------------------------------------------------- the checks themselves


@pytest.mark.parametrize("value", [1, 0.5, 10**6])
def test_seconds(value: float) -> None:
    check_seconds("timeout", value)
    with pytest.raises(InvalidArgument, match="at most 5"):
        check_seconds("timeout", value + 5, at_most=5)


def test_seconds_may_be_as_many_as_the_most_and_are_more_than_none() -> None:
    check_seconds("timeout", 5, at_most=5)
    check_seconds("timeout", 1e-9)
    check_seconds("timeout", 5, at_most=5, or_zero=True)
    for wrong in (0, -1e-9, 5.001, float("nan"), float("inf"), True, "1", None):
        with pytest.raises(InvalidArgument) as refused:
            check_seconds("timeout", wrong, at_most=5)
        assert refused.value.field == "timeout"
        assert refused.value.reason == "give a number of seconds above 0 and at most 5"
    with pytest.raises(InvalidArgument) as refused:
        check_seconds("drain", -1, or_zero=True)
    assert refused.value.reason == "give a number of seconds of 0 or more"


@pytest.mark.parametrize(
    ("value", "whole", "number"), [(1, True, True), (1.5, False, True), (True, False, False), ("1", False, False)]
)
def test_which_values_are_numbers(value: object, whole: bool, number: bool) -> None:
    assert (is_whole(value), is_number(value)) == (whole, number)


def test_what_cannot_be_called_is_of_a_wrong_type() -> None:
    check_callable("where", print)
    with pytest.raises(InvalidType) as refused:
        check_callable("where", "print")
    assert (refused.value.field, refused.value.value) == ("where", "print")


@pytest.mark.parametrize(
    ("first", "key", "timeout", "meant"),
    [
        (None, None, None, (None, None)),
        ("room", None, None, ("room", None)),
        (b"room", None, 2.0, (b"room", 2.0)),
        (3, None, None, (None, 3)),
        (3, "room", None, ("room", 3)),
        (None, "room", 2.0, ("room", 2.0)),
    ],
)
def test_a_key_and_seconds_are_told_apart(first: Any, key: Any, timeout: Any, meant: Any) -> None:
    assert key_and_timeout(first, key, timeout) == meant


@pytest.mark.parametrize(
    ("first", "key", "timeout", "field"),
    [("room", "other", None, "key"), (3, None, 2.0, "timeout"), (0, None, None, "timeout"), (None, None, 0, "timeout")],
)
def test_what_is_given_twice_or_is_no_time_is_refused(first: Any, key: Any, timeout: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        key_and_timeout(first, key, timeout)
    assert refused.value.field == field


def test_flags_and_choices_are_returned() -> None:
    assert check_flag("wait", False) is False
    assert check_choice("kind", "a", ("a", "b")) == "a"
    check_optional("guard", None, Guard)
    check_optional("guard", Guard(), Guard)
    with pytest.raises(InvalidType, match="an Ejection, or None"):
        check_optional("ejection", 7, Ejection)
    with pytest.raises(InvalidType) as mistyped:
        check_optional("guard", 7, Guard)
    assert mistyped.value.reason == "give a Guard, or None"
    for wrong in ("c", 7):
        with pytest.raises(InvalidArgument) as refused:
            check_choice("kind", wrong, ("a", "b"))
        assert refused.value.reason == "must be one of 'a', 'b'"


def test_a_bool_is_no_number() -> None:
    assert isinstance(wrong_argument("a", True, "why", int, float), InvalidType)
    assert not isinstance(wrong_argument("a", True, "why", bool), InvalidType)
    assert not isinstance(wrong_argument("a", 7, "why", int), InvalidType)
    assert isinstance(wrong_argument("a", 7, "why"), InvalidType)


@pytest.mark.parametrize("number", [True, False, 0, -1, 1.0, "1", None])
def test_what_is_no_count(number: Any) -> None:
    with pytest.raises(InvalidArgument, match="must be an int of 1 or more") as refused:
        check_count("attempts", number)
    assert (refused.value.field, refused.value.value) == ("attempts", number)
    assert isinstance(refused.value, TypeError) is (type(number) is not int)


@pytest.mark.parametrize("number", [True, -0.1, 1.1, float("nan"), float("inf"), "1", None])
def test_what_is_no_number_within_bounds(number: Any) -> None:
    with pytest.raises(InvalidArgument, match="of a: must be a number from 0 to 1"):
        check_number("share", number, at_least=0, at_most=1, of="a")
    with pytest.raises(InvalidArgument, match="must be a number of 2 or more"):
        check_number("share", number if number != float("inf") else 1, at_least=2)


def test_no_time_is_a_time_where_that_is_said() -> None:
    check_seconds("drain", 0, or_zero=True)
    with pytest.raises(InvalidArgument, match="of 0 or more"):
        check_seconds("drain", -1, or_zero=True)
    with pytest.raises(InvalidArgument, match="above 0"):
        check_seconds("drain", 0)
    check_count("attempts", 1)
    check_number("share", 1, at_least=0, at_most=1)


class Share(float):
    """A number with a name of its own, such as those of a configuration."""

    def __str__(self) -> str:
        return "a third"


def test_a_share_is_taken_as_it_was_written() -> None:
    for written, share in ((0.29, "29/100"), (0, "0"), (1, "1"), (1e-07, "1/10000000"), (Share(0.07), "7/100")):
        assert as_written(written) == Fraction(share)
