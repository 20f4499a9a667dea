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

    Arguments and errors are those of :class:`aioregistry.integrations._transports.Transport`.
    """
