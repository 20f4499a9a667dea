"""Which instances are handed on, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._exports import Quiet, selected
from aioregistry._model import ServiceInstance


def some(count: int) -> tuple[ServiceInstance[None], ...]:
    return tuple(ServiceInstance("chat", id=str(number), address="10.0.0.7", port=7000) for number in range(count))


@pytest.mark.parametrize("minimum", [0, 1, 3])
def test_every_number_of_instances(minimum: int) -> None:
    for before in (None, 0, 2, 5):
        former = None if before is None else {"chat": some(before), "api": some(9)}
        for now in range(6):
            present = {"chat": some(now), "api": some(8)}
            chosen = selected(present, former, minimum=minimum)
            if now >= minimum:
                assert chosen == (present, (), ())
            elif former is None:
                assert chosen == (None, (), ("chat",))
            else:
                assert chosen == ({"chat": former["chat"], "api": some(8)}, ("chat",), ())


@pytest.mark.parametrize("before", [0, 1, 5])
@pytest.mark.parametrize("minimum", [0, 1, 3])
def test_a_service_that_is_gone_has_no_instances(minimum: int, before: int) -> None:
    former, present = {"chat": some(before), "api": some(9)}, {"api": some(8)}
    chosen = selected(present, former, minimum=minimum)
    if minimum == 0:
        assert chosen == (present, (), ())
    else:
        assert chosen == ({"chat": some(before), "api": some(8)}, ("chat",), ())
        assert selected({}, former, minimum=minimum).services == former
    assert selected(present, None, minimum=minimum) == (present, (), ())
    assert selected({}, None, minimum=minimum) == (None if minimum else {}, (), ())


def test_a_service_that_is_new_and_too_small_is_waited_for_and_holds_up_no_other() -> None:
    former = {"api": some(2), "shop": some(3)}
    present = {"api": some(4), "shop": some(1), "chat": some(1)}
    expected = {"api": some(4), "shop": some(3)}
    assert selected(present, former, minimum=2) == (expected, ("shop",), ("chat",))
    assert selected(present | {"chat": some(2)}, expected, minimum=2) == (expected | {"chat": some(2)}, ("shop",), ())
    assert selected({"chat": some(1)}, {}, minimum=2) == ({}, (), ("chat",))


@given(st.lists(st.floats(0, 5), min_size=1, max_size=50), st.floats(0, 3), st.floats(0, 10))
def test_it_is_quiet_or_has_waited_for_long(gaps: list[float], least: float, more: float) -> None:
    quiet, now, first = Quiet(least, least + more), 100.0, None
    assert quiet.due is None
    for gap in gaps:
        now += gap
        if quiet.due is not None and quiet.due <= now:
            quiet.written()
            assert quiet.due is None
            first = None
        quiet.changed(now)
        first = now if first is None else first
        assert quiet.due == min(now + least, first + (least + more))
