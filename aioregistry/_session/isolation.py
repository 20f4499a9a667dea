"""Which requests cost the connection, found by those in flight whenever one died. Pure: clocks come in as arguments.

A server that cannot take a request hangs up: it is longer than its ``jute.maxbuffer``, or of an operation that the
server gets wrong. So does a client that cannot read the reply. A client that repeats such a request after the next
connect costs the session that connection too, and everybody else on it.

The server does not say which request it was, and most connections die of something else. So requests are suspected by
what they have in common with dead connections, and cleared by any answer:

- one that was in flight at :data:`TOGETHER` deaths in a row is sent apart: nothing else is in flight with it. Where
  there are many, they go in batches, halved at each death and doubled at each answer, so that thousands of innocent
  ones are cleared in a few round trips;
- one that was in flight at :data:`ENOUGH` deaths in a row, alone at the last :data:`ALONE` of them, on connections that
  had answered something else before, is convicted: it fails with :class:`~aioregistry._errors.PoisonRequest`. The
  same, or a longer one, fails without being sent to that server until :data:`FIRST_TERM` seconds have passed, doubled
  each time up to :data:`LONGEST_TERM`; a shorter one is tried, apart;
- a reply that cannot be read tells by itself which request it was; :data:`ALONE` of them are enough;
- one whose answer was lost, and whose effect is found afterwards, was taken by a server: that clears it as an answer
  does, and a conviction with it. Else several updates in a row, each of them done and its answer lost, would look like
  one request that no server can take.

One conviction is evidence for others: requests as long as the convicted one, where that was longer than any
that was answered, and requests of its operation, if the server answered no other since, are sent apart from the first
time on and convicted by one death. Thus the server's limit need not be found out by every request again.

Servers differ: one has a larger limit, another version, or is well. So a conviction forbids nothing but its own server.
Elsewhere it is a reason to send the request apart, until one like it is answered there or anywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

from aioregistry._errors import PoisonRequest

__all__ = [
    "ALONE",
    "ENOUGH",
    "FIRST_TERM",
    "LONGEST_TERM",
    "REPLACED",
    "SMALLEST_LIMIT",
    "TOGETHER",
    "Isolation",
    "Sent",
]

TOGETHER: Final = 2
"""Deaths in a row with the request in flight, among others, before it is sent apart."""

ALONE: Final = 2
"""Deaths in a row with nothing else in flight, or known by their replies, before it is convicted."""

ENOUGH: Final = 3
"""Deaths in a row, of any kind, before it is convicted without a reply that proves it."""

FIRST_TERM: Final = 2.0
"""Seconds that a convicted request is not sent to its server again; after that, the server's fault may be over."""

LONGEST_TERM: Final = 30.0
"""Seconds that a term has at most: each trial costs the session a connection, and an administrator who raises a limit
does not want to wait."""

SMALLEST_LIMIT: Final = 4096
"""Bytes: no server works with a jute.maxbuffer below this, so shorter requests say nothing of it."""

REPLACED: Final = 600.0
"""Seconds more that an operation is not tried in whose place another is sent: it is not missed."""

_SAME_OPERATION: Final = 3
"""Convicted requests of one operation, with no answer to any since, before the operation itself is."""

_KEPT: Final = 1024
"""Suspects and convicted ones kept, the latest."""

_SERVERS_KEPT: Final = 64
"""The latest servers that are known to refuse requests; addresses move."""

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


class _Record:
    """A convicted request, of which nothing alike was answered since."""

    def __init__(self) -> None:
        self.largest = 0
        """Bytes of the largest request that was ever answered."""
        self.convicted: OrderedDict[Hashable, _Conviction] = OrderedDict()
        self.limit: _Conviction | None = None
        self.operations: dict[int, tuple[int, _Conviction]] = {}

    def __bool__(self) -> bool:
        return bool(self.convicted or self.limit or self.operations)

    def standing(self, key: Hashable, sent: Sent, now: float) -> _Conviction | None:
        """Return the conviction by which the request is not to be sent at *now*."""
        convicted = self.convicted.get(key)
        count, operation = self.operations.get(sent.request.opcode, (0, None))
        for conviction, holds in (
            (convicted, convicted is not None and sent.size >= convicted.size),
            (self.limit, self.limit is not None and sent.size >= self.limit.size),
            (operation, count >= _SAME_OPERATION),
        ):
            if holds and conviction is not None and now < conviction.until:
                return conviction
        return None

    def speaks_against(self, key: Hashable, sent: Sent) -> bool:
        """Whether a conviction speaks against the request, be its term over or not."""
        return (
            key in self.convicted
            or sent.request.opcode in self.operations
            or (self.limit is not None and sent.size >= self.limit.size)
        )

    def former_terms(self, key: Hashable, opcode: int) -> list[float]:
        _, operation = self.operations.get(opcode, (0, None))
        return [each.term for each in (self.convicted.get(key), self.limit, operation) if each is not None]

    def add(self, key: Hashable, opcode: int, conviction: _Conviction) -> None:
        self.convicted.pop(key, None)
        self.convicted[key] = conviction
        while len(self.convicted) > _KEPT:
            self.convicted.popitem(last=False)
        if conviction.error.limit is not None:
            self.limit = conviction
        else:
            count, _ = self.operations.get(opcode, (0, None))
            self.operations[opcode] = (count + 1, conviction)

    def acquit(self, key: Hashable) -> None:
        conviction = self.convicted.pop(key, None)
        if conviction is None:
            return
        if self.limit is conviction:
            self.limit = None
        for opcode, (_, operation) in tuple(self.operations.items()):
            if operation is conviction:
                del self.operations[opcode]

    def answered(self, key: Hashable, sent: Sent) -> None:
        self.largest = max(self.largest, sent.size)
        self.operations.pop(sent.request.opcode, None)
        convicted = self.convicted.get(key)
        if convicted is not None and sent.size >= convicted.size:
            del self.convicted[key]
        if self.limit is not None and sent.size >= self.limit.size:
            self.limit = None


