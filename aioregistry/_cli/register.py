"""`aioregistry register`: an instance that stays registered until its process is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from typing import Any

from aioregistry import Registration, RegistrationError, ServiceInstance, Status
from aioregistry._addresses import only_here
from aioregistry._errors import session_name
from aioregistry._registration.reach import check_reachable

from .logs import Format
from .outages import connected
from .output import Output
from .process import DONE, cancel_this_task


async def register(arguments: argparse.Namespace) -> int:
    """Keep an instance registered until cancelled; a line on stderr per status.

    It waits for ZooKeeper as long as it takes, unless it was told for how long.

    Raises ConnectTimeout when ZooKeeper was not reached by then, RegistrationDisplaced when a newer claimant took the
    id and the command is to stop then, and RegistrationError when the instance could not be withdrawn in time.
    """
    instance = ServiceInstance(
        arguments.name,
        id=arguments.id,
        address=arguments.address,
        port=arguments.port,
        payload=arguments.payload,
    )
    check_reachable(instance)  # before anything is waited for
    registration: Registration[Any] | None = None
    try:
        async with (
            Output(sys.stderr, cancel_this_task()) as output,
            connected(
                arguments, output, wait=arguments.connect_timeout is not None, connect_timeout=arguments.connect_timeout
            ) as registry,
        ):
            servers = [host for host, _ in registry.session.hosts.servers]
            if only_here(arguments.address, servers):
                text = (
                    f"--address {arguments.address} is this machine's own, but ZooKeeper is at {','.join(servers)}: "
                    "nobody on another machine can connect to it"
                )
                await output.line(arguments.form.said(text, logging.WARNING))
            # The statuses tell when it is listed. It is withdrawn by the registry's end, within one bound for both.
            registration = await registry.register(instance, wait=False, on_displaced=arguments.on_displaced)
            await _tell_statuses(registration, output, arguments.form)
    except asyncio.CancelledError:
        if registration is not None and registration.withdrawn is False:
            message = "not withdrawn in time: listed until ZooKeeper ends the session"
            raise RegistrationError(registration.path, message) from None
        raise
    return DONE


async def _tell_statuses(registration: Registration[Any], output: Output, form: Format) -> None:
    instance = registration.instance
    async for status in registration.statuses():
        displaced = registration.displaced if status is Status.DISPLACED else None
        reason = "" if displaced is None else f" by session {session_name(displaced.owner)}"
        fields = {"service": instance.name, "id": instance.id, "path": registration.path, "status": status.value}
        await output.line(form.bare(f"{instance.name}/{instance.id} {status.name}{reason}", **fields))
    cause = await registration.wait_closed()
    if cause is not None:
        raise cause
