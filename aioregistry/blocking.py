"""aioregistry without asyncio: for threads, in Django, Flask, Celery, scripts and notebooks.

The registry runs on an event loop in a daemon thread, and what is here waits for it::

    from aioregistry import ServiceInstance, blocking

    with (
        blocking.connect("127.0.0.1:2181") as registry,
        registry.register(ServiceInstance("web", id="web-1", address="10.0.0.7", port=8000)),
        registry.discover("chat") as chat,
    ):
        print(chat.pick().instance.address)

A handle is opened by ``with``, by its ``open()``, or by its first use. So a module may make its registry and its views
when it is imported: each process of a prefork server opens its own at the first use. Handles of before a fork are
of no use in the child, where every use raises :class:`~aioregistry.UsageError`.

Open handles are closed when the interpreter ends. All may be used from any number of threads; a stream by one at a
time.
"""

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
from ._handles import Handle, discard
from ._model import ServiceInstance
from ._paths import check_name
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
    from ._discovery.balancer import Balancer as _Balancer
    from ._discovery.pick import Pick
    from ._model import Change, Invalidated, Snapshot
    from ._options import BalancerOptions, ConnectOptions, DiscoverOptions, RegisterOptions
    from ._registration import Registration as _Registration
    from ._registration import Status
    from ._session import SessionState
    from ._streams import Stream
    from .balancing import Strategy

__all__ = ["Balancer", "Changes", "Overrides", "Registration", "Registry", "Session", "View", "connect"]

P = TypeVar("P")
T = TypeVar("T")


def connect(servers: str, **options: Unpack[ConnectOptions]) -> Registry:
    """Return a registry on ZooKeeper, to be entered (``with``), or opened by its first use; nothing happens before.

    Arguments and errors are those of :func:`aioregistry.connect`; a hook given as ``on_event`` is called on the
    registry's thread.
    """
    servers, options = unshown(servers), _hidden(options)
    return Registry(servers, **options)


