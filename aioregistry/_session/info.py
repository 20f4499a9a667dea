"""A user's questions to the session; its changes belong to the registry."""

from __future__ import annotations

from collections.abc import Mapping

from aioregistry._runtime import Endpoint
from aioregistry._streams import Stream

from .attempts import Attempt
from .session import Session
from .states import SessionState

__all__ = ["SessionInfo"]


class SessionInfo:
    """A session as its registry shows it: facts, and a stream of states."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def id(self) -> int:
        """The session's id, 0 before the first and between two; compare by equality only."""
        return self._session.id

    @property
    def state(self) -> SessionState:
        """The public state."""
        return self._session.state

    @property
    def connected(self) -> bool:
        """A server has accepted the session on this connection, and requests can be sent."""
        return self._session.connected

    @property
    def read_only(self) -> bool:
        """The connected server has no quorum: it answers reads, which may be of any age."""
        return self._session.read_only

    @property
    def presumed_expired(self) -> bool:
        """Whether the quorum has not answered for a session timeout: the server may have ended the session."""
        return self._session.presumed_expired

    @property
    def timeout(self) -> float:
        """The session timeout in seconds, as negotiated; before that, as it will be asked for."""
        return self._session.timeout

    @property
    def server(self) -> Endpoint | None:
        """The server connected to."""
        return self._session.server

    @property
    def attempts(self) -> Mapping[str, Attempt]:
        """Each address's last answer: how that ended, in words, since when, when last, and how often in a row.

        By ``host:port``, or ``name(address):port`` where there is a name; a name that was not resolved is
        ``name:port``. It tells of the present outage, or of the last one while there is a connection.
        """
        return self._session.attempts

    def states(self) -> Stream[SessionState]:
        """Return a stream of the states from the next one on; a slow consumer misses the oldest of more than 64.

        It ends when the session is closed, and raises the error that ended the session; UsageError in another loop.
        """
        return self._session.states()

    def __repr__(self) -> str:
        return repr(self._session)
