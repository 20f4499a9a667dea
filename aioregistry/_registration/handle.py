"""The handle of a registration: its status, and how to change it."""
# Longer than 450 lines: it is the class that users hold, and what they read of its methods is a quarter of the lines.

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar

import anyio

from aioregistry._arguments import UNSET, Unset, check_choice, check_flag, check_seconds
from aioregistry._document import encode
from aioregistry._errors import (
    InvalidArgument,
    InvalidType,
    RegistrationDisplaced,
    RequestTimeout,
    session_name,
)
from aioregistry._handles import Handle, finished
from aioregistry._health import Checks, CheckStatus, Runner, checked_checks
from aioregistry._model import Override, ServiceInstance, ServiceType
from aioregistry._paths import check_path, place_of
from aioregistry._protocol import OPEN_ACL
from aioregistry._session import outage_attempts
from aioregistry._spans import NO_SPAN, Span, begin
from aioregistry._streams import Source, Stream

from .lifecycle import LINES, Status, status
from .plan import Goal
from .publication import Publication, Votes
from .reach import check_reachable
from .transactions import target_of
from .votes import STATUS_OF, Voter
from .withdrawals import Withdrawals
from .worker import Worker

if TYPE_CHECKING:
    from aioregistry._session import SessionPort

__all__ = [
    "FollowOverrides",
    "OnConflict",
    "OnDisplaced",
    "Registration",
    "Status",
    "begin_withdrawal",
    "cause_of_end",
    "close_all",
    "has_ended",
    "vote",
]

P = TypeVar("P")
T = TypeVar("T")

OnConflict = Literal["takeover", "wait", "fail"]
OnDisplaced = Literal["stop", "standby"]
FollowOverrides: TypeAlias = Callable[[str, Callable[[Mapping[str, Override]], object]], Callable[[], None]]
"""Called with a service and a function for the overrides in force there; returns a function that ends it."""


_RUNNING_OUT: Final = frozenset({Status.LIVE, Status.UNCERTAIN})

_GOALS: Final[Mapping[str, Goal]] = MappingProxyType(
    {"takeover": Goal.LISTED, "wait": Goal.LISTED_IN_TURN, "fail": Goal.LISTED_IF_FREE}
)
_STANDBY: Final[Mapping[str, bool]] = MappingProxyType({"stop": False, "standby": True})

_STATUSES_KEPT = 64


