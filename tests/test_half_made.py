"""A reporter that shows a traceback with its variables meets no error and no secret where an argument was refused."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import aioregistry
import aioregistry.balancing
import aioregistry.blocking
import aioregistry.integrations.membership
from aioregistry import InvalidArgument, ServiceInstance
from aioregistry.integrations.membership import Membership

REFUSED: list[dict[str, Any]] = [
    {"auth": [("digest", "S3CRET", 1)]},
    {"auth": [("digest", "a:S3CRET"), ("", "S3CRET")]},
    {"auth": ["S3CRET"]},
    {"auth": 5},
    {"auth": [("digest", "a:S3CRET")], "session_timeout": -1},
    {"auth": [("digest", "a:S3CRET")], "base_path": "x"},
    {"auth": [("digest", "a:S3CRET")], "watches": "x"},
    {"auth": [("digest", "a:S3CRET")], "acl": 5},
    {"auth": [("digest", "a:S3CRET")], "guard": 5},
    {"auth": [("digest", "a:S3CRET")], "runtime": 5},
]


@pytest.mark.parametrize("options", REFUSED)
def test_what_a_refused_registry_leaves_in_a_traceback(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        _ = aioregistry.connect("127.0.0.1:1", **options)
    trace, shown = raised.value.__traceback__, []
    while trace is not None:
        if "aioregistry" in trace.tb_frame.f_globals["__name__"].split("."):
            shown += [repr(value) for value in trace.tb_frame.f_locals.values()]
        trace = trace.tb_next
    assert len(shown) > 3
    assert not [text for text in shown if "S3CRET" in text]


def test_what_a_refused_picker_or_membership_shows() -> None:
    for kind in (aioregistry.balancing.Picker, Membership):
        assert repr(kind.__new__(kind)) == f"<{kind.__name__}, not made>"


def public_classes() -> list[type]:
    rooms = (aioregistry, aioregistry.balancing, aioregistry.blocking, aioregistry.integrations.membership)
    found = {id(each): each for room in rooms for name in room.__all__ if isinstance(each := getattr(room, name), type)}
    # Of tuples and Structs there is no object before it is whole.
    return [each for each in found.values() if not issubclass(each, BaseException | enum.Enum | tuple | msgspec.Struct)]


@pytest.mark.parametrize("kind", public_classes(), ids=lambda kind: kind.__name__)
def test_what_was_not_made_says_so(kind: type) -> None:
    assert repr(object.__new__(kind))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ServiceInstance("chat", id="a", port=-1),
        lambda: aioregistry.OwnZone("", aioregistry.RoundRobin()),
        lambda: aioregistry.Weighted(""),
        lambda: aioregistry.Ring(""),
        lambda: aioregistry.TcpCheck(""),
        lambda: aioregistry.Ejection(errors=()),
    ],
)
def test_a_refusal_can_be_shown_with_its_variables(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        make()
    trace, shown = raised.value.__traceback__, []
    while trace is not None:
        shown += [repr(value) for name, value in trace.tb_frame.f_locals.items() if name == "self"]
        trace = trace.tb_next
    assert [text for text in shown if text.endswith("not made>")]
