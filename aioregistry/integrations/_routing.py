"""The common part of the HTTP clients' integrations: a request to ``<service>.registry`` finds an instance.

How it went is reported to the balancer, and a request that failed is repeated on another instance where that does no
harm.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, Final, Generic, TypeVar

from aioregistry import Balancer, Ejection, Pick, Registry, View
from aioregistry._arguments import check_count, check_flag, check_optional, check_seconds
from aioregistry._errors import HandleClosed, InvalidArgument, RegistryError, RequestTimeout
from aioregistry._session import outage_attempts
from aioregistry.balancing import strategy_of

from ._arguments import (
    EJECTION,
    SAFE,
    AnyStrategy,
    Authority,
    check_authority,
    check_registry,
    checked_methods,
    checked_services,
    checked_statuses,
)
from ._errand import Errand, ErrorClass
from ._hosts import is_registry_host, label_of, upstream_of

__all__ = ["Router"]

R = TypeVar("R")

MOST_VIEWS: Final = 100
"""Services that are followed for the hosts of requests while no request asks for them: URLs may come from outside."""

_OPENING: Final = 10.0  # seconds until a view must be there if no deadline is given


class Router(Generic[R]):
    """Finds instances for requests, and repeats these where that is safe.

    Args:
        registry: in which services are looked up by host; None leaves those of *services*.
        services: this and what follows as :class:`RoutingOptions` says.

    Attributes:
        authority: the name that an instance gets in the Host header, and has to prove.
        per_try_timeout: seconds that one attempt may take until its response begins; None is not bounded.

    Raises:
        InvalidArgument: an argument is wrong.
    """

    def __init__(
        self,
        registry: Registry | None,
        *,
        services: Mapping[str, Balancer[Any] | str] | None = None,
        strategy: AnyStrategy = "round-robin",
        ejection: Ejection | None = EJECTION,
        attempts: int = 3,
        per_try_timeout: float | None = None,
        repeat: Collection[str] = SAFE,
        statuses: Collection[int] = (),
        wait: float | None = None,
        authority: Authority = "service",
        pass_others: bool = False,
    ) -> None:
        self.authority = check_authority(authority)
        self._pass_others = check_flag("pass_others", pass_others)
        check_registry(registry)
        check_count("attempts", attempts)
        if wait is not None:
            check_seconds("wait", wait)
        if per_try_timeout is not None:
            check_seconds("per_try_timeout", per_try_timeout)
        self.per_try_timeout: float | None = per_try_timeout
        check_optional("ejection", ejection, Ejection)
        self._registry = registry
        self._strategy = strategy_of(strategy)
        self._ejection = ejection
        self._attempts = attempts
        self._repeat = checked_methods(repeat)
        self._statuses = checked_statuses(statuses)
        self._wait = wait
        self._services = checked_services(services, registry)
        self._closed = False
        self._under_way: dict[Pick[Any], None] = {}
        self._followed: OrderedDict[str, _Followed] = OrderedDict()  # the one that was used last comes last
        self._closing: dict[asyncio.Task[None], None] = {}

    def _outage_attempts(self) -> Mapping[str, str]:
        return {} if self._registry is None else outage_attempts(self._registry.session)

    # ------------------------------------------------------------------ a request

    def passes(self, host: str) -> bool:
        """Return whether a request to *host* is sent as it is."""
        return self._pass_others and not is_registry_host(host)

    def repeats(self, method: str) -> bool:
        """Return whether a request with *method* is repeated though an instance may have done it."""
        return method in self._repeat

    async def send(self, errand: Errand[R]) -> tuple[R, Pick[Any]]:
        """Send a request to an instance; return its response and the pick, to be finished when the response is over.

        Cancelling ends the attempt under way and says nothing about its instance, unless it is the request's own
        deadline that does.
        """
        try:
            service = self._service(label_of(errand.scheme, errand.host, errand.port), errand)
            followed = self._follow(service) if isinstance(service, str) else None
        except InvalidArgument as error:
            raise errand.refused(error) from error
        except RegistryError as error:
            raise errand.unreachable(error) from error
        if followed is None:
            assert not isinstance(service, str), "else it is followed"
            return await self._attempts_from(service, errand)
        followed.users += 1
        try:
            sent = await self._attempts_from(await self._opened(followed, errand), errand)
            followed.served = True
            return sent
        finally:
            followed.users -= 1

    async def _attempts_from(self, balancer: Balancer[Any], errand: Errand[R]) -> tuple[R, Pick[Any]]:
        pick = await self._first(balancer, errand)
        tried: set[str] = set()
        while True:
            left = self._attempts - len(tried)
            tried.add(pick.id)
            self._under_way[pick.__enter__()] = None
            try:
                response = await errand.attempt(upstream_of(pick.instance, errand.scheme), left)
                failed = errand.status(response) in self._statuses
            except Exception as error:
                error_class = _class_of(errand, error)
                self.finish(pick, error, error_class)
                another = self._another(balancer, errand, tried, error_class)
                if another is None and isinstance(error, InvalidArgument):
                    raise errand.unreachable(error) from error
                if another is None:
                    raise
            except BaseException as error:
                # Cancelled, or by code of the caller's that raised what it should not: it says nothing, but that of the
                # request's own deadline.
                if isinstance(error, asyncio.CancelledError) and errand.overdue():
                    self.finish(pick, TimeoutError("the request's time is over"), ErrorClass.FAILED)
                else:
                    self.finish(pick, error, ErrorClass.INNOCENT)
                raise
            else:
                if not failed:
                    return response, pick
                pick.failed()
                self.finish(pick)
                another = self._another(balancer, errand, tried, ErrorClass.BROKEN)
                if another is None:
                    return response, pick
                await errand.discard(response)
            pick = another

    def finish(
        self, pick: Pick[Any], error: BaseException | None = None, error_class: ErrorClass = ErrorClass.FAILED
    ) -> None:
        """The call of *pick* is over, good unless it ended with *error*, whose *error_class* that is. Once counts.

        An outcome that the ejection does not count as a failure says nothing, as an innocent error does.
        """
        if pick in self._under_way:
            del self._under_way[pick]
            if error is not None and error_class in {ErrorClass.INNOCENT, ErrorClass.UNASKED}:
                pick.abandoned()
            pick.__exit__(type(error), error, None)

    # ------------------------------------------------------------------ an instance

    async def _first(self, balancer: Balancer[Any], errand: Errand[R]) -> Pick[Any]:
        try:
            if self._wait is None:
                return balancer.pick(errand.key)
            return await balancer.pick_when_available(_least(self._wait, errand.patience()), key=errand.key)
        except InvalidArgument:
            raise  # the key is wrong
        except RegistryError as error:
            raise errand.unreachable(error) from error

    def _another(
        self, balancer: Balancer[Any], errand: Errand[R], tried: Collection[str], error_class: ErrorClass
    ) -> Pick[Any] | None:
        """Return another instance for a request that may be repeated; None if it may not, or all were tried."""
        harmless = error_class in {ErrorClass.UNSENT, ErrorClass.UNASKED} or (
            error_class is ErrorClass.BROKEN and errand.method in self._repeat
        )
        if len(tried) == self._attempts or not harmless or not errand.replayable():
            return None
        try:
            return balancer.pick(errand.key, exclude=tried)
        except RegistryError:
            return None  # the first failure is the one that is reported

    # ------------------------------------------------------------------ a service

    def _service(self, label: str, errand: Errand[R]) -> Balancer[Any] | str:
        service = self._services.get(label, label if self._registry is not None else None)
        if service is None:
            raise InvalidArgument("host", errand.host, f"is not one of services={sorted(self._services)}")
        return service

    def _follow(self, service: str) -> _Followed:
        followed = self._followed.get(service)
        if followed is None:
            if self._closed:
                raise HandleClosed(f"the look-up of {service!r} is closed")
            opening = asyncio.get_running_loop().create_task(self._view(service), name=f"discover {service}")
            followed = self._followed[service] = _Followed(service, opening)
            opening.add_done_callback(lambda _: self._forget_failed(service, opening))
            self._trim()
        self._followed.move_to_end(service)
        return followed

    async def _opened(self, followed: _Followed, errand: Errand[R]) -> Balancer[Any]:
        opening = followed.opening
        try:
            if not opening.done():
                patience = _least(self._wait, errand.patience())
                seconds = _OPENING if patience is None else patience
                # Others may wait for it too, and the next request will: this one's end is not its end.
                await asyncio.wait([opening], timeout=seconds)
                if not opening.done():
                    message = f"the registry did not report {followed.service!r} within {seconds:g} s"
                    raise RequestTimeout(message, self._outage_attempts())
            _, balancer = opening.result()
        except InvalidArgument:
            raise  # the strategy does not fit the service
        except RegistryError as error:
            raise errand.unreachable(error) from error
        return balancer

    def _trim(self) -> None:
        """Leave services that no request asks for, if there are too many: first those that never had an instance."""
        newest = next(reversed(self._followed))
        idle = {name: each for name, each in self._followed.items() if not each.users and name != newest}
        for name in sorted(idle, key=lambda name: idle[name].exists())[: max(len(self._followed) - MOST_VIEWS, 0)]:
            opening = self._followed.pop(name).opening
            closing = asyncio.get_running_loop().create_task(_close(opening), name=f"leave {name}")
            self._closing[closing] = None
            closing.add_done_callback(self._closing.pop)

    async def _view(self, service: str) -> tuple[View[Any], Balancer[Any]]:
        assert self._registry is not None, "else no service has a name only"
        view = await self._registry.discover(service)
        try:
            return view, view.balancer(self._strategy, ejection=self._ejection)
        except BaseException:
            await view.aclose()
            raise

    def _forget_failed(self, service: str, opening: asyncio.Task[tuple[View[Any], Balancer[Any]]]) -> None:
        followed = self._followed.get(service)
        # Another may have taken its place.
        if (opening.cancelled() or opening.exception() is not None) and followed and followed.opening is opening:
            del self._followed[service]  # the next request tries again

    async def aclose(self) -> None:
        """Close the views that were opened for requests; the balancers that were given are their owners'.

        A request whose response is not read yet no longer counts as outstanding.
        """
        for pick in list(self._under_way):
            pick.abandoned()
            self.finish(pick)
        self._closed = True
        followed, self._followed = self._followed, OrderedDict()
        await asyncio.gather(*(_close(each.opening) for each in followed.values()), *self._closing)


class _Followed:
    """A service that is followed for requests."""

    __slots__ = ("opening", "served", "service", "users")

    def __init__(self, service: str, opening: asyncio.Task[tuple[View[Any], Balancer[Any]]]) -> None:
        self.service = service
        self.opening = opening
        self.users = 0  # requests that look for an instance, or have one and no answer yet
        self.served = False  # whether an instance answered one of them

    def exists(self) -> bool:
        """Whether there is such a service, as far as a view has seen."""
        opening = self.opening
        opened = opening.done() and not opening.cancelled() and opening.exception() is None
        return self.served or (opened and len(opening.result()[0].snapshot) > 0)


async def _close(opening: asyncio.Task[tuple[View[Any], Balancer[Any]]]) -> None:
    opening.cancel()
    await asyncio.wait([opening])
    if not opening.cancelled() and opening.exception() is None:
        await opening.result()[0].aclose()


def _class_of(errand: Errand[Any], error: Exception) -> ErrorClass:
    # The instance publishes no way to reach it by this scheme.
    return ErrorClass.UNSENT if isinstance(error, InvalidArgument) else errand.judge(error)


def _least(*seconds: float | None) -> float | None:
    return min((some for some in seconds if some is not None), default=None)