class Registration(Handle, Generic[P]):
    """One instance, kept listed from entering until closing.

    Entering (``async with``, or ``await``) waits until the instance is listed, unless ``wait=False``. If the
    registration ends before that, entering raises the reason: :class:`RegistrationConflict`, :class:`NodeNotEphemeral`,
    :class:`RegistrationDisplaced` with ``on_displaced="stop"``, or :class:`RegistrationError` with the server's refusal
    as cause. If you cancel it, it withdraws the node that it may have written.

    Leaving withdraws, bounded by ``close_timeout`` and shielded from cancellation; ``withdrawn`` tells whether it
    succeeded. Otherwise the withdrawal goes on in the background for as long as the session lives. Leaving does not
    raise for a registration that was displaced or failed: :meth:`wait_closed` returns why.

    A registration that you do not close stays registered, even if you drop the handle, until you close the registry,
    which withdraws it.

    The rules are ZooKeeper's for ephemeral nodes; ``registration/plan.py`` says which claimant yields to which.

    Args:
        session: the session that owns the node.
        instance: what to list, of service type DYNAMIC. Its ``registration_time_ms`` is now, unless given; its
            ``session_timeout_ms`` is the timeout that the servers grant, and its ``status`` says why it is not enabled;
            yours are replaced.
        base_path: absolute path of the services; the node is ``<base_path>/<name>/<id>``.
        on_conflict: the reaction if another session holds the id at first: ``"takeover"`` replaces its node if that was
            created before this claim, ``"wait"`` waits until that session ends, and ``"fail"`` raises
            :class:`RegistrationConflict` (it cannot tell a live owner from the ghost of a process that crashed within
            its session timeout).
        on_displaced: the reaction if a newer claimant takes the id: ``"standby"`` waits until its node goes and then
            claims the id again; ``"stop"`` ends the registration.
        wait: whether entering waits until the instance is listed.
        close_timeout: seconds that closing may take; a third of the session timeout unless given.
        acl: the ACL of the node and of parents that have to be created; it must let this session read, write and
            delete. Unless given, everybody may do everything.
        chroot: a node above the services, or empty.
        create_chroot: whether the chroot is made where it is missing, as every other parent is.
        withdrawals: those of the session, shared by all its registrations.
        checks: the health checks of the instance, by name; each an async function or a :class:`Check`.
        follow_overrides: called with the service and a function that gets its overrides; returns a function that ends
            that.
        marked: whether a withdrawal may leave a trace beside the base path, which distinguishes it from an expiry.

    Raises:
        InvalidArgument: an argument is wrong, or no client can connect to the instance; names it and its value.
    """

    def __init__(
        self,
        session: SessionPort,
        instance: ServiceInstance[P],
        *,
        base_path: str,
        on_conflict: OnConflict = "takeover",
        on_displaced: OnDisplaced = "standby",
        wait: bool = True,
        close_timeout: float | None = None,
        acl: Sequence[Any] | None = None,
        chroot: str = "",
        create_chroot: bool = False,
        withdrawals: Withdrawals | None = None,
        marked: bool = True,
        checks: Checks | None = None,
        follow_overrides: FollowOverrides | None = None,
    ) -> None:
        if not isinstance(instance, ServiceInstance):
            raise InvalidType("instance", instance, "give a ServiceInstance")
        if instance.service_type is not ServiceType.DYNAMIC:
            raise InvalidArgument("service_type", instance.service_type.value, "only DYNAMIC instances are registered")
        check_reachable(instance)
        check_flag("wait", wait)
        if close_timeout is not None:
            check_seconds("close_timeout", close_timeout)
        first_goal = _GOALS[check_choice("on_conflict", on_conflict, _GOALS)]
        standby = _STANDBY[check_choice("on_displaced", on_displaced, _STANDBY)]
        checked = checked_checks({} if checks is None else checks)
        acl = OPEN_ACL if acl is None else tuple(acl)
        base_path, place = check_path("base_path", base_path or "/"), place_of(instance.name)
        target = target_of(base_path, place, instance.id, acl, chroot, create_chroot=create_chroot)
        if not marked:
            target = target._replace(marker=None)
        withdrawals = withdrawals or Withdrawals()
        health = Runner(
            checked,
            title=f"{instance.name}/{instance.id}",
            about=target.about,
            runtime=session.runtime,
            changed=self._health_changed,
        )
        self._publication = Publication(
            session, instance, target, passing=health.passing, repeated=withdrawals.repeated
        )
        self._session = session
        self._target = target
        self._first_goal = first_goal
        self._standby = standby
        self._wait = wait
        self._close_timeout = close_timeout
        self._withdrawals = withdrawals
        self._worker: Worker | None = None
        self._statuses: Source[Status] = Source()
        self._told = Status.REGISTERING
        self._told_at = session.runtime.monotonic()
        self._health = health
        self._follow_overrides = follow_overrides
        self._stop_following: Callable[[], None] | None = None
        self._listing = NO_SPAN
        """From entering until it is listed, or has ended before."""
        self._override: Override | None = None
        super().__init__()

    # ------------------------------------------------------------------ facts

    @property
    def instance(self) -> ServiceInstance[P]:
        """The instance as it is to be listed; the listed one may be older while an update is under way.

        It is ``enabled`` only if everybody agrees: its owner (:meth:`update`), its checks, and operators. Otherwise its
        ``status`` says why it is not.
        """
        return self._publication.instance

    @property
    def path(self) -> str:
        """The path of its node, chroot included."""
        return self._target.path

    @property
    def status(self) -> Status:
        """The present status; computed when read, since it changes with time alone."""
        worker, session = self._worker, self._session
        if worker is None:
            return Status.CLOSED if self._is_closed else Status.REGISTERING
        ownership = worker.ownership  # once: monitors ask from threads of their own
        owned = ownership is not None and ownership.owner == session.id
        return status(
            worker.progress.stage,
            cause=worker.progress.cause,
            displaced=worker.progress.displaced is not None,
            owned=owned,
            presumed_expired=owned and session.presumed_expired,
            seen_here=ownership is not None and session.connected and ownership.generation == session.generation,
        )

    @property
    def owner(self) -> int | None:
        """The id of the session that owns our node, as last seen; None if the node is not known to exist."""
        ownership = None if self._worker is None else self._worker.ownership
        return None if ownership is None else ownership.owner

    @property
    def displaced(self) -> RegistrationDisplaced | None:
        """Why the status is DISPLACED, with the session that has the id now; None while it is not."""
        return None if self._worker is None else self._worker.progress.displaced

    @property
    def checks(self) -> Mapping[str, CheckStatus]:
        """Each check by name: its state, since when, and why it failed last.

        They run from entering until closing, or until the registration ends by itself.
        """
        return self._health.statuses

    @property
    def override(self) -> Override | None:
        """The operator's override of this instance, as far as this registry has read it; None: there is no override.

        Maintenance (``enabled=False``) or a ``weight``, with ``reason``, ``by`` and ``until``. The last known one stays
        while there is no connection. An override for another incarnation does not count.
        """
        return self._override

    @property
    def _over(self) -> bool:
        """Whether it does not maintain its node any longer, except to withdraw it."""
        return self._is_closed if self._worker is None else self._worker.progress.leaving

    @property
    def withdrawn(self) -> bool | None:
        """Whether our node is gone; None until the registration is closed.

        It is True only after a look at the node, later than all requests, by a session that a quorum granted. An expiry
        alone does not prove it, because a leader that has lost its quorum may report one. It is False when
        ``close_timeout`` is over without that look. It turns True when the withdrawal, which goes on, is done; it stays
        False if the id is registered again in this registry, which takes the withdrawal over.
        """
        return None if self._worker is None else self._worker.withdrawn

    # ------------------------------------------------------------------ waiting

    async def wait_live(self, timeout: float | None = None) -> None:
        """Wait until the status is LIVE.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            RequestTimeout: the status was not LIVE within *timeout*; the registration goes on.
            RegistrationError: the registration ended; also HandleClosed or SessionClosed.
            UsageError: it was not entered.
        """
        worker = self._entered()
        if timeout is not None:
            check_seconds("timeout", timeout)
        with anyio.move_on_after(timeout):
            async with self.statuses() as statuses:
                async for status in statuses:
                    if status is Status.LIVE:
                        return
            raise worker.progress.ending()
        raise self._too_late(f"not LIVE within timeout={timeout} s, but {self.status.name}")

    async def wait_closed(self) -> Exception | None:
        """Wait until the registration has ended, and return the reason: an exception, which is not raised.

        A program that has several registrations can wait for all of them and look at each. Cancelling stops only the
        waiting: the registration goes on.

        Returns:
            None for a registration that was closed; else the exception that ended it, for you to raise:
            RegistrationConflict, RegistrationDisplaced, NodeNotEphemeral, another RegistrationError, or the exception
            that ended the session.

        Raises:
            UsageError: the registration was not entered.
        """
        worker = self._entered()
        await worker.progress.over()
        return worker.progress.cause

    def statuses(self) -> Stream[Status]:
        """Return a stream of statuses, the present one first; also of those that change by time alone.

        A slow consumer misses the oldest of more than 64. The stream ends when the registration is closed and
        raises why it was displaced for good or failed.
        """
        if self._worker is not None:
            self._check_loop()
            self._refresh()
        stream = _Statuses(self._told)
        self._statuses.attach(stream)
        return stream

    # ------------------------------------------------------------------ changing

    async def update(
        self, *, payload: P | Unset = UNSET, enabled: bool | Unset = UNSET, timeout: float | None = None
    ) -> None:
        """Replace the fields given, and wait until that, or a later update, is listed.

        Cancelling stops only the waiting: the registration still publishes the new state. While another claimant has
        the id, the call raises RegistrationDisplaced; the registration keeps the new state, and lists it when it has
        the id again.

        Args:
            payload: the new payload.
            enabled: False to drain: listed, but not to be given new work. True takes that back; the instance stays
                disabled while its checks fail, in maintenance, and after :meth:`drain`.
            timeout: seconds to wait; None waits for ever.

        Raises:
            InvalidArgument: a field is wrong, or too large (RequestTooLarge); nothing is changed.
            RequestTimeout: it was not listed within *timeout*; the registration goes on trying.
            RegistrationError: the registration ended; or a server refused the new state, and the registration goes on
                trying.
            HandleClosed: it is closed.
        """
        votes: Votes = {} if isinstance(enabled, Unset) else {"owner": check_flag("enabled", enabled)}
        await self._change(votes, timeout, **({} if payload is UNSET else {"payload": payload}))

    async def drain(self, timeout: float | None = None) -> None:
        """Publish that consumers should not give the instance new work, for good, and wait until that is listed.

        It stays disabled after a later :meth:`update`, and its ``status`` is ``"draining"``. Cancelling stops only the
        waiting: the registration still publishes it.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            RequestTimeout: it was not listed within *timeout*; the registration goes on trying.
            RegistrationError: the registration ended; or a server refused the write, and the registration goes on
                trying.
            HandleClosed: it is closed.
        """
        await self._change({"draining": False}, timeout)

    async def _change(self, votes: Votes, timeout: float | None, **fields: object) -> None:
        """Replace *fields*, count *votes*, and wait until that is listed."""
        worker = self._entered()
        if worker.progress.ended:
            raise worker.progress.ending()
        self._check()
        if timeout is not None:
            check_seconds("timeout", timeout)
        if self.checks:  # their results may not have been published, if the payload could not be written
            votes = {**votes, "health": self._health.passing}
        worker.publish(self._publication.change(votes, **fields))
        with anyio.move_on_after(timeout):
            await worker.published()
            return
        raise self._too_late(f"not listed as desired within timeout={timeout} s, but {self.status.name}")

    def _too_late(self, message: str) -> RequestTimeout:
        return RequestTimeout(f"{self.path}: {message}", outage_attempts(self._session))

    def _vote(self, voter: Voter, *, up: bool) -> None:
        """Let *voter* be for or against its being enabled from now on; a change is published soon.

        May be called before it is entered, and does nothing once it has ended.
        """
        check_choice("voter", voter, STATUS_OF)
        if not self._over:
            self._publish(self._publication.vote(voter, up=up))

    def _overridden(self, overrides: Mapping[str, Override]) -> None:
        """These overrides are in force for its service; it publishes them for readers that do not know overrides."""
        override = overrides.get(self.instance.id)
        self._override = override if override is not None and override.applies_to(self.instance) else None
        against = self._override is not None and self._override.enabled is False
        self._vote("maintenance", up=not against)

    def _unfollow(self) -> None:
        if self._stop_following is not None:
            self._stop_following()
            self._stop_following = None

    def _health_changed(self, name: str) -> None:
        check = self._health.statuses[name]
        self._session.emit(
            "health.check",
            path=self.path,
            check=name,
            probe=self._health.probe(name),
            state=check.state.value,
            reason=check.reason,
        )
        self._vote("health", up=self._health.passing)

    # ------------------------------------------------------------------ opening and closing

    async def _open(self) -> None:
        self._listing = _begun("register", self)
        self._worker = worker = Worker(
            self._session,
            self._target,
            encode(self.instance),
            first_goal=self._first_goal,
            standby=self._standby,
            changed=self._changed,
            withdrawals=self._withdrawals,
        )
        worker.start()
        self._health.start()
        if self._follow_overrides is not None:
            # Weakly: being told of overrides is not a reason for a registration to stay.
            method = weakref.WeakMethod(self._overridden)
            self._stop_following = self._follow_overrides(
                self.instance.name, lambda overrides: (told := method()) and told(overrides)
            )
        if not self._wait:
            return
        try:
            await worker.progress.listed()
        except BaseException as error:
            self._listing.end(error, server=self._session.server)
            await finished(asyncio.get_running_loop().create_task(self._close(), name=f"withdraw {self._title()}"))
            raise

    async def _close(self) -> None:
        timeout = self._session.timeout / 3 if self._close_timeout is None else self._close_timeout
        await close_all([self], self._withdrawals.patience(timeout, self._session))

    def _entered(self) -> Worker:
        if self._worker is None:
            self._check()
        self._check_loop()
        assert self._worker is not None
        return self._worker

    # ------------------------------------------------------------------ telling

    def _changed(self) -> None:
        """The worker or its session changed."""
        if self._worker is not None and self._worker.progress.ended:
            self._health.stop()
            self._unfollow()
        if self._worker is not None and not self._worker.progress.ended:
            self._publish(self._publication.grant())
        self._refresh()

    def _publish(self, data: bytes | None) -> None:
        """Let the node hold *data* from now on, if there is any; its first data is given when it is opened."""
        if data is not None and self._worker is not None:
            self._worker.publish(data)

    def _refresh(self) -> None:
        """Report a changed status to its followers; called after whatever may change it, time included."""
        status = self.status
        if status is not self._told:
            self._tell(status)
        if self._worker is not None and self._worker.progress.ended:
            self._statuses.close(self._worker.progress.cause)
            self._listing.end(self._worker.progress.cause, server=self._session.server)
        expiry = self._withdrawals.expiry(self._session)
        if status in _RUNNING_OUT:
            expiry.tell(self._refresh)
        else:
            expiry.forget(self._refresh)

    def _tell(self, status: Status) -> None:
        self._told, self._told_at = status, self._session.runtime.monotonic()
        if status is Status.LIVE:
            self._listing.end(server=self._session.server)
        about = {"status": status.value, **self._target.about}
        if status is not Status.CLOSED:  # then it is told whether it is withdrawn
            momentary = status is Status.UNCERTAIN and self._session.connected  # a look at its node is under way
            level = logging.DEBUG if momentary else logging.INFO
            kind = ("status", status.value, level)
            self._withdrawals.repeated.tell(kind, level, "%s", self._said(status), **about)
        self._session.emit("registration.status", path=self.path, status=status.value, owner=self.owner)
        self._statuses.offer(status)
        if status is Status.PRESUMED_GONE and self._worker is not None:
            self._worker.look()  # where only the quorum was silent, its answer tells that we are LIVE again

    def _said(self, status: Status) -> str:
        """Return the log's line about a *status*."""
        session, timeout = session_name(self.owner or self._session.id), self._session.timeout
        place = (self.instance.address, self.instance.port)
        said = {
            "where": ":".join(str(part) for part in place if part is not None) or "without an address",
            "session": session,
            "why": "after the reconnect the library has not checked its node in ZooKeeper yet"
            if self._session.connected
            else f"the connection was lost, and ZooKeeper keeps session {session} for up to {timeout:g} s without one",
            "timeout": timeout,
        }
        return f"{self.path} {LINES[status].format_map(said)}"

    def _tell_of_withdrawal(self, patience: float) -> None:
        late = f"was to be withdrawn, as the program asked, and was not within {patience:.3g} s: it may still be listed"
        line = "is withdrawn, as the program asked" if self.withdrawn else late
        about = {"status": Status.CLOSED.value, **self._target.about}
        self._withdrawals.repeated.tell(("withdrawn", self.withdrawn), logging.INFO, "%s %s", self.path, line, **about)

    def _title(self) -> str:
        return f"Registration {self.instance.name}/{self.instance.id}"

    def __repr__(self) -> str:
        status, owner = self.status, self.owner
        owned = "" if owner is None else f" owner={session_name(owner)}"
        if status is Status.DISPLACED and (displaced := self.displaced) is not None:
            owned = f" by session {session_name(displaced.owner)}" + ("" if self._over else ", standing by")
        # A status that has changed by time alone, and was not told yet, is new.
        since = self._session.runtime.monotonic() - self._told_at if status is self._told else 0.0
        return f"<{self._title()} {status.name}{owned} since {since:.1f}s>"


