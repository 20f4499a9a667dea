"""The arguments of the HTTP clients' integrations, checked, and their defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, TypeAlias, TypedDict

from aioregistry import Balancer, Ejection, Registry
from aioregistry._arguments import is_whole
from aioregistry._errors import InvalidArgument, InvalidType
from aioregistry._paths import check_name
from aioregistry.balancing import Strategy

from ._hosts import check_label

__all__ = [
    "EJECTION",
    "IDEMPOTENT",
    "SAFE",
    "AnyStrategy",
    "Authority",
    "RoutingOptions",
    "check_authority",
    "check_known",
    "check_registry",
    "checked_methods",
    "checked_services",
    "checked_statuses",
]

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
"""GET, HEAD, OPTIONS, TRACE and QUERY: the methods that clients repeat by default, because they change nothing (RFC
9110, section 9.2.1; QUERY: RFC 10008)."""

IDEMPOTENT: Final = SAFE | {"PUT", "DELETE"}
""":data:`SAFE` with PUT and DELETE, which you may give as ``repeat=``: these methods may be done twice, as long as no
other client writes in between (RFC 9110, section 9.2.2)."""

EJECTION: Final = Ejection()
"""When instances that fail are set aside, unless the caller says so."""

Authority = Literal["service", "instance"]
AnyStrategy: TypeAlias = Strategy[Any] | str
"""A strategy, of the library or the caller's own, or the name of one."""


class RoutingOptions(TypedDict, total=False):
    """The arguments of all the clients' integrations: how requests to ``<service>.registry`` find an instance."""

    services: Mapping[str, Balancer[Any] | str] | None
    """For each host without ``.registry``: a balancer to ask, which you go on owning, or the name of a service that
    cannot be part of a host name (``{"chat": "Chat.v2"}``)."""
    strategy: AnyStrategy
    """How balancers made for services of the registry choose; round robin unless given."""
    ejection: Ejection | None
    """When those balancers set aside instances that fail: ``Ejection()`` unless given; None never does."""
    attempts: int
    """How often a request is sent at most, each time to another instance; 3 unless given."""
    per_try_timeout: float | None
    """Seconds that one attempt may take until its response begins; an attempt that takes longer is repeated as one that
    failed is. None, the default, bounds an attempt by the timeouts of the client alone."""
    repeat: Collection[str]
    """The methods of which a request is repeated even though the failed instance may have done it; :data:`SAFE` unless
    given. A request that certainly never arrived is repeated whatever its method."""
    statuses: Collection[int]
    """The status codes of responses that count as a failure of the instance, such as ``{502, 503, 504}``."""
    wait: float | None
    """Seconds to wait for an instance if there is no instance; None, the default, does not wait."""
    authority: Authority
    """The name that the instance gets in the Host header, and has to prove by TLS. "service" (unless given) is the
    request's, ``<service>.registry``; "instance" is the address that the instance publishes."""
    pass_others: bool
    """True sends requests to other hosts as they are; False, the default, refuses them."""


def check_known(taker: object, options: Mapping[str, object]) -> None:
    """Raise TypeError, as Python does, where *taker* takes no such options."""
    for name in options.keys() - RoutingOptions.__annotations__.keys():
        raise TypeError(f"{type(taker).__name__}() got an unexpected keyword argument {name!r}")


def check_authority(authority: object) -> Authority:
    """Return *authority*; raises InvalidArgument if it is not one."""
    if authority == "service" or authority == "instance":
        return authority
    raise InvalidArgument("authority", authority, 'is neither "service" nor "instance"')


def check_registry(registry: object) -> None:
    """Raise InvalidArgument where *registry* is neither a registry nor None."""
    if registry is not None and not isinstance(registry, Registry):
        raise InvalidType("registry", registry, "give a registry, as connect() returns it, or None")


def checked_services(services: object, registry: Registry | None) -> dict[str, Balancer[Any] | str]:
    """Return *services* as a dictionary; raises InvalidArgument if a host, or what it leads to, is unfit."""
    if services is None:
        services = {}
    if not isinstance(services, Mapping):
        raise InvalidType("services", services, "give a mapping of hosts without .registry to balancers or names")
    if registry is None and not services:
        raise InvalidArgument("services", services, "without a registry, give the balancers")
    for label, service in services.items():
        field = f"services[{check_label('services', label)!r}]"
        if isinstance(service, str):
            if registry is None:
                raise InvalidArgument(field, service, "without a registry, give a balancer")
            check_name(field, service)
        elif not isinstance(service, Balancer):
            raise InvalidType(field, service, "give a balancer, or the service's name")
    return dict(services)


def checked_methods(methods: object) -> frozenset[str]:
    """Return *methods*; raises InvalidArgument if one is not an HTTP method."""
    if isinstance(methods, str) or not isinstance(methods, Collection):
        raise InvalidType("repeat", methods, 'give methods, such as {"GET", "PUT"}')
    for method in methods:
        if not isinstance(method, str) or not method.isascii() or not method.isupper():
            raise InvalidArgument("repeat", methods, f"{method!r} is not an HTTP method")
    return frozenset(methods)


def checked_statuses(statuses: object) -> frozenset[int]:
    """Return *statuses*; raises InvalidArgument if one is not the status of an error."""
    if not isinstance(statuses, Collection):
        raise InvalidType("statuses", statuses, "give numbers, such as {502, 503, 504}")
    for status in statuses:
        if not is_whole(status) or not 400 <= status <= 599:
            raise InvalidArgument("statuses", statuses, f"{status!r} is not the status of an error (400 to 599)")
    return frozenset(statuses)
