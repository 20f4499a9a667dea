"""Carries a mirror's questions to the server and the answers back: in order, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from aioregistry._concurrency import Alarm
from aioregistry._errors import TRANSIENT, NoAuth, NoNode, PoisonRequest
from aioregistry._protocol import Exists, GetChildren2, GetData, MultiRead, MultiReadData, WatchedEvent
from aioregistry._session import ReadingSessionPort, WatchPort, throttled_patience, throttled_pause

from .mirror import FindService, ListNames, Mirror, Question, ReadNodes, ReadResult
from .pace import Pace

__all__ = ["Reader"]

# The size of a Stat and the headers around it, in bytes, beside a node's data.
_OVERHEAD = 100


class Reader:
    """Reads the nodes below *path* for *mirror*, on one connection after the other.

    Args:
        session: where questions are sent.
        path: the service's node.
        mirror: gives the questions and takes the answers.
        fired: called with the events of the one-shot watches that questions leave.
        answered: called when there is something for :meth:`take_answers`.
        look_in: called with seconds, after which what cannot be read now is worth another look.
    """

    def __init__(
        self,
        session: ReadingSessionPort,
        path: str,
        mirror: Mirror,
        *,
        fired: Callable[[WatchedEvent], None],
        answered: Callable[[], None],
        look_in: Callable[[float], None],
    ) -> None:
        self._session = session
        self._path = path
        self._mirror = mirror
        self._fired = fired
        self._answered = answered
        self._look_in = look_in
        self._pace = Pace(session.max_request)
        self._under_way: deque[tuple[Question, asyncio.Future[Any]]] = deque()
        self._nodes_under_way = 0
        self._one_by_one = False
        # The server could not answer: how often in a row, since when, and when it is asked on.
        self._throttled = 0
        self._throttled_since = 0.0
        self._pause = Alarm()
        self._listeners: dict[str, WatchPort] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    def begin(self) -> None:
        """There is a new connection, and the mirror knows of it: ask for everything."""
        self._one_by_one = self._mirror.one_shot or self._session.supports(MultiRead.opcode) is False
        self.ask()

    def ask(self) -> None:
        """Send the mirror's questions, as far as the window reaches."""
        mirror, pace = self._mirror, self._pace
        while self._pause.when is None and self._nodes_under_way < pace.window:
            question = mirror.ask(1 if self._one_by_one else pace.batch)
            if question is None:
                return
            self._send(question)

    def take_answers(self) -> BaseException | None:
        """Give the mirror the answers; returns why a question was refused, if one was."""
        under_way = self._under_way
        while under_way and under_way[0][1].done():
            question, future = under_way.popleft()
            if isinstance(question, ReadNodes):
                self._nodes_under_way -= len(question.names)
            if isinstance(future.exception(), TRANSIENT) and self._bears_with(question):
                continue
            self._throttled = 0
            if isinstance(question, ReadNodes):
                refusal = self._take_nodes(question, future)
            else:
                refusal = self._take_names(question, future)
            if refusal is not None:
                return refusal
        return None

    def _bears_with(self, question: Question) -> bool:
        """Ask *question* again after a pause; return False where the server has answered so for too long."""
        loop, session = asyncio.get_running_loop(), self._session
        if not self._throttled:
            self._throttled_since = loop.time()
        elif loop.time() - self._throttled_since >= throttled_patience(session.timeout):
            return False
        self._throttled += 1
        self._mirror.refused(question)
        if self._pause.when is None:
            self._pause.set_in(
                throttled_pause(self._throttled, session.timeout, session.runtime.uniform), self._answered
            )
        return True

    def let_go(self) -> None:
        """No question under way will be answered, and the watches that were left are gone."""
        if any(isinstance(question, ReadNodes) and len(question.names) > 1 for question, _ in self._under_way):
            self._pace.refused()  # an answer too large for what lies between looks like a lost connection
        self._under_way.clear()
        self._nodes_under_way = self._throttled = 0
        self._pause.cancel()
        # All is read again next, with new watches: the session need not restore these.
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def completed(self) -> None:
        """All was read."""
        self._pace.completed()

    # ------------------------------------------------------------------ questions

    def _send(self, question: Question) -> None:
        message = self._message(question)
        if self._mirror.one_shot and message.path not in self._listeners:
            self._listeners[message.path] = self._session.watches.listen(message.path, self._fired)
        if isinstance(question, ReadNodes):
            self._nodes_under_way += len(question.names)
        self._under_way.append((question, self._session.submit(message, self._done)))

    def _done(self, _: asyncio.Future[Any]) -> None:
        self._answered()

    def _message(self, question: Question) -> Any:
        match question:
            case ListNames(watch):
                return GetChildren2(self._path, watch)
            case FindService():
                return Exists(self._path, watch=True)
            case ReadNodes((name,), watch):
                return GetData(f"{self._path}/{name}", watch)
            case ReadNodes(names):
                return MultiReadData(self._path, names)

    # ------------------------------------------------------------------ answers

    def _take_names(self, question: ListNames | FindService, future: asyncio.Future[Any]) -> BaseException | None:
        error = future.exception()
        if isinstance(error, NoNode):
            self._mirror.missing(error.zxid)
        elif error is not None:
            return error
        elif isinstance(question, ListNames):
            reply = future.result()
            names, stat = reply.value
            self._mirror.listed(names, reply.zxid, stat)
        else:
            self._mirror.found(future.result().zxid)
        return None

    def _take_nodes(self, question: ReadNodes, future: asyncio.Future[Any]) -> BaseException | None:
        names = question.names
        observations: Sequence[ReadResult]
        zxid: int | None
        error = future.exception()
        if error is None:
            reply = future.result()
            zxid, observations = reply.zxid, reply.value if len(names) > 1 else (reply.value,)
        elif isinstance(error, NoNode | NoAuth) and len(names) == 1:
            zxid, observations = error.zxid, (error,)
        elif isinstance(error, PoisonRequest) and len(names) == 1:
            zxid, observations = None, (error,)
            self._look_in(error.retry_in)
        elif isinstance(error, PoisonRequest):
            # Many at once, not the service: the session has said so. Fewer are asked for next, one by one in the end.
            self._pace.refused()
            self._mirror.refused(question)
            return None
        else:
            self._pace.refused()
            return error
        self._mirror.observed(question, observations, zxid)
        if len(names) > 1 or self._one_by_one:
            size = sum([len(observation[0]) for observation in observations if type(observation) is tuple])
            self._pace.answered(len(names), size + _OVERHEAD * len(names))
        if isinstance(error, NoNode) and question.watch:
            self._listeners.pop(f"{self._path}/{names[0]}").close()
        return None
