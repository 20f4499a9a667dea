"""The registry: one session that registrations and views share."""

from __future__ import annotations

import asyncio
import logging
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, overload

import anyio

from ._arguments import UNSET, Unset, check_seconds
from ._discovery import Discovery, Guard, KeptAt, Tallies, View
from ._errors import (
    ChrootMissing,
    ConnectionLost,
    ConnectTimeout,
    InvalidArgument,
    NoNode,
    RequestTimeout,
    SessionFailed,
)
from ._handles import Handle, close_together, finished, is_open
from ._health import Checks
from ._model import ServiceInstance
from ._parameters import Parameters
from ._paths import check_name, place_of
from ._protocol import Exists
from ._registration import (
    OnConflict,
    OnDisplaced,
    Registration,
    Withdrawals,
    begin_withdrawal,
    close_all,
    has_ended,
)
from ._runtime import SystemRuntime
from ._session import Session, SessionInfo, outage_attempts
from ._spans import tell_the_rest
from ._streams import Stream

if TYPE_CHECKING:
    from ._client import RegistryClient
    from ._maintenance import Overrides

__all__ = ["Parts", "Registry", "farewell_patience", "parts_of"]

P = TypeVar("P")

log = logging.getLogger("aioregistry.registry")

_LEFT_IN_ONE_TURN: Final = 200
"""Registrations, when all are closed: some 10 ms of this loop's time."""


