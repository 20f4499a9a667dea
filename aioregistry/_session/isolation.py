"""Which requests cost the connection, by what was in flight whenever one died. Pure: clocks come in as arguments.

A server that cannot take a request hangs up: it is longer than its ``jute.maxbuffer``, or of an operation that the
server gets wrong. So does a client that cannot read the reply. Whoever repeats such a request after the next connect
costs the session that connection too, and everybody else on it.

Nobody says which request it was, and most connections die of something else. So requests are suspected by what they
have in common with dead connections, and cleared by any answer:

- one that was in flight at :data:`TOGETHER` deaths in a row is sent apart: nothing else is in flight with it. Where
  there are many, they go in batches, halved at each death and doubled at each answer, so that thousands of innocent
  ones are cleared in a few round trips;
- one that was in flight at :data:`ENOUGH` deaths in a row, alone at the last :data:`ALONE` of them, on connections that
  had answered something else before, is convicted: it fails with :class:`~aioregistry._errors.PoisonRequest`. The
  same, or a longer one, fails without being sent until :data:`FIRST_TERM` seconds have passed, doubled each time; a
  shorter one is tried, apart;
- a reply that cannot be read tells by itself which request it was; :data:`ALONE` of them are enough.

What one conviction shows is used for others: requests as long as the convicted one, where that was longer than any
that was answered, and requests of its operation, where none was answered since, are sent apart from the first time on
and convicted by one death. Thus the server's limit need not be found out by every request anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

from aioregistry._errors import PoisonRequest

__all__ = ["ALONE", "ENOUGH", "FIRST_TERM", "LONGEST_TERM", "SMALLEST_LIMIT", "TOGETHER", "Isolation", "Sent"]

TOGETHER: Final = 2
"""Deaths in a row with the request in flight, among others, before it is sent apart."""

ALONE: Final = 2
"""Deaths in a row with nothing else in flight, or known by their replies, before it is convicted."""

ENOUGH: Final = 3
"""Deaths in a row, of whatever kind, before it is convicted where no reply tells."""

FIRST_TERM: Final = 10.0
"""Seconds that a convicted request is not sent again; an administrator may raise the limit."""

LONGEST_TERM: Final = 600.0
"""Seconds that a term has at most."""

SMALLEST_LIMIT: Final = 4096
"""Bytes: no server works with a jute.maxbuffer below this, so shorter requests say nothing of it."""

_SAME_OPERATION: Final = 3
"""Convicted requests of one operation, none of it answered since, before the operation itself is."""

_KEPT: Final = 1024
"""Suspects and convicted ones kept, the latest."""

_LARGEST_WINDOW: Final = 1024


class Sent(NamedTuple):
    """A request in flight and the bytes it took."""

    request: Any
    size: int


class _Suspect(NamedTuple):
    deaths: int
    alone: int


class _Conviction(NamedTuple):
    size: int
    term: float
    until: float
    error: PoisonRequest


class Isolation:
    """What one session knows of such requests, on all its connections.

    Attributes:
        largest: bytes of the largest request that was ever answered.
        window: how many suspects may be in flight together.
    """

    def __init__(self) -> None:
        self.largest = 0
        self.window = _LARGEST_WINDOW
        self._suspects: OrderedDict[Hashable, _Suspect] = OrderedDict()
        self._convicted: OrderedDict[Hashable, _Conviction] = OrderedDict()
        self._limit: _Conviction | None = None
        self._operations: dict[int, tuple[int, _Conviction]] = {}

    @property
    def suspects(self) -> bool:
        """Whether an answer can clear anything."""
        return bool(self._suspects or self._convicted or self._limit or self._operations)

    @property
    def limit(self) -> int | None:
        """The fewest bytes that were too many for the server, as it seems; None where nothing says so."""
        return None if self._limit is None else self._limit.size

    def has_convicted(self, opcode: int) -> bool:
        """Whether an operation was convicted, and none of it was answered since."""
        return opcode in self._operations

    def excludes(self, opcode: int, now: float) -> bool:
        """Return whether no request of an operation is to be sent at *now*, for one that was convicted."""
        _, conviction = self._operations.get(opcode, (0, None))
        return conviction is not None and now < conviction.until

    def apart(self, sent: Sent, now: float) -> bool:
        """Return whether the request is to be sent apart from others; raises PoisonRequest where it is not to be sent.

        *now* is in seconds, of the clock that :meth:`died` is given.
        """
        key = _key(sent.request)
        convicted = self._convicted.get(key)
        count, operation = self._operations.get(sent.request.opcode, (0, None))
        for conviction, holds in (
            (convicted, convicted is not None and sent.size >= convicted.size),
            (self._limit, self._limit is not None and sent.size >= self._limit.size),
            (operation, count >= _SAME_OPERATION),
        ):
            if holds and conviction is not None and now < conviction.until:
                raise conviction.error.unsent(_shown(sent.request), sent.size, conviction.until - now)
        suspect = self._suspects.get(key)
        return (suspect is not None and suspect.deaths >= TOGETHER) or self._expected(key, sent)

    def _expected(self, key: Hashable, sent: Sent) -> bool:
        """Whether another conviction speaks against the request."""
        return (
            key in self._convicted
            or sent.request.opcode in self._operations
            or (self._limit is not None and sent.size >= self._limit.size)
        )

    def answered(self, sent: Sent) -> None:
        """The server answered, by whatever, and the answer could be read."""
        self.largest = max(self.largest, sent.size)
        key = _key(sent.request)
        self._suspects.pop(key, None)
        self._operations.pop(sent.request.opcode, None)
        convicted = self._convicted.get(key)
        if convicted is not None and sent.size >= convicted.size:
            del self._convicted[key]
        if self._limit is not None and sent.size >= self._limit.size:
            self._limit = None

    def survived(self) -> None:
        """A batch that was sent apart was answered."""
        self.window = min(_LARGEST_WINDOW, 2 * self.window)

    def died(
        self,
        in_flight: Sequence[Sent],
        now: float,
        *,
        server: str,
        reason: str,
        proven: bool,
        unreadable: int | None = None,
    ) -> dict[int, PoisonRequest]:
        """A connection ended with these requests unanswered; return the errors of those that are convicted, by index.

        Args:
            in_flight: what was sent and not answered.
            now: seconds.
            server: whose connection it was.
            reason: why it ended, in words.
            proven: the connection had answered something before the first of these was sent.
            unreadable: the index of the request whose reply could not be read; the others are not to blame.
        """
        if in_flight:
            self.window = max(1, len(in_flight) // 2)
        alone = unreadable is not None or (proven and len(in_flight) == 1)
        blamed = range(len(in_flight)) if unreadable is None else (unreadable,)
        convicted: dict[int, PoisonRequest] = {}
        for index in blamed:
            sent = in_flight[index]
            key = _key(sent.request)
            deaths, before = self._suspects.pop(key, _Suspect(0, 0))
            suspect = _Suspect(deaths + 1, before + 1 if alone else 0)
            expected = self._expected(key, sent)
            enough = expected or (suspect.alone >= ALONE and (unreadable is not None or suspect.deaths >= ENOUGH))
            if alone and enough:
                fits = unreadable is None and sent.size >= SMALLEST_LIMIT and sent.size > self.largest
                convicted[index] = self._convict(key, sent, suspect.deaths, now, server, reason, too_long=fits)
            else:
                self._suspects[key] = suspect
        while len(self._suspects) > _KEPT:
            self._suspects.popitem(last=False)
        return convicted

    def _convict(
        self, key: Hashable, sent: Sent, deaths: int, now: float, server: str, reason: str, *, too_long: bool
    ) -> PoisonRequest:
        opcode = sent.request.opcode
        count, operation = self._operations.get(opcode, (0, None))
        former = [each.term for each in (self._convicted.pop(key, None), self._limit, operation) if each is not None]
        term = min(LONGEST_TERM, 2 * max(former)) if former else FIRST_TERM
        error = PoisonRequest(
            _shown(sent.request),
            sent.size,
            server,
            connections=deaths,
            reason=reason,
            largest_answered=self.largest,
            limit=sent.size if too_long else None,
            retry_in=term,
        )
        conviction = _Conviction(sent.size, term, now + term, error)
        self._convicted[key] = conviction
        while len(self._convicted) > _KEPT:
            self._convicted.popitem(last=False)
        if too_long:
            self._limit = conviction
        else:
            self._operations[opcode] = (count + 1, conviction)
        return error


def _key(request: Any) -> Hashable:
    """What makes a request the same as one before, whatever data it carries."""
    names = getattr(request, "names", None)
    if names is not None:
        return request.opcode, request.path, tuple(names)
    operations = getattr(request, "ops", None)
    if operations is not None:
        return request.opcode, tuple((each.opcode, each.path) for each in operations)
    path = getattr(request, "path", None)
    if isinstance(path, str):
        return request.opcode, path
    # One of aiozk's transactions, or the restoring of watches, which is as long as there are watches.
    return request.opcode, type(request).__name__


_SHOWN_OPERATIONS = 3


def _shown(request: Any) -> str:
    operations = getattr(request, "ops", None)
    if operations is None:
        return str(getattr(request, "subject", type(request).__name__))
    parts = [each.subject for each in operations[:_SHOWN_OPERATIONS]]
    if len(operations) > _SHOWN_OPERATIONS:
        parts.append(f"{len(operations) - _SHOWN_OPERATIONS} more")
    return f"{type(request).__name__}({', '.join(parts)})"
