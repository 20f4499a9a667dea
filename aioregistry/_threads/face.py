"""The registry's face on the caller's loop, while all of it runs on a loop of its own: ``connect(thread=True)``."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

from aioregistry._discovery.waiting import first_accepted
from aioregistry._errors import UsageError
from aioregistry._handles import Handle, discard, finished, is_open
from aioregistry._health.loop_lag import LoopLagCheck
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
    from aioregistry._discovery.balancer import Balancer
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
        """Return a stream of the states, the present one first."""
        return ThreadStream(self._thread, self._thread.call(self._remote.states))


class _Face(Handle, Generic[H]):
    """A handle here for one on the registry's loop: entered and closed together."""

    def __init__(self, registry: ThreadRegistry, thread: LoopThread, remote: H) -> None:
        self._registry, self._thread, self._remote = registry, thread, remote
        super().__init__()

    async def aclose(self) -> None:
        """Close it, as every handle; in its registry's closing it is closed, too."""
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
        """The session, with ``state``, ``states()``, ``connected``, ``id`` and what else it tells."""
        return ThreadSession(self._thread or self._running(), self._remote.session)

    @property
    def base_path(self) -> str:
        """The path under which the services are, the chroot included."""
        return self._remote.base_path

    @property
    def overrides(self) -> ThreadOverrides:
        """The overrides of operators: maintenance of any instance, and weights. As ``Registry.overrides``."""
        return ThreadOverrides(self._running, lambda: self._remote.overrides)

    @property
    def client(self) -> NoReturn:
        """Raises :class:`UsageError`: aiozk's client belongs to the registry's own loop, and cannot be used here."""
        raise UsageError("registry.client belongs to the registry's own loop: connect without thread=True to use it")

    def register(self, instance: ServiceInstance[P], **options: Unpack[RegisterOptions]) -> ThreadRegistration[P]:
        """Return a registration of *instance*, to be entered or awaited. As :meth:`aioregistry.Registry.register`.

        Checks run on the registry's loop. One of the caller's is added, named "loop", unless there is one of that name
        or the registry was made with ``lag_check=False``.
        """
        thread = self._running()
        checks = {} if options.get("checks") is None else options["checks"]
        if self._lag_check and isinstance(checks, Mapping):  # anything else is refused by what it is given to
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
        """Return a view of the service *name*, to be entered or awaited. As :meth:`Registry.discover`."""
        thread = self._running()
        view = thread.call(lambda: self._remote.discover(name, payload_type=payload_type, **options))
        return ThreadView(self, thread, view)

    async def services(self, timeout: float | None = None) -> list[str]:
        """Return the names of all services, sorted. As :meth:`Registry.services`."""
        return await self._running().run(lambda: self._remote.services(timeout))

    def watch_services(self) -> Stream[tuple[str, ...]]:
        """Return a stream of the sorted names of all services: the present ones first, latest wins."""
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
            await face.aclose()  # what is behind it is closed
        await self._stopped(self._thread)

    async def _stopped(self, thread: LoopThread) -> None:
        thread.stop()
        await thread.over()

    async def aclose(self) -> None:
        """Close it, as every handle."""
        discard(self._remote)
        await super().aclose()

    def __repr__(self) -> str:
        return f"<ThreadRegistry of {self._remote!r}>"


class ThreadRegistration(RegistrationFacts[P], _Face["Registration[P]"]):
    """A :class:`Registration` of a :class:`ThreadRegistry`."""

    def _ask(self, of: Callable[[Registration[P]], T]) -> T:
        return self._thread.call(of, self._remote)

    def statuses(self) -> Stream[Status]:
        """Return a stream of statuses, the present one first. As :meth:`Registration.statuses`."""
        return ThreadStream(self._thread, self._thread.call(self._remote.statuses))

    async def wait_live(self, timeout: float | None = None) -> None:
        """Wait until the status is LIVE. As :meth:`Registration.wait_live`."""
        await self._thread.run(self._remote.wait_live, timeout)

    async def wait_closed(self) -> Exception | None:
        """Wait for the end, and return why it ended. As :meth:`Registration.wait_closed`."""
        return await self._thread.run(self._remote.wait_closed)

    async def update(self, **fields: Any) -> None:
        """Replace the fields given, and wait until that is listed. As :meth:`Registration.update`."""
        await self._thread.run(lambda: self._remote.update(**fields))

    async def drain(self, timeout: float | None = None) -> None:
        """Publish that the instance is to be given no new work, for good. As :meth:`aioregistry.Registration.drain`."""
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
    """A :class:`View` of a :class:`ThreadRegistry`."""

    def __init__(self, registry: ThreadRegistry, thread: LoopThread, view: View[P]) -> None:
        self.name: str = view.name
        super().__init__(registry, thread, view)

    def snapshots(self) -> Stream[Snapshot[P]]:
        """Return a stream of snapshots: the present one first, latest wins. As :meth:`View.snapshots`."""
        self._check()
        return ThreadStream(self._thread, self._thread.call(self._remote.snapshots))

    @overload
    def changes(self) -> ThreadChanges[Change[P]]: ...
    @overload
    def changes(self, *, invalid: bool) -> ThreadChanges[Change[P] | Invalidated]: ...
    def changes(self, *, invalid: bool = False) -> Any:
        """Return a stream of the changes after its ``start``, a snapshot. As :meth:`View.changes`."""
        self._check()
        return ThreadChanges(self._thread, self._thread.call(lambda: self._remote.changes(invalid=invalid)))

    async def wait_for(self, predicate: Callable[[Snapshot[P]], bool], timeout: float | None = None) -> Snapshot[P]:
        """Return the first snapshot that *predicate*, which is called here, accepts. As :meth:`View.wait_for`."""
        self._check()
        return await first_accepted(self.name, self.snapshots, predicate, timeout, self._thread.outage_attempts)

    def balancer(
        self, strategy: Strategy[P] | str = "round-robin", **options: Unpack[BalancerOptions[P]]
    ) -> Balancer[P]:
        """Return what picks among the instances of this view. As :meth:`aioregistry.View.balancer`.

        It is picked from here, and fed on the registry's thread, where filters and strategies see each instance.
        """
        self._check()
        session = parts_of(self._registry._remote).session
        return self._thread.call(
            lambda: shared(self._thread, self._remote, session, self.snapshots, self._check, strategy, options)
        )

    async def sync(self, timeout: float | None = None) -> Snapshot[P]:
        """Return a snapshot as new as the quorum was when this was called. As :meth:`View.sync`."""
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
    """The changes of a view after ``start``, on the loop of the caller."""

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
