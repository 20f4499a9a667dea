"""A transport for httpx2 that takes ``http://chat.registry/…`` to an instance of the service ``chat``.

For httpx there is :mod:`aioregistry.integrations.httpx`, which is the same.
"""

from __future__ import annotations

from ._arguments import IDEMPOTENT, SAFE, RoutingOptions
from ._extras import extra
from ._transports import INSTANCE, KEY, Transport

with extra("httpx2"):
    import httpx2

__all__ = ["IDEMPOTENT", "INSTANCE", "KEY", "SAFE", "RegistryTransport", "RoutingOptions"]


class RegistryTransport(Transport[httpx2.Request, httpx2.Response], httpx2.AsyncBaseTransport, http=httpx2):
    """Sends requests to ``<service>.registry`` to an instance of the service.

    For ``httpx2.AsyncClient(transport=…)``, or as its mount for ``"all://*.registry"``.

    Arguments and errors are those of :class:`aioregistry.integrations._transports.Transport`.
    """
