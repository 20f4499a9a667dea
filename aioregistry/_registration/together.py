"""Withdrawals of one session, sent together: many in one transaction, and few transactions on their way.

A registry that closes ten thousand registrations would send as many transactions, and the end of the session, which
removes whatever is left, would stand in the queue behind them. So those that are asked for in one turn of the loop
share transactions; and only so many are on their way that the end of the session is answered soon.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aioregistry._errors import PoisonRequest, RegistryError, RequestTooLarge
from aioregistry._protocol import Delete, Message, Multi, MultiReply, Reply

if TYPE_CHECKING:
    from aioregistry._session import SessionPort

__all__ = ["Together", "divided"]

MOST_TOGETHER: Final = 100
"""Withdrawals in one transaction: some 400 operations and 40 kB, which a server applies in a few milliseconds."""

MOST_BYTES: Final = 50_000
"""Of one transaction, unless a withdrawal alone is larger."""

MOST_UNDER_WAY: Final = 4
"""Transactions on their way at a time: enough to keep a server busy for a round trip."""


_ROOM: Final = 60
"""Bytes of an operation beside its path, with one entry in its ACL."""


class _Waiting(NamedTuple):
    message: Multi | Delete
    outcome: asyncio.Future[Reply[Any]]

    @property
    def operations(self) -> list[Message[Any]]:
        return list(self.message.ops) if isinstance(self.message, Multi) else [self.message]


class Together:
    """Sends withdrawals through *session*."""

    def __init__(self, session: SessionPort) -> None:
        self._session = session
        self._waiting: deque[_Waiting] = deque()
        self._alone: deque[_Waiting] = deque()
        """The withdrawals of a transaction that failed: a fault of one must not affect the others."""
        self._under_way = 0
        self._due = False

    def submit(self, message: Multi | Delete) -> asyncio.Future[Reply[Any]]:
        """Send *message*, alone or with others; the future has the same outcome as if it were sent alone."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(message, loop.create_future())
        self._waiting.append(waiting)
        if not self._due:
            self._due = True
            loop.call_soon(self._begin)
        return waiting.outcome

    def _begin(self) -> None:
        self._due = False
        self._send()

    def _send(self) -> None:
        while self._under_way < MOST_UNDER_WAY and (some := self._next()):
            self._under_way += 1
            message: Message[Any] = (
                some[0].message if len(some) == 1 else Multi([op for each in some for op in each.operations])
            )
            _ = self._session.submit(message, functools.partial(self._answered, some))

    def _next(self) -> list[_Waiting]:
        """Take the withdrawals that fit into one transaction."""
        some: list[_Waiting] = []
        size = 0
        while self._waiting and len(some) < MOST_TOGETHER:
            if self._waiting[0].outcome.done():  # the caller was cancelled
                self._waiting.popleft()
                continue
            size += sum(len(str(operation.path)) + _ROOM for operation in self._waiting[0].operations)
            if some and size > MOST_BYTES:
                break
            some.append(self._waiting.popleft())
        if not some and self._alone:
            some.append(self._alone.popleft())
        return some

    def _answered(self, some: list[_Waiting], answer: asyncio.Future[Reply[Any]]) -> None:
        self._under_way -= 1
        error = None if answer.cancelled() else answer.exception()
        if error is None and not answer.cancelled():
            replies = divided([each.message for each in some], answer.result())
        elif len(some) > 1 and isinstance(error, PoisonRequest | RequestTooLarge):
            replies = [None] * len(some)
        else:
            replies = [error if isinstance(error, RegistryError) else RegistryError("cancelled")] * len(some)
        for each, reply in zip(some, replies, strict=True):
            if reply is None:
                self._alone.append(each)
            elif each.outcome.done():
                continue
            elif isinstance(reply, RegistryError):
                each.outcome.set_exception(reply)
            else:
                each.outcome.set_result(reply)
        self._send()


def divided(messages: list[Multi | Delete], reply: Reply[Any]) -> list[Reply[Any] | RegistryError | None]:
    """Return what became of each of *messages*, whose operations were sent as one; None: it is to be sent alone.

    A transaction that failed names one operation: that is the answer to the message that it belongs to.
    """
    if len(messages) == 1:
        return [reply]
    results: MultiReply = reply.value
    failed = results.failed
    replies: list[Reply[Any] | RegistryError | None] = []
    begin = 0
    for message in messages:
        count = len(message.ops) if isinstance(message, Multi) else 1
        part = results.results[begin : begin + count]
        if failed is None:
            replies.append(Reply(reply.zxid, MultiReply(part) if isinstance(message, Multi) else part[0]))
        elif not begin <= failed.index < begin + count:
            replies.append(None)
        else:
            replies.append(Reply(reply.zxid, MultiReply(part)) if isinstance(message, Multi) else failed.error)
        begin += count
    return replies
