"""Hosts of the form ``<service>.registry``, and where an instance is reached. Pure.

A host names a service: ``chat.registry``, ``com.example.chat.registry``. Host names know no case and their parts hold
letters, digits, hyphens and underscores; a service whose name has capitals or other characters is given a host by the
caller's own table (``services={"chat": "Chat.v2"}``).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from aioregistry._addresses import is_host_name, problem_of, split_authority
from aioregistry._errors import InvalidArgument, wrong_argument
from aioregistry._model import ServiceInstance

__all__ = [
    "SUFFIX",
    "URL_FIELDS",
    "Upstream",
    "check_label",
    "default_port",
    "is_registry_host",
    "label_of",
    "led_back",
    "upstream_of",
]

SUFFIX: Final = ".registry"

URL_FIELDS: Final = ("scheme", "host", "port")
"""The subject of an error of :func:`label_of`."""

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_PORT_FIELDS: Final = {"http": "port", "ws": "port", "https": "ssl_port", "wss": "ssl_port"}


class Upstream(NamedTuple):
    """Where an instance is reached."""

    address: str
    port: int


def is_registry_host(host: str) -> bool:
    """Return whether *host* is one of the registry's, well-formed or not."""
    return f".{_canonical(host)}".endswith(SUFFIX)


def label_of(scheme: str, host: str, port: int | None = None) -> str:
    """Return the part before ``.registry`` in the *host* of a URL, in lower case.

    Args:
        scheme: the URL's: http, https, ws or wss.
        host: one dot may follow, as it may in DNS.
        port: None if the URL has no port.

    Raises:
        InvalidArgument: it is not a host of the registry's, or *port* is given: the port is the instance's to say.
    """
    if scheme not in _PORT_FIELDS:
        raise InvalidArgument("scheme", scheme, f"is not one of {', '.join(_PORT_FIELDS)}")
    if not is_registry_host(host):
        raise InvalidArgument("host", host, f"is not <service>{SUFFIX}")
    label = f".{_canonical(host)}".removesuffix(SUFFIX).removeprefix(".")
    # Other alphabets have letters whose lower case is an ASCII one.
    problem = _problem(label if host.isascii() else host)
    if problem is not None:
        raise InvalidArgument("host", host, f"the name before {SUFFIX} {problem}")
    if port is not None:
        raise InvalidArgument("port", port, f"each instance of {host} has its own port: leave it out")
    return label


def check_label(field: str, label: object) -> str:
    """Return *label* if ``<label>.registry`` is a host.

    Raises:
        InvalidArgument: it is not; names *field*.
    """
    problem = _problem(label) if isinstance(label, str) else "must be a string"
    if problem is not None:
        raise wrong_argument(field, label, problem, str)
    assert isinstance(label, str)
    return label


def upstream_of(instance: ServiceInstance[Any], scheme: str) -> Upstream:
    """Return where *instance* is reached by *scheme*: its ``ssl_port`` for https and wss, its ``port`` for http and ws.

    Raises:
        InvalidArgument: it publishes no address, or an unfit one, or no such port.
    """
    field = _PORT_FIELDS[scheme]
    port = instance.ssl_port if field == "ssl_port" else instance.port
    problem = "it publishes no address" if instance.address is None else problem_of(instance.address)
    if instance.address is None or problem is not None:
        problem = f"{instance.name}/{instance.id} cannot be reached by that: {problem}"
        raise InvalidArgument("address", instance.address, problem)
    if not port:
        raise InvalidArgument(field, port, f"{instance.name}/{instance.id} cannot be reached by {scheme}")
    return Upstream(instance.address, port)


def default_port(scheme: str) -> int | None:
    """Return the port that a URL of *scheme* has unless it names one; None if HTTP does not know the scheme."""
    return _DEFAULT_PORTS.get(scheme)


def led_back(location: str, instance: ServiceInstance[Any], scheme: str, host: str) -> str | None:
    """Return *location* with *host* in the place of *instance*'s own address; None where it leads elsewhere.

    A server that builds redirects from the Host header names itself where that is told its address.

    Args:
        location: of a redirect.
        instance: that answered with it.
        scheme: of the request, which a *location* without one (``//10.0.0.7:7000/``) has too.
        host: of the service, as it was asked for.
    """
    try:
        parts = urlsplit(location)
        scheme = parts.scheme or scheme
        port = parts.port or default_port(scheme)
    except ValueError:
        return None
    field = _PORT_FIELDS.get(scheme)
    if field is None or port is None or instance.address is None or parts.hostname is None:
        return None
    if parts.hostname != instance.address.lower() or port != getattr(instance, field):
        return None
    credentials, at, authority = parts.netloc.rpartition("@")
    if split_authority(authority) is None:
        return None
    return parts._replace(netloc=f"{credentials}{at}{host}").geturl()


def _canonical(host: str) -> str:
    return host.lower().removesuffix(".")


def _problem(label: str) -> str | None:
    if any(part.startswith("xn--") for part in label.split(".")):
        # Which of the spellings that IDNA takes for one was meant is not known: never a wrong service.
        return "must not be internationalised (xn--)"
    # No resolver is asked; the part before the suffix is written as a host name all the same.
    if label != label.lower() or not is_host_name(f"{label}{SUFFIX}"):
        return "must be parts of letters, digits, - and _ in lower case, with dots between"
    return None
