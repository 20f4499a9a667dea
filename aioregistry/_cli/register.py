"""`aioregistry register`: an instance that stays registered until its process is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aioregistry import Check, InvalidArgument, Registration, RegistrationError, ServiceInstance, Status
from aioregistry._addresses import only_here
from aioregistry._errors import session_name
from aioregistry._registration.reach import check_reachable
from aioregistry._session import parse_connect_string
from aioregistry.integrations._advertised import NoAddress, advertised_address, configured_address

from .checking import checks_of
from .outages import connected
from .output import Output
from .process import DONE, cancel_this_task

__all__ = ["Listing", "register"]

_MEANINGS: Final[Mapping[Status, str]] = {
    Status.REGISTERING: "the instance is not listed at the moment, and will be as soon as possible",
    Status.UNCERTAIN: "the connection to ZooKeeper was lost, and it is not known yet whether the instance is listed",
    Status.PRESUMED_GONE: "ZooKeeper has not answered for a session timeout, so the instance is probably not listed; "
    "it will be listed again as soon as there is a connection",
}
"""Of the statuses whose names do not tell it, once the instance was listed."""

_PAUSE = 5.0
"""Seconds between two attempts to find the address."""


async def register(arguments: argparse.Namespace) -> int:
    """Keep an instance registered until cancelled; a line on stderr per status.

    It waits for ZooKeeper as long as it takes, unless it was told for how long.

    Raises ConnectTimeout when ZooKeeper was not reached by then, RegistrationDisplaced when a newer claimant took the
    id and the command is to stop then, and RegistrationError when the instance could not be withdrawn in time.
    """
    if arguments.drain is not None:
        raise InvalidArgument("drain", arguments.drain, "needs a command to run: give -- COMMAND")
    listing = Listing(arguments)
    async with Output(sys.stderr, cancel_this_task()) as output:
        await listing.keep(output, output.line)
    return DONE


class Listing:
    """The instance that *arguments* name, and its registration.

    Raises InvalidArgument where it can never be registered, before anything is waited for.
    """

    registration: Registration[Any] | None = None

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._address = configured_address(arguments.address)
        self._checks: dict[str, Check] = checks_of(arguments)
        check_reachable(self._instance(self._address or "127.0.0.1"))

    def _instance(self, address: str) -> ServiceInstance[Any]:
        given = self._arguments
        return ServiceInstance(given.name, id=given.id, address=address, port=given.port, payload=given.payload)

    async def keep(self, output: Output, say: Callable[[str], Awaitable[None]]) -> None:
        """Keep it registered until cancelled, or until the registration ends by itself; then raise why.

        Args:
            output: standard error, for outages.
            say: writes a line there.
        """
        timeout = self._arguments.connect_timeout
        try:
            async with connected(
                self._arguments, output, wait=timeout is not None, connect_timeout=timeout
            ) as registry:
                instance = self._instance(await self._found_address(say))
                await self._warn(str(instance.address), say)
                # The statuses tell when it is listed. It is withdrawn by the registry's end, within one bound for both.
                self.registration = await registry.register(
                    instance, wait=False, on_displaced=self._arguments.on_displaced, checks=self._checks
                )
                await self._tell_statuses(self.registration, say)
        except asyncio.CancelledError:
            if self.registration is not None and self.registration.withdrawn is False:
                message = "not withdrawn in time: listed until ZooKeeper ends the session"
                raise RegistrationError(self.registration.path, message) from None
            raise

    async def _found_address(self, say: Callable[[str], Awaitable[None]]) -> str:
        told = False
        while self._address is None:
            try:
                self._address = await advertised_address(self._arguments.zookeeper)
            except NoAddress as error:
                if not told:
                    told = True
                    await say(self._arguments.form.said(str(error), logging.WARNING))
                await asyncio.sleep(_PAUSE)
        return self._address

    async def _warn(self, address: str, say: Callable[[str], Awaitable[None]]) -> None:
        servers = [host for host, _ in parse_connect_string(self._arguments.zookeeper).servers]
        if only_here(address, servers):
            text = (
                f"--address {address} is this machine's own, but ZooKeeper is at {','.join(servers)}: "
                "other machines cannot connect to it"
            )
            await say(self._arguments.form.said(text, logging.WARNING))

    async def _tell_statuses(self, registration: Registration[Any], say: Callable[[str], Awaitable[None]]) -> None:
        instance, listed = registration.instance, False
        async for status in registration.statuses():
            displaced = registration.displaced if status is Status.DISPLACED else None
            reason = f": {_MEANINGS[status]}" if listed and status in _MEANINGS else ""
            listed = listed or status is Status.LIVE
            if displaced is not None:
                reason = f" by session {session_name(displaced.owner)}"
            fields = {"service": instance.name, "id": instance.id, "path": registration.path, "status": status.value}
            text = f"{instance.name}/{instance.id} {status.name}{reason}"
            await say(self._arguments.form.bare(text, **fields))
        cause = await registration.wait_closed()
        if cause is not None:
            raise cause
