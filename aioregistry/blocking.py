"""aioregistry without asyncio: for threads, in Django, Flask, Celery, scripts and notebooks.

The registry runs on an event loop in a daemon thread, and the calls here wait for it::

    from aioregistry import ServiceInstance, blocking

    with (
        blocking.connect("127.0.0.1:2181") as registry,
        registry.register(ServiceInstance("web", id="web-1", address="10.0.0.7", port=8000)),
        registry.discover("chat") as chat,
    ):
        print(chat.pick().instance.address)

A handle is opened by ``with``, by its ``open()``, or by its first use. So a module may make its registry and its views
when it is imported: each process of a prefork server opens its own at the first use. After a fork the child cannot use
handles that were open: every use raises :class:`~aioregistry.UsageError`.

Open handles are closed when the interpreter ends. Any number of threads may use a handle; one thread at a time may use
a stream.

A call that waits takes a ``timeout`` in seconds. An exception that a signal raises in the waiting thread
(``KeyboardInterrupt``, say) cancels the call on the registry's loop, and is raised when that has ended. A call on a
closed handle raises :class:`~aioregistry.HandleClosed`. A call that opens a handle raises what opening it raises.
"""
# Longer than 450 lines: these are classes that users hold, and what they read of their methods is a third of the lines.

from __future__ import annotations

import atexit
import functools
import os
import time
import weakref
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast, overload

from ._arguments import check_callable, check_seconds
from ._connect import connect as _connect
from ._errors import HandleClosed, InvalidType, RequestTimeout, UsageError
from ._handles import discard
from ._model import ServiceInstance
from ._paths import check_name
from ._registration import cause_of_end
from ._registry import Registry as _Registry
from ._registry import parts_of
from ._reprs import shown_half_made
from ._secrets import Hidden, unshown
from ._session import outage_attempts
from ._threads import BlockingBalancer as Balancer
from ._threads import (
    BlockingHandle,
    BlockingStream,
    Fronting,
    LoopThread,
    Newest,
    RegistrationFacts,
    SessionFacts,
    ViewFacts,
    shared,
)
from ._threads import BlockingOverrides as Overrides

if TYPE_CHECKING:
    from typing import Unpack

    from ._discovery import View as _View
    from ._discovery.pick import Pick
    from ._model import Change, Invalidated, Snapshot
    from ._options import BalancerOptions, ConnectOptions, DiscoverOptions, RegisterOptions
    from ._registration import Registration as _Registration
    from ._registration import Status
    from ._session import SessionState
    from ._streams import Stream
    from ._threads.balancer import SharedBalancerDriver
    from .balancing import Strategy

__all__ = ["Balancer", "Changes", "Overrides", "Registration", "Registry", "Session", "View", "connect"]

P = TypeVar("P")
T = TypeVar("T")


def connect(servers: str, **options: Unpack[ConnectOptions]) -> Registry:
    """Return a registry on ZooKeeper, to be entered (``with``), or opened by its first use; nothing happens before.

    Args:
        servers: the connect string, ``host:port,host:port/chroot``.
        options: those of :func:`aioregistry.connect`. A hook given as ``on_event`` is called on the registry's thread.

    Raises:
        InvalidArgument: an argument is wrong; at once. Opening raises the other errors of :func:`aioregistry.connect`.
    """
    servers, options = unshown(servers), _hidden(options)
    return Registry(servers, **options)


class Session(SessionFacts):
    """The session of a blocking registry."""

    def states(self, timeout: float | None = None) -> BlockingStream[SessionState]:
        """Return an iterator over the states from the next one on; a slow consumer misses the oldest of more than 64.

        It ends when the session is closed, and raises the exception that ended the session.

        Args:
            timeout: seconds without a new one after which an iteration ends; None waits for as long as it takes.
        """
        return _stream(self._thread, self._remote.states, timeout)


