"""Logins by SASL's DIGEST-MD5, at servers whose JAAS configuration has a ``DigestLoginModule``."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiozk import ACL

import aioregistry
from aioregistry import AuthenticationFailed, ConnectTimeout
from aioregistry._protocol import GetAcl
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.integration.scene import Peer, instance_of
from tests.support import wire
from tests.support.checkers import check_contained
from tests.support.inside import password_of, session_of
from tests.support.processes import outcome_of
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import Settings, ZooKeeperServer

AGES = 60.0
"""Seconds: no test waits for a session's end, or for a deadline."""

USERS = {"chat": 'S3CRET, with "=\\;', "päivi": "sälä€"}
LOGIN = [("sasl", f"chat:{USERS['chat']}")]
OWN = [ACL.make("sasl", "chat", read=True, write=True, create=True, delete=True, admin=True)]


def quoted(text: str) -> str:
    """As a string of a JAAS configuration, which is read by the rules of Java's StreamTokenizer."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def settings(folder: Path, **properties: str) -> Settings:
    file = folder / "jaas.conf"
    users = "\n".join(f"  user_{user}={quoted(password)}" for user, password in USERS.items())
    _ = file.write_text(
        f"Server {{\n  org.apache.zookeeper.server.auth.DigestLoginModule required\n{users};\n}};\n", encoding="utf-8"
    )
    provider = {"zookeeper.authProvider.1": "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"}
    # In FIPS mode, the default of 3.9's later releases, a server has no DIGEST-MD5.
    known = {"java.security.auth.login.config": str(file), "file.encoding": "UTF-8", "zookeeper.fips-mode": "false"}
    return Settings(tick_time_ms=200, properties={**known, **provider, **properties})


DEMAND = {"zookeeper.sessionRequireClientSASLAuth": "true"}


@pytest.fixture(scope="module")
def demanding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    """A server that answers nobody who has not logged in."""
    with ZooKeeperServer(settings(tmp_path_factory.mktemp("demanding"), **DEMAND)) as server:
        server.launch()
        server.wait_until_serving()
        yield server


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    """A server that keeps the connections of those whom it refused, and answers as if all were well."""
    made = settings(tmp_path_factory.mktemp("lenient"), **{"zookeeper.allowSaslFailedClients": "true"})
    with ZooKeeperServer(made) as server:
        server.launch()
        server.wait_until_serving()
        yield server


async def test_a_login_holds_on_every_connection_and_in_every_session(lenient: ZooKeeperServer) -> None:
    with ZooKeeperProxy((lenient.host, lenient.port)) as proxy:
        async with Peer(proxy.address, session_timeout=AGES, auth=LOGIN, acl=OWN) as peer:
            registration = await peer.registry.register(instance_of("chat"))
            acl = (await session_of(peer.registry).request(GetAcl(registration.path))).value
            assert [(entry.scheme, entry.id) for entry in acl[0]] == [("sasl", "chat")]
            session = session_of(peer.registry)
            for number in range(1, 4):
                proxy.cut()
                await asyncio.wait_for(registration.update(payload=number), DEADLINE)
            await wire.force_expiry(lenient.address, session.id, password_of(session))
            await until(lambda: len(peer.sessions) == 2)
            await asyncio.wait_for(registration.update(payload=4), DEADLINE)
        assert registration.withdrawn


async def test_a_lost_history_is_found_where_probes_must_log_in(tmp_path: Path) -> None:
    """And no refusal of a probe is taken for the quorum's word."""
    with ZooKeeperServer(settings(tmp_path, **DEMAND)) as server:
        await server.start()
        async with Peer(server.address, session_timeout=AGES, auth=LOGIN) as peer:
            copy = server.snapshot_data()
            registration = await peer.registry.register(instance_of("chat"))
            for number, restore in enumerate((lambda: server.restore_data(copy), server.wipe)):
                for payload in range(5):  # so that no new history comes as far by its first writes
                    await registration.update(payload=payload)
                server.kill()
                restore()
                await server.start()
                await until(lambda number=number: len(peer.rollbacks) > number)  # type: ignore[misc]
                await registration.wait_live(timeout=DEADLINE)
            assert [found["proven"] for found in peer.rollbacks] == [True, True]


@pytest.mark.parametrize("login", ["chat:no", "nobody:no", "päivi:salä€"])
@pytest.mark.parametrize("wait", [True, False])
async def test_a_wrong_password_is_one_error_at_once(
    demanding: ZooKeeperServer, caplog: pytest.LogCaptureFixture, login: str, *, wait: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    with ZooKeeperProxy((demanding.host, demanding.port)) as proxy:
        registry = aioregistry.connect(proxy.address, session_timeout=AGES, auth=[("sasl", login)], wait=wait)
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(AuthenticationFailed) as caught:
                async with registry:
                    _ = await registry.register(instance_of("chat"))
        assert proxy.connections == 1
    assert caught.value.scheme == "sasl"
    check_contained(told=[str(caught.value)], names=["scheme='sasl'", proxy.address], secrets=[login.split(":")[1]])


async def test_a_password_in_any_characters(demanding: ZooKeeperServer) -> None:
    login = [("sasl", f"päivi:{USERS['päivi']}")]
    async with aioregistry.connect(demanding.address, session_timeout=AGES, auth=login) as registry:
        assert registry.session.connected


async def test_a_server_that_demands_a_login_says_so(demanding: ZooKeeperServer) -> None:
    for auth in ([], [("digest", "chat:S3CRET")]):
        with pytest.raises(ConnectTimeout) as caught:
            async with aioregistry.connect(demanding.address, session_timeout=AGES, connect_timeout=1.0, auth=auth):
                pass
        check_contained(told=[str(caught.value)], names=["SASL", "auth=[(scheme, secret)]"], secrets=["S3CRET"])


async def test_a_server_without_logins_is_one_error_at_once(zookeeper: ZooKeeperServer) -> None:
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(AuthenticationFailed) as caught:
            async with aioregistry.connect(zookeeper.address, session_timeout=AGES, auth=LOGIN):
                pass
    check_contained(told=[str(caught.value)], names=["offers no SASL", zookeeper.address], secrets=["S3CRET"])


async def test_a_server_that_refuses_a_login_and_goes_on(lenient: ZooKeeperServer) -> None:
    """It gives no proof that it knows the password, and everything would be done as a stranger."""
    with pytest.raises(AuthenticationFailed) as caught:
        async with aioregistry.connect(lenient.address, session_timeout=AGES, auth=[("sasl", "chat:no")]):
            pass
    check_contained(told=[str(caught.value)], names=["does not accept the login"], secrets=[])


@pytest.mark.parametrize("how", ["option", "variable", "auth-file"])
async def test_the_command_line_logs_in(demanding: ZooKeeperServer, tmp_path: Path, how: str) -> None:
    file = tmp_path / "login"
    scheme = "sasl:" if how == "auth-file" else ""
    _ = file.write_text(f"# of this service\n{scheme}chat:{USERS['chat']}\n", encoding="utf-8")
    option = {"option": ["--sasl", str(file)], "variable": [], "auth-file": ["--auth-file", str(file)]}[how]
    code, out, err = await outcome_of(
        *(sys.executable, "-m", "aioregistry", "list", "--zookeeper", demanding.address, *option),
        env={**os.environ, **({"AIOREGISTRY_SASL": str(file)} if how == "variable" else {})},
        seconds=DEADLINE,
    )
    assert (code, err) == (0, b""), (out, err)
