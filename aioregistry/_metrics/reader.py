"""Reads a registry from any thread, on the registry's own event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aioregistry import InvalidArgument, Registry, SessionState
from aioregistry._handles import is_open, loop_of
from aioregistry._registry import Parts, parts_of
from aioregistry._session import AttemptOutcome
from aioregistry._threads import Fronting, remote_of

from .durations import Durations
from .table import Counters, Labels, Sample

if TYPE_CHECKING:
    from aioregistry import Registration, View
    from aioregistry._discovery import Tallies
    from aioregistry._session import Session

__all__ = ["AnyRegistry", "RegistryReader"]

AnyRegistry: TypeAlias = Registry | Fronting
"""The results of the three kinds of ``connect``."""

PATIENCE: Final = 2.0
"""Seconds that a reader waits for the loop; Prometheus gives a scrape 10 unless set."""


class RegistryReader:
    """Reads one registry.

    Args:
        registry: a registry of any kind; entered or not.

    Raises:
        InvalidArgument: it is not a registry.
    """

    def __init__(self, registry: AnyRegistry) -> None:
        if not isinstance(registry, Registry | Fronting):
            raise InvalidArgument("registry", registry, "give a registry, as connect() returns it")
        self._given = registry
        self._counters, self._durations = Counters(), Durations()
        self._registry = self._listen_to(_remote_of(registry))

    def _listen_to(self, registry: Registry) -> Registry:
        parts = parts_of(registry)
        # Held by the session, for as long as that lives.
        parts.session.listen(self._counters.told)
        parts.session.time_answers(self._durations.note)
        parts.tallies.keep()
        return registry

    def read(self) -> list[Sample]:
        """Return the present values; where the loop does not answer, or is over, only that it is not up."""
        registry = _remote_of(self._given)
        if registry is not self._registry:  # a child process has opened its own
            self._registry = self._listen_to(registry)
        loop = loop_of(registry)
        if loop is None or loop.is_closed():
            return [_DOWN]
        if _running() is loop:
            return self._values()
        answer: concurrent.futures.Future[list[Sample]] = concurrent.futures.Future()

        def read() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(self._values())
                except Exception as error:  # noqa: BLE001 # the waiter gets it
                    answer.set_exception(error)

        try:
            loop.call_soon_threadsafe(read)
            return answer.result(PATIENCE)
        except (RuntimeError, TimeoutError, concurrent.futures.TimeoutError):  # the loop has ended, or stands still
            answer.cancel()
            return [_DOWN]

    def _values(self) -> list[Sample]:
        parts = parts_of(self._registry)
        session = parts.session
        return [
            Sample("aioregistry.up", (), 1.0),
            *(
                Sample("aioregistry.session.state", (each.value,), float(each is session.state))
                for each in SessionState
            ),
            Sample("aioregistry.session.timeout", (), session.timeout),
            *_evidence(session),
            *_attempts(session),
            *self._counters.samples(_begun(parts)),
            *self._durations.samples(),
            Sample("aioregistry.session.connections", (), float(session.generation)),
            *_registrations(parts.registrations),
            *_views(parts.views),
            *_tallies(parts.tallies),
        ]


def _begun(parts: Parts) -> Iterator[tuple[str, Labels]]:
    """All that can be counted from now on."""
    for view in filter(is_open, parts.views):
        for counter in ("syncs", "holds", "missed"):
            yield f"aioregistry.view.{counter}", (view.name,)
    for registration in parts.registrations:
        for check in registration.checks:
            yield "aioregistry.check.failures", (check,)


def _evidence(session: Session) -> Iterator[Sample]:
    age = session.evidence_age()
    if math.isfinite(age):
        yield Sample("aioregistry.session.evidence.age", (), age)


def _attempts(session: Session) -> Iterator[Sample]:
    outcomes = Counter(attempt.outcome for attempt in session.attempts.values())
    yield from (Sample("aioregistry.session.addresses", (each.value,), float(n)) for each, n in outcomes.items())
    ended = session.attempts_ended
    for outcome in AttemptOutcome:
        if outcome is not AttemptOutcome.PENDING:
            yield Sample("aioregistry.session.attempts", (outcome.value,), float(ended.get(outcome, 0)))


def _registrations(present: Iterable[Registration[Any]]) -> Iterator[Sample]:
    statuses = Counter((each.instance.name, each.status.value) for each in present)
    yield from (Sample("aioregistry.registrations", labels, float(n)) for labels, n in statuses.items())


def _views(present: Iterable[View[Any]]) -> Iterator[Sample]:
    # Views of one service differ by their guards and types only: the one that shows most stands for all.
    views = {view.name: view for view in sorted(filter(is_open, present), key=lambda view: len(view.snapshot))}
    for name, view in views.items():
        snapshot = view.snapshot
        suspects, invalid = len(snapshot.suspects), len(snapshot.invalid)
        yield Sample("aioregistry.instances", (name, "confirmed"), float(len(snapshot) - suspects))
        yield Sample("aioregistry.instances", (name, "suspect"), float(suspects))
        yield Sample("aioregistry.instances", (name, "invalid"), float(invalid))
        yield Sample("aioregistry.instances.enabled", (name,), float(sum(each.enabled for each in snapshot.values())))
        yield Sample("aioregistry.view.fresh", (name,), float(view.fresh))


def _tallies(tallies: Tallies) -> Iterator[Sample]:
    for service, tally in tallies.by_service().items():
        yield Sample("aioregistry.balancer.picks", (service,), float(tally.picks))
        yield Sample("aioregistry.balancer.failures", (service,), float(tally.failures))
        yield Sample("aioregistry.balancer.ejections", (service,), float(tally.ejections))
        yield Sample("aioregistry.balancer.panics", (service,), float(tally.panics))


_DOWN: Final = Sample("aioregistry.up", (), 0.0)


def _remote_of(registry: AnyRegistry) -> Registry:
    """Return the registry on the loop that it is used on."""
    return registry if isinstance(registry, Registry) else remote_of(registry)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