@shown_half_made
class Registry(BlockingHandle, Fronting):
    """A registry for threads; made by :func:`connect`.

    Closing it withdraws every registration, ends every view and closes the session, within ``close_timeout``.
    """

    def __init__(self, servers: str, **options: Unpack[ConnectOptions]) -> None:
        servers, options = unshown(servers), _hidden(options)
        self._servers, self._options = servers, options
        self._remote = _made(servers, options)
        self._made_in: int | None = os.getpid()
        self._opened: weakref.WeakSet[BlockingHandle] = weakref.WeakSet()
        """The handles that were opened on it: its closing closes them."""
        self._registered: set[Registration[Any]] = set()
        """An instance stays registered until its handle is closed, also where its handle was dropped."""
        self._thread: LoopThread | None = None
        super().__init__()

    @property
    def session(self) -> Session:
        """The session, with ``state``, ``states()``, ``connected``, ``server``, ``attempts`` and ``id``."""
        self._open_once()
        assert self._thread is not None
        return Session(self._thread, self._remote.session)

    @property
    def base_path(self) -> str:
        """The path under which the services are, the chroot included."""
        return self._remote.base_path

    @property
    def overrides(self) -> Overrides:
        """The overrides of operators: maintenance of any instance, and weights. Its calls take a ``timeout``."""
        return Overrides(self._running, lambda: self._remote.overrides)

    @property
    def client(self) -> NoReturn:
        """Raises :class:`UsageError`: aiozk's client is for a program on asyncio."""
        raise UsageError("registry.client is for asyncio: use aioregistry.connect() instead of aioregistry.blocking")

    def register(self, instance: ServiceInstance[P], **options: Unpack[RegisterOptions]) -> Registration[P]:
        """Return a registration of *instance*, which is listed from its opening until its closing.

        Args:
            instance: what to list; its type must be DYNAMIC.
            options: ``wait``, ``on_conflict``, ``on_displaced``, ``close_timeout`` (seconds) and ``checks``, as
                :meth:`aioregistry.Registry.register` takes them. Checks run on the registry's thread.

        Raises:
            InvalidType: *instance* is not a ServiceInstance; at once. Opening raises the other errors of
                :meth:`aioregistry.Registry.register`, and those of entering an :class:`aioregistry.Registration`.
        """
        return Registration(self, instance, options)

    @overload
    def discover(self, name: str, *, payload_type: type[P], **options: Unpack[DiscoverOptions]) -> View[P]: ...
    @overload
    def discover(self, name: str, *, payload_type: Any = Any, **options: Unpack[DiscoverOptions]) -> View[Any]: ...
    def discover(self, name: str, *, payload_type: Any = Any, **options: Unpack[DiscoverOptions]) -> View[Any]:
        """Return a view of the service *name*, which is followed from its opening until its closing.

        Args:
            name: the service.
            payload_type: what payloads are decoded to, on the registry's thread.
            options: ``guard`` and ``keep``, as :meth:`aioregistry.Registry.discover` takes them.

        Raises:
            InvalidArgument: *name* cannot be a service's; at once. Opening raises the other errors of
                :meth:`aioregistry.Registry.discover`, and those of entering an :class:`aioregistry.View`.
        """
        return View(self, name, payload_type, options)

    def services(self, timeout: float | None = None) -> list[str]:
        """Return the names of all services, sorted; those without an instance at the moment included.

        Args:
            timeout: seconds; None waits for a connection for as long as it takes.

        Raises:
            RequestTimeout: there was no answer in time.
            ServerError: the server refuses to let you read them.
        """
        return self._running().wait_within(timeout, "the names of the services", self._remote.services)

    def watch_services(self, timeout: float | None = None) -> BlockingStream[tuple[str, ...]]:
        """Return an iterator over the sorted names of all services: the present ones first, latest wins.

        Args:
            timeout: seconds without a new one after which an iteration ends; None waits for as long as it takes.
        """
        return _stream(self._running(), self._remote.watch_services, timeout)

    def _running(self) -> LoopThread:
        self._use()
        assert self._thread is not None
        return self._thread

    def _open(self) -> None:
        if self._made_in != os.getpid():
            # Its random numbers are the parent's, and those of every other child; or its opening has failed.
            discard(self._remote)
            self._remote, self._made_in = _made(self._servers, self._options), os.getpid()
        # Known from here on: a hook that is called while this opens must not wait for that.
        self._thread = thread = LoopThread(
            f"aioregistry {self._remote.base_path}", lambda: outage_attempts(self._remote.session)
        )
        try:
            self._enter(thread, self._remote)
        except BaseException:
            self._made_in = None
            thread.stop()
            self._thread = None
            raise
        # Before the interpreter stops its daemon threads.
        self._at_exit = functools.partial(_close_if_alive, weakref.ref(self))
        atexit.register(self._at_exit)

    def _close(self) -> None:
        assert self._thread is not None
        atexit.unregister(self._at_exit)
        try:
            self._thread.wait(self._remote.aclose)
            for handle in list(self._opened):
                handle.close()  # the registry behind it is closed
        finally:  # a signal may have ended the wait, and closing is begun once
            self._thread.stop()
            self._thread.join()

    def _discard(self) -> None:
        discard(self._remote)

    def _loop_thread(self) -> LoopThread | None:
        return self._thread

    def _title(self) -> str:
        return f"Registry {self._servers}"

    def __repr__(self) -> str:
        return f"<blocking {self._remote!r}>"


