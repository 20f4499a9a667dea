"""The history is written by a thread of its own, so that a slow or full disk costs history and not the console."""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Self, TypeVar

from .reading import Reading
from .store import History, Operation, reason_of_failure

__all__ = ["HistoryUnavailable", "Recorder"]

log = logging.getLogger("aioregistry.console")

T = TypeVar("T")

_WAITING: Final = 20_000
"""Operations that wait for the disk; of further ones, only their final state is recorded."""

_AT_ONCE: Final = 2000
_WRITTEN_WITHIN: Final = 1.0
"""Seconds that a question waits until earlier items are in the history; it is asked then all the same."""

_HEARTBEAT: Final = 2.0
"""Seconds; so much of the end of a recording may be missing after the process was killed."""

_PRUNED_EVERY: Final = 30.0
_TRIED_AGAIN_AFTER: Final = 10.0
_CLOSED_WITHIN: Final = 5.0


class HistoryUnavailable(Exception):
    """The history cannot be read now; says why."""


class Recorder:
    """Writes items to a history, in order, and answers questions about it.

    Args:
        history: open; the recorder closes it.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._lost = False
        self._waiting: queue.Queue[Operation | threading.Event | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="aioregistry-console-history", daemon=True)
        self._ending = False
        self._written_at = time.time()
        self._pruned_at = -_PRUNED_EVERY
        self._readings: queue.SimpleQueue[Reading] = queue.SimpleQueue()
        self.failure: str | None = None
        """Why nothing is recorded now; None while all is well."""
        self.failing_since = 0.0
        """Seconds since the epoch."""

    def __enter__(self) -> Self:
        try:
            self._history.begin(self._written_at)
        except sqlite3.Error as error:
            self._fail(error)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(_CLOSED_WITHIN)
        while not self._readings.empty():
            with self._readings.get_nowait():
                pass
        if not self._thread.is_alive():
            self._history.close()

    def put(self, operation: Operation) -> bool:
        """Have *operation* written; return False where too much waits, or nothing can be written: it is lost then."""
        if self.failure is not None:
            return False
        try:
            self._waiting.put_nowait(operation)
        except queue.Full:
            return False
        return True

    def has_lost_all(self) -> bool:
        """Return whether items put since the last call are lost, so that everything must be told again."""
        lost, self._lost = self._lost, False
        return lost

    def ask(self, question: Callable[[Reading], T]) -> T:
        """Return the answer to *question* from a history that has all earlier items; blocks, for threads.

        A page that was told of a change asks for its history at once.

        Raises:
            HistoryUnavailable: it found nothing in time, or the file cannot be read.
        """
        self._wait_until_written()
        try:
            with self._reading() as reading:
                return question(reading)
        except sqlite3.Error as error:
            raise HistoryUnavailable(f"the history {reason_of_failure(error)}") from None

    def _wait_until_written(self) -> None:
        if self.failure is None and self._thread.is_alive():
            written = threading.Event()
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(written)
                written.wait(_WRITTEN_WITHIN)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Reading]:
        try:
            reading = self._readings.get_nowait()
        except queue.Empty:
            reading = Reading(self._history.path)
        try:
            yield reading
        except BaseException:
            with reading:
                raise
        self._readings.put(reading)

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._ending or not self._waiting.empty():
            if self.failure is not None:
                self._try_again()
                continue
            batch, waiters = self._batch()
            try:
                now = time.time()
                self._history.write(batch, now)
                self._written_at = now
                self._prune(now)
            except Exception as error:  # noqa: BLE001 - a thread that ends records nothing any more
                self._fail(error)
            for waiter in waiters:
                waiter.set()

    def _batch(self) -> tuple[list[Operation], list[threading.Event]]:
        """Return operations to write, and the events to set when they are written."""
        batch: list[Operation | threading.Event | None] = []
        with contextlib.suppress(queue.Empty):
            batch.append(self._waiting.get(timeout=_HEARTBEAT))
            while len(batch) < _AT_ONCE:
                batch.append(self._waiting.get_nowait())
        waiters = [each for each in batch if isinstance(each, threading.Event)]
        return [each for each in batch if each is not None and not isinstance(each, threading.Event)], waiters

    def _prune(self, now: float) -> None:
        if time.monotonic() - self._pruned_at >= _PRUNED_EVERY:
            self._pruned_at = time.monotonic()
            self._history.prune(now)

    def _fail(self, error: Exception) -> None:
        self.failing_since = time.time()
        self.failure = reason_of_failure(error)
        own = None if isinstance(error, sqlite3.Error) else error  # a defect, whose place is worth knowing
        log.warning(
            "recording is paused: the history %s %s",
            self._history.path,
            self.failure,
            exc_info=own,
        )

    def _try_again(self) -> None:
        self._drop_all()
        if self._ending or self._is_told_to_end(_TRIED_AGAIN_AFTER):
            return
        try:
            self._history.interrupted(self._written_at, time.time())
        except Exception:  # noqa: BLE001 - as in _run; that nothing is recorded has been told
            return
        seconds = time.time() - self.failing_since
        log.warning("recording to the history %s resumed after %.0f s", self._history.path, seconds)
        self._lost = True
        self.failure = None

    def _drop_all(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                dropped = self._waiting.get_nowait()
                if isinstance(dropped, threading.Event):
                    dropped.set()

    def _is_told_to_end(self, seconds: float) -> bool:
        # While it fails nothing is put but the end.
        with contextlib.suppress(queue.Empty):
            return self._waiting.get(timeout=seconds) is None or self._ending
        return self._ending
