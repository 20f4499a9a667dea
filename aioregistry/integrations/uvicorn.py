"""Uvicorn: a server that is listed once it listens, and drained before it stops listening.

By itself, uvicorn runs the startup of the application before it opens its sockets, and on a signal closes them before
it runs the shutdown. In between consumers are refused. :class:`Server` lists and drains the memberships at the right
moments; uvicorn still handles the signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any

from aioregistry import InvalidArgument

from ._extras import extra
from .membership import Hosting, hosting

with extra("uvicorn"):
    import uvicorn

__all__ = ["Server", "run"]

_FORCED_WITHIN = 0.1
"""Seconds after which a second interrupt is noticed; uvicorn looks as often."""

_STARTUP_FAILURE = 3
"""Uvicorn's own exit code, which has moved from one module to another."""


class Server(uvicorn.Server):
    """A :class:`uvicorn.Server` for applications that are members of a service.

    Memberships that the application's startup enters are listed when the sockets listen. When the server is to end,
    however it was told, it serves on until that is drained (:meth:`.membership.Membership.drain`), and only then closes
    the sockets, ends the connections and runs the application's shutdown. A second interrupt from the keyboard hurries
    it.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._hosting = Hosting()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Run the application's startup, open the sockets, and have the memberships listed.

        Raises InvalidArgument, once all of that is undone, where the port of a membership is not open.
        """
        token = hosting.set(self._hosting)
        try:
            await super().startup(sockets=sockets)
        finally:
            hosting.reset(token)
        if not self.started:
            return
        try:
            self._hosting.listen()
        except InvalidArgument:
            await super().shutdown(sockets=sockets)
            raise

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain the memberships while requests are served, then end as uvicorn does."""
        draining = asyncio.get_running_loop().create_task(self._hosting.drain(), name="drain")
        while not draining.done() and not self.force_exit:
            await asyncio.wait([draining], timeout=_FORCED_WITHIN)
        if not draining.done():  # uvicorn then leaves out the application's shutdown
            await self._hosting.withdraw()
        await super().shutdown(sockets=sockets)


def run(app: Any, **options: Any) -> None:
    """Serve *app* as :func:`uvicorn.run` does, by a :class:`Server`; returns when it was asked to stop.

    Args:
        app: an ASGI application, or the import string of one.
        **options: those of :class:`uvicorn.Config`.

    Raises:
        InvalidArgument: *workers* above 1, or *reload*: their processes are uvicorn's own. Or the port of a
            membership is not open once the server listens.
        SystemExit: the startup failed; uvicorn has logged why.
    """
    config = uvicorn.Config(app, **options)
    if config.workers > 1:
        raise InvalidArgument("workers", config.workers, "start as many processes, each with a port of its own")
    if config.should_reload:
        raise InvalidArgument("reload", config.reload, "use the uvicorn command")
    server = Server(config)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again that ended it
        server.run()
    if not server.started:
        sys.exit(_STARTUP_FAILURE)