@shown_half_made
class Registration(RegistrationFacts[P], BlockingHandle):
    """An instance, kept listed from opening until closing.

    ``with``, :meth:`open` or a first use opens it, and waits until the instance is listed, unless ``wait=False``; that
    raises what ends the registration before it is listed, as entering an :class:`aioregistry.Registration` does. It
    stays registered until you close it, or its registry, even if you drop the handle. You may read its properties after
    closing, too.
    """

    def __init__(self, registry: Registry, instance: ServiceInstance[P], options: RegisterOptions) -> None:
        if not isinstance(instance, ServiceInstance):
            raise InvalidType("instance", instance, "give a ServiceInstance")
        self._registry, self._instance, self._options = registry, instance, options
        super().__init__()

    def statuses(self, timeout: float | None = None) -> BlockingStream[Status]:
        """Return an iterator over the statuses, the present one first; also over those that change by time alone.

        A slow consumer misses the oldest of more than 64. It ends when the registration is closed, and raises why it
        was displaced for good or failed.

        Args:
            timeout: seconds without a new one after which an iteration ends; None waits for as long as it takes.
        """
        self._use()
        return _stream(self._thread, self._remote.statuses, timeout)

    def wait_live(self, timeout: float | None = None) -> None:
        """Wait until the status is LIVE.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: the status was not LIVE within *timeout*; the registration goes on.
            RegistrationError: the registration ended; also HandleClosed or SessionClosed.
        """
        self._use()
        self._thread.wait(self._remote.wait_live, timeout)

    def wait_closed(self, timeout: float | None = None) -> Exception | None:
        """Wait until the registration has ended, and return the reason: an exception, which is not raised.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Returns:
            None for one that was closed; else the exception that ended it, for you to raise.

        Raises:
            RequestTimeout: it did not end within *timeout*; the registration goes on.
        """
        self._open_once()
        wait = self._remote.wait_closed
        try:
            cause: Exception | None = self._thread.wait_within(timeout, f"the end of {self.path}", wait)
        except HandleClosed:  # the registry, whose closing ended it
            cause = self._ask(cause_of_end)
        return cause

    def update(self, *, timeout: float | None = None, **fields: Any) -> None:
        """Replace the fields given, and wait until that, or a later update, is listed.

        While another claimant has the id, the call raises RegistrationDisplaced, and the new state is listed when the
        registration has the id again.

        Args:
            timeout: seconds to wait; None waits for as long as it takes.
            fields: ``payload`` and ``enabled``, as :meth:`aioregistry.Registration.update` takes them.

        Raises:
            InvalidArgument: a field is wrong, or too large (RequestTooLarge); nothing is changed.
            RequestTimeout: it was not listed within *timeout*; the registration goes on trying.
            RegistrationError: the registration ended; or a server refused the new state, and the registration goes on
                trying.
            HandleClosed: it is closed.
        """
        self._use()
        self._thread.wait_within(timeout, f"the update of {self.path}", lambda: self._remote.update(**fields))

    def drain(self, timeout: float | None = None) -> None:
        """Publish that consumers should not give the instance new work, for good, and wait until that is listed.

        It stays disabled after a later :meth:`update`, and its ``status`` is ``"draining"``.

        Args:
            timeout: seconds to wait; None waits for as long as it takes.

        Raises:
            RequestTimeout: it was not listed within *timeout*; the registration goes on trying.
            RegistrationError: the registration ended; or a server refused the write, and the registration goes on
                trying.
            HandleClosed: it is closed.
        """
        self._use()
        self._thread.wait_within(timeout, f"draining {self.path}", self._remote.drain)

    def _ask(self, of: Callable[[_Registration[P]], T]) -> T:
        self._open_once()
        return self._thread.call(of, self._remote)

    def _open(self) -> None:
        self._thread = self._registry._running()
        self._remote = self._thread.call(lambda: self._registry._remote.register(self._instance, **self._options))
        self._enter(self._thread, self._remote)
        self._registry._opened.add(self)
        self._registry._registered.add(self)

    def _close(self) -> None:
        self._registry._registered.discard(self)
        self._thread.wait(self._remote.aclose)

    def _loop_thread(self) -> LoopThread | None:
        return self._registry._thread

    def _title(self) -> str:
        return f"Registration {self._instance.name}/{self._instance.id}"

    def __repr__(self) -> str:
        return self._repr_of(lambda: self._remote)


