"""Which services there are: the children of the base path."""

from __future__ import annotations

import asyncio
import logging

from aioregistry._concurrency import Supervised
from aioregistry._errors import NoAuth, NoNode, RegistryError, ServerError, SessionClosed
from aioregistry._incident_log import IncidentLog
from aioregistry._protocol import Exists, GetChildren, WatchedEvent
from aioregistry._session import ReadingSessionPort
from aioregistry._streams import Source, Stream

from .pace import RETRY

__all__ = ["ServiceNames"]

log = logging.getLogger("aioregistry.discovery")


class ServiceNames:
    """Follows the names of the services below *path* with one-shot watches, from the first stream on."""

    def __init__(self, session: ReadingSessionPort, path: str) -> None:
        self._session = session
        self._path = path
        self._names: tuple[str, ...] | None = None
        self._repeated = IncidentLog(log, path=path)
        self._source: Source[tuple[str, ...]] = Source()
        self._wake = asyncio.Event()
        self._following = False
        self._task = Supervised(self._died)

    async def read(self) -> list[str]:
        """Return the names, sorted; waits for a connection if necessary."""
        try:
            return sorted((await self._session.read(GetChildren(self._path))).value)
        except NoNode:
            return []

    def stream(self) -> Stream[tuple[str, ...]]:
        """Return a stream of the names, the present ones first."""
        if not self._following:
            self._following = True
            self._task.start(self._run(), name=f"aioregistry follows {self._path}")
        stream = Stream(1) if self._names is None else Stream(1, self._names)
        self._source.attach(stream)
        return stream

    async def aclose(self) -> None:
        """End the streams, and stop following."""
        self._source.close()
        await self._task.aclose()
        self._repeated.close()

    async def _run(self) -> None:
        try:
            await self._follow()
        except SessionClosed:
            self._end(None)
        except RegistryError as error:
            self._end(error)

    def _died(self, error: BaseException) -> None:
        """Let a defect reach the streams, instead of a task that is not awaited."""
        if isinstance(error, asyncio.CancelledError):
            self._end(RegistryError(f"the task that follows {self._path} was cancelled from outside"))
            return
        log.critical("following %s failed", self._path, exc_info=error, extra={"path": self._path})
        failure = RegistryError(f"following {self._path} failed: {error!r}")
        failure.__cause__ = error
        self._end(failure)

    def _end(self, error: RegistryError | None) -> None:
        """End the streams there are; the next one begins again, because reading may be allowed by then."""
        source, self._source = self._source, Source()
        self._following, self._names = False, None
        source.close(error)
        self._repeated.close()

    async def _follow(self) -> None:
        stop_observing = self._session.observe(self._wake.set)  # watches are gone with a session: look again
        listener = self._session.watches.listen(self._path, self._fired)
        try:
            while True:
                self._wake.clear()
                try:
                    names = await self._read_and_watch()
                except NoAuth:
                    raise
                except ServerError as error:  # overloaded, say
                    self._repeated.tell("again", logging.INFO, "%s is listed again in a while: %s", self._path, error)
                    await asyncio.sleep(self._session.runtime.uniform(RETRY / 2, RETRY))
                    continue
                if names != self._names:
                    self._names = names
                    self._source.offer(names)
                await self._wake.wait()
        finally:
            listener.close()
            stop_observing()

    async def _read_and_watch(self) -> tuple[str, ...]:
        while True:
            try:
                return tuple(sorted((await self._session.read(GetChildren(self._path, watch=True))).value))
            except NoNode:
                pass
            try:
                await self._session.read(Exists(self._path, watch=True))
            except NoNode:
                return ()

    def _fired(self, _: WatchedEvent) -> None:
        self._wake.set()
