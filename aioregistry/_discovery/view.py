"""Views of services, as users see them.

A view's driver (:mod:`.view_driver`) follows the service, and has the snapshot and the streams.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar, overload

import anyio

from aioregistry._arguments import check_flag, check_optional, check_seconds
from aioregistry._errors import InvalidType, RequestTimeout
from aioregistry._handles import Handle
from aioregistry._model import Change, Invalidated, Snapshot, check_payload_type
from aioregistry._paths import check_name
from aioregistry._session import outage_attempts
from aioregistry._spans import begin
from aioregistry._streams import Stream

from .balancer import PANIC, Balancer
from .balancer_driver import BalancerDriver
from .guard_options import Guard
from .subscriptions import Changes
from .view_driver import Followers, ViewDriver
from .waiting import first_accepted

if TYPE_CHECKING:
    from aioregistry.balancing import Ejection, Filter, OfSuspects
    from aioregistry.balancing import Strategy as Balancing

    from .keeper import Keeper
    from .kept import Kept

__all__ = ["KeptAt", "Mirrors", "View", "driver_of"]

P = TypeVar("P")

KeptAt: TypeAlias = str | os.PathLike[str]
"""Where a file is."""


class Mirrors(Followers, Protocol):
    """The part of a discovery that its views need."""

    def keeper(self, keep: KeptAt, view: View[Any], state: weakref.WeakMethod[Callable[[], Kept | None]]) -> Keeper:
        """Return who keeps the states of *view* in a file."""


class View(Handle, Generic[P]):
    """The instances of one service, followed from entering until closing.

    Entering (``async with``, or ``await``) waits until everything was read once. While there is no connection, the last
    known instances stay, ``fresh`` is False, and ``snapshot.stale_since`` is set; after a reconnect the view reads
    everything again, and shows the differences at once.

    Nodes that are not instances, or whose payload does not fit *payload_type*, are listed in ``snapshot.invalid`` with
    the reason, and logged; others are not affected. A service whose node is missing is an empty one.

    With a guard, instances that go together unexplained stay for a while as suspects (``snapshot.suspects``).

    With a file, the view keeps its last snapshot there. Without a connection, entering does not wait for one if the
    file has instances: the view shows them as suspects, for the reason ``"file"``, until everything was read. If the
    first list lacks some of them, the guard judges these as removals around a disruption.

    Args:
        mirrors: the mirrors of the session.
        name: the service; a path segment, or several with slashes between.
        payload_type: the type of payloads, any type to which msgspec converts JSON; frozen JSON unless given.
        guard: decides which removals are held back; with None every removal is believed at once.
        keep: path of the file, in a directory that exists and may be written to; None keeps no file.

    Raises:
        InvalidArgument: an argument is wrong; names it and its value.

    Entering raises :class:`InvalidArgument` for a whole file of another service, base path or version, :class:`NoAuth`
    if you may not list the service, :class:`UnsupportedServer` if you demand recursive watches of a server without
    them, or the exception that ended the session. Cancelling it leaves nothing behind.
    """

    def __init__(
        self,
        mirrors: Mirrors,
        name: str,
        *,
        payload_type: Any = Any,
        guard: Guard | None = None,
        keep: KeptAt | None = None,
    ) -> None:
        self.name: str = check_name("name", name)
        check_optional("guard", guard, Guard)
        keeping = None if keep is None else partial(mirrors.keeper, keep, self)
        self._driver: ViewDriver[P] = ViewDriver(mirrors, name, check_payload_type(payload_type), guard, keeping)
        super().__init__()

    # ------------------------------------------------------------------ what it offers

    @property
    def snapshot(self) -> Snapshot[P]:
        """The present snapshot; a new one is made when you ask for it after a change, in time linear in the service."""
        self._check()
        return self._current()

    @property
    def fresh(self) -> bool:
        """Whether the snapshot is true now, as far as a client can know.

        True if everything was read on the present connection and the quorum has answered within the session timeout.
        Computed when read, on a clock that counts system sleep.
        """
        self._check()
        return self._driver.fresh

    @property
    def held_total(self) -> int:
        """How many removals this view's guard has held back so far."""
        return self._driver.held_total

    def report_failed(self, id: str, error: BaseException | None = None) -> bool:
        """Report that a call to the instance *id* failed; return whether that dropped it.

        A suspect is dropped when it refused the connections of two calls, one after the other, while another instance
        answered (as the picks of a balancer report): then no process listens there. All are dropped when each of them
        refused two calls and no instance answered for five seconds. Other failures do not drop a suspect, because the
        caller's own network may be the cause.
        The picks of a balancer report by themselves.

        Args:
            id: of the instance that was called.
            error: the exception that ended the call; a refused connection counts, as this or as one of its causes.

        Raises:
            InvalidArgument: an argument is of the wrong type.
        """
        self._check()
        if not isinstance(id, str):
            raise InvalidType("id", id, f"must be str, not {type(id).__name__}")
        if error is not None and not isinstance(error, BaseException):
            raise InvalidType("error", error, "must be an exception, or None")
        return self._driver.report_failed(id, error)

    def snapshots(self) -> Stream[Snapshot[P]]:
        """Return a stream of snapshots: the present one first, then one after each change and each flip of ``fresh``.

        Latest wins: a slow consumer skips the snapshots between. The stream ends when the view is closed, and raises
        the exception that ended the session.
        """
        self._check()
        return self._driver.snapshot_streams.open(self._current)

    @overload
    def changes(self) -> Changes[P]: ...
    @overload
    def changes(self, *, invalid: bool) -> Stream[Change[P] | Invalidated]: ...
    def changes(self, *, invalid: bool = False) -> Any:
        """Return a stream of the changes after its ``start``, a snapshot; applied to one snapshot they give the next.

        A takeover is at most one Updated. After a reconnect comes one :class:`Resynced` with the true differences. A
        consumer that lags by more than 1024 changes gets one, too, instead of those changes. The stream ends when the
        view is closed, and raises the exception that ended the session.

        Args:
            invalid: whether an :class:`Invalidated` comes, too, for each node that stops showing an instance, or does
                not show one for another reason than before. A :class:`Resynced` has them in its snapshot.
        """
        self._check()
        check_flag("invalid", invalid)
        return self._driver.change_streams.open(self._current, invalid=invalid)

    def balancer(
        self,
        strategy: Balancing[P] | str = "round-robin",
        *,
        where: Filter[P] | None = None,
        ejection: Ejection | None = None,
        suspects: OfSuspects = "last",
        panic: float = PANIC,
    ) -> Balancer[P]:
        """Return a balancer for the instances of this view, from now on and as they change, until it is closed.

        Args:
            strategy: how to choose; one that needs no argument may be given by name: ``"round-robin"``, ``"random"``,
                ``"least-outstanding"``.
            where: a filter for the enabled instances (in a panic, for the failing ones, too): a mapping of payload
                fields to a value or a set of allowed values, or a function of the instance that returns a bool.
            ejection: when instances that fail are set aside; never unless given.
            suspects: how suspects are picked: ``"last"``, when no other instance is left or too few are confirmed,
                ``"never"``, or ``"equal"`` to all others.
            panic: share of the instances, and of their weight, from 0 (never) to 1: Envoy's panic threshold, and its
                default. A panic begins when the instances that are well are fewer than that share by more than a
                sixteenth of all instances (rounded down), or have less of the weight by more than a sixteenth; it ends
                when that share is well. In a panic, instances whose own checks fail (status ``"failing"``) are picked
                like all others, and so are suspects, so that the few do not get every call. A suspect gets half a share
                until it answers a call, unless the strategy takes a key; suspects take part once a caller reports how
                calls go, as ``with`` blocks of picks do. An instance in maintenance, draining or disabled by its owner
                is never picked.

        Raises:
            InvalidArgument: an argument is wrong, or does not fit any of the instances that are there (no payload has
                the field of the weight, say).
        """
        self._check()
        balancer = BalancerDriver(
            self._driver,
            self._driver.session,
            strategy,
            check=self._check,
            where=where,
            ejection=ejection,
            suspects=suspects,
            panic=panic,
        )
        self._driver.feed(balancer)
        return Balancer(balancer)

    async def wait_for(self, predicate: Callable[[Snapshot[P]], bool], timeout: float | None = None) -> Snapshot[P]:
        """Return the first snapshot that *predicate* accepts, the present one included, fresh or not.

        Args:
            predicate: called with the present snapshot and after changes. An exception that it raises is raised here,
                except CancelledError and StopIteration, which would be mistaken for something else: UsageError takes
                their place.
            timeout: seconds; None waits for as long as it takes.

        Raises:
            InvalidArgument: *predicate* cannot be called (InvalidType), or *timeout* is not a time to wait for.
            RequestTimeout: no snapshot was accepted in time.
            HandleClosed: the view was closed meanwhile.
        """
        self._check()
        return await first_accepted(self.name, self.snapshots, predicate, timeout, self._outage_attempts)

    async def sync(self, timeout: float | None = None) -> Snapshot[P]:
        """Return a snapshot as new as the quorum was when this was called.

        It sends a write that must fail through the quorum, which changes nothing and needs no rights, and then reads
        everything again, because a server may hide the events of nodes that this client may not read. That takes two
        round trips, one transaction of the quorum, and time linear in the service; callers that wait at the same time
        share it. The overrides of operators are as new. Without a connection the call waits for one. A server without
        quorum (``allow_read_only``) does not pass writes on: then the snapshot has the data of that server, ``fresh``
        is False, and a warning says so. Cancelling is harmless.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: the quorum has not answered in time.
            NoAuth: you may no longer list the service.
        """
        self._check()
        if timeout is not None:
            check_seconds("timeout", timeout)
        with anyio.move_on_after(timeout):
            await self._driver.sync()
            return self._current()
        message = f"the quorum did not answer for {self.name!r} within timeout={timeout:g} s"
        raise RequestTimeout(message, self._outage_attempts())

    def _outage_attempts(self) -> Mapping[str, str]:
        return outage_attempts(self._driver.session)

    # ------------------------------------------------------------------ opening and closing

    async def _open(self) -> None:
        span, session = begin("sync", service=self.name), self._driver.session
        try:
            instances = await self._driver.open()
        except BaseException as error:
            span.end(error, server=session.server)
            raise
        span.end(server=session.server, instances=instances)

    async def _close(self) -> None:
        await self._driver.close()

    def _current(self) -> Snapshot[P]:
        """The present snapshot; a stream holds the view by this method, and needs no other reference to it."""
        return self._driver.snapshot

    def _title(self) -> str:
        return f"View of {self.name!r}"

    def __repr__(self) -> str:
        return repr(self._driver)


def driver_of(view: View[P]) -> ViewDriver[P]:
    """Return the driver of *view*, which carries news to it and feeds its balancers."""
    return view._driver
