"""`aioregistry register`: an instance that stays registered until its process is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

import aioregistry
from aioregistry import Registration, RegistrationError, ServiceInstance

from .output import Output
from .process import DONE, cancel_this_task


async def register(arguments: argparse.Namespace) -> int:
    """Keep an instance registered until cancelled; a line on stderr per status.

    Raises RegistrationDisplaced when a newer claimant took the id, and RegistrationError when the instance could not be
    withdrawn in time.
    """
    instance = ServiceInstance(
        arguments.name,
        id=arguments.id,
        address=arguments.address,
        port=arguments.port,
        payload=arguments.payload,
    )
    async with (
        Output(sys.stderr, cancel_this_task()) as output,
        aioregistry.connect(
            arguments.zookeeper, session_timeout=arguments.session_timeout, base_path=arguments.base_path
        ) as registry,
    ):
        registration = registry.register(instance, wait=False)  # the statuses tell when it is listed
        try:
            async with registration:
                await _tell_statuses(registration, output)
        except asyncio.CancelledError:
            if registration.withdrawn is False:
                message = "not withdrawn in time: listed until ZooKeeper ends the session"
                raise RegistrationError(registration.path, message) from None
            raise
    return DONE


async def _tell_statuses(registration: Registration[Any], output: Output) -> None:
    instance = registration.instance
    async for status in registration.statuses():
        await output.line(f"{instance.name}/{instance.id} {status.name}")
    cause = await registration.wait_closed()
    if cause is not None:
        raise cause
