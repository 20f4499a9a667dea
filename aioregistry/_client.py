"""aiozk's client on our session: its verbs and recipes without its connection handling.

aiozk's ``ZKClient`` asks little of the object behind ``client.session``: to send a request, to call back for events,
to tell its state. :class:`SharedSession` is such an object. All of aiozk above it stays as it is
documented there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from aiozk import exc
from aiozk.protocol.acl import ACL
from aiozk.protocol.create import Create2Request, Create2Response, CreateRequest
from aiozk.protocol.request import Request
from aiozk.protocol.response import response_xref
from aiozk.protocol.transaction import MultiHeader, TransactionRequest, TransactionResponse
from aiozk.states import States

from ._aiozk_types import ZKClient
from ._errors import ConnectionLost, ProtocolError, ServerError, UnknownServerError, server_error
from ._protocol import OPEN_ACL, WRITE_OPCODES, CreateContainer, Message, MultiRead, WatchedEvent
from ._protocol.jute import read_int
from ._session import Session, SessionState, Watch

__all__ = ["ClientState", "RegistryClient", "RequestLost", "SharedSession", "UnlistedError"]


class RegistryClient(ZKClient):
    """An ``aiozk.ZKClient`` whose session is the registry's.

    Its verbs (``create``, ``get``, ``set_data``, ``begin_transaction`` …) and recipes (``client.recipes.Counter`` …)
    work as in aiozk, with these differences:

    - A write whose answer was lost with the connection raises :class:`RequestLost` instead of being sent again, which
      could apply it twice: look, or call what may be repeated (a lock's ``release()``, an election's ``resign()``)
      once more. Reads, and what certainly was not sent, are repeated.
    - ``container=True``, and the parents that ``ensure_path`` makes, are containers: the server removes them some time
      after their last child.
    - Waiting ends when the session is closed or fails: every verb, ``session.ensure_safe_state()`` and
      ``session.state.wait_for(…)`` then raise ``aiozk.exc.InvalidClientState``, chained to the error that ended it.

    aiozk's locks, leases and elections do not notice that the session has expired: their holder goes on as the owner of
    what another process owns by then.

    Every other error is ``aiozk.exc``'s for the server's code, chained to ours. A request larger than the servers'
    jute.maxbuffer raises :class:`~aioregistry._errors.RequestTooLarge` before it is sent. No verb has a deadline of its
    own: each waits for as long as there is no connection, and cancelling it forgets the answer, not the request.
    Above the session it is all aiozk: its ``stat_cache``, for one, keeps an entry for every path that was used.

    Args:
        session: the session to use. It is shared: ephemeral nodes made here live until it ends, and ``close()`` of the
            client leaves it alone.
        chroot: the path that every path of the client is under; it is expected to be there (a registration makes it).
        default_acl: the ACL of nodes created without one.
    """

    def __init__(self, session: Session, chroot: str = "", *, default_acl: Sequence[ACL] = OPEN_ACL) -> None:
        # It makes a session of aiozk's too, which does nothing before it is started; it never is.
        super().__init__(str(session.connect_string), chroot, default_acl=list(default_acl))
        self.session: SharedSession = SharedSession(session)

    async def start(self) -> None:
        """Wait until the session is connected. Raises ``aiozk.exc.InvalidClientState`` when it ended."""
        # aiozk's also makes the chroot, as a container: here only a registration does.
        await self.session.start()


class RequestLost(exc.ConnectError, exc.TimeoutError):
    """The connection ended before the answer to a write came; the write may have been applied.

    A ``ConnectError`` by what happened. A ``TimeoutError`` as well because that is what aiozk fails the pending
    requests of a connection with, so that code written for aiozk expects it. Its cause is
    :class:`~aioregistry._errors.ConnectionLost`.
    """

    def __str__(self) -> str:
        return f"connection to {self.host}:{self.port} lost before the answer came; the request may have been applied"


class UnlistedError(exc.UnknownError):
    """The server answered with an error code that aiozk does not list; ``error_code`` has it."""

    def __init__(self, error_code: int, description: str) -> None:
        # Not aiozk's constructor: it prints the code to the standard output.
        Exception.__init__(self, error_code, description)
        self.error_code = error_code
        self.description = description

    def __str__(self) -> str:
        return self.description


def _as_aiozk(error: ServerError) -> exc.ResponseError:
    """Return aiozk's exception for the server's error."""
    code = error.number if isinstance(error, UnknownServerError) else error.code
    listed = exc.response_error_xref.get(code)
    return UnlistedError(code, str(error)) if listed is None else listed()


# ---------------------------------------------------------------- the session


class _Server(NamedTuple):
    version_info: tuple[int, int, int]


class SharedSession:
    """A session as aiozk's client and recipes expect it, on one of ours."""

    def __init__(self, session: Session) -> None:
        self.state: ClientState = ClientState(session)
        self._session = session
        self._watches: dict[tuple[int, str, Callable[[str], object]], Watch] = {}

    @property
    def conn(self) -> _Server:
        """The text from which aiozk reads the server's version, and derives its features.

        aiozk asks the server by the four-letter word ``srvr``, which may be disabled. Here it is the lowest version
        that has what this server was seen to have; CreateContainer came with 3.5.1, MultiRead with 3.6.
        """
        if self._session.supports(CreateContainer.opcode) is False:
            return _Server((3, 5, 0))
        return _Server((3, 6, 0) if self._session.supports(MultiRead.opcode) else (3, 5, 3))

    async def start(self) -> None:
        """Wait until the session is connected; its owner started it."""
        await self.ensure_safe_state()

    async def close(self) -> None:
        """Leave the session alone: its owner closes it."""

    async def ensure_safe_state(self, writing: bool = False) -> None:
        """Return when a request can be sent, *writing* or not; at once when it can be now."""
        safe = (States.CONNECTED,) if writing else (States.CONNECTED, States.READ_ONLY)
        # Again after waiting: the state may have changed between the future's result and its waiter's turn.
        while self.state.current_state not in safe:
            await self.state.wait_for(*safe)

    async def send(self, request: Request) -> Any:
        """Send one of aiozk's requests, when there is a connection, and return aiozk's response.

        Raises ``aiozk.exc.ResponseError`` by the server's code, :class:`RequestLost`, ``aiozk.exc.InvalidClientState``
        when the session ended. Cancelling forgets the answer, not the request.
        """
        message = _mended(request)
        while True:
            await self.ensure_safe_state(writing=request.opcode in WRITE_OPCODES)
            server = self._session.server
            try:
                return (await self._session.submit(message)).value
            except ServerError as error:
                raise _as_aiozk(error) from error
            except ConnectionLost as lost:
                if lost.maybe_applied:
                    assert server is not None
                    raise RequestLost(server.host, server.port) from lost

    def add_watch_callback(self, event_type: int, path: str, callback: Callable[[str], object]) -> None:
        """Call *callback* with *path* after each event of *event_type* on it, until it is removed."""
        key = (event_type, path, callback)
        if key in self._watches:
            return

        def deliver() -> None:
            if key in self._watches:
                callback(path)

        def fired(event: WatchedEvent) -> None:
            # In a later turn of the loop: an exception of a user's callback must not reach the connection.
            if event.kind == event_type:
                asyncio.get_running_loop().call_soon(deliver)

        self._watches[key] = self._session.watches.listen(path, fired)

    def remove_watch_callback(self, event_type: int, path: str, callback: Callable[[str], object]) -> None:
        """Stop calling *callback*; may be called again."""
        if watch := self._watches.pop((event_type, path, callback), None):
            watch.close()


