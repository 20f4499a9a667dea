"""What a registry shows to nobody, for tests that cut connections, count them, or take a session from its owner."""

from __future__ import annotations

from aioregistry import Registry
from aioregistry._session import Session


def session_of(registry: Registry) -> Session:
    """The session itself, of which users see a face that only reads."""
    return registry._session


def password_of(session: Session) -> bytes:
    """What the server gave to prove that the session is ours."""
    return session._driver.machine.password