class Session(SessionFacts):
    """The session of a blocking registry."""

    def states(self, timeout: float | None = None) -> BlockingStream[SessionState]:
        """Return an iterator over the states, the present one first.

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
        self._made_in = os.getpid()
        self._opened: weakref.WeakSet[BlockingHandle] = weakref.WeakSet()
        """The handles that were opened on it: its closing closes them."""
        self._registered: set[Registration[Any]] = set()
        """An instance stays registered until its handle is closed, also where its handle was dropped."""
        self._thread: LoopThread | None = None
        super().__init__()

    @property
    def session(self) -> Session:
        """The session, with ``state``, ``states()``, ``connected``, ``id`` and what else it tells."""
        self._open_once()
        assert self._thread is not None
        return Session(self._thread, self._remote.session)

    @property
    def base_path(self) -> str:
        """The path under which the services are, the chroot included."""
        return self._remote.base_path

    @property
    def overrides(self) -> Overrides:
        """The overrides of operators: maintenance and weights. As ``Registry.overrides``, with a ``timeout``."""
        return Overrides(self._running, lambda: self._remote.overrides)

    @property
    def client(self) -> NoReturn:
        """Raises :class:`UsageError`: aiozk's client is for a program on asyncio."""
        raise UsageError("registry.client is for asyncio: use aioregistry.connect() instead of aioregistry.blocking")

    def register(self, instance: ServiceInstance[P], **options: Unpack[RegisterOptions]) -> Registration[P]:
        """Return a registration of *instance*, which is listed from its opening until its closing.

        Arguments and errors are those of :meth:`aioregistry.Registry.register`; the errors come when it is opened;
        only a wrong type of *instance* is refused at once.
        """
        return Registration(self, instance, options)

    @overload
    def discover(self, name: str, *, payload_type: type[P], **options: Unpack[DiscoverOptions]) -> View[P]: ...
    @overload
    def discover(self, name: str, *, payload_type: Any = Any, **options: Unpack[DiscoverOptions]) -> View[Any]: ...
    def discover(self, name: str, *, payload_type: Any = Any, **options: Unpack[DiscoverOptions]) -> View[Any]:
        """Return a view of the service *name*, which is followed from its opening until its closing.

        Arguments and errors are those of :meth:`aioregistry.Registry.discover`; the errors come when it is opened, but
        for a wrong name.
        """
        return View(self, name, payload_type, options)

    def services(self, timeout: float | None = None) -> list[str]:
        """Return the names of all services, sorted.

        Args:
            timeout: seconds; None waits for a connection for as long as it takes.

        Raises:
            RequestTimeout: there was no answer in time.
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
            # Its random numbers are the parent's, and those of every other child.
            discard(self._remote)
            self._remote, self._made_in = _made(self._servers, self._options), os.getpid()
        thread = LoopThread(f"aioregistry {self._remote.base_path}", lambda: outage_attempts(self._remote.session))
        try:
            thread.wait(_entered, self._remote)
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        # Before the interpreter stops its daemon threads.
        self._at_exit = functools.partial(_close_if_alive, weakref.ref(self))
        atexit.register(self._at_exit)

    def _close(self) -> None:
        assert self._thread is not None
        atexit.unregister(self._at_exit)
        self._thread.wait(self._remote.aclose)
        for handle in list(self._opened):
            handle.close()  # what is behind it is closed
        self._thread.stop()
        self._thread.join()

    def _discard(self) -> None:
        discard(self._remote)

    def _title(self) -> str:
        return f"Registry {self._servers}"

    def __repr__(self) -> str:
        return f"<blocking {self._remote!r}>"


@shown_half_made
class Registration(RegistrationFacts[P], BlockingHandle):
    """An instance, kept listed from opening until closing."""

    def __init__(self, registry: Registry, instance: ServiceInstance[P], options: RegisterOptions) -> None:
        if not isinstance(instance, ServiceInstance):
            raise InvalidType("instance", instance, "give a ServiceInstance")
        self._registry, self._instance, self._options = registry, instance, options
        super().__init__()

    def statuses(self, timeout: float | None = None) -> BlockingStream[Status]:
        """Return an iterator over the statuses, the present one first.

        Args:
            timeout: seconds without a new one after which an iteration ends; None waits for as long as it takes.
        """
        self._use()
        return _stream(self._thread, self._remote.statuses, timeout)

    def wait_live(self, timeout: float | None = None) -> None:
        """Wait until the status is LIVE. As :meth:`aioregistry.Registration.wait_live`."""
        self._use()
        self._thread.wait(self._remote.wait_live, timeout)

    def wait_closed(self, timeout: float | None = None) -> Exception | None:
        """Wait for the end, and return why it ended. As :meth:`aioregistry.Registration.wait_closed`.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Returns:
            None for one that was closed; else what ended it, for you to raise.

        Raises:
            RequestTimeout: it did not end within *timeout*; the registration goes on.
        """
        self._use()
        wait = self._remote.wait_closed
        cause: Exception | None = self._thread.wait_within(timeout, f"the end of {self.path}", wait)
        return cause

    def update(self, *, timeout: float | None = None, **fields: Any) -> None:
        """Replace the fields given, and wait until that is listed. As :meth:`aioregistry.Registration.update`.

        Raises:
            RequestTimeout: it was not listed within *timeout* seconds; it will be.
        """
        self._use()
        self._thread.wait_within(timeout, f"the update of {self.path}", lambda: self._remote.update(**fields))

    def drain(self, timeout: float | None = None) -> None:
        """Publish that the instance is to be given no new work, for good. As :meth:`aioregistry.Registration.drain`.

        Raises:
            RequestTimeout: it was not listed so within *timeout* seconds; it will be.
        """
        self._use()
        self._thread.wait_within(timeout, f"draining {self.path}", self._remote.drain)

    def _ask(self, of: Callable[[_Registration[P]], T]) -> T:
        self._open_once()
        return self._thread.call(of, self._remote)

    def _open(self) -> None:
        self._thread = self._registry._running()
        self._remote = self._thread.call(lambda: self._registry._remote.register(self._instance, **self._options))
        self._thread.wait(_entered, self._remote)
        self._registry._opened.add(self)
        self._registry._registered.add(self)

    def _close(self) -> None:
        self._registry._registered.discard(self)
        self._thread.wait(self._remote.aclose)

    def _title(self) -> str:
        return f"Registration {self._instance.name}/{self._instance.id}"

    def __repr__(self) -> str:
        return f"<{self._title()}, not opened>" if self._opened_in is None else self._ask(repr)


@shown_half_made
class View(ViewFacts[P], BlockingHandle):
    """The instances of one service, followed from opening until closing."""

    def __init__(self, registry: Registry, name: str, payload_type: Any, options: DiscoverOptions) -> None:
        self.name: str = check_name("name", name)
        self._registry, self._payload_type, self._options = registry, payload_type, options
        self._own: Balancer[P] | None = None
        super().__init__()

    def snapshots(self, timeout: float | None = None) -> BlockingStream[Snapshot[P]]:
        """Return an iterator over snapshots: the present one first, latest wins. As :meth:`aioregistry.View.snapshots`.

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
        """Return an iterator over the changes after its ``start``, a snapshot. As :meth:`aioregistry.View.changes`.

        Args:
            timeout: seconds without a change after which an iteration ends; None waits for as long as it takes.
            invalid: whether an :class:`~aioregistry.Invalidated` comes for each node that shows no instance any more.
        """
        self._use()
        return Changes(self._thread, self._thread.call(lambda: self._remote.changes(invalid=invalid)), timeout)

    def wait_for(self, predicate: Callable[[Snapshot[P]], bool], timeout: float | None = None) -> Snapshot[P]:
        """Return the first snapshot that *predicate*, which is called in this thread, accepts.

        Args:
            predicate: called with the present snapshot, and with those after changes.
            timeout: seconds; None waits for as long as it takes.

        Raises:
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
        """Return what picks among the instances of this view, for any number of threads.

        Arguments and errors are those of :meth:`aioregistry.View.balancer`. Filters and strategies see each instance on
        the registry's thread, and must not block it.
        """
        self._use()
        thread, remote, session = self._thread, self._remote, parts_of(self._registry._remote).session
        balancer: _Balancer[P] = thread.call(
            lambda: shared(thread, remote, session, remote.snapshots, self._use, strategy, options)
        )
        return Balancer(balancer, self.snapshots, thread.outage_attempts)

    def pick(self, key: str | bytes | None = None, *, exclude: Collection[str] = ()) -> Pick[P]:
        """Return an instance, now: of a round robin that is this view's own. As :meth:`Balancer.pick`."""
        self._use()
        with self._lock:
            if self._own is None:
                self._own = self.balancer()
        return self._own.pick(key, exclude=exclude)

    def sync(self, timeout: float | None = None) -> Snapshot[P]:
        """Return a snapshot as new as the quorum was when this was called. As :meth:`aioregistry.View.sync`."""
        self._use()
        return self._thread.wait(self._remote.sync, timeout)

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
        thread.wait(_entered, self._remote)
        self._newest = thread.call(Newest.of, self._remote)
        self._registry._opened.add(self)

    def _close(self) -> None:
        self._thread.wait(self._remote.aclose)

    def _title(self) -> str:
        return f"View of {self.name!r}"

    def __repr__(self) -> str:
        return f"<{self._title()}, not opened>" if self._opened_in is None else self._thread.call(repr, self._remote)


class Changes(BlockingStream[T]):
    """The changes of a view after ``start``, for a thread."""

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


async def _entered(handle: Handle) -> None:
    _ = await handle


def _close_if_alive(registry: weakref.ref[Registry]) -> None:
    alive = registry()
    if alive is not None:
        alive.close()
