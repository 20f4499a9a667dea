"""The suspects of a view: the guard with a clock, a timer, a log and the hook."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from aioregistry._incident_log import IncidentLog
from aioregistry._model import Difference, Entry, Removed
from aioregistry._session import Session

from .guard import Guard, Moment, Suspects, Verdict
from .mirror import Mirror, News

if TYPE_CHECKING:
    from .view import View

__all__ = ["Custody"]

log = logging.getLogger("aioregistry.discovery")

P = TypeVar("P")

_SHORTEST_WAIT: Final = 0.001  # seconds; the loop's clock may run a little ahead of the runtime's
_NAMED_IN_LOG: Final = 10


class Custody(Generic[P]):
    """Holds back, for one view, the removals that its guard does not believe; each method returns what is to be shown.

    Args:
        view: whose; held weakly, because a timer is no reason for a view to stay.
        guard: the options.
        session: for clocks and the hook.
        mirror: what the server holds.
        as_of: the zxid of what the view shows at first.

    Attributes:
        total: how many were ever held.
    """

    def __init__(self, view: View[P], guard: Guard, session: Session, mirror: Mirror, as_of: int) -> None:
        self.total = 0
        self._view = weakref.ref(view)
        self._name = view.name
        self._session = session
        self._mirror = mirror
        self._suspects: Suspects[P] = Suspects(guard, as_of, view.subsets)
        self._repeated = IncidentLog(log)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None

    def __len__(self) -> int:
        return len(self._suspects)

    @property
    def entries(self) -> Mapping[str, Entry[P]]:
        """The suspects, by id."""
        return self._suspects.entries

    def take(
        self, changes: tuple[Difference[P], ...], news: News, *, listed: int, misfits: Collection[str]
    ) -> tuple[Difference[P], ...]:
        """The mirror's *news*, whose *changes* were converted; *listed* are there, *misfits* could not be converted."""
        suspects, zxid = self._suspects, self._mirror.as_of
        if not news.resynced and not suspects.concerned(changes, zxid):
            return changes
        at, invalid = self._moment(), self._mirror.invalid
        verdict = suspects.take(
            changes, listed=listed, zxid=zxid, at=at, gone=lambda id: id not in invalid and id not in misfits
        )
        shapeless = [node.id for node in news.invalid] + [change.id for change in news.changes if change.id in misfits]
        replaced = suspects.invalid(shapeless, zxid)
        moved = suspects.resumed(zxid, at) if news.resynced else None
        return self._noted(verdict, replaced) if moved is None else self._noted(verdict, replaced, moved)

    def missed(self, entries: Iterable[Entry[P]], *, listed: int) -> None:
        """These were known before anything was shown, and are not listed: they went around a disruption."""
        suspects, zxid, at = self._suspects, self._mirror.as_of, self._moment()
        suspects.interrupted(at.now)
        removals = [Removed(entry, zxid) for entry in entries]
        verdict = suspects.take(removals, listed=listed, zxid=zxid, at=at, gone=lambda _: True)
        self._noted(verdict, suspects.resumed(zxid, at))

    def freshness_changed(self, fresh: bool) -> tuple[Difference[P], ...]:
        """The view is *fresh*, or is not any more."""
        at = self._moment()
        if fresh:
            return self._noted(self._suspects.resumed(self._mirror.as_of, at))
        self._suspects.interrupted(at.now)
        return self._noted()

    def departed(self, id: str, czxid: int, *, listed: bool) -> tuple[Difference[P], ...]:
        """The node of *id* that was created by *czxid* is withdrawn."""
        return self._noted(self._suspects.withdrawn(id, czxid, self._mirror.as_of, listed=listed))

    def refused(self, id: str, since: float) -> tuple[Difference[P], ...]:
        """*id* refused the connection of a call that began at *since*."""
        now = self._session.runtime.monotonic()
        return self._noted(self._suspects.refused(id, self._mirror.as_of, since=since, now=now))

    def answered(self, id: str) -> None:
        """A call to *id* was good."""
        self._suspects.answered(id, self._session.runtime.monotonic())

    def due(self) -> tuple[Difference[P], ...]:
        """The timer has fired."""
        self._timer = self._timer_at = None
        return self._noted(self._suspects.due(self._mirror.as_of, self._session.runtime.monotonic()))

    def close(self) -> None:
        """Nothing more comes."""
        self._suspects.wake = None
        self._set_timer()
        self._repeated.close()

    # ------------------------------------------------------------------ the outside

    def _moment(self) -> Moment:
        runtime = self._session.runtime
        return Moment(runtime.monotonic(), runtime.wall())

    def _noted(self, *verdicts: Verdict[P]) -> tuple[Difference[P], ...]:
        for verdict in verdicts:
            self._tell(verdict)
        self._set_timer()
        return tuple(chain.from_iterable(verdict.changes for verdict in verdicts))

    def _tell(self, verdict: Verdict[P]) -> None:
        held, released = verdict.held, verdict.released
        self.total += len(held)
        if held:
            reason = _reason(held[0])
            named = _named([entry.instance.id for entry in held])
            self._repeated.tell(
                ("held", reason), logging.WARNING, "%s: %d held back, for %s: %s", self._name, len(held), reason, named
            )
        for entry in held:
            self._session.emit("discovery.held", service=self._name, id=entry.instance.id, reason=_reason(entry))
        for why in dict.fromkeys(release.why for release in released):
            ids = [release.id for release in released if release.why == why]
            self._repeated.tell(
                ("released", why),
                logging.INFO,
                "%s: %d suspect no more, %s: %s",
                self._name,
                len(ids),
                why,
                _named(ids),
            )
        for release in released:
            self._session.emit("discovery.released", service=self._name, id=release.id, why=release.why)

    def _set_timer(self) -> None:
        wake = self._suspects.wake
        if wake == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = wake
        if wake is not None:
            wait = max(wake - self._session.runtime.monotonic(), _SHORTEST_WAIT)
            self._timer = asyncio.get_running_loop().call_later(wait, _wake, self._view)


def _wake(reference: weakref.ref[View[P]]) -> None:
    view = reference()
    if view is not None:
        view._holds_are_over()


def _reason(entry: Entry[P]) -> str:
    assert entry.suspicion is not None
    return entry.suspicion.reason


def _named(ids: list[str]) -> str:
    more = len(ids) - _NAMED_IN_LOG
    return ", ".join(ids[:_NAMED_IN_LOG]) + (f" and {more} more" if more > 0 else "")
