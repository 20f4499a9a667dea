"""The servers that histories are played on: an Apache ZooKeeper, and ours, set up alike."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server.differential.language import UNKNOWN, History, without_patch
from tests.server.differential.player import Player
from tests.server.differential.transcript import Entry, explain, first_difference
from tests.support.embedded import embedded_server, profile_of
from tests.support.zookeeper import JVM_OPTIONS, Settings, ZooKeeperServer

HISTORIES = int(os.environ.get("AIOREGISTRY_HISTORIES", "0"))
"""How many histories `nox -s conformance` plays; 0 for as many as each test takes by default."""

LASTING_JVM = ("-Xmx1g", "-XX:+UseSerialGC", "-XX:-UsePerfData")
"""For a server that runs for long enough to be compiled well, and keeps what many histories leave."""

# Bounds of session timeouts that no history outlives, however slow the machine is.
PATIENT = {"tick": 2.0, "shortest": 8.0, "longest": 40.0, "sweep": 86_400.0}
# For histories that wait for a server's timers. A sweep in the middle of any other would come sooner on one server.
# ZooKeeper sweeps a node twice if it was too slow to remove it meanwhile, which uses up one more zxid.
IMPATIENT = {"tick": 0.2, "shortest": 0.4, "longest": 40.0, "sweep": 0.5}

Play = Callable[[History], list[Entry]]
Compare = Callable[[History], str | None]


@contextlib.contextmanager
def real_server(timing: dict[str, float], **properties: str) -> Iterator[ZooKeeperServer]:
    settings = Settings(
        tick_time_ms=int(timing["tick"] * 1000),
        min_session_timeout_ms=int(timing["shortest"] * 1000),
        max_session_timeout_ms=int(timing["longest"] * 1000),
        container_check_interval_ms=int(timing["sweep"] * 1000),
        jvm_options=LASTING_JVM if HISTORIES else JVM_OPTIONS,
        # It logs every request that fails, twice.
        properties={"org.slf4j.simpleLogger.defaultLogLevel": "off", **properties},
    )
    with ZooKeeperServer(settings) as server:
        server.launch()
        server.wait_until_serving()
        yield server


def player_on(host: str, port: int, release: str, prefix: str = "/h") -> Play:
    """Plays each history below a root of its own, and asks with care what the *release* does not know."""
    roots = (f"{prefix}{number:06}/root" for number in itertools.count())
    return lambda history: Player((host, port), next(roots), UNKNOWN[without_patch(release)]).play(history)


def told_apart(history: History, expected: list[Entry], found: list[Entry]) -> str | None:
    """Where two servers part, for people to read; None if they do not."""
    at = first_difference(expected, found)
    return None if at is None else explain(history, expected, found, at)


@contextlib.contextmanager
def comparison(
    on_real: Play, timing: dict[str, float], release: str, version: str | None = None, super_digest: str | None = None
) -> Iterator[Compare]:
    """The comparison of a *release*'s real server with one of ours by a history; ours speaks like it, or like
    another *version*.
    """
    options = {
        "super_digest": super_digest,
        "tick_time": timing["tick"],
        "min_session_timeout": timing["shortest"],
        "max_session_timeout": timing["longest"],
        "container_check_interval": timing["sweep"],
        "max_connections_per_client": 0,
        "version": version or release,
    }
    with embedded_server(**options) as embedded, ThreadPoolExecutor(1) as beside:
        on_embedded = player_on(embedded.host, embedded.port, release)

        def compare(history: History) -> str | None:
            expecting = beside.submit(on_real, history)
            found = on_embedded(history)
            return told_apart(history, expecting.result(), found)

        yield compare


@pytest.fixture(scope="session")
def reference() -> Iterator[ZooKeeperServer]:
    """A real ZooKeeper that does nothing by itself."""
    with real_server(PATIENT) as server:
        yield server


@pytest.fixture(scope="session")
def release(reference: ZooKeeperServer) -> str:
    """The real server's, by the name that ours behaves like it by: "3.8"."""
    return profile_of(reference.version)


@pytest.fixture(scope="session")
def on_reference(reference: ZooKeeperServer, release: str) -> Play:
    return player_on(reference.host, reference.port, release)


@pytest.fixture(scope="session")
def compare(on_reference: Play, release: str) -> Iterator[Compare]:
    """Plays a history on two servers that do nothing by themselves."""
    with comparison(on_reference, PATIENT, release) as compare:
        yield compare


@pytest.fixture(scope="session")
def compare_in_time(release: str) -> Iterator[Compare]:
    """Plays a history on two servers whose timers are short."""
    with real_server(IMPATIENT) as real:
        on_real = player_on(real.host, real.port, release)
        with comparison(on_real, IMPATIENT, release) as compare:
            yield compare
