"""The inside of a registry, for tests that cut connections, count them, or take a session from its owner."""

from __future__ import annotations

import asyncio
from typing import Any

from aioregistry import Balancer, Registry
from aioregistry._session import Session
from aioregistry._session.connection import Connection
from aioregistry._session.driver import Driver
from aioregistry.balancing import Picker


def session_of(registry: Registry) -> Session:
    """The session itself, of which users see a face that only reads."""
    return registry._session


def driver_of(session: Session) -> Driver:
    """The owner of the session's machine, its connections and its listeners."""
    return session._driver


def connection_of(session: Session) -> Connection:
    """The connection in use."""
    connection = driver_of(session).connection
    assert connection is not None, "there is none"
    return connection


def transport_of(connection: Connection | None) -> asyncio.Transport:
    """The transport that it writes to."""
    assert connection is not None, "there is no connection"
    assert connection._transport is not None, "it is not made yet"
    return connection._transport


def picker_of(balancer: Balancer[Any]) -> Picker[Any]:
    """The picker that it uses."""
    return balancer._driver.picker


def password_of(session: Session) -> bytes:
    """The password by which the server knows that the session is ours."""
    return driver_of(session).machine.password
