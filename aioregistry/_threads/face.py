"""The registry's face on the caller's loop, while all of it runs on a loop of its own: ``connect(thread=True)``."""
# Longer than 450 lines: these are classes that users hold, and what they read of their methods is a third of the lines.

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

from aioregistry._discovery.balancer import Balancer
from aioregistry._discovery.waiting import first_accepted
from aioregistry._errors import HandleClosed, UsageError
from aioregistry._handles import Handle, discard, finished, is_open
from aioregistry._health.loop_lag import LoopLagCheck
from aioregistry._registration import cause_of_end
from aioregistry._registry import parts_of
from aioregistry._session import outage_attempts
from aioregistry._streams import Stream

from .balancer import shared
from .facts import Newest, RegistrationFacts, SessionFacts, ViewFacts
from .loop import LoopThread
from .maintenance import ThreadOverrides
from .streams import ThreadStream

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from aioregistry._discovery import View
    from aioregistry._model import Change, Invalidated, ServiceInstance, Snapshot
    from aioregistry._options import BalancerOptions, DiscoverOptions, RegisterOptions
    from aioregistry._registration import Registration, Status
    from aioregistry._registry import Registry
    from aioregistry._session import SessionState
    from aioregistry.balancing import Strategy

__all__ = [
    "Fronting",
    "ThreadChanges",
    "ThreadRegistration",
    "ThreadRegistry",
    "ThreadSession",
    "ThreadView",
    "remote_of",
]

P = TypeVar("P")
T = TypeVar("T")
H = TypeVar("H", bound=Handle)


class Fronting:
    """The face of a registry on a loop of its own.

    A blocking one makes another in a child process, once it is opened there.
    """

    _remote: Registry


def remote_of(front: Fronting) -> Registry:
    """Return the registry on the loop of its own."""
    return front._remote


class ThreadSession(SessionFacts):
    """The session of a registry on a thread of its own."""

    def states(self) -> Stream[SessionState]:
        """Return a stream of the states from the next one on; a slow consumer misses the oldest of more than 64.

        It ends when the session is closed, and raises the exception that ended the session.
        """
        return ThreadStream(self._thread, self._thread.call(self._remote.states))


class _Face(Handle, Generic[H]):
    """A handle here for one on the registry's loop: entered and closed together."""

    def __init__(self, registry: ThreadRegistry, thread: LoopThread, remote: H) -> None:
        self._registry, self._thread, self._remote = registry, thread, remote
        super().__init__()

    async def aclose(self) -> None:
        """Close it; the registry closes it, too, when it is closed itself.

        A registration is withdrawn, within ``close_timeout``. Closing runs to its end when the caller is cancelled; the
        cancellation is then raised. It may be called again, and by several tasks, which all wait for the one closing.

        Raises:
            UsageError: another loop calls it, or a task is entering the handle: cancel that task instead.
        """
        discard(self._remote)
        await super().aclose()

    async def _open(self) -> None:
        await _open(self._thread, self._remote)
        self._registry._opened_faces.add(self)

    async def _close(self) -> None:
        await self._thread.run(self._remote.aclose)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._remote!r}>"

    def __del__(self) -> None:
        if self._made:
            discard(self._remote)
        super().__del__()