class _Statuses(Stream[Status]):
    def __init__(self, present: Status) -> None:
        super().__init__(_STATUSES_KEPT)
        self._offer(present)


# ---------------------------------------------------------------- for the rooms above, not for users


def cause_of_end(registration: Registration[Any]) -> Exception | None:
    """Return the exception that ended *registration*, which is over; None if it was closed."""
    return None if registration._worker is None else registration._worker.progress.cause


def has_ended(registration: Registration[Any]) -> bool:
    """Whether *registration* has stopped listing its instance for good."""
    return registration._over


def vote(registration: Registration[Any], voter: Voter, *, up: bool) -> None:
    """Let *voter* be for or against the instance's being enabled from now on; a change is published soon.

    May be called before *registration* is entered, and does nothing once it has ended.
    """
    registration._vote(voter, up=up)


def begin_withdrawal(registration: Registration[Any]) -> None:
    """Begin to withdraw as far as that is quick; closing is to follow."""
    registration._health.stop()
    if registration._worker is not None:
        registration._worker.leave()


async def close_all(registrations: Sequence[Registration[Any]], patience: float) -> None:
    """Withdraw and end *registrations*, all within *patience* seconds.

    Registrations that are not withdrawn by then are withdrawn in the background.
    """
    workers = [registration._worker for registration in registrations if registration._worker is not None]
    spans = [(_begun("withdraw", each), each) for each in registrations if each._worker is not None]
    for registration in registrations:
        registration._health.stop()
        registration._unfollow()
    for worker in workers:
        worker.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            for worker in workers:
                await worker.progress.left()
    for worker in workers:
        worker.end()
    for span, registration in spans:
        withdrawn = bool(registration.withdrawn)
        late = None if withdrawn else registration._too_late(f"not withdrawn within {patience:.3g} s")
        span.end(late, server=registration._session.server, withdrawn=withdrawn)
        registration._tell_of_withdrawal(patience)
    for registration in registrations:
        await registration._health.over()


def _begun(name: str, registration: Registration[Any]) -> Span:
    """Return a span about *registration*."""
    return begin(name, service=registration.instance.name, **{"instance.id": registration.instance.id})