class Registry(Handle):
    """A session with an ensemble, with its registrations and views; made by :func:`connect`.

    Leaving it withdraws every registration, ends every view and closes the session, within ``close_timeout``.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._base_path = parameters.base_path
        self._marked = parameters.marked
        self._connect_timeout, self._close_timeout = parameters.connect_timeout, parameters.close_timeout
        self._wait, self._create_chroot = parameters.wait, parameters.create_chroot
        self._guard = parameters.guard
        self._chroot = parameters.connect_string.chroot
        self._acl = parameters.acl
        self._session = Session(
            parameters.connect_string,
            timeout=parameters.session_timeout,
            runtime=parameters.runtime or SystemRuntime(),
            auth=parameters.auth,
            tls=parameters.tls,
            allow_read_only=parameters.allow_read_only,
            max_request=parameters.max_request,
            hooks=parameters.hooks,
        )
        self._discovery = Discovery(
            self._session, self._base_path, parameters.watches, marked=self._marked, overridden=self._marked
        )
        self._registrations: weakref.WeakValueDictionary[tuple[str, str], Registration[Any]]
        self._registrations = weakref.WeakValueDictionary()
        self._withdrawals = Withdrawals()
        self._views: weakref.WeakValueDictionary[int, View[Any]] = weakref.WeakValueDictionary()
        self._client: RegistryClient | None = None
        self._overrides: Overrides | None = None
        super().__init__()

    # ------------------------------------------------------------------ what it offers

    @property
    def session(self) -> SessionInfo:
        """The session, with ``state``, ``states()``, ``connected``, ``server``, ``attempts`` and ``id``."""
        return SessionInfo(self._session)

    @property
    def base_path(self) -> str:
        """The path under which the services are, the chroot included."""
        return self._base_path

    @property
    def overrides(self) -> Overrides:
        """The overrides of operators: maintenance of any instance, and weights."""
        self._check()
        if self._overrides is None:
            from ._maintenance import Overrides

            self._overrides = Overrides(self._session, self._base_path, self._acl, self._check)
        return self._overrides

    @property
    def client(self) -> RegistryClient:
        """An aiozk client on this registry's session, for aiozk's verbs and recipes; it ends with the registry."""
        self._check()
        if self._client is None:
            from ._client import RegistryClient

            self._client = RegistryClient(self._session, self._chroot, default_acl=self._acl)
        return self._client

    def register(
        self,
        instance: ServiceInstance[P],
        *,
        wait: bool = True,
        on_conflict: OnConflict = "takeover",
        on_displaced: OnDisplaced = "standby",
        close_timeout: float | None = None,
        checks: Checks | None = None,
    ) -> Registration[P]:
        """Return a registration of *instance*, to be entered or awaited.

        Args:
            instance: what to list; its type must be DYNAMIC.
            wait: True waits on entering until the instance is listed, however long that takes; False enters at once.
            on_conflict: the reaction to a node that another session owns and that was there before: "takeover" replaces
                it, "wait" waits until it goes, "fail" raises :class:`RegistrationConflict`.
            on_displaced: the reaction to a newer claimant that takes the id: "standby" waits until it goes, and lists
                the instance again; "stop" ends the registration with :class:`RegistrationDisplaced`.
            close_timeout: seconds that withdrawing may take; the registry's unless given.
            checks: the instance's health checks by name: async functions, or :class:`Check` and its kind. While one
                does not pass, as at first, the instance is listed as not enabled, with the status "failing". They run
                on this loop, from entering until closing.

        Raises:
            InvalidArgument: the id is registered in this registry already, the instance cannot be registered, or an
                option is wrong; at once.
            UsageError: the registry is not entered.
        """
        self._check()
        if close_timeout is not None:
            check_seconds("close_timeout", close_timeout)
        if isinstance(instance, ServiceInstance):  # whatever else it is, Registration refuses it
            self._require_free(instance)
        registration = Registration(
            self._session,
            instance,
            base_path=self._base_path,
            on_conflict=on_conflict,
            on_displaced=on_displaced,
            wait=wait,
            close_timeout=self._close_timeout if close_timeout is None else close_timeout,
            acl=self._acl,
            chroot=self._chroot,
            create_chroot=self._create_chroot,
            withdrawals=self._withdrawals,
            marked=self._marked,
            checks=checks,
            follow_overrides=self._discovery.follow_overrides,
        )
        self._registrations[place_of(instance.name), instance.id] = registration
        return registration

    def _require_free(self, instance: ServiceInstance[Any]) -> None:
        present = self._registrations.get((place_of(instance.name), instance.id))
        if present is not None and not has_ended(present):
            raise InvalidArgument("id", instance.id, f"is registered as {instance.name!r} in this registry already")

    @overload
    def discover(self, name: str, *, guard: Guard | Unset | None = UNSET, keep: KeptAt | None = None) -> View[Any]: ...
    @overload
    def discover(
        self,
        name: str,
        *,
        payload_type: type[P],
        guard: Guard | Unset | None = UNSET,
        keep: KeptAt | None = None,
    ) -> View[P]: ...
    @overload
    def discover(
        self,
        name: str,
        *,
        payload_type: Any,
        guard: Guard | Unset | None = UNSET,
        keep: KeptAt | None = None,
    ) -> View[Any]: ...
    def discover(
        self,
        name: str,
        *,
        payload_type: Any = Any,
        guard: Guard | Unset | None = UNSET,
        keep: KeptAt | None = None,
    ) -> View[Any]:
        """Return a view of the service *name*, to be entered or awaited; then it has read the whole service once.

        Args:
            name: the service.
            payload_type: the type of payloads, any type to which msgspec converts JSON; an instance whose payload does
                not fit is listed under ``snapshot.invalid``.
            guard: decides which removals the view holds back for a while; the registry's unless given. With None the
                view believes every removal at once.
            keep: path of a file in which the view keeps its last snapshot. If there is no connection, the next process
                begins with the file's instances, as suspects, and entering does not wait for a connection.

        Raises:
            InvalidArgument: the name is not a path, the guard is not a :class:`Guard`, or a file cannot be kept there;
                at once. Entering raises it for a file of another service, base path or version.
            UsageError: the registry is not entered.
        """
        self._check()
        guard = self._guard if isinstance(guard, Unset) else guard
        view = self._discovery.view(check_name("name", name), payload_type=payload_type, guard=guard, keep=keep)
        self._views[id(view)] = view
        return view

    async def services(self, timeout: float | None = None) -> list[str]:
        """Return the names of all services, sorted; those without an instance at the moment included.

        The call waits until there is a connection. Cancelling is harmless.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            RequestTimeout: they were not read within *timeout*.
            ServerError: the server refuses to let you read them.
            UsageError: the registry is not entered.
        """
        self._check()
        if timeout is not None:
            check_seconds("timeout", timeout)
        with anyio.move_on_after(timeout):
            return await self._discovery.services()
        state = self._session.state.value
        message = f"the services were not read within timeout={timeout} s; the session is {state}"
        raise RequestTimeout(message, outage_attempts(self._session))

    def watch_services(self) -> Stream[tuple[str, ...]]:
        """Return a stream of the sorted names of all services: the present ones first, latest wins."""
        self._check()
        return self._discovery.watch_services()

    # ------------------------------------------------------------------ opening and closing

    async def _open(self) -> None:
        self._session.start()
        if self._chroot and not self._wait:
            self._look_for_chroot_later()
        # anyio loads its backend when it is first asked for anything, which takes 20 ms: now, while the connection is
        # made, and not when a process that has to end withdraws.
        anyio.CancelScope()
        if not self._wait:
            return
        try:
            await self._connect()
        except BaseException as error:
            # A server that did not answer in time gets no more time: the farewell is sent and not waited for.
            patience = 0.0 if isinstance(error, ConnectTimeout) else self._close_timeout
            await finished(asyncio.get_running_loop().create_task(self._session.close(patience)))
            if isinstance(error, SessionFailed) and error.__cause__ is not None:
                raise error.__cause__ from None
            raise

    async def _connect(self) -> None:
        session, loop = self._session, asyncio.get_running_loop()
        until = loop.time() + self._connect_timeout
        await session.wait_connected(self._connect_timeout)
        try:
            async with asyncio.timeout_at(until):
                while not await self._looked_for_chroot():
                    await session.wait_connected()
        except TimeoutError:
            why = f"accepted a session; chroot={self._chroot!r} was not looked for in time"
            raise ConnectTimeout(
                str(session.connect_string), self._connect_timeout, {str(session.server): why}
            ) from None

    async def _looked_for_chroot(self) -> bool:
        """Look for the chroot and tell where it is missing; return False for a connection that was lost meanwhile."""
        try:
            if self._chroot:
                await self._session.request(Exists(self._chroot))
        except NoNode:
            if not self._create_chroot:
                raise ChrootMissing(self._chroot) from None
            self._tell_of_missing_chroot()
        except ConnectionLost:
            return False
        return True

    def _look_for_chroot_later(self) -> None:
        """Look for the chroot when there is a connection, for those that do not wait for one."""

        def look() -> None:
            if self._session.connected:
                _ = self._session.submit(Exists(self._chroot), answered)

        def answered(answer: asyncio.Future[Any]) -> None:
            error = answer.exception()
            if isinstance(error, NoNode):
                self._tell_of_missing_chroot()
            if error is None or isinstance(error, NoNode):
                stop()

        stop = self._session.observe(look)

    def _tell_of_missing_chroot(self) -> None:
        made = (
            "a registration makes it" if self._create_chroot else "create_chroot=False leaves it to others to make it"
        )
        text = "chroot=%r does not exist: it is empty for readers; %s"
        log.warning(text, self._chroot, made, extra={"path": self._chroot})

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        whole, began = self._withdrawals.patience(self._close_timeout, self._session), loop.time()
        deadline = began + whole
        # The end of the session takes what could not be withdrawn in time: a withdrawal too, once it is answered. So
        # nothing else is begun in the last third of the time, which is for that.
        withdrawing = began + whole * 2 / 3
        self._discovery.close_by(deadline)
        # A task that is entering a handle learns it from the end of the session.
        registrations = [handle for handle in self._registrations.values() if is_open(handle)]
        for number, registration in enumerate(registrations):
            begin_withdrawal(registration)
            if number % _LEFT_IN_ONE_TURN == 0:
                await asyncio.sleep(0)  # for the answers, which let the next ones be sent
                if loop.time() >= withdrawing:
                    break
        registrations = [registration for registration in registrations if is_open(registration)]
        left = max(withdrawing - loop.time(), 0.0)
        closings = [close_together(registrations, close_all(registrations, left))]
        closings += [loop.create_task(view.aclose()) for view in self._views.values() if is_open(view)]
        await asyncio.wait(closings, timeout=left)
        await self._discovery.aclose()
        await self._session.close(farewell_patience(loop.time() - began, whole))
        await self._withdrawals.over()  # they end with the session
        if self._overrides is not None:
            self._overrides.close()
        for closing in closings:
            await closing
        tell_the_rest()

    def __repr__(self) -> str:
        return f"<Registry {self._session.connect_string} {self._session!r}>"


class Parts(NamedTuple):
    """The parts of a registry, for the rooms above; users have its methods."""

    session: Session
    registrations: tuple[Registration[Any], ...]
    views: tuple[View[Any], ...]
    tallies: Tallies


def parts_of(registry: Registry) -> Parts:
    """Return what *registry* is made of now; on its loop, where it is open."""
    registrations, views = tuple(registry._registrations.values()), tuple(registry._views.values())
    return Parts(registry._session, registrations, views, registry._discovery.tallies)


def farewell_patience(spent: float, whole: float) -> float:
    """Return the seconds for which the answer to the end of the session is awaited.

    That is the rest of the *whole* time for closing. A busy machine makes everything take longer, the server's answer
    too, and without it the outcome of the withdrawals is unknown: so it is half of the time *spent* so far at least,
    which is a third of the whole where nothing was late, and no more than the whole once more.
    """
    return max(whole - spent, min(spent / 2, whole))