class ThreadRegistry(Handle, Fronting):
    """A :class:`Registry` on an event loop in a daemon thread of its own; made by ``connect(thread=True)``.

    Session, registrations and views live there, so that a caller that blocks this loop loses nothing of them. Streams,
    handles, cancellation and closing reach across. Properties are read there, which takes some 0.1 ms; snapshots and
    picks are taken here.

    Args:
        registry: not entered yet.
        lag_check: whether registrations have a check of the caller's loop.
    """

    def __init__(self, registry: Registry, *, lag_check: bool) -> None:
        self._remote = registry
        self._lag_check = lag_check
        self._thread: LoopThread | None = None
        self._opened_faces: weakref.WeakSet[_Face[Any]] = weakref.WeakSet()
        self._entered: set[ThreadRegistration[Any]] = set()
        """An instance stays registered until its handle is closed, also where its handle was dropped."""
        super().__init__()

    @property
    def session(self) -> ThreadSession:
        """The session, with ``state``, ``states()``, ``connected``, ``server``, ``attempts`` and ``id``."""
        return ThreadSession(self._thread or self._running(), self._remote.session)

    @property
    def base_path(self) -> str:
        """The path under which the services are, the chroot included."""
        return self._remote.base_path

    @property
    def overrides(self) -> ThreadOverrides:
        """The overrides of operators: maintenance of any instance, and weights."""
        return ThreadOverrides(self._running, lambda: self._remote.overrides)

    @property
    def client(self) -> NoReturn:
        """Raises :class:`UsageError`: aiozk's client belongs to the registry's own loop, and cannot be used here."""
        raise UsageError("registry.client belongs to the registry's own loop: connect without thread=True to use it")

    def register(self, instance: ServiceInstance[P], **options: Unpack[RegisterOptions]) -> ThreadRegistration[P]:
        """Return a registration of *instance*, to be entered or awaited on your loop.

        Checks run on the registry's loop. A check of your loop is added, named "loop", unless there is one of that name
        or the registry was made with ``lag_check=False``. Cancelling the task that enters it withdraws what may have
        been written, and waits for that.

        Args:
            instance: what to list; its type must be DYNAMIC.
            options: ``wait``, ``on_conflict``, ``on_displaced``, ``close_timeout`` (seconds) and ``checks``, as
                :meth:`aioregistry.Registry.register` takes them.

        Raises:
            InvalidArgument: an argument is wrong, or the id is registered in this registry already; at once.
            UsageError: the registry is not entered.
            HandleClosed: the registry is closed.
        """
        thread = self._running()
        checks = {} if options.get("checks") is None else options["checks"]
        if self._lag_check and isinstance(checks, Mapping):  # the registration refuses anything else
            # It passes at first: the loop that registers runs.
            options["checks"] = {"loop": LoopLagCheck(self._loop, initial="passing"), **checks}
        return ThreadRegistration(self, thread, thread.call(lambda: self._remote.register(instance, **options)))

    @overload
    def discover(self, name: str, *, payload_type: type[P], **options: Unpack[DiscoverOptions]) -> ThreadView[P]: ...
    @overload
    def discover(
        self, name: str, *, payload_type: Any = Any, **options: Unpack[DiscoverOptions]
    ) -> ThreadView[Any]: ...
    def discover(self, name: str, *, payload_type: Any = Any, **options: Unpack[DiscoverOptions]) -> ThreadView[Any]:
        """Return a view of the service *name*, to be entered or awaited on your loop.

        Cancelling the task that enters it leaves nothing behind.

        Args:
            name: the service.
            payload_type: what payloads are decoded to, on the registry's thread.
            options: ``guard`` and ``keep``, as :meth:`aioregistry.Registry.discover` takes them.

        Raises:
            InvalidArgument: an argument is wrong; at once. Entering raises it for a file of another service, base path
                or version.
            UsageError: the registry is not entered.
            HandleClosed: the registry is closed.
        """
        thread = self._running()
        view = thread.call(lambda: self._remote.discover(name, payload_type=payload_type, **options))
        return ThreadView(self, thread, view)

    async def services(self, timeout: float | None = None) -> list[str]:
        """Return the names of all services, sorted; those without an instance at the moment included.

        The call waits until there is a connection. Cancelling is harmless.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: they were not read within *timeout*.
            ServerError: the server refuses to let you read them.
            UsageError: the registry is not entered.
            HandleClosed: the registry is closed.
        """
        return await self._running().run(lambda: self._remote.services(timeout))

    def watch_services(self) -> Stream[tuple[str, ...]]:
        """Return a stream of the sorted names of all services: the present ones first, latest wins.

        Raises:
            UsageError: the registry is not entered.
            HandleClosed: the registry is closed.
        """
        thread = self._running()
        return ThreadStream(thread, thread.call(self._remote.watch_services))

    def _running(self) -> LoopThread:
        self._check()
        assert self._thread is not None
        return self._thread

    async def _open(self) -> None:
        self._thread = LoopThread(
            f"aioregistry {self._remote.base_path}", lambda: outage_attempts(self._remote.session)
        )
        try:
            await _open(self._thread, self._remote)
        except BaseException:
            await finished(asyncio.get_running_loop().create_task(self._stopped(self._thread)))
            raise

    async def _close(self) -> None:
        assert self._thread is not None
        await self._thread.run(self._remote.aclose)
        for face in list(self._opened_faces):
            await face.aclose()  # the registry behind it is closed
        await self._stopped(self._thread)

    async def _stopped(self, thread: LoopThread) -> None:
        thread.stop()
        await thread.over()

    async def aclose(self) -> None:
        """Withdraw every registration, end every view, close the session, and end the thread.

        It takes ``close_timeout`` at most, and runs to its end when the caller is cancelled; the cancellation is then
        raised. It may be called again, and by several tasks, which all wait for the one closing.

        Raises:
            UsageError: another loop calls it, or a task is entering the registry: cancel that task instead.
        """
        discard(self._remote)
        await super().aclose()

    def __repr__(self) -> str:
        return f"<ThreadRegistry of {self._remote!r}>"


