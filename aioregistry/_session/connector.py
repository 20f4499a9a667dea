"""Offline: rounds of connecting, in each of which every address is tried once."""

from __future__ import annotations

import asyncio
import ssl

from aioregistry._bounds import paced
from aioregistry._errors import RegistryError
from aioregistry._protocol import ConnectReply
from aioregistry._runtime import Endpoint

from .attempts import AttemptOutcome
from .backoff import attempt_deadline, handshake_deadline, retry_delay
from .connection import Connection
from .credentials import Credentials
from .dialer import Dialer
from .driver import Driver
from .incoming import Incoming
from .names import Names
from .patience import patience
from .vocabulary import Dialed, Phase, Question, RoundFailed

__all__ = ["Connector"]


class Connector:
    """Finds a server that takes the session.

    Args:
        driver: the machine at work.
        incoming: takes the answers and events of the connections.
        credentials: presented before a probe.
        tls: speak TLS with this context.
        max_request: the servers' jute.maxbuffer in bytes.
    """

    def __init__(
        self,
        driver: Driver,
        incoming: Incoming,
        credentials: Credentials,
        *,
        tls: ssl.SSLContext | None,
        max_request: int,
    ) -> None:
        self._driver, self._incoming, self._credentials = driver, incoming, credentials
        self._tls, self._max_request = tls, max_request
        self._names = Names(driver.connect_string.servers, driver.runtime, driver.attempts, self._offer)
        self._dialer: Dialer | None = None
        self._connections = 0
        self._round_began = float("-inf")
        self._unanswered = 0
        """Handshakes in a row that were not answered in time."""

    def cancel(self) -> list[asyncio.Task[list[Endpoint]]]:
        """Give up every look-up under way; return the tasks to wait for."""
        return self._names.cancel()

    async def run(self) -> None:
        """Try every address once, until one is taken."""
        driver, loop = self._driver, asyncio.get_running_loop()
        driver.reports.round_is_over()
        if driver.machine.silent_rounds != 1:  # else it is one more question of the round before
            # The pause counts from when the round before began: one that waited for an answer in vain paused enough,
            # and a handshake that is under way when the network comes back is answered at once.
            pacing = paced(driver.timeout, driver.machine.requested_timeout)
            pause = retry_delay(driver.machine.failures, pacing, driver.runtime.uniform)
            await driver.phase_changes.wait(max(pause - (loop.time() - self._round_began), 0.0))
            self._round_began = loop.time()
        question = self._question()
        if question is None:
            return
        self._names.ask(driver.timeout)
        await self._names.first_answers()
        endpoints = self._shuffled_endpoints()
        candidates = max(len(endpoints), len(driver.connect_string.servers))
        deadline = attempt_deadline(driver.timeout, driver.timeout - driver.evidence_age(), candidates)
        dialer = self._dialer = Dialer(endpoints, self._dial, deadline, driver.note)
        try:
            # An answer that changes the question ends the round: everybody is asked again.
            while self._question() == question:
                connection = await dialer.next()
                if connection is None:
                    if await self._names.another():
                        continue
                    driver.step(RoundFailed(driver.runtime.boot(), driver.runtime.uniform(0, 1)))
                    return
                if connection.closed:
                    driver.note(connection.endpoint, connection.outcome, connection.reason)
                else:
                    await self._converse(connection, deadline - connection.took)
        finally:
            self._dialer = None
            await dialer.aclose()

    def _question(self) -> tuple[int, Question] | None:
        """Return the question for the servers, and the session that it is about; None if there is no question."""
        machine = self._driver.machine
        return (machine.session_id, machine.question) if machine.phase is Phase.OFFLINE else None

    async def _converse(self, connection: Connection, seconds: float) -> None:
        """Shake hands, and probe if the connection is a probe, until it is taken or given up."""
        driver = self._driver
        driver.dialed[connection.number] = connection
        driver.step(Dialed(connection.number))
        longest = handshake_deadline(self._unanswered, connection.took, seconds)
        if await driver.outlasts({Phase.HANDSHAKING, Phase.ASKING}, longest):
            self._unanswered += 1
            driver.leave(connection, f"did not answer the handshake within {longest:.3g} s")
        elif driver.machine.phase is Phase.PROBING:
            await self._probe(connection, max(seconds, 0.0))

    async def _probe(self, connection: Connection, seconds: float) -> None:
        """Let the server prove its state, until the machine has decided."""
        driver = self._driver
        try:
            async with patience(seconds):
                await self._credentials.present(connection)
                while driver.connection is connection and driver.machine.phase is Phase.PROBING:
                    await driver.probe(connection)
        except TimeoutError:
            driver.leave(connection, f"did not answer the probe within {seconds:.3g} s")
        except RegistryError as error:
            if connection.closed:
                return  # reported already
            driver.leave(connection, f"accepted the session, then failed: {error}", AttemptOutcome.FAILED)

    def _shuffled_endpoints(self) -> list[Endpoint]:
        shuffled = self._names.endpoints()
        self._driver.runtime.shuffle(shuffled)
        return shuffled

    def _offer(self) -> None:
        """Let the round under way know of addresses that were answered late."""
        if self._dialer is not None:
            self._dialer.offer(self._shuffled_endpoints())

    async def _dial(self, endpoint: Endpoint) -> Connection:
        driver = self._driver
        self._connections += 1
        connection = Connection(
            self._connections,
            endpoint,
            driver.runtime,
            max_request=self._max_request,
            repeated=driver.repeated,
            on_greeting=self._greeted,
            on_event=self._incoming.fired,
            on_answer=self._incoming.answered,
            on_lost=self._incoming.lost,
        )
        driver.attempts.begin(str(endpoint), "no connection yet", driver.runtime.wall())
        began = asyncio.get_running_loop().time()
        await driver.runtime.connect(lambda: connection, endpoint, self._tls)
        connection.took = asyncio.get_running_loop().time() - began
        driver.attempts.begin(str(endpoint), "has not answered the handshake yet", driver.runtime.wall())
        return connection

    def _greeted(self, connection: Connection, reply: ConnectReply, sent: float) -> None:
        self._unanswered = 0
        self._incoming.greeted(connection, reply, sent)
