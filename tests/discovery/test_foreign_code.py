"""Code of the callers' that fails in a view, a balancer or a payload costs what it was asked about, no more."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import pytest

import aioregistry
from aioregistry import Added, Updated
from aioregistry._discovery import Discovery
from aioregistry._errors import InvalidArgument, RegistryError, UsageError
from aioregistry._exports import FORMATS, render
from aioregistry._model import ServiceInstance
from aioregistry.balancing import Ejection, RoundRobin
from aioregistry.server import ZooKeeperServer
from tests.discovery.scene import Service
from tests.support.fake_session import quiet
from tests.support.raising import ODD, raising

DEADLINE = 100.0


@pytest.mark.parametrize("kind", ODD)
async def test_a_payload_type_that_raises_makes_that_instance_invalid(
    kind: str, found: Discovery, service: Service
) -> None:
    @dataclasses.dataclass
    class Payload:
        zone: str

        def __post_init__(self) -> None:
            if self.zone == "bad":
                raising(kind)

    service.add("good", {"zone": "eu"})
    async with found.view("chat", payload_type=Payload) as typed, found.view("chat") as untyped:
        service.add("bad", {"zone": "bad"})
        service.add("late", {"zone": "eu"})
        await typed.wait_for(lambda snapshot: "late" in snapshot, DEADLINE)
        assert typed.snapshot.keys() == {"good", "late"}
        assert typed.snapshot.invalid.keys() == {"bad"}
        assert untyped.snapshot.keys() == {"good", "bad", "late"}


class Broken:
    """A payload's field that cannot be compared."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __eq__(self, other: object) -> bool:
        raising(self._kind)

    __hash__ = None  # type: ignore[assignment]


class Choosy(RoundRobin):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def traits(self, instance: ServiceInstance[Any]) -> Any:
        if instance.id == "bad":
            raising(self._kind)
        return super().traits(instance)


class Rejecting(RoundRobin):
    """Whose pool cannot take an instance."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def pool(self, draw: Any, census: Any) -> Any:
        pool, kind = super().pool(draw, census), self._kind
        take: Callable[[Any], None] = pool.add

        class Pool:
            def add(self, member: Any) -> None:
                if member.id == "bad":
                    raising(kind)
                take(member)

            def __len__(self) -> int:
                return len(pool)

            def __getattr__(self, name: str) -> Any:
                return getattr(pool, name)

        return Pool()


def _filter(kind: str) -> Callable[[ServiceInstance[Any]], bool]:
    def accepts(instance: ServiceInstance[Any]) -> bool:
        if instance.id == "bad":
            raising(kind)
        return True

    return accepts


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("place", ["filter", "strategy"])
async def test_an_instance_at_which_code_fails_is_refused(
    place: str, kind: str, found: Discovery, service: Service
) -> None:
    service.add("good")
    async with found.view("chat") as view:
        options: dict[str, Any] = {"where": _filter(kind)} if place == "filter" else {"strategy": Choosy(kind)}
        balancer = view.balancer(**options)
        service.add("bad")
        service.add("late")
        await view.wait_for(lambda snapshot: "late" in snapshot, DEADLINE)
        assert balancer.refused.keys() == {"bad"}
        assert type(ODD[kind]()).__name__ in str(balancer.refused["bad"])
        assert {balancer.pick().id for _ in range(4)} == {"good", "late"}


@pytest.mark.parametrize("kind", ODD)
async def test_a_filter_by_values_that_cannot_be_compared_refuses(
    kind: str, found: Discovery, service: Service
) -> None:
    async with found.view("chat") as view:
        balancer = view.balancer(where={"zone": Broken(kind)})
        service.add("bad", {"zone": "eu"})
        await view.wait_for(lambda snapshot: "bad" in snapshot, DEADLINE)
        assert balancer.refused.keys() == {"bad"}


@pytest.mark.parametrize("kind", ODD)
async def test_a_pool_that_fails_ends_its_balancer_and_says_so(kind: str, found: Discovery, service: Service) -> None:
    service.add("good")
    async with found.view("chat") as view:
        broken, other = view.balancer(Rejecting(kind)), view.balancer()
        service.add("bad")
        await view.wait_for(lambda snapshot: "bad" in snapshot, DEADLINE)
        service.add("late")
        await view.wait_for(lambda snapshot: "late" in snapshot, DEADLINE)
        with pytest.raises(RegistryError, match="has failed"):
            broken.pick()
        assert {other.pick().id for _ in range(6)} == {"good", "bad", "late"}
        assert view.fresh


class Forgetful(RoundRobin):
    """Whose pool cannot give up an instance, nor take it back."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def pool(self, draw: Any, census: Any) -> Any:
        pool, kind = super().pool(draw, census), self._kind

        class Pool:
            def discard(self, member: Any) -> None:
                raising(kind)

            def __len__(self) -> int:
                return len(pool)

            def __getattr__(self, name: str) -> Any:
                return getattr(pool, name)

        return Pool()


