"""The records of the library's log that a command shows without ``-v``."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from aioregistry._cli import outages
from aioregistry._cli.logs import Format, OwnLines
from aioregistry._cli.outages import _Outages


def record(name: str, level: int, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": f"aioregistry.{name}", "levelno": level, **fields})


@pytest.mark.parametrize(
    ("shown", "name", "level"),
    [
        (True, "session", logging.ERROR),
        (True, "registration", logging.CRITICAL),
        (True, "registry", logging.WARNING),
        (True, "console", logging.WARNING),
        (False, "registration", logging.WARNING),
        (False, "session", logging.WARNING),
        (False, "health", logging.WARNING),
    ],
)
def test_what_no_line_of_a_command_says_is_shown(shown: bool, name: str, level: int) -> None:
    assert OwnLines().filter(record(name, level)) is shown


def test_an_outage_is_shown_where_the_command_says_so() -> None:
    own = OwnLines()
    outage = record("session", logging.WARNING, event="session.outage")
    assert not own.filter(outage)
    own.events["session.outage"] = lambda: True
    assert own.filter(outage)
    assert not own.filter(record("session", logging.WARNING, event="session.outage_over"))
    assert not own.filter(record("session", logging.WARNING))


class Lines:
    """Takes the lines of a command."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def put(self, line: str) -> None:
        self.told.append(line)


def test_an_outage_that_lasts_is_shown_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([1000.0, 1000.5, 1059.9, 1060.0, 1100.0, 1120.0, 1121.0, 1122.0])
    monkeypatch.setattr(outages, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    lines = Lines()
    command = _Outages(lines, Format(as_json=False))  # type: ignore[arg-type]
    command.telling = True
    assert [command.shows() for _ in range(6)] == [True, False, False, True, False, True]
    over = {"seconds": 120.0, "server": "10.0.0.1:2181"}
    command.on_event("session.outage_over", over)
    command.on_event("session.outage_over", over)
    assert lines.told == ["aioregistry: connected to ZooKeeper at 10.0.0.1:2181 after 120.0 s without it"]
    assert command.shows()  # the next one is told at once
    command.telling = False
    assert not command.shows()
