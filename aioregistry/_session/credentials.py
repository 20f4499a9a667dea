"""Credentials: they prove on each connection who this process is, before its first other request."""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from typing import Final

from aioregistry._errors import AuthenticationFailed
from aioregistry._protocol import SASL, Auth, SASLToken
from aioregistry._secrets import Secret

from .connection import Connection
from .driver import Driver

__all__ = ["Credentials"]

_NONE: Final = "it offers no SASL: its JAAS configuration has no login for servers"
_UNPROVEN: Final = "it does not accept the login, or does not know the password itself"


class Credentials:
    """Authenticates connections, each once.

    Args:
        driver: the machine at work.
        auth: pairs of scheme and secret; one at most is SASL's, ``b"user:password"``.
    """

    def __init__(self, driver: Driver, auth: Sequence[tuple[str, bytes]]) -> None:
        self._driver = driver
        self._auth = [(scheme, secret) for scheme, secret in auth if scheme != SASL]
        self._login = next((Secret(secret) for scheme, secret in auth if scheme == SASL), None)

    async def present(self, connection: Connection) -> None:
        """Authenticate *connection*, unless it is.

        Raises the server's error. If it refuses, the session has failed by then.
        """
        if connection.authenticated:
            return
        answers = [connection.submit(Auth(scheme, secret)) for scheme, secret in self._auth]
        if self._login is not None:
            await self._log_in(connection, self._login)
        for answer in answers:
            await answer
        connection.authenticated = True

    async def _log_in(self, connection: Connection, login: Secret) -> None:
        from aioregistry._protocol.sasl import BadChallenge, answer_challenge  # hashing, for the few that log in so

        challenge = (await connection.submit(SASLToken())).value
        if not challenge:  # as is answered by ZooKeeperServer.processSasl without a login
            raise self._refused(connection, _NONE)
        user, _, password = login.partition(b":")
        try:
            token, proof = answer_challenge(challenge, user.decode(), Secret(password), cnonce=os.urandom(16).hex())
        except BadChallenge as error:
            raise self._refused(connection, f"its DIGEST-MD5 challenge cannot be answered: {error}") from None
        finally:
            password = b""  # a frame keeps its variables, and a part of a secret would show
        answer = (await connection.submit(SASLToken(token))).value
        if not hmac.compare_digest(answer, proof):
            raise self._refused(connection, _UNPROVEN)

    def _refused(self, connection: Connection, reason: str) -> AuthenticationFailed:
        self._driver.credentials_refused(connection, SASL, reason)
        return AuthenticationFailed(SASL, str(connection.endpoint), reason)