class Unreachable(Exception):
    """Of the caller's."""


@pytest.mark.parametrize("kind", ODD)
async def test_a_pool_that_fails_at_a_report_hides_nothing_from_the_block_of_the_pick(
    kind: str, found: Discovery, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    for id in ("one", "two"):
        service.add(id)
    async with found.view("chat") as view:
        balancer = view.balancer(Forgetful(kind), ejection=Ejection(failures=1))
        for _ in range(2):
            with pytest.raises(Unreachable), balancer.pick():
                raise Unreachable
        assert view.fresh
    assert "Forgetful" in caplog.text


@pytest.mark.parametrize("kind", ODD)
async def test_a_pool_that_cannot_be_filled_refuses_the_strategy(kind: str, found: Discovery, service: Service) -> None:
    service.add("bad")
    async with found.view("chat") as view:
        with pytest.raises(InvalidArgument) as raised:
            view.balancer(Rejecting(kind))
        assert raised.value.field == "strategy"


@pytest.mark.parametrize("kind", ODD)
async def test_what_a_predicate_raises_is_raised_and_is_no_cancellation(
    kind: str, found: Discovery, service: Service
) -> None:
    service.add("good")
    async with found.view("chat") as view:
        waiting = asyncio.ensure_future(view.wait_for(lambda _: raising(kind), DEADLINE))
        done, _ = await asyncio.wait([waiting], timeout=DEADLINE)
        assert done
        assert not waiting.cancelled()
        expected = type(ODD[kind]())
        error = waiting.exception()
        assert isinstance(error, UsageError | expected)
        if not isinstance(error, expected):
            assert isinstance(error.__cause__, expected)
        await quiet()
        assert view.fresh


METHODS = {
    "compared": ("__eq__", "__ne__"),
    "hashed": ("__hash__",),
    "shown": ("__repr__", "__str__", "__format__"),
    "dropped": ("__del__",),
    "asked": ("__bool__", "__len__"),
}


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # what Python makes of a __del__ of theirs
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("when", METHODS)
async def test_a_payload_whose_methods_raise_is_carried_everywhere(
    when: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclasses.dataclass
    class Payload:
        zone: str

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # which Python tells of their __del__
    for method in METHODS[when]:
        monkeypatch.setattr(Payload, method, lambda *_: raising(kind), raising=False)
    events, faults = list[str](), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with (
        asyncio.timeout(DEADLINE),
        ZooKeeperServer() as server,
        aioregistry.connect(server.address, on_event=lambda name, fields: events.append(repr(fields))) as registry,
        registry.discover("chat", payload_type=Payload, guard=None) as view,
    ):
        changes, snapshots, balancer = view.changes(), view.snapshots(), view.balancer()
        instance = ServiceInstance("chat", id="a", address="10.0.0.7", port=7000, payload=Payload("eu"))
        assert repr(instance).startswith("ServiceInstance('chat', id='a', address='10.0.0.7', port=7000, payload=")
        async with registry.register(instance) as registration:
            await view.wait_for(lambda snapshot: "a" in snapshot)
            await registration.update(payload=Payload("eu"))
            await registration.update(payload=Payload("us"))
            snapshot = await view.sync()
            assert snapshot["a"].payload.zone == "us"
            await anext(snapshots)
            told = [await anext(changes), await anext(changes)]
            assert all(isinstance(each, Added | Updated) for each in told)
            shown = repr(told) + repr(snapshot) + repr(view) + repr(balancer) + repr(registration) + repr(registry)
            assert "a" in shown
            with balancer.pick() as pick:
                assert pick.instance.payload.zone == "us"
            for format in FORMATS:
                assert render(format, {"chat": tuple(snapshot.values())}).left_out == ()
            read = snapshot["a"].replace(id="b")  # what was read goes back
            async with registry.register(read):
                await view.wait_for(lambda snapshot: "b" in snapshot)
        await view.wait_for(lambda snapshot: not snapshot)
        assert registration.withdrawn
    assert events
    assert faults == []
