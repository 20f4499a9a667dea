"""The mirrors of one session, and the views over them."""

from __future__ import annotations

import asyncio
import math
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from aioregistry._errors import InvalidArgument
from aioregistry._handles import is_closed
from aioregistry._markers import root_of
from aioregistry._overrides import overrides_root
from aioregistry._paths import place_of
from aioregistry._session import ReadingSessionPort
from aioregistry._streams import Stream

from .barrier import Barrier
from .departures import Departures
from .follower import Follower, WatchMode
from .guard_options import Guard
from .names import ServiceNames
from .overrides import OverrideReader, Told
from .tallies import Tallies
from .view import KeptAt, View

if TYPE_CHECKING:
    from .keeper import Keeper
    from .kept import Kept

__all__ = ["Discovery"]

P = TypeVar("P")


class Discovery:
    """The mirrors of one session: one for each service that is viewed, shared by all its views.

    Args:
        session: read and watched through; need not be connected.
        base_path: absolute path of the services; empty for the root.
        strategy: how nodes are watched, see :data:`WatchMode`.
        marked: whether there are markers of withdrawals beside the base path.
        overridden: whether operators may override instances, beside the base path.

    Attributes:
        session: that one.
        base_path: where the services are, as a file of one names it.
        departures: the withdrawals from the services.
        overrides: of operators; None where they are not read.
        tallies: the counts of the balancers of all views.
    """

    def __init__(
        self,
        session: ReadingSessionPort,
        base_path: str,
        strategy: WatchMode = "auto",
        *,
        marked: bool = True,
        overridden: bool = False,
    ) -> None:
        self.session = session
        self._base_path = base_path.rstrip("/")
        self.base_path: str = self._base_path or "/"
        root = root_of(self._base_path) if marked and strategy != "one-shot" else None
        self.departures: Departures = Departures(session, self._base_path, root, self._departed)
        self.overrides: OverrideReader | None = None
        if overridden:
            self.overrides = OverrideReader(session, overrides_root(self._base_path), strategy)
        self.tallies: Tallies = Tallies()
        self._strategy = strategy
        self._barrier = Barrier(session)
        self._names: ServiceNames | None = None
        self._closes_by = math.inf
        self._followers: dict[str, Follower] = {}
        self._kept_at: weakref.WeakValueDictionary[os.PathLike[str], View[Any]] = weakref.WeakValueDictionary()

    @overload
    def view(self, name: str, *, guard: Guard | None = None, keep: KeptAt | None = None) -> View[Any]: ...
    @overload
    def view(
        self, name: str, *, payload_type: type[P], guard: Guard | None = None, keep: KeptAt | None = None
    ) -> View[P]: ...
    @overload
    def view(
        self, name: str, *, payload_type: Any, guard: Guard | None = None, keep: KeptAt | None = None
    ) -> View[Any]: ...
    def view(
        self, name: str, *, payload_type: Any = Any, guard: Guard | None = None, keep: KeptAt | None = None
    ) -> View[Any]:
        """Return a view of the service *name*, to be entered or awaited; see :class:`View`."""
        return View(self, name, payload_type=payload_type, guard=guard, keep=keep)

    async def services(self) -> list[str]:
        """Return the names of all services, sorted; waits for a connection. Cancelling is harmless.

        Raises:
            ServerError: the base path cannot be read.
            SessionFailed: there will be no connection.
        """
        return await self._service_names().read()

    def watch_services(self) -> Stream[tuple[str, ...]]:
        """Return a stream of the sorted names of all services: the present ones first, latest wins."""
        return self._service_names().stream()

    def follow_overrides(self, name: str, told: Told) -> Callable[[], None]:
        """Call *told* with the overrides of the service *name* that are in force, and whenever they change.

        Return what ends that.
        """
        return _nothing if self.overrides is None else self.overrides.follow(name, told)

    def close_by(self, deadline: float) -> None:
        """Let views that are closed from now on take no longer than until *deadline*, by the loop's clock."""
        self._closes_by = deadline

    def patience(self) -> float:
        """Return how many seconds a view that is closed now may take."""
        return self._closes_by - asyncio.get_running_loop().time()

    async def aclose(self) -> None:
        """End every view's streams, and follow nothing any more."""
        if self._names is not None:
            await self._names.aclose()
        if self.overrides is not None:
            await self.overrides.aclose()
        for follower in list(self._followers.values()):
            await follower.aclose()
        self._followers.clear()
        self._barrier.close()

    def keeper(self, keep: KeptAt, view: View[Any], state: weakref.WeakMethod[Callable[[], Kept | None]]) -> Keeper:
        """Return who keeps what *state* returns for *view* in the file at *keep*.

        Raises:
            InvalidArgument: no file can be kept there, or a view of another service keeps its own there.
        """
        from .keeper import Keeper, checked_path  # hashing, threads and paths, for the views that want them

        path = checked_path(keep)
        other = self._kept_at.get(path)
        if other is not None and other.name != view.name and not is_closed(other):
            raise InvalidArgument(
                "keep", keep, f"is where the view of {other.name!r} is kept: give each a file of its own"
            )
        self._kept_at[path] = view
        return Keeper(path, view.name, self.base_path, self.session, state)

    def acquire(self, name: str) -> Follower:
        """Return the follower of a service, for a view; each is to be released."""
        name = place_of(name)
        follower = self._followers.get(name)
        if follower is None or follower.ended is not None:
            path = f"{self._base_path}/{name}"
            departures = self.departures
            follower = Follower(
                self.session, path, name, self._strategy, departures.arm, self._barrier, saw=departures.saw
            )
            follower.start()
            self._followers[name] = follower
        follower.users += 1
        return follower

    async def release(self, follower: Follower) -> None:
        """A view stops using *follower*, which is closed with its last view."""
        follower.users -= 1
        if follower.users == 0:
            if self._followers.get(follower.name) is follower:
                del self._followers[follower.name]
            await follower.aclose()

    def _departed(self, name: str, id: str, czxid: int) -> None:
        follower = self._followers.get(name)
        if follower is not None:
            follower.departed(id, czxid)

    def _service_names(self) -> ServiceNames:
        if self._names is None:
            self._names = ServiceNames(self.session, self.base_path)
        return self._names


def _nothing() -> None:
    """Nothing is followed."""
