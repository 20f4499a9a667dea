"""Spans of OpenTelemetry: those of registering, withdrawing and the first sync, and their parents."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

import aioregistry
from aioregistry import RegistrationConflict, RequestTimeout, ServiceInstance, blocking
from aioregistry._spans import NO_SPAN, begin, tell_the_rest
from tests.support.zookeeper import ZooKeeperServer

CHAT = ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)


class Exported:
    """The exported spans, and the tracer of the tests' own spans."""

    def __init__(self, exporter: InMemorySpanExporter, tracer: Tracer) -> None:
        self._exporter, self.tracer = exporter, tracer

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def of(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.of(name)
        return span


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exported]:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield Exported(exporter, provider.get_tracer("tests"))
    provider.shutdown()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


async def test_registering_withdrawing_and_the_first_sync(
    zookeeper: ZooKeeperServer, chroot: str, exported: Exported
) -> None:
    host, _, port = zookeeper.address.rpartition(":")
    at = {"server.address": host, "server.port": int(port), "aioregistry.service": "chat"}
    async with aioregistry.connect(f"{zookeeper.address}{chroot}") as registry:
        with exported.tracer.start_as_current_span("start") as start:
            registration = await registry.register(CHAT)
            view = await registry.discover("chat")
        with exported.tracer.start_as_current_span("stop") as stop:
            await asyncio.gather(registration.aclose(), view.aclose())
    register, withdraw, sync = (exported.one(f"aioregistry.{each}") for each in ("register", "withdraw", "sync"))
    assert attributes(register) == {**at, "aioregistry.instance.id": "a"}
    assert attributes(withdraw) == {**at, "aioregistry.instance.id": "a", "aioregistry.withdrawn": True}
    assert attributes(sync) == {**at, "aioregistry.instances": 1}
    assert parent(register) == parent(sync) == start.get_span_context().span_id
    assert parent(withdraw) == stop.get_span_context().span_id
    for span in (register, withdraw, sync):
        assert span.status.status_code is StatusCode.UNSET
        assert span.kind is SpanKind.CLIENT
        assert span.end_time is not None
        assert span.start_time is not None
        assert span.end_time > span.start_time


async def test_registering_without_waiting_lasts_until_it_is_listed(
    zookeeper: ZooKeeperServer, chroot: str, exported: Exported
) -> None:
    current, looked = set(), asyncio.Event()

    async def look() -> None:
        current.add(trace.get_current_span().get_span_context().span_id)
        looked.set()

    async with aioregistry.connect(f"{zookeeper.address}{chroot}") as registry:
        with exported.tracer.start_as_current_span("start") as start:
            registration = await registry.register(CHAT, wait=False, checks={"current": look})
        await registration.wait_live(20)
        await looked.wait()
        assert parent(exported.one("aioregistry.register")) == start.get_span_context().span_id
    # Spans of its tasks, which outlive it, are not its children.
    assert current == {start.get_span_context().span_id}


async def test_what_registering_ends_with_is_recorded(
    zookeeper: ZooKeeperServer, chroot: str, exported: Exported
) -> None:
    servers = f"{zookeeper.address}{chroot}"
    async with (
        aioregistry.connect(servers) as registry,
        aioregistry.connect(servers) as other,
        other.register(CHAT),
    ):
        with pytest.raises(RegistrationConflict):
            _ = await registry.register(CHAT, on_conflict="fail")
    span = next(span for span in exported.of("aioregistry.register") if span.status.status_code is StatusCode.ERROR)
    assert attributes(span)["error.type"].endswith(".RegistrationConflict")
    (event,) = span.events
    assert event.name == "exception"
    assert "/chat/a" in (span.status.description or "")


async def test_a_cancelled_registering_says_so_and_is_no_error(exported: Exported) -> None:
    async with aioregistry.connect("127.0.0.1:1", wait=False) as registry:
        registering = asyncio.ensure_future(registry.register(CHAT).__aenter__())
        await asyncio.sleep(0)
        syncing = asyncio.ensure_future(registry.discover("chat").__aenter__())
        await asyncio.sleep(0)
        for task in (registering, syncing):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    for name in ("aioregistry.register", "aioregistry.sync"):
        span = exported.one(name)
        assert attributes(span)["error.type"].endswith("CancelledError")
        assert span.status.status_code is StatusCode.UNSET
        assert "server.address" not in attributes(span)


async def test_a_registration_that_is_closed_before_it_is_listed(exported: Exported) -> None:
    async with aioregistry.connect("127.0.0.1:1", wait=False) as registry:
        registration = await registry.register(CHAT, wait=False)
        await registration.aclose()
    assert exported.one("aioregistry.register").end_time is not None


async def test_a_withdrawal_that_is_late_is_an_error(
    own_zookeeper: ZooKeeperServer, chroot: str, exported: Exported
) -> None:
    async with aioregistry.connect(own_zookeeper.address) as registry:
        registration = await registry.register(CHAT, close_timeout=0.05)
        await own_zookeeper.stop()
        await registration.aclose()
        assert registration.withdrawn is False
    span = exported.one("aioregistry.withdraw")
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["aioregistry.withdrawn"] is False
    assert attributes(span)["error.type"].endswith(f".{RequestTimeout.__name__}")


async def test_a_registry_on_a_thread_of_its_own(zookeeper: ZooKeeperServer, chroot: str, exported: Exported) -> None:
    async with aioregistry.connect(f"{zookeeper.address}{chroot}", thread=True) as registry:
        with exported.tracer.start_as_current_span("all") as whole:
            async with registry.register(CHAT), registry.discover("chat"):
                pass
    for each in ("register", "withdraw", "sync"):
        assert parent(exported.one(f"aioregistry.{each}")) == whole.get_span_context().span_id


def test_a_blocking_registry(zookeeper: ZooKeeperServer, chroot: str, exported: Exported) -> None:
    registry = blocking.connect(f"{zookeeper.address}{chroot}")
    tracer = exported.tracer
    with registry, tracer.start_as_current_span("all") as whole, registry.register(CHAT), registry.discover("chat"):
        pass
    for each in ("register", "withdraw", "sync"):
        assert parent(exported.one(f"aioregistry.{each}")) == whole.get_span_context().span_id


async def test_a_tracer_that_raises_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def raising(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(trace, "get_tracer", raising)
    for _ in range(100):
        assert begin("register", service="chat") is NO_SPAN
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # of all 100: the rest is counted


async def test_a_span_that_cannot_be_ended_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, exported: Exported
) -> None:
    def raising(*_: object) -> None:
        raise ValueError("x")

    spans = [begin("register", service="chat") for _ in range(100)]
    assert NO_SPAN not in spans
    monkeypatch.setattr("aioregistry._spans._named", raising)
    for span in spans:
        span.end()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    tell_the_rest()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "100 in all" in caplog.records[-1].getMessage()
    tell_the_rest()
    assert len(caplog.records) == 2


def test_nothing_is_imported_where_the_program_does_not() -> None:
    program = (
        "import asyncio, sys, aioregistry\n"
        "from aioregistry import ServiceInstance\n"
        "async def main():\n"
        "    async with aioregistry.connect('127.0.0.1:1', wait=False) as registry:\n"
        "        await registry.register(ServiceInstance('chat', address='10.0.0.7', port=7000), wait=False)\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