class Isolation:
    """One session's knowledge of such requests, on all its connections.

    Attributes:
        window: how many suspects may be in flight together.
    """

    def __init__(self) -> None:
        self.window = _LARGEST_WINDOW
        self._suspects: OrderedDict[Hashable, _Suspect] = OrderedDict()
        self._anywhere = _Record()
        self._servers: OrderedDict[str, _Record] = OrderedDict()

    @property
    def suspects(self) -> bool:
        """Whether an answer can clear anything."""
        return bool(self._suspects or self._anywhere or any(self._servers.values()))

    def limit(self, server: str) -> int | None:
        """Return the fewest bytes that were too many for the server, as it seems; None where nothing says so."""
        limits = [each.limit.size for each in (self._anywhere, self._of(server)) if each.limit is not None]
        return min(limits, default=None)

    def has_convicted(self, opcode: int, server: str) -> bool:
        """Return whether an operation was convicted, and no request of it was answered since."""
        return opcode in self._anywhere.operations or opcode in self._of(server).operations

    def excludes(self, opcode: int, server: str, now: float) -> bool:
        """Return whether another operation is to take the place of one at *now*, because that was convicted there."""
        _, conviction = self._of(server).operations.get(opcode, (0, None))
        return conviction is not None and now < conviction.until + REPLACED

    def apart(self, sent: Sent, server: str, now: float) -> bool:
        """Return whether the request is to be sent apart from others; raises PoisonRequest where it is not to be sent.

        *now* is in seconds, of the clock that :meth:`died` is given.
        """
        key = _key(sent.request)
        conviction = self._of(server).standing(key, sent, now)
        if conviction is not None:
            raise conviction.error.unsent(_shown(sent.request), sent.size, conviction.until - now)
        suspect = self._suspects.get(key)
        return (suspect is not None and suspect.deaths >= TOGETHER) or self._expected(key, sent, server)

    def _expected(self, key: Hashable, sent: Sent, server: str) -> bool:
        return self._anywhere.speaks_against(key, sent) or self._of(server).speaks_against(key, sent)

    def _of(self, server: str) -> _Record:
        record = self._servers.get(server)
        if record is None:
            record = self._servers[server] = _Record()
            if len(self._servers) > _SERVERS_KEPT:
                self._servers.popitem(last=False)
        return record

    def answered(self, sent: Sent, server: str) -> None:
        """The server answered, by whatever, and the answer could be read."""
        key = _key(sent.request)
        self._suspects.pop(key, None)
        self._anywhere.answered(key, sent)
        self._of(server).answered(key, sent)

    def fits(self, size: int, server: str) -> None:
        """The server answered a request of so many bytes; to be called instead of :meth:`answered` without suspects."""
        record = self._of(server)
        record.largest = max(record.largest, size)

    def executed(self, request: Any) -> None:
        """The request was found done, though its answer was lost."""
        key = _key(request)
        self._suspects.pop(key, None)
        for record in (self._anywhere, *self._servers.values()):
            record.acquit(key)

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
            in_flight: the requests that were sent and not answered.
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
            expected = self._expected(key, sent, server)
            enough = expected or (suspect.alone >= ALONE and (unreadable is not None or suspect.deaths >= ENOUGH))
            if alone and enough:
                fits = unreadable is None and sent.size >= SMALLEST_LIMIT and sent.size > self._of(server).largest
                convicted[index] = self._convict(key, sent, suspect.deaths, now, server, reason, too_long=fits)
            else:
                self._suspects[key] = suspect
        while len(self._suspects) > _KEPT:
            self._suspects.popitem(last=False)
        return convicted

    def _convict(
        self, key: Hashable, sent: Sent, deaths: int, now: float, server: str, reason: str, *, too_long: bool
    ) -> PoisonRequest:
        record, opcode = self._of(server), sent.request.opcode
        former = record.former_terms(key, opcode)
        term = min(LONGEST_TERM, 2 * max(former)) if former else FIRST_TERM
        error = PoisonRequest(
            _shown(sent.request),
            sent.size,
            server,
            connections=deaths,
            reason=reason,
            largest_answered=record.largest,
            limit=sent.size if too_long else None,
            retry_in=term,
        )
        conviction = _Conviction(sent.size, term, now + term, error)
        for each in (record, self._anywhere):
            each.add(key, opcode, conviction)
        return error


def _key(request: Any) -> Hashable:
    """The identity of a request, whatever data it carries: two with the same one are alike."""
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