@shown_half_made
class View(ViewFacts[P], BlockingHandle):
    """The instances of one service, followed from opening until closing.

    ``with``, :meth:`open` or a first use opens it, waits until everything was read once, and raises what entering an
    :class:`aioregistry.View` raises. ``snapshot`` is read in your thread, and made on the registry's after a change.
    """

    def __init__(self, registry: Registry, name: str, payload_type: Any, options: DiscoverOptions) -> None:
        self.name: str = check_name("name", name)
        self._registry, self._payload_type, self._options = registry, payload_type, options
        self._own: Balancer[P] | None = None
        super().__init__()

    def snapshots(self, timeout: float | None = None) -> BlockingStream[Snapshot[P]]:
        """Return an iterator over snapshots: the present one, then one after each change and each flip of ``fresh``.

        Latest wins: a slow consumer skips the snapshots between. It ends when the view is closed, and raises the
        exception that ended the session.

        Args:
            timeout: seconds without a new one after which an iteration ends; None waits for as long as it takes.
        """
        self._use()
        return _stream(self._thread, self._remote.snapshots, timeout)

    @overload
    def changes(self, timeout: float | None = None) -> Changes[Change[P]]: ...
    @overload
    def changes(self, timeout: float | None = None, *, invalid: bool) -> Changes[Change[P] | Invalidated]: ...
    def changes(self, timeout: float | None = None, *, invalid: bool = False) -> Any:
        """Return an iterator over the changes after its ``start``; applied to one snapshot they give the next.

        A takeover is at most one Updated. After a reconnect comes one Resynced with the true differences. A consumer
        that lags by more than 1024 changes gets one, too, instead of those changes. It ends when the view is closed,
        and raises the exception that ended the session.

        Args:
            timeout: seconds without a change after which an iteration ends; None waits for as long as it takes.
            invalid: whether an :class:`~aioregistry.Invalidated` comes, too, for each node that stops showing an
                instance, or does not show one for another reason than before.
        """
        self._use()
        return Changes(self._thread, self._thread.call(lambda: self._remote.changes(invalid=invalid)), timeout)

    def wait_for(self, predicate: Callable[[Snapshot[P]], bool], timeout: float | None = None) -> Snapshot[P]:
        """Return the first snapshot that *predicate* accepts, the present one included, fresh or not.

        Args:
            predicate: called in this thread, with the present snapshot and after changes. An exception that it raises
                is raised here.
            timeout: seconds; None waits for as long as it takes.

        Raises:
            InvalidArgument: *predicate* cannot be called (InvalidType), or *timeout* is not a time to wait for.
            RequestTimeout: no snapshot was accepted in time.
            HandleClosed: the view was closed meanwhile.
        """
        self._use()
        check_callable("predicate", predicate)
        if timeout is not None:
            check_seconds("timeout", timeout)
        until = None if timeout is None else time.monotonic() + timeout
        with self.snapshots() as snapshots:
            while True:
                left = None if until is None else until - time.monotonic()
                try:
                    if left is not None and left <= 0:
                        raise RequestTimeout
                    snapshot = snapshots.next(left)
                except RequestTimeout:
                    message = f"no snapshot of {self.name!r} was accepted within timeout={timeout} s"
                    raise RequestTimeout(message, self._thread.outage_attempts()) from None
                except StopIteration:
                    raise HandleClosed(f"{self._title()} was closed") from None
                if predicate(snapshot):
                    return snapshot

    def balancer(
        self, strategy: Strategy[P] | str = "round-robin", **options: Unpack[BalancerOptions[P]]
    ) -> Balancer[P]:
        """Return a balancer for the instances of this view, from now on and as they change, until it is closed.

        Any number of threads may pick from it. The registry's thread feeds it, and calls filters and strategies with
        each instance: they must not block.

        Args:
            strategy: how to choose; one that needs no argument may be given by name: ``"round-robin"``, ``"random"``,
                ``"least-outstanding"``.
            options: ``where``, ``ejection``, ``suspects`` and ``panic``, as :meth:`aioregistry.View.balancer` takes
                them.

        Raises:
            InvalidArgument: an argument is wrong, or does not fit any of the instances that are there.
        """
        self._use()
        thread, remote, session = self._thread, self._remote, parts_of(self._registry._remote).session
        driver: SharedBalancerDriver[P] = thread.call(
            lambda: shared(thread, remote, session, remote.snapshots, self._use, strategy, options)
        )
        return Balancer(driver, self.snapshots, thread.outage_attempts)

    def pick(self, key: str | bytes | None = None, *, exclude: Collection[str] = ()) -> Pick[P]:
        """Return an instance at once, from a round robin of the view's own; use it as a ``with`` block around the call.

        Args:
            key: leave it out: a round robin does not take one.
            exclude: the ids of instances that are not to be picked, because they were tried for the same call, say.

        Raises:
            NoInstances: no instance can be picked; says whether the service is empty, or why.
            InvalidArgument: a key was given, or *exclude* is not a collection of ids.
            HandleClosed: the view is closed.
        """
        self._use()
        own = self._own or self._thread.call(self._own_balancer)
        return own.pick(key, exclude=exclude)

    def sync(self, timeout: float | None = None) -> Snapshot[P]:
        """Return a snapshot as new as the quorum was when this was called.

        It takes two round trips, one transaction of the quorum, and time linear in the service; callers that wait at
        the same time share that. Without a connection the call waits for one.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: the quorum has not answered in time.
            NoAuth: you may no longer list the service.
            HandleClosed: the view was closed meanwhile.
        """
        self._use()
        return self._thread.wait(self._remote.sync, timeout)

    def _own_balancer(self) -> Balancer[P]:
        # On the loop, where one is made at a time. A lock could be another thread's that waits for the loop.
        if self._own is None:
            self._own = self.balancer()
        return self._own

    def _ask(self, of: Callable[[_View[P]], T]) -> T:
        self._use()
        return self._thread.call(of, self._remote)

    def _kept(self) -> Newest[P]:
        self._use()
        return self._newest

    def _open(self) -> None:
        thread, registry = self._registry._running(), self._registry._remote
        self._thread = thread
        self._remote = thread.call(
            lambda: registry.discover(self.name, payload_type=self._payload_type, **self._options)
        )
        self._enter(thread, self._remote)
        self._newest = thread.call(Newest.of, self._remote)
        self._registry._opened.add(self)

    def _close(self) -> None:
        self._thread.wait(self._remote.aclose)

    def _loop_thread(self) -> LoopThread | None:
        return self._registry._thread

    def _title(self) -> str:
        return f"View of {self.name!r}"

    def __repr__(self) -> str:
        return self._repr_of(lambda: self._remote)


class Changes(BlockingStream[T]):
    """The changes of a view after ``start``, for a thread.

    Attributes:
        start: the snapshot that the first change applies to.
    """

    def __init__(self, thread: LoopThread, remote: Any, timeout: float | None) -> None:
        super().__init__(thread, remote, timeout)
        self.start: Snapshot[Any] = remote.start


def _hidden(options: ConnectOptions) -> ConnectOptions:
    """Return *options* with credentials that no traceback shows."""
    if "auth" not in options:
        return options
    return cast("ConnectOptions", {**options, "auth": Hidden(options["auth"])})


def _made(servers: str, options: ConnectOptions) -> _Registry:
    return _connect(servers, **options)


def _stream(thread: LoopThread, make: Callable[[], Stream[T]], timeout: float | None) -> BlockingStream[T]:
    return BlockingStream(thread, thread.call(make), timeout)


def _close_if_alive(registry: weakref.ref[Registry]) -> None:
    alive = registry()
    if alive is not None:
        alive.close()
