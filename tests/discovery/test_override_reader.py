"""The cost and the results of reading operators' overrides, on a session in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest

from aioregistry import Override
from aioregistry._discovery.overrides import ASKED_WITHIN, SWEEP, OverrideReader
from aioregistry._overrides import encoded
from aioregistry._protocol import AddWatch, Create, Delete, Exists, GetChildren, SetData
from tests.discovery.scene import DiscoverySession
from tests.support.fake_session import FakeRuntime, quiet
from tests.support.model_tree import ModelTree

ROOT = "/services-overrides"


@pytest.fixture
def session() -> DiscoverySession:
    session = DiscoverySession(ModelTree())
    session.connect()
    return session


def asked(session: DiscoverySession) -> list[str]:
    """The requests below the root since the last call."""
    asked = [type(message).__name__ for message in session.served if getattr(message, "path", "").startswith(ROOT)]
    session.served.clear()
    return asked


def drain(session: DiscoverySession, id: str, **fields: Any) -> None:
    arguments: dict[str, Any] = {"enabled": False, "reason": "disk", "by": "ann", "seconds": None, **fields}
    data = encoded(registration_time_ms=None, **arguments)
    session.tree.apply(0, Create(f"{ROOT}/chat/{id}", data))


@pytest.mark.parametrize("strategy", ["auto", "one-shot"])
async def test_without_overrides_a_connection_costs_one_request_and_the_first_override_is_seen(
    session: DiscoverySession, strategy: Literal["auto", "one-shot"]
) -> None:
    told: list[Mapping[str, Override]] = []
    reader = OverrideReader(session, ROOT, strategy)
    forget = reader.follow("chat", told.append)
    await reader.settled("chat")
    assert asked(session) == [Exists.__name__]
    for _ in range(3):
        session.disconnect()
        session.connect()
        await reader.settled("chat")
        assert asked(session) == [Exists.__name__]
    for path in (ROOT, f"{ROOT}/chat"):
        session.tree.apply(0, Create(path, b""))
        await quiet()
    drain(session, "a")
    await quiet()
    assert [set(each) for each in told] == [{"a"}]
    assert (AddWatch.__name__ in asked(session)) is (strategy == "auto")
    session.tree.apply(0, Delete(f"{ROOT}/chat/a"))
    await quiet()
    assert told[-1] == {}
    forget()
    await reader.aclose()
    assert session.watches.in_use == []


@pytest.mark.parametrize("strategy", ["auto", "one-shot"])
async def test_it_is_settled_when_what_watches_have_told_of_is_read(
    session: DiscoverySession, strategy: Literal["auto", "one-shot"]
) -> None:
    """A caller that has just passed a barrier on the same connection knows all that came before."""
    for path in (ROOT, f"{ROOT}/chat"):
        session.tree.make(path)
    told: list[Mapping[str, Override]] = []
    reader = OverrideReader(session, ROOT, strategy)
    forget = reader.follow("chat", told.append)
    assert await reader.settled("chat")
    assert told == []
    drain(session, "a")
    await asyncio.sleep(0)  # the event is told in the next turn of the loop, long before it is read
    assert told == []
    assert await reader.settled("chat")
    assert [set(each) for each in told] == [{"a"}]
    session.disconnect()
    assert not await reader.settled("chat")
    session.connect()
    assert await reader.settled("chat")
    forget()
    await reader.aclose()
    assert await reader.settled("chat")


async def test_where_there_is_a_root_it_is_watched_whole_and_changes_are_told_once(session: DiscoverySession) -> None:
    for path in (ROOT, f"{ROOT}/chat"):
        session.tree.make(path)
    drain(session, "a")
    reader = OverrideReader(session, ROOT, "auto")
    ends: list[Callable[[], None]] = [reader.follow("chat", lambda _: None) for _ in range(3)]
    await reader.settled("chat")
    assert asked(session)[:3] == [Exists.__name__, AddWatch.__name__, GetChildren.__name__]
    drain(session, "b", enabled=None, weight=0.5)
    session.tree.apply(0, Delete(f"{ROOT}/chat/a"))
    await quiet()
    names = [(name, fields["id"]) for name, fields in session.emitted]
    assert names == [
        ("discovery.override_set", "a"),
        ("discovery.override_set", "b"),
        ("discovery.override_ended", "a"),
    ]
    assert session.emitted[1][1] == {
        "service": "chat",
        "id": "b",
        "enabled": None,
        "weight": 0.5,
        "reason": "disk",
        "by": "ann",
        "until": None,
    }
    for end in ends:
        end()
    await reader.aclose()


async def test_what_an_operator_wrote_is_one_line_of_the_log(
    session: DiscoverySession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "aioregistry.discovery")
    for path in (ROOT, f"{ROOT}/chat"):
        session.tree.make(path)
    drain(session, "a", reason="disk\n2026-11-30 CRITICAL \x1b[2J", by="ann\u202e\u2028")
    reader = OverrideReader(session, ROOT, "auto")
    forget = reader.follow("chat", lambda _: None)
    await reader.settled("chat")
    (line,) = [record.getMessage() for record in caplog.records if "override" in record.getMessage()]
    assert line.isprintable()
    assert "CRITICAL" in line
    forget()
    await reader.aclose()


class Patient(FakeRuntime):
    """Draws pauses that are longer than any test, and notes how long they were to be."""

    def __init__(self) -> None:
        super().__init__()
        self.longest: list[float] = []

    def uniform(self, low: float, high: float) -> float:
        self.longest.append(high)
        return 10_000.0


@pytest.mark.parametrize("seen_being_set", [True, False])
async def test_the_server_is_asked_soon_where_only_it_knows_that_the_override_has_ended(seen_being_set: bool) -> None:
    """A view that came later shows it until then; one that saw it being set needs nobody, and removes it at leisure."""
    runtime = Patient()
    session = DiscoverySession(ModelTree(), runtime=runtime)
    session.connect()
    for path in (ROOT, f"{ROOT}/chat"):
        session.tree.make(path)
    told: list[Mapping[str, Override]] = []
    reader = OverrideReader(session, ROOT, "auto")
    if not seen_being_set:
        drain(session, "a", seconds=3600)  # the times of nodes are 0 here, and the host's clock is decades ahead
    forget = reader.follow("chat", told.append)
    await reader.settled("chat")
    if seen_being_set:
        drain(session, "a", seconds=2.0)
    async with asyncio.timeout(100):
        while reader._sweep.when is None or (seen_being_set and len(told) < 2):
            await quiet()
    assert [set(each) for each in told] == ([{"a"}, set()] if seen_being_set else [{"a"}])
    assert runtime.longest == [SWEEP if seen_being_set else ASKED_WITHIN]
    forget()
    await reader.aclose()


@pytest.mark.parametrize("strategy", ["auto", "one-shot"])
@pytest.mark.parametrize(("runtime", "times"), [(Patient(), 0), (FakeRuntime(), 1)])
async def test_where_the_hosts_clock_is_ahead_the_server_is_asked_once_in_a_while_and_the_override_is_in_force(
    runtime: FakeRuntime, times: int, strategy: Literal["auto", "one-shot"]
) -> None:
    """A write of the service's node tells its time, and wakes whoever watches: it must not lead to the next one.

    Others notice at the same time, so it is not asked at once.
    """
    session = DiscoverySession(ModelTree(), runtime=runtime)
    session.connect()
    for path in (ROOT, f"{ROOT}/chat"):
        session.tree.make(path)
    drain(session, "a", seconds=3600)  # the times of nodes are 0 here
    told: list[Mapping[str, Override]] = []
    reader = OverrideReader(session, ROOT, strategy)
    forget = reader.follow("chat", told.append)
    await reader.settled("chat")
    async with asyncio.timeout(100):
        while sum(isinstance(message, SetData) for message in session.served) < times:
            await quiet()
    for _ in range(10):
        await quiet()
    assert asked(session).count(SetData.__name__) == times
    assert [set(each) for each in told] == [{"a"}]
    assert (reader._sweep.when is None) is bool(times)
    forget()
    await reader.aclose()
    assert reader._sweep.when is None
