"""The four-letter words have the names and formats of a real ZooKeeper's; of ``mntr``, those that 3.5 has too."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from tests.support import wire
from tests.support.embedded import embedded_server
from tests.support.zookeeper import ZooKeeperServer, four_letter_word

LEFT_OUT = {
    "java.version", "java.vendor", "java.home", "java.class.path", "java.library.path", "java.io.tmpdir",
    "java.compiler", "user.name", "user.home", "os.memory.free", "os.memory.max", "os.memory.total",
}  # fmt: skip
"""The lines of `envi` about a JVM."""


def shape(answer: str) -> set[str]:
    """The kinds of lines, without what differs from one server, session or moment to the next."""
    for pattern, name in (
        (r"[0-9.]+-\S+, built on .*", "VERSION"),
        (r"\w{3} \w{3} \d+ \d+:\d+:\d+ \w+ \d+", "DATE"),
        (r"0x[0-9a-f]+", "HEX"),
        (r"(?<=avg/max: )[^.\n]+/[0-9]+\.[0-9]+/[0-9]+", "LATENCIES WITH A FRACTION"),
        (r"\d+", "N"),
    ):
        answer = re.sub(pattern, name, answer)
    return set(answer.splitlines())


def names(answer: str, separator: str) -> list[str]:
    return [line.partition(separator)[0] for line in answer.splitlines()]


@pytest.fixture
async def two(reference: ZooKeeperServer, release: str) -> AsyncIterator[list[tuple[str, int]]]:
    """A real server and ours, with a client each that has an ephemeral node and a watch."""
    with embedded_server(version=release, min_session_timeout=8.0, max_session_timeout=40.0) as embedded:
        servers = [(reference.host, reference.port), (embedded.host, embedded.port)]
        clients = [await wire.connect(f"{host}:{port}", timeout_ms=30_000) for host, port in servers]
        for client in clients:
            await client.create("/word", flags=wire.EPHEMERAL)
            await client.ask(wire.get_data("/word", watch=True))
        yield servers
        for client in clients:
            await client.close()


@pytest.mark.parametrize("word", ["ruok", "isro", "srvr", "stat", "cons", "dump"])
async def test_words_have_the_same_format(two: list[tuple[str, int]], word: str) -> None:
    real, ours = [shape(four_letter_word(address, word)) for address in two]
    assert ours == real


@pytest.mark.parametrize(("word", "separator"), [("conf", "="), ("envi", "=")])
async def test_words_have_the_same_names(two: list[tuple[str, int]], word: str, separator: str) -> None:
    real, ours = [names(four_letter_word(address, word), separator) for address in two]
    assert [name for name in ours if not name.startswith("python.")] == [name for name in real if name not in LEFT_OUT]


async def test_mntr_has_no_names_of_its_own(two: list[tuple[str, int]]) -> None:
    real, ours = [names(four_letter_word(address, "mntr"), "\t") for address in two]
    assert set(ours) <= set(real)