class ThreadRegistration(RegistrationFacts[P], _Face["Registration[P]"]):
    """One instance, kept listed from entering until closing, by a :class:`ThreadRegistry`.

    Its task runs on the registry's loop, so the instance stays listed while your loop is blocked. Properties are read
    there, which takes some 0.1 ms; you may read them after closing, too.
    """

    def _ask(self, of: Callable[[Registration[P]], T]) -> T:
        return self._thread.call(of, self._remote)

    def statuses(self) -> Stream[Status]:
        """Return a stream of statuses, the present one first; also of those that change by time alone.

        A slow consumer misses the oldest of more than 64. The stream ends when the registration is closed, and raises
        why it was displaced for good or failed.
        """
        return ThreadStream(self._thread, self._thread.call(self._remote.statuses))

    async def wait_live(self, timeout: float | None = None) -> None:
        """Wait until the status is LIVE. Cancelling stops only the waiting.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: the status was not LIVE within *timeout*; the registration goes on.
            RegistrationError: the registration ended; also HandleClosed or SessionClosed.
            UsageError: it was not entered.
        """
        await self._thread.run(self._remote.wait_live, timeout)

    async def wait_closed(self) -> Exception | None:
        """Wait until the registration has ended, and return the reason: an exception, which is not raised.

        Cancelling stops only the waiting: the registration goes on.

        Returns:
            None for a registration that was closed; else the exception that ended it, for you to raise.

        Raises:
            UsageError: the registration was not entered.
        """
        try:
            return await self._thread.run(self._remote.wait_closed)
        except HandleClosed:  # the registry, whose closing ended it
            return self._ask(cause_of_end)

    async def update(self, **fields: Any) -> None:
        """Replace the fields given, and wait until that, or a later update, is listed.

        Cancelling stops the waiting; the registration still publishes the new state. While another claimant has the id,
        the call raises RegistrationDisplaced, and the new state is listed when the registration has the id again.

        Args:
            fields: ``payload``, ``enabled`` and ``timeout`` (seconds to wait; None waits for as long as it takes), as
                :meth:`aioregistry.Registration.update` takes them.

        Raises:
            InvalidArgument: a field is wrong, or too large (RequestTooLarge); nothing is changed.
            RequestTimeout: it was not listed within ``timeout``; the registration goes on trying.
            RegistrationError: the registration ended; or a server refused the new state, and the registration goes on
                trying.
            HandleClosed: it is closed.
        """
        await self._thread.run(lambda: self._remote.update(**fields))

    async def drain(self, timeout: float | None = None) -> None:
        """Publish that consumers should not give the instance new work, for good, and wait until that is listed.

        It stays disabled after a later :meth:`update`, and its ``status`` is ``"draining"``. Cancelling stops the
        waiting; the registration still publishes it.

        Args:
            timeout: seconds to wait; None waits for as long as it takes.

        Raises:
            RequestTimeout: it was not listed within *timeout*; the registration goes on trying.
            RegistrationError: the registration ended; or a server refused the write, and the registration goes on
                trying.
            HandleClosed: it is closed.
        """
        await self._thread.run(lambda: self._remote.drain(timeout))

    async def _open(self) -> None:
        await super()._open()
        self._registry._entered.add(self)

    async def _close(self) -> None:
        self._registry._entered.discard(self)
        await super()._close()

    def _title(self) -> str:
        return f"Registration {self._remote.path}"


