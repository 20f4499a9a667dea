"""The facts of handles on the registry's loop, read from any other thread: the half that both faces share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from aioregistry._discovery.view import driver_of
from aioregistry._reprs import shown_half_made
from aioregistry._session import SessionState
from aioregistry._streams import Stream

if TYPE_CHECKING:
    from aioregistry._discovery import View
    from aioregistry._errors import RegistrationDisplaced
    from aioregistry._health import CheckStatus
    from aioregistry._model import Override, ServiceInstance, Snapshot
    from aioregistry._registration import Registration, Status
    from aioregistry._session import Attempt, SessionInfo

    from .loop import LoopThread

__all__ = ["Newest", "RegistrationFacts", "SessionFacts", "ViewFacts"]

P = TypeVar("P")
T = TypeVar("T")


@shown_half_made
class SessionFacts:
    """The facts of the session; each property is read on the registry's loop, which takes some 0.1 ms."""

    def __init__(self, thread: LoopThread, session: SessionInfo) -> None:
        self._thread, self._remote = thread, session

    @property
    def id(self) -> int:
        """The session's id, 0 before the first and between two; compare by equality only."""
        return self._thread.call(lambda: self._remote.id)

    @property
    def state(self) -> SessionState:
        """The public state."""
        return self._thread.call(lambda: self._remote.state)

    @property
    def connected(self) -> bool:
        """A server has accepted the session on this connection."""
        return self._thread.call(lambda: self._remote.connected)

    @property
    def read_only(self) -> bool:
        """The connected server has no quorum."""
        return self._thread.call(lambda: self._remote.read_only)

    @property
    def presumed_expired(self) -> bool:
        """Whether the quorum has not answered for a session timeout."""
        return self._thread.call(lambda: self._remote.presumed_expired)

    @property
    def timeout(self) -> float:
        """The session timeout in seconds, as negotiated; before that, as it will be asked for."""
        return self._thread.call(lambda: self._remote.timeout)

    @property
    def server(self) -> str | None:
        """The server connected to."""
        server = self._thread.call(lambda: self._remote.server)
        return None if server is None else str(server)

    @property
    def attempts(self) -> Mapping[str, Attempt]:
        """Each address's last answer, in the present outage or the last one."""
        return self._thread.call(lambda: dict(self._remote.attempts))

    def __repr__(self) -> str:
        if self._thread.is_elsewhere():
            return "<the session of a registry that was opened before a fork>"
        return self._thread.call(repr, self._remote)


class RegistrationFacts(Generic[P]):
    """The facts of a registration; each property is read on the registry's loop."""

    def _ask(self, of: Callable[[Registration[P]], T]) -> T:
        """Return *of* the registration, on the loop."""
        raise NotImplementedError

    @property
    def instance(self) -> ServiceInstance[P]:
        """The instance as it is to be listed."""
        return self._ask(lambda registration: registration.instance)

    @property
    def path(self) -> str:
        """The path of its node, chroot included."""
        return self._ask(lambda registration: registration.path)

    @property
    def status(self) -> Status:
        """The present facts."""
        return self._ask(lambda registration: registration.status)

    @property
    def owner(self) -> int | None:
        """The id of the session that owns our node, as last seen; None if the node is not known to exist."""
        return self._ask(lambda registration: registration.owner)

    @property
    def displaced(self) -> RegistrationDisplaced | None:
        """Why the status is DISPLACED; None while it is not."""
        return self._ask(lambda registration: registration.displaced)

    @property
    def checks(self) -> Mapping[str, CheckStatus]:
        """Each check by name: its state, since when, and why it failed last."""
        return self._ask(lambda registration: dict(registration.checks))

    @property
    def override(self) -> Override | None:
        """The operator's override of this instance, as far as the registry has read it; None: there is no override."""
        return self._ask(lambda registration: registration.override)

    @property
    def withdrawn(self) -> bool | None:
        """Whether our node is gone; None until the registration is closed."""
        return self._ask(lambda registration: registration.withdrawn)


class Newest(Stream[None], Generic[P]):
    """The newest snapshot of a view, kept for other threads until the view has another.

    A consumer of the view: it is told in the middle of a change, before any other stream, so that a thread that has
    heard of a change sees a snapshot that has it.
    """

    def __init__(self, view: View[P]) -> None:
        super().__init__(1)
        self._view = view
        self.value: Snapshot[P] | None = None

    @classmethod
    def of(cls, view: View[P]) -> Self:
        """Return the newest of *view*, which tells it from now on; on the loop."""
        newest = cls(view)
        driver_of(view).snapshot_streams.attach(newest)
        return newest

    def read(self) -> Snapshot[P]:
        """Return the newest; on the loop."""
        self.value = self._view.snapshot
        return self.value

    def _offer(self, item: object) -> None:  # noqa: ARG002 - what the source says is that there is another
        self.value = None


class ViewFacts(Generic[P]):
    """The facts of a view. A snapshot is read without a lock; a new one is made on the registry's loop when needed."""

    def _ask(self, of: Callable[[View[P]], T]) -> T:
        """Return *of* the view, on the loop; raise unless it is open."""
        raise NotImplementedError

    def _kept(self) -> Newest[P]:
        """Return the newest snapshot; raise unless the view is open."""
        raise NotImplementedError

    @property
    def snapshot(self) -> Snapshot[P]:
        """The present snapshot."""
        newest = self._kept()
        value = newest.value
        return self._ask(lambda _: newest.read()) if value is None else value

    @property
    def fresh(self) -> bool:
        """Whether the snapshot is true now, as far as a client can know."""
        return self._ask(lambda view: view.fresh)

    @property
    def held_total(self) -> int:
        """How many removals this view's guard has held back so far."""
        return self._ask(lambda view: view.held_total)

    def report_failed(self, id: str, error: BaseException | None = None) -> bool:
        """Report that a call to the instance *id* failed; return whether that dropped it.

        Only a suspect can be dropped, by refused connections. The picks of a balancer report by themselves;
        :meth:`aioregistry.View.report_failed` says which failures count.

        Args:
            id: of the instance that was called.
            error: the exception that ended the call; a refused connection counts, as this or as one of its causes.

        Raises:
            InvalidArgument: an argument is of the wrong type.
            HandleClosed: the view is closed.
        """
        return self._ask(lambda view: view.report_failed(id, error))
