"""A transport for httpx that takes ``http://chat.registry/…`` to an instance of the service ``chat``.

For httpx2 there is :mod:`aioregistry.integrations.httpx2`, which is the same.
"""

from __future__ import annotations

from ._arguments import IDEMPOTENT, SAFE, RoutingOptions
from ._extras import extra
from ._transports import INSTANCE, KEY, Transport

with extra("httpx"):
    import httpx

__all__ = ["IDEMPOTENT", "INSTANCE", "KEY", "SAFE", "RegistryTransport", "RoutingOptions"]


class RegistryTransport(Transport[httpx.Request, httpx.Response], httpx.AsyncBaseTransport, http=httpx):
    """Sends requests to ``<service>.registry`` to an instance of the service.

    For ``httpx.AsyncClient(transport=…)``, or as its mount for ``"all://*.registry"``.

    Args:
        registry: in which services are looked up when a request first names them; their views are closed with this
            transport. None leaves those that *services* gives.
        transport: the transport that sends; closed with this one. ``AsyncHTTPTransport()`` unless given. Each name that
            TLS has to prove has a transport of its own, made like yours; if yours is not an ``AsyncHTTPTransport``,
            give a function that makes them.
        **options: as :class:`RoutingOptions` says.

    Raises:
        InvalidArgument: an argument is wrong; at once, naming it.
    """