class ThreadView(ViewFacts[P], _Face["View[P]"]):
    """The instances of one service, followed from entering until closing, by a :class:`ThreadRegistry`.

    ``snapshot`` is read here, and made on the registry's loop after a change; ``fresh`` and ``held_total`` are read
    there, which takes some 0.1 ms. After closing, every use raises :class:`HandleClosed`.
    """

    def __init__(self, registry: ThreadRegistry, thread: LoopThread, view: View[P]) -> None:
        self.name: str = view.name
        super().__init__(registry, thread, view)

    def snapshots(self) -> Stream[Snapshot[P]]:
        """Return a stream of snapshots: the present one first, then one after each change and each flip of ``fresh``.

        Latest wins: a slow consumer skips the snapshots between. The stream ends when the view is closed, and raises
        the exception that ended the session.

        Raises:
            UsageError: the view is not entered, or another loop calls this.
            HandleClosed: the view is closed.
        """
        self._check()
        return ThreadStream(self._thread, self._thread.call(self._remote.snapshots))

    @overload
    def changes(self) -> ThreadChanges[Change[P]]: ...
    @overload
    def changes(self, *, invalid: bool) -> ThreadChanges[Change[P] | Invalidated]: ...
    def changes(self, *, invalid: bool = False) -> Any:
        """Return a stream of the changes after its ``start``, a snapshot; applied to one snapshot they give the next.

        A takeover is at most one Updated. After a reconnect comes one :class:`Resynced` with the true differences. A
        consumer that lags by more than 1024 changes gets one, too, instead of those changes. The stream ends when the
        view is closed, and raises the exception that ended the session.

        Args:
            invalid: whether an :class:`Invalidated` comes, too, for each node that stops showing an instance, or does
                not show one for another reason than before.

        Raises:
            UsageError: the view is not entered, or another loop calls this.
            HandleClosed: the view is closed.
        """
        self._check()
        return ThreadChanges(self._thread, self._thread.call(lambda: self._remote.changes(invalid=invalid)))

    async def wait_for(self, predicate: Callable[[Snapshot[P]], bool], timeout: float | None = None) -> Snapshot[P]:
        """Return the first snapshot that *predicate* accepts, the present one included, fresh or not.

        Cancelling leaves nothing behind.

        Args:
            predicate: called on your loop, with the present snapshot and after changes. An exception that it raises is
                raised here.
            timeout: seconds; None waits for as long as it takes.

        Raises:
            InvalidArgument: *predicate* cannot be called (InvalidType), or *timeout* is not a time to wait for.
            RequestTimeout: no snapshot was accepted in time.
            HandleClosed: the view is closed, or was closed meanwhile.
        """
        self._check()
        return await first_accepted(self.name, self.snapshots, predicate, timeout, self._thread.outage_attempts)

    def balancer(
        self, strategy: Strategy[P] | str = "round-robin", **options: Unpack[BalancerOptions[P]]
    ) -> Balancer[P]:
        """Return a balancer for the instances of this view, from now on and as they change, until it is closed.

        You pick from it here. The registry's thread feeds it, and calls filters and strategies with each instance: they
        must not block.

        Args:
            strategy: how to choose; one that needs no argument may be given by name: ``"round-robin"``, ``"random"``,
                ``"least-outstanding"``.
            options: ``where``, ``ejection``, ``suspects`` and ``panic``, as :meth:`aioregistry.View.balancer` takes
                them.

        Raises:
            InvalidArgument: an argument is wrong, or does not fit any of the instances that are there.
            UsageError: the view is not entered, or another loop calls this.
            HandleClosed: the view is closed.
        """
        self._check()
        session = parts_of(self._registry._remote).session
        driver = self._thread.call(
            lambda: shared(self._thread, self._remote, session, self.snapshots, self._check, strategy, options)
        )
        return Balancer(driver)

    async def sync(self, timeout: float | None = None) -> Snapshot[P]:
        """Return a snapshot as new as the quorum was when this was called.

        It takes two round trips, one transaction of the quorum, and time linear in the service; callers that wait at
        the same time share that. Without a connection the call waits for one. Cancelling is harmless.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: the quorum has not answered in time.
            NoAuth: you may no longer list the service.
            HandleClosed: the view is closed, or was closed meanwhile.
        """
        self._check()
        return await self._thread.run(self._remote.sync, timeout)

    async def _open(self) -> None:
        await super()._open()
        self._newest = self._thread.call(Newest.of, self._remote)

    def _title(self) -> str:
        return f"View of {self.name!r}"

    def _ask(self, of: Callable[[View[P]], T]) -> T:
        self._check()
        return self._thread.call(of, self._remote)

    def _kept(self) -> Newest[P]:
        self._check()
        return self._newest


class ThreadChanges(ThreadStream[T]):
    """The changes of a view after ``start``, on the loop of the caller.

    Attributes:
        start: the snapshot that the first change applies to.
    """

    def __init__(self, thread: LoopThread, remote: Any) -> None:
        super().__init__(thread, remote)
        self.start: Snapshot[Any] = remote.start


async def _open(thread: LoopThread, handle: Handle) -> None:
    """Enter *handle* on the loop; where that fails or is cancelled, it is closed."""
    try:
        await thread.run(_entered, handle)
    except BaseException:
        # It may have been entered in the moment in which this was cancelled.
        await finished(asyncio.get_running_loop().create_task(thread.run(_left, handle)))
        discard(handle)  # or it was not even begun
        raise


async def _entered(handle: Handle) -> None:
    _ = await handle


async def _left(handle: Handle) -> None:
    if is_open(handle):
        await handle.aclose()