class ClientState:
    """The session's state in aiozk's terms, like its ``SessionStateMachine``, but following ours."""

    _SHOWN: ClassVar[dict[SessionState, str]] = {
        SessionState.DISCONNECTED: States.LOST,
        SessionState.CONNECTED: States.CONNECTED,
        SessionState.SUSPENDED: States.SUSPENDED,
        SessionState.RECONNECTED: States.CONNECTED,
        SessionState.EXPIRED: States.LOST,
        SessionState.CLOSED: States.LOST,
        SessionState.FAILED: States.LOST,
    }
    _FINAL: Final = (SessionState.CLOSED, SessionState.FAILED)

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: dict[asyncio.Future[None], tuple[str, ...]] = {}
        session.observe(self._settle_all)

    @property
    def current_state(self) -> str:
        """One of ``aiozk.states.States``."""
        return States.READ_ONLY if self._session.read_only else self._SHOWN[self._session.state]

    def wait_for(self, *states: str) -> asyncio.Future[None]:
        """Return a future that is done in any of *states*, and fails when the session ends in another one."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = states
        future.add_done_callback(self._forget)
        self._settle(future, states)
        return future

    def remove_waiting(self, future: asyncio.Future[None], *states: str) -> None:
        """Stop *future* waiting for *states*."""
        remaining = tuple(state for state in self._waiting.pop(future, ()) if state not in states)
        if remaining:
            self._waiting[future] = remaining

    def _forget(self, future: asyncio.Future[None]) -> None:
        self._waiting.pop(future, None)

    def _settle_all(self) -> None:
        for future, states in list(self._waiting.items()):
            self._settle(future, states)

    def _settle(self, future: asyncio.Future[None], states: tuple[str, ...]) -> None:
        if future.done():
            return
        if self.current_state in states:
            future.set_result(None)
        elif self._session.state in self._FINAL:
            # Not SessionLost: aiozk's Lock tries again at once when it meets that, for ever.
            ended = exc.InvalidClientState(f"the session is {self._session.state.value}")
            ended.__cause__ = self._session.failure
            future.set_exception(ended)
            future.exception()  # retrieved, even if the caller does not look

    def __eq__(self, state: object) -> bool:
        return self.current_state == state

    __hash__: ClassVar[None]  # type: ignore[assignment]  # equal to a string that changes

    def __repr__(self) -> str:
        return f"<ClientState {self.current_state}>"


# ---------------------------------------------------------------- requests that aiozk gets wrong


class _CreateContainerRequest(Create2Request):
    opcode = CreateContainer.opcode


class _CreateContainer(Message[Create2Response]):
    """aiozk's request with the opcode that makes a container, its response read here: aiozk does not have it."""

    opcode = CreateContainer.opcode

    def __init__(self, request: CreateRequest) -> None:
        self.path = request.path
        self._request = _CreateContainerRequest(
            path=request.path, data=request.data, acl=request.acl, flags=request.flags
        )

    def serialize(self, xid: int | None = None) -> bytes:
        payload: bytes = self._request.serialize(xid)
        return payload

    def read_reply(self, body: bytes, at: int) -> tuple[Create2Response, int]:
        response, at = Create2Response.parse(body, at)
        return response, at


