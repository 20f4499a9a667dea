"""Balancers: fed by a view, with its clock."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from aioregistry import (
    Ejection,
    HandleClosed,
    InvalidArgument,
    LeastOutstanding,
    NoInstances,
    RequestTimeout,
    Ring,
    SessionFailed,
    UsageError,
    WarmUp,
    Weighted,
)
from aioregistry._discovery import Discovery, View
from aioregistry._discovery.balancer import Balancer
from aioregistry._discovery.view import driver_of
from aioregistry._document import encode
from aioregistry._errors import AuthenticationFailed
from aioregistry._model import InstanceStatus
from tests.discovery.scene import DiscoverySession, Service, chat, discovery
from tests.support.fake_session import RandomRuntime, quiet

DEADLINE = 100.0


class SetRuntime(RandomRuntime):
    """A clock that the test sets."""

    def __init__(self) -> None:
        super().__init__(seed=4)
        self.ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@pytest.fixture
def runtime() -> SetRuntime:
    return SetRuntime()


@pytest.fixture
def session(service: Service, runtime: SetRuntime) -> DiscoverySession:
    session = DiscoverySession(service.tree, runtime=runtime)
    session.connect()
    return session


@pytest.fixture
async def view(found: Discovery) -> AsyncIterator[View[Any]]:
    async with found.view("chat") as view:
        yield view


def picked(balancer: Balancer[Any], number: int = 12) -> set[str]:
    return {balancer.pick().id for _ in range(number)}


async def soon(waiting: asyncio.Task[Any]) -> Any:
    async with asyncio.timeout(DEADLINE):
        return await waiting


# ---------------------------------------------------------------- fed


async def test_it_follows_the_view_without_a_turn_of_its_own(view: View[Any], service: Service) -> None:
    service.add("a")
    await quiet()
    balancer = view.balancer()
    assert picked(balancer) == {"a"}
    async with view.changes() as changes:
        service.add("b")
        change = await anext(changes)
        assert change.id == "b"  # type: ignore[union-attr]
        assert picked(balancer) == {"a", "b"}
    service.remove("a")
    await quiet()
    assert picked(balancer) == {"b"}
    service.tree.set_data("/services/chat/b", encode(chat("b").replace(enabled=False)))
    await quiet()
    with pytest.raises(NoInstances) as caught:
        balancer.pick()
    assert caught.value.reason == "disabled"


async def test_it_goes_on_while_the_registry_is_away_and_catches_up(
    view: View[Any], service: Service, session: DiscoverySession
) -> None:
    service.fill("abc")
    session.disconnect()
    session.connect()
    await quiet()
    balancer = view.balancer("random")
    session.disconnect()
    assert picked(balancer, 60) == {"a", "b", "c"}
    service.remove("a")
    service.add("d")
    session.connect()
    await quiet()
    assert picked(balancer, 60) == {"b", "c", "d"}


class Meta(msgspec.Struct, frozen=True):
    weight: int


async def test_a_typed_view_gives_typed_instances(found: Discovery, service: Service) -> None:
    service.add("a", {"weight": 2})
    service.add("b", {"weight": "much"})
    async with found.view("chat", payload_type=Meta) as view:
        balancer = view.balancer(Weighted(lambda instance: instance.payload.weight))
        assert balancer.pick().instance.payload == Meta(2)
        assert picked(balancer) == {"a"}


async def test_keys_stay(view: View[Any], service: Service) -> None:
    for id in "abcd":
        service.add(id)
    await quiet()
    one, other = view.balancer(Ring()), view.balancer(Ring())
    rooms = [f"room-{number}" for number in range(50)]
    assert [one.pick(room).id for room in rooms] == [other.pick(room).id for room in rooms]


async def test_what_an_instance_publishes_amiss_costs_one_event(
    view: View[Any], service: Service, session: DiscoverySession, caplog: pytest.LogCaptureFixture
) -> None:
    service.add("good", {"weight": 1})
    service.add("bad", {"weight": -1})
    await quiet()
    balancer = view.balancer(Weighted("weight"))
    assert picked(balancer) == {"good"}
    service.set("bad", {"weight": -2})
    service.add("worse", {"weight": "x"})
    await quiet()
    assert picked(balancer) == {"good"}
    assert {id: error.value for id, error in balancer.refused.items()} == {"bad": -2, "worse": "x"}
    told = [fields["id"] for name, fields in session.emitted if name == "discovery.refused"]
    assert told == ["bad", "worse"]
    assert [record.levelno for record in caplog.records if "never picked" in record.message] == [logging.WARNING]


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("strategy", {"strategy": "weighted"}),
        ("where", {"where": {}}),
        ("ejection", {"ejection": "on"}),
        ("load", {"strategy": Weighted("load")}),
    ],
)
async def test_bad_arguments_are_errors_at_once(view: View[Any], service: Service, field: str, options: Any) -> None:
    service.add("a", {"weight": 1})
    await quiet()
    with pytest.raises(InvalidArgument) as caught:
        view.balancer(**options)
    assert caught.value.field == field


# ---------------------------------------------------------------- reports


async def test_a_block_reports_how_it_ends(
    view: View[Any], service: Service, session: DiscoverySession, runtime: SetRuntime
) -> None:
    service.fill("ab")
    service.add("c")
    session.disconnect()
    session.connect()
    await quiet()
    balancer = view.balancer(ejection=Ejection(failures=2, errors=OSError, jitter=0, remaining=0))
    failing = balancer.pick().id
    for error in (OSError("refused"), KeyError("a mistake of ours"), asyncio.CancelledError(), OSError("again")):
        while (pick := balancer.pick()).id != failing:
            pass
        with pytest.raises(type(error)), pick:
            raise error
    assert balancer.set_aside == {failing: pytest.approx(5.0, abs=1)}
    assert failing not in picked(balancer)
    [told] = [fields for name, fields in session.emitted if name == "discovery.set_aside"]
    assert told == {"service": "chat", "id": failing, "seconds": 5.0}
    runtime.ahead += 5.1
    assert failing in picked(balancer)
    assert balancer.set_aside == {}


async def test_the_first_report_counts(view: View[Any], service: Service) -> None:
    service.add("a")
    await quiet()
    balancer = view.balancer(ejection=Ejection(failures=1, remaining=0))
    with balancer.pick() as pick:
        pick.failed()
    assert list(balancer.set_aside) == ["a"]
    with pytest.raises(NoInstances, match="set aside"):
        balancer.pick()


async def returned(
    view: View[Any], service: Service, runtime: SetRuntime, remaining: float = 0.5, errors: type[Exception] = Exception
) -> Balancer[Any]:
    """A balancer of four, of which `a` has failed and its pause is over."""
    for id in "abcd":
        service.add(id)
    await quiet()
    balancer = view.balancer("random", ejection=Ejection(failures=1, jitter=0, remaining=remaining, errors=errors))
    while (pick := balancer.pick()).id != "a":
        pass
    pick.failed()
    runtime.ahead += 5.1
    return balancer


async def test_an_abandoned_call_says_nothing_and_makes_room_for_a_probe(
    view: View[Any], service: Service, runtime: SetRuntime
) -> None:
    service.add("a")
    await quiet()
    balancer = view.balancer(ejection=Ejection(failures=1, remaining=0, pause=1, jitter=0))
    balancer.pick().failed()
    runtime.ahead += 1.5
    probe = balancer.pick()
    with pytest.raises(NoInstances):
        balancer.pick()
    probe.abandoned()
    probe.failed()  # the first report counts
    assert balancer.set_aside == {}
    assert balancer.pick().id == "a"


async def test_one_call_at_a_time_probes_who_returns(view: View[Any], service: Service, runtime: SetRuntime) -> None:
    balancer = await returned(view, service, runtime)
    with contextlib.ExitStack() as calls:
        under_way = [calls.enter_context(balancer.pick()).id for _ in range(200)]
        assert under_way.count("a") == 1
        assert balancer.set_aside == {}  # it is no more
    assert "a" in picked(balancer, 60)  # the call was good


@pytest.mark.parametrize("error", [OSError("refused"), KeyError("a mistake of ours"), asyncio.CancelledError()])
async def test_a_probe_that_ends_makes_room(
    view: View[Any], service: Service, runtime: SetRuntime, error: BaseException
) -> None:
    balancer = await returned(view, service, runtime, errors=OSError)
    while (probe := balancer.pick()).id != "a":
        pass
    with contextlib.suppress(type(error)), probe:
        assert "a" not in picked(balancer, 60)
        raise error
    if isinstance(error, OSError):
        assert balancer.set_aside == {"a": pytest.approx(10.0, abs=1)}
    assert ("a" in picked(balancer, 60)) is not isinstance(error, OSError)


@pytest.mark.parametrize("good", [True, False])
async def test_who_waits_for_an_instance_has_it_when_the_probe_has_ended(
    view: View[Any], service: Service, runtime: SetRuntime, good: bool
) -> None:
    service.add("a")
    await quiet()
    balancer = view.balancer(ejection=Ejection(failures=1, remaining=0, pause=3600, longest=3600))
    balancer.pick().failed()
    runtime.ahead += 3601
    probe = balancer.pick()
    with contextlib.suppress(asyncio.CancelledError), probe:
        with pytest.raises(NoInstances, match="set aside"):
            balancer.pick()
        waiting = asyncio.create_task(balancer.pick_when_available(DEADLINE))
        await quiet()
        assert not waiting.done()
        if not good:
            raise asyncio.CancelledError
    assert (await soon(waiting)).id == "a"
    assert not balancer._driver._naps


async def test_without_ejection_reports_change_nothing(view: View[Any], service: Service) -> None:
    service.add("a")
    await quiet()
    balancer = view.balancer()
    for _ in range(9):
        balancer.pick().failed()
    balancer.pick().succeeded()
    assert balancer.set_aside == {}
    assert picked(balancer) == {"a"}


async def test_calls_under_way_are_counted(view: View[Any], service: Service) -> None:
    service.add("a")
    service.add("b")
    await quiet()
    balancer = view.balancer(LeastOutstanding())
    with balancer.pick() as busy:
        other = ({"a", "b"} - {busy.id}).pop()
        assert picked(balancer) == {other}
        with pytest.raises(UsageError), busy:
            pass
    assert picked(balancer, 60) == {"a", "b"}


async def test_a_call_is_counted_where_it_began(view: View[Any], service: Service) -> None:
    """The instance moves while a call to its old address is under way: its new address has none."""
    service.add("a")
    service.add("b")
    await quiet()
    balancer = view.balancer(LeastOutstanding())
    with balancer.pick() as busy:
        moved = encode(chat(busy.id).replace(address="10.9.9.9"))
        service.tree.set_data(f"/services/chat/{busy.id}", moved)
        await quiet()
        assert picked(balancer, 60) == {"a", "b"}
    assert picked(balancer, 60) == {"a", "b"}


async def test_what_was_tried_is_left_out(view: View[Any], service: Service) -> None:
    for id in "abc":
        service.add(id)
    await quiet()
    balancer = view.balancer("random")
    assert {balancer.pick(exclude={"a"}).id for _ in range(60)} == {"b", "c"}
    assert balancer.pick(exclude=["a", "b", "elsewhere"]).id == "c"
    with pytest.raises(NoInstances) as caught:
        balancer.pick(exclude=("a", "b", "c"))
    assert caught.value.reason == "excluded"


@pytest.mark.parametrize("exclude", ["abc", b"abc", 7, [7], [None]])
async def test_what_is_no_collection_of_ids_is_refused(view: View[Any], service: Service, exclude: Any) -> None:
    service.add("a")
    await quiet()
    with pytest.raises(InvalidArgument) as caught:
        view.balancer().pick(exclude=exclude)
    assert caught.value.field == "exclude"


async def test_a_report_after_the_end_is_harmless(found: Discovery, service: Service) -> None:
    service.add("a")
    async with found.view("chat") as view:
        service.add("b")
        await quiet()
        balancer = view.balancer(ejection=Ejection(failures=1))
        ended, failed = balancer.pick(), balancer.pick()
    with ended:
        pass
    with pytest.raises(ConnectionError), failed:
        raise ConnectionError
    assert list(balancer.set_aside) == [failed.id]
    ended.failed()  # the first report counts
    assert list(balancer.set_aside) == [failed.id]


# ---------------------------------------------------------------- waiting


async def test_waiting_ends_with_the_first_that_comes(view: View[Any], service: Service) -> None:
    balancer = view.balancer()
    waiting = asyncio.create_task(balancer.pick_when_available(DEADLINE))
    await quiet()
    gc.collect()
    assert not waiting.done()
    service.add("a")
    assert (await soon(waiting)).id == "a"
    assert (await balancer.pick_when_available()).id == "a"


async def test_waiting_ends_when_one_returns(view: View[Any], service: Service) -> None:
    service.add("a")
    await quiet()
    balancer = view.balancer(Ring(), ejection=Ejection(failures=1, remaining=0, pause=0.05))
    balancer.pick("room").failed()
    assert (await balancer.pick_when_available(DEADLINE, key="room")).id == "a"


async def test_the_key_and_the_seconds_may_be_given_without_a_name(view: View[Any], service: Service) -> None:
    service.add("a")
    await quiet()
    balancer = view.balancer(Ring())
    assert (await balancer.pick_when_available("room")).id == "a"
    assert (await balancer.pick_when_available(b"room", timeout=DEADLINE)).id == "a"
    assert (await balancer.pick_when_available(DEADLINE, key="room")).id == "a"
    assert (await balancer.pick_when_available(key="room", timeout=DEADLINE)).id == "a"
    wrong: Any = balancer.pick_when_available
    with pytest.raises(InvalidArgument, match="key="):
        await wrong("room", key="room")
    with pytest.raises(InvalidArgument, match="timeout="):
        await wrong(1.0, timeout=1.0)
    with pytest.raises(TypeError):
        await wrong(["room"])


async def test_waiting_in_vain_says_why(view: View[Any]) -> None:
    with pytest.raises(RequestTimeout, match="the service is empty") as caught:
        await view.balancer().pick_when_available(0.01)
    assert isinstance(caught.value.__cause__, NoInstances)
    with pytest.raises(InvalidArgument, match="timeout=-1"):
        await view.balancer().pick_when_available(-1)


async def test_waiting_can_be_cancelled(view: View[Any], service: Service) -> None:
    balancer = view.balancer()
    with anyio.move_on_after(0.01) as scope:
        await balancer.pick_when_available()
    assert scope.cancelled_caught
    service.add("a")
    assert (await balancer.pick_when_available(DEADLINE)).id == "a"


# ---------------------------------------------------------------- the end


async def test_it_ends_with_its_view(found: Discovery) -> None:
    async with found.view("chat") as view:
        balancer = view.balancer()
        waiting = asyncio.create_task(balancer.pick_when_available())
        await quiet()
    with pytest.raises(HandleClosed):
        await soon(waiting)
    with pytest.raises(HandleClosed):
        balancer.pick()
    with pytest.raises(HandleClosed):
        view.balancer()


async def test_what_ended_the_session_is_raised(
    view: View[Any], found: Discovery, service: Service, session: DiscoverySession
) -> None:
    service.add("a")
    await quiet()
    balancer = view.balancer()
    driver_of(view).end(SessionFailed("the supervisor is gone"))
    with pytest.raises(SessionFailed):
        balancer.pick()
    later = AuthenticationFailed("digest", "zk1")
    balancer._driver.end(later)
    with pytest.raises(AuthenticationFailed):
        balancer.pick()


async def test_one_that_is_dropped_costs_nothing(view: View[Any], service: Service) -> None:
    balancer = view.balancer()
    gone = weakref.ref(balancer)
    assert repr(balancer) == "<Balancer of <Picker chat RoundRobin(): 0 admitted>>"
    del balancer
    gc.collect()
    assert gone() is None
    service.add("a")
    await quiet()
    assert len(driver_of(view)._balancers) == 0


async def test_a_pick_shows_what_it_is(view: View[Any], service: Service) -> None:
    service.add("a", 1)
    await quiet()
    pick = view.balancer().pick()
    assert (repr(pick), pick.id, pick.instance) == ("<Pick chat/a>", "a", chat("a", 1))


# ---------------------------------------------------------------- newcomers


def registered(id: str, number: int, *, status: InstanceStatus | None = None) -> bytes:
    return encode(chat(id).replace(registration_time_ms=number, enabled=status is None, status=status))


async def test_who_comes_later_warms_up_whenever_the_balancer_is_made(
    found: Discovery, service: Service, runtime: SetRuntime
) -> None:
    for id in "abc":
        service.add(id)
    async with found.view("chat") as later:
        told = later.balancer(WarmUp(seconds=2000))
        service.add("d", data=registered("d", 1))
        await quiet()
        runtime.ahead += 1000.0
        made = later.balancer(WarmUp(seconds=2000))
        half = {"d": pytest.approx(0.5, abs=0.05)}
        assert told.warming_up == half
        assert made.warming_up == half
        assert later.balancer().warming_up == {}
        assert 0 < sum(told.pick().id == "d" for _ in range(2000)) < 500
        runtime.ahead += 1000.0
        assert told.warming_up == {}


async def test_an_instance_that_only_registers_again_is_not_new_and_another_incarnation_is(
    found: Discovery, service: Service, session: DiscoverySession
) -> None:
    for id in "abcd":
        service.add(id, data=registered(id, 1))
    async with found.view("chat") as view:
        balancer = view.balancer(WarmUp())
        for id in "abcd":  # as their sessions expire
            service.remove(id)
            await quiet()
            service.add(id, data=registered(id, 1))
        await quiet()
        assert balancer.warming_up == {}
        session.disconnect()
        service.remove("a")
        service.add("a", data=registered("a", 2))
        session.connect()
        await quiet()
        assert set(balancer.warming_up) == {"a"}


async def test_a_warm_up_begins_anew_when_health_comes_back(
    found: Discovery, service: Service, runtime: SetRuntime
) -> None:
    for id in "abc":
        service.add(id, data=registered(id, 1))
    async with found.view("chat") as view:
        balancer = view.balancer(WarmUp(seconds=2000))
        service.set("a", data=registered("a", 1, status="failing"))
        await quiet()
        runtime.ahead += 3600.0
        assert picked(balancer) == {"b", "c"}
        service.set("a", data=registered("a", 1))
        await quiet()
        assert balancer.warming_up == {"a": pytest.approx(0.1, abs=0.05)}


async def test_what_a_file_does_not_have_is_not_new_at_the_first_list(
    service: Service, session: DiscoverySession, tmp_path: Path
) -> None:
    for id in "abcde":
        service.add(id, data=registered(id, 1))
    async with contextlib.aclosing(discovery(session)) as before, before.view("chat", keep=tmp_path / "chat"):
        pass
    session.disconnect()
    async with contextlib.aclosing(discovery(session)) as found, found.view("chat", keep=tmp_path / "chat") as view:
        balancer = view.balancer(WarmUp())
        service.add("f", data=registered("f", 1))
        service.set("a", data=registered("a", 2))
        session.connect()
        await quiet()
        assert set(view.snapshot.confirmed) == set("abcdef")
        assert balancer.warming_up == {}
        service.add("g", data=registered("g", 1))
        await quiet()
        assert set(balancer.warming_up) == {"g"}


# ---------------------------------------------------------------- panic


async def test_where_too_few_are_well_failing_ones_are_picked_and_that_is_told(
    found: Discovery, service: Service, session: DiscoverySession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aioregistry.discovery")
    for id in "abcd":
        service.add(id, data=registered(id, 1))
    async with found.view("chat") as view:
        balancer, never = view.balancer(), view.balancer(panic=0)
        for id in "abc":
            service.set(id, data=registered(id, 1, status="failing"))
        await quiet()
        assert picked(balancer) == set("abcd")
        assert picked(never) == {"d"}
        assert (balancer.in_panic, never.in_panic) == (True, False)
        assert [id for id, each in view.snapshot.items() if each.enabled] == ["d"]
        assert balancer.pick().instance.status in {"failing", None}
        later = view.balancer()
        assert later.in_panic
        service.set("c", data=registered("c", 1))
        await quiet()
        assert picked(balancer) == picked(later) == set("cd")
        told = [fields for name, fields in session.emitted if name == "discovery.panic"]
        assert told == [{"service": "chat", "panic": panic} for panic in (True, True, False, False)]
        warnings = [each for each in caplog.records if "only 1 of 4 instances are well" in each.message]
        assert [each.levelno for each in warnings] == [logging.WARNING, logging.WARNING]
        ends = [each for each in caplog.records if "2 of 4 instances are well" in each.message]
        assert [each.levelno for each in ends] == [logging.INFO, logging.INFO]


async def test_an_instance_in_maintenance_or_disabled_by_its_owner_is_never_picked(
    view: View[Any], service: Service
) -> None:
    service.add("a", data=registered("a", 1, status="maintenance"))
    service.add("b", data=registered("b", 1, status="draining"))
    service.add("c", data=encode(chat("c").replace(enabled=False)))
    await quiet()
    balancer = view.balancer()
    with pytest.raises(NoInstances) as caught:
        balancer.pick()
    assert (caught.value.reason, balancer.in_panic) == ("disabled", False)
