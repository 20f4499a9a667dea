"""A command's output on standard error: the library's log, and lines of its own, as text or as JSON."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Final

from .._words import printable
from ..logs import JsonFormatter

__all__ = ["Format", "OwnLines", "begin", "end"]

LEVELS: Final = {1: logging.INFO, 2: logging.DEBUG}
"""By how often ``-v`` was given."""

_BEFORE: Final = {logging.WARNING: "warning: "}

_NOWHERE_ELSE: Final = frozenset({"aioregistry.registry", "aioregistry.console"})

MOST_LINES: Final = 10_000
PATIENCE: Final = 1.0  # seconds that the end of a command waits for a terminal to take the last lines


class Format:
    """Makes the lines of standard error.

    Args:
        as_json: one object a line, else text for people.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._formatter = JsonFormatter() if as_json else logging.Formatter("%(message)s")

    def said(self, text: str, level: int = logging.INFO, **fields: object) -> str:
        """Return a line of the command's own, about itself.

        Args:
            text: what people read.
            level: of :mod:`logging`.
            fields: what the object has besides.
        """
        if not self.as_json:
            return printable(f"aioregistry: {_BEFORE.get(level, '')}{text}")
        return self._object(text, level, fields)

    def bare(self, text: str, **fields: object) -> str:
        """Return a line that is a result of the command: as :meth:`said`, without its name before the text."""
        return self._object(text, logging.INFO, fields) if self.as_json else printable(text)

    def _object(self, text: str, level: int, fields: dict[str, object]) -> str:
        record = logging.makeLogRecord(
            {
                "name": "aioregistry.cli",
                "levelno": level,
                "levelname": logging.getLevelName(level),
                "msg": text,
                **fields,
            }
        )
        return self._formatter.format(record)

    def logged(self, record: logging.LogRecord) -> str:
        """Return the lines for a *record* of the library's log."""
        text = self._formatter.format(record)
        if self.as_json:
            return text
        lines = text.splitlines() or [""]
        return "\n".join(printable(f"aioregistry: {record.levelname.lower()}: {line}") for line in lines)


class OwnLines(logging.Filter):
    """Holds back the records that repeat a command's own lines, unless the user asked for the log.

    The faults of the library and of the ensemble remain, and the warnings of two loggers that commands do not repeat
    in lines of their own.

    Attributes:
        events: by the name of an event, whether a record that tells of one is to be shown at this moment; a command
            that has no line of its own for it adds it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: dict[str, Callable[[], bool]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether *record* is shown."""
        if record.levelno >= logging.ERROR or record.name in _NOWHERE_ELSE:
            return True
        shows = self.events.get(getattr(record, "event", ""))
        return shows is not None and shows()


class _Stderr(logging.Handler):
    """Writes records from a thread of its own: a terminal that stands still must not stop heartbeats."""

    def __init__(self, form: Format) -> None:
        super().__init__()
        self._form = form
        self._lines: queue.Queue[bytes | None] = queue.Queue(MOST_LINES)
        self._lost = 0
        self._writer = threading.Thread(target=self._write, name="aioregistry-log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue *record*; it is lost, and counted, if 10,000 lines already wait to be read."""
        try:
            if self._lost:
                self._lines.put_nowait(
                    f"{self._form.said(f'{self._lost} lines of the log are lost', logging.WARNING)}\n".encode()
                )
                self._lost = 0
            self._lines.put_nowait(f"{self._form.logged(record)}\n".encode())
        except queue.Full:
            self._lost += 1
        except Exception:  # noqa: BLE001 # as logging's own handlers do
            self.handleError(record)

    def finish(self) -> None:
        """Wait for the last lines, for a second."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
            self._writer.join(PATIENCE)

    def _write(self) -> None:
        descriptor = sys.stderr.fileno()
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError):  # standard error is gone: the command itself finds that out
                while line:
                    line = line[os.write(descriptor, line) :]


def begin(verbose: int, own: OwnLines, *, as_json: bool) -> _Stderr:
    """Have the library's log written to standard error, from the level that *verbose* asks for; returns its handler.

    Without ``-v`` a command prints its own lines, and of the log only what *own* lets pass.
    """
    handler = _Stderr(Format(as_json=as_json))
    library = logging.getLogger("aioregistry")
    library.addHandler(handler)
    if verbose:
        library.setLevel(LEVELS[verbose])
    else:
        handler.addFilter(own)
    return handler


def end(handler: _Stderr) -> None:
    """End what :func:`begin` began."""
    logging.getLogger("aioregistry").removeHandler(handler)
    handler.finish()