class _Transaction(Message[TransactionResponse]):
    """aiozk's transaction, its response read here: aiozk prints the error codes that it does not list."""

    opcode = TransactionRequest.opcode

    def __init__(self, request: TransactionRequest) -> None:
        self._request = request

    def serialize(self, xid: int | None = None) -> bytes:
        payload: bytes = self._request.serialize(xid)
        return payload

    def read_reply(self, body: bytes, at: int) -> tuple[TransactionResponse, int]:
        response = TransactionResponse()
        header, at = MultiHeader.parse(body, at)
        while not header.done:
            result, at = self._read_result(header.type, body, at)
            response.responses.append(result)
            header, at = MultiHeader.parse(body, at)
        return response, at

    @staticmethod
    def _read_result(kind: int, body: bytes, at: int) -> tuple[Any, int]:
        if kind == -1:
            code, at = read_int(body, at)
            return _as_aiozk(server_error(code)), at
        # In a transaction, too, aiozk knows no answer to the creation of a container.
        response = Create2Response if kind == CreateContainer.opcode else response_xref.get(kind)
        if response is None:
            raise ProtocolError(f"an operation of a transaction was answered as type {kind}")
        result, at = response.parse(body, at)
        return result, at


def _mended(request: Request) -> Request:
    match request:
        case TransactionRequest():
            return _Transaction(request)
        case CreateRequest(flags=CreateRequest.CONTAINER_FLAG):
            # PrepRequestProcessor goes by the opcode: the flag alone makes a plain node. (In a transaction it does not,
            # for there the server takes the opcode from the flag: Op.Create.)
            return _CreateContainer(request)
    return request
