"""TLS, credentials, and servers that are older or know less: the same guarantees, on a real ZooKeeper."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiozk import ACL

import aioregistry
from aioregistry import (
    AttemptOutcome,
    AuthenticationFailed,
    ConnectTimeout,
    InvalidArgument,
    RegistrationError,
    SessionState,
    Status,
)
from aioregistry._errors import NoAuth
from aioregistry.testing._proxy import TcpProxy, ZooKeeperProxy
from tests.conftest import StartZooKeeper
from tests.integration.scene import Peer, Scene, instance_of
from tests.support import tls, wire
from tests.support.checkers import check_contained, check_honest, check_owned
from tests.support.inside import password_of, session_of
from tests.support.judge import Judge
from tests.support.leftovers import nothing_left, open_sockets
from tests.support.old_server import MARSHALLING_ERROR, UNIMPLEMENTED, OldServer
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import JARS, RELEASE, Settings, ZooKeeperEnsemble, ZooKeeperServer, java_class

TIMEOUT = 2.0
LONG = 60.0
"""Seconds: the timeout of sessions, which none of this is to end."""
SOON = 1.0
"""Seconds: the deadline of connecting to whom it cannot trust."""
SLACK = 5.0
"""Seconds that a busy machine may add to a bound."""


# ---------------------------------------------------------------- TLS


class SecureServer(NamedTuple):
    """A ZooKeeper that is reached by TLS: at `port`, through `proxy`; `plain` is for those who judge."""

    port: int
    proxy: TcpProxy
    plain: str


NETTY = {
    "zookeeper.serverCnxnFactory": java_class("org.apache.zookeeper.server.NettyServerCnxnFactory"),
    "zookeeper.client.portUnification": "true",  # TLS for whoever begins with it, on the one port
    "zookeeper.ssl.keyStore.location": str(tls.KEY_AND_CERTIFICATE),
    "zookeeper.ssl.keyStore.type": "PEM",
    "zookeeper.ssl.clientAuth": "none",
}
# Debian's zookeeper.jar names other jars of netty's (libzookeeper-java depends on them all), but not these.
NETTY_JARS = (Path("/usr/share/java/netty-codec.jar"), Path("/usr/share/java/netty-resolver.jar"))


@contextlib.asynccontextmanager
async def behind_a_relay(zookeeper: ZooKeeperServer) -> AsyncIterator[SecureServer]:
    with ZooKeeperProxy((zookeeper.host, zookeeper.port)) as proxy:
        async with tls.TlsRelay((proxy.host, proxy.port)) as relay:
            yield SecureServer(relay.port, proxy, zookeeper.address)


@contextlib.asynccontextmanager
async def by_itself(_: ZooKeeperServer) -> AsyncIterator[SecureServer]:
    with ZooKeeperServer(Settings(tick_time_ms=200, properties=NETTY, jars=(*JARS, *NETTY_JARS))) as server:
        await server.start()
        await handshake(server.port)
        with TcpProxy((server.host, server.port)) as proxy:
            yield SecureServer(proxy.port, proxy, server.address)


async def handshake(port: int) -> None:
    """The first one takes a JVM, and a busy machine, longer than a test wants to wait."""
    async with asyncio.timeout(DEADLINE):
        _, writer = await asyncio.open_connection("localhost", port, ssl=tls.trusting())
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.fixture(params=[behind_a_relay, by_itself])
async def secure(request: pytest.FixtureRequest, zookeeper: ZooKeeperServer) -> AsyncIterator[SecureServer]:
    """The shared server behind a relay that ends TLS, or a server that speaks TLS by itself."""
    serve: Callable[[ZooKeeperServer], contextlib.AbstractAsyncContextManager[SecureServer]] = request.param
    async with serve(zookeeper) as server:
        yield server


async def test_all_is_the_same_by_tls(secure: SecureServer) -> None:
    servers = f"localhost:{secure.port}"
    async with (
        nothing_left(secure.proxy),
        Scene(servers, judged_at=secure.plain, session_timeout=LONG, tls=tls.trusting()) as scene,
    ):
        for reset in (True, False):
            secure.proxy.cut(reset=reset)
            await scene.settled()
        scene.check_session_kept()
        assert "reconnected" in scene.publisher.states

        for peer in (scene.publisher, scene.consumer):
            session = session_of(peer.registry)
            await wire.force_expiry(secure.plain, session.id, password_of(session))
        await scene.settled()
        assert len(scene.publisher.sessions) == 2


async def test_silence_is_noticed_by_tls(secure: SecureServer) -> None:
    """A peer that hangs answers no good-bye either: nothing waits for it."""
    async with (
        nothing_left(secure.proxy),
        Scene(f"localhost:{secure.port}", judged_at=secure.plain, session_timeout=TIMEOUT, tls=tls.trusting()) as scene,
    ):
        secure.proxy.silence()
        with scene.silence():
            await until(lambda: scene.registration.status is Status.PRESUMED_GONE)
        secure.proxy.heal()
        await scene.settled()


async def test_closing_by_tls_is_bounded_and_leaves_nothing(secure: SecureServer) -> None:
    async with nothing_left(secure.proxy):
        servers, base = f"localhost:{secure.port}", f"/{uuid.uuid4().hex}"
        registry = aioregistry.connect(
            servers, session_timeout=LONG, close_timeout=SOON, base_path=base, tls=tls.trusting()
        )
        async with registry:
            registration = await registry.register(instance_of("chat"))
            secure.proxy.silence()
            sockets, began = len(open_sockets()), time.monotonic()
        assert time.monotonic() - began < SOON + SLACK
        # Now, not when the peer answers the good-bye, for which asyncio waits 30 s.
        await until(lambda: len(open_sockets()) < sockets, timeout=SLACK)
        assert registration.withdrawn is False


@pytest.mark.parametrize(
    ("host", "trusted", "reason"),
    [
        ("127.0.0.1", tls.AUTHORITY, "it is not valid for this IP address"),
        ("localhost", None, "its issuer is not known here"),
    ],
    ids=["another name", "another authority"],
)
async def test_a_server_that_is_not_who_it_should_be(
    secure: SecureServer, host: str, trusted: Path | None, reason: str
) -> None:
    context = ssl.create_default_context(cafile=trusted)
    async with nothing_left(secure.proxy):
        told = await refused(f"{host}:{secure.port}", tls=context)
    check_contained(told=[told], names=[f"127.0.0.1):{secure.port}" if host == "localhost" else host, reason])


async def test_who_speaks_tls_to_whom(zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy) -> None:
    async with behind_a_relay(zookeeper) as secure, nothing_left(secure.proxy, proxy):
        told = {
            secure.port: await refused(f"localhost:{secure.port}", tls=None),
            proxy.port: await refused(f"localhost:{proxy.port}", tls=tls.trusting()),
        }
        proxy.silence()
        silent = await refused(f"localhost:{proxy.port}", tls=tls.trusting())
    for port, said in told.items():
        check_contained(told=[said], names=[f"localhost(127.0.0.1):{port}: "])
    check_contained(told=[silent], names=[f"localhost(127.0.0.1):{proxy.port}: no connection yet"])


async def refused(servers: str, **options: Any) -> str:
    """The error of connecting, which must fail and not take long."""
    async with asyncio.timeout(SOON + SLACK):
        with pytest.raises(ConnectTimeout) as caught:
            _ = await aioregistry.connect(servers, session_timeout=LONG, connect_timeout=SOON, **options)
    told = str(caught.value)
    assert f"servers={servers!r} within timeout={SOON:g} s" in told
    return told


async def test_a_name_with_the_dot_that_ends_it_is_verified_without(
    secure: SecureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = socket.getaddrinfo

    def without_the_dot(host: str, *args: Any, **kwargs: Any) -> Any:  # not every system knows localhost with it
        return found(host.removesuffix("."), *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", without_the_dot)
    servers = f"localhost.:{secure.port}"
    async with aioregistry.connect(servers, session_timeout=LONG, tls=tls.trusting()) as registry:
        server = registry.session.server
        assert server is not None
        assert server.host == "localhost."


async def test_a_server_that_cannot_be_trusted_hides_none(zookeeper: ZooKeeperServer) -> None:
    async with behind_a_relay(zookeeper) as secure:
        servers = f"127.0.0.1:{secure.port},localhost:{secure.port}"
        async with aioregistry.connect(servers, session_timeout=LONG, tls=tls.trusting()) as registry:
            server = registry.session.server
            assert server is not None
            assert server.host == "localhost"


# ---------------------------------------------------------------- credentials


SECRET = "correct-horse-battery-staple"
CREDENTIALS = [("digest", f"chat:{SECRET}")]
OURS_ALONE = [ACL.make("auth", "", read=True, write=True, create=True, delete=True, admin=True)]
OPEN_TO_READ = [*OURS_ALONE, ACL.make("world", "anyone", read=True)]
AUTH = 100
"""The opcode of credentials."""


async def test_credentials_come_first_on_every_connection(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A later client would be refused its own nodes, and could not read its own service."""
    caplog.set_level(logging.DEBUG)
    options: dict[str, Any] = {"auth": CREDENTIALS, "acl": OURS_ALONE, "session_timeout": LONG}
    with OldServer((zookeeper.host, zookeeper.port), unknown=()) as proxy:
        async with (
            Peer(f"{proxy.address}{chroot}", **options) as peer,
            peer.registry.register(instance_of("chat", payload=0)) as registration,
            peer.registry.discover("chat") as view,
        ):
            session = session_of(peer.registry)
            for number in range(1, 7):
                proxy.cut()
                if number == 4:
                    await wire.force_expiry(zookeeper.address, session.id, password_of(session))
                await asyncio.wait_for(registration.update(payload=number), DEADLINE)
                await view.sync(DEADLINE)
                assert not view.snapshot.invalid
                assert view.snapshot["a"].payload == number
            assert len(peer.sessions) == 2
            with pytest.raises(wire.WireError) as stranger:
                await judge.node(registration.path)
            assert stranger.value.code == NoAuth.code
            handles = (peer.registry, session, registration, view, view.snapshot, view.snapshot["a"])
            told = "\n".join([*map(repr, handles), *map(str, peer.events), caplog.text])
        assert registration.withdrawn
        assert len(proxy.asked) > 6
        assert {connection[0] for connection in proxy.asked if connection} == {AUTH}
    check_contained(told=[told], names=["reconnected", "LIVE"], secrets=[SECRET])


async def test_all_is_the_same_with_credentials(zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy) -> None:
    options: dict[str, Any] = {"auth": CREDENTIALS, "acl": OPEN_TO_READ, "base_path": f"/{uuid.uuid4().hex}"}
    async with Scene(proxy.address, judged_at=zookeeper.address, session_timeout=LONG, **options) as scene:
        proxy.cut()
        await scene.settled()
        scene.check_session_kept()
        session = session_of(scene.publisher.registry)
        await wire.force_expiry(zookeeper.address, session.id, password_of(session))
        await scene.settled()


@pytest.mark.parametrize("wait", [True, False])
async def test_credentials_that_are_refused(
    zookeeper: ZooKeeperServer, caplog: pytest.LogCaptureFixture, *, wait: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    registry = aioregistry.connect(
        zookeeper.address, session_timeout=LONG, auth=[*CREDENTIALS, ("no-such-scheme", SECRET)], wait=wait
    )
    async with asyncio.timeout(SLACK):  # at once: no deadline of LONG is waited for
        with pytest.raises(AuthenticationFailed) as caught:
            async with registry:
                _ = await registry.register(instance_of("chat"))
    assert registry.session.state is SessionState.FAILED
    names = ["scheme='no-such-scheme'", zookeeper.address]
    check_contained(told=[str(caught.value)], names=names, secrets=[SECRET])
    check_contained(told=[f"{caplog.text}{caught.getrepr()}{registry!r}"], secrets=[SECRET])


ENFORCED = {
    "zookeeper.enforce.auth.enabled": "true",
    "zookeeper.enforce.auth.schemes": "digest",
    "zookeeper.authProvider.1": "org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
}


@pytest.mark.since(3, 7)  # enforce.auth came with it
async def test_a_server_that_wants_credentials_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """In words that do not send anybody to SASL who needs a digest; and at WARNING where nobody waits for it."""
    with ZooKeeperServer(Settings(properties=ENFORCED)) as zookeeper:
        await zookeeper.start()
        told = await refused(zookeeper.address)
        check_contained(told=[told], names=["auth=[(scheme, secret)]", "digest"])
        async with aioregistry.connect(zookeeper.address, session_timeout=LONG, auth=CREDENTIALS) as registry:
            assert registry.session.connected
        caplog.clear()
        async with aioregistry.connect(zookeeper.address, session_timeout=1.0, wait=False) as registry:
            async with asyncio.timeout(LONG):
                while not (outages := [each for each in caplog.records if "no connection" in each.getMessage()]):
                    await asyncio.sleep(0.01)
            (attempt,) = registry.session.attempts.values()
        assert attempt.outcome is AttemptOutcome.UNAUTHENTICATED
        assert outages[0].levelno == logging.WARNING
        check_contained(told=[outages[0].getMessage()], names=[zookeeper.address, "auth=[(scheme, secret)]"])


@pytest.mark.parametrize(
    "auth",
    [
        f"digest:{SECRET}",
        ("digest", SECRET),
        [("digest", SECRET, SECRET)],
        [("digest", [SECRET])],
        [(SECRET,)],
        [("", SECRET)],
        [("digest", f"{SECRET}\ud800")],
        {"digest": SECRET},
    ],
    ids=str,
)
def test_credentials_that_are_none(auth: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _ = aioregistry.connect("zk1", auth=auth)
    told = f"{caught.value} {caught.value!r} {caught.value.args}"
    check_contained(told=[told], names=["auth"], secrets=[SECRET])


async def test_who_has_no_credentials_sees_what_he_cannot_read(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    servers = f"{zookeeper.address}{chroot}"
    await judge.make(f"{chroot}/services/chat")  # to be listed by anybody
    async with (
        aioregistry.connect(servers, session_timeout=LONG, auth=CREDENTIALS, acl=OURS_ALONE) as owner,
        aioregistry.connect(servers, session_timeout=LONG) as stranger,
        owner.register(instance_of("chat")) as registration,
        owner.discover("chat") as clear,
        stranger.discover("chat") as dim,
    ):
        assert list(clear.snapshot) == ["a"]
        assert not clear.snapshot.invalid
        assert list(dim.snapshot) == []
        assert dim.snapshot.invalid["a"].reason == (
            f"cannot be read: {registration.path}: not authorised by the node's ACL (-102)"
        )
        with pytest.raises(RegistrationError, match="not authorised"):
            _ = await stranger.register(instance_of("chat"))
        check_owned(live=registration.status is Status.LIVE, session_id=owner.session.id, owner=registration.owner)

        await owner.client.set_acl(registration.path.removeprefix(chroot), OPEN_TO_READ, force=True)
        await dim.sync(DEADLINE)
        assert list(dim.snapshot) == ["a"]
        assert not dim.snapshot.invalid


async def test_a_service_that_may_not_be_listed(zookeeper: ZooKeeperServer, chroot: str) -> None:
    servers = f"{zookeeper.address}{chroot}"
    async with (
        aioregistry.connect(servers, session_timeout=LONG, auth=CREDENTIALS, acl=OURS_ALONE) as owner,
        aioregistry.connect(servers, session_timeout=LONG) as stranger,
        owner.register(instance_of("chat")),
    ):
        with pytest.raises(NoAuth, match="/services/chat"):
            _ = await stranger.discover("chat")
        with pytest.raises(NoAuth, match="/services"):
            await stranger.services()


# ---------------------------------------------------------------- servers that know less


def served_by(*servers: OldServer) -> str:
    return ",".join(server.address for server in servers)


@pytest.mark.parametrize(
    ("error", "closes"), [(UNIMPLEMENTED, True), (MARSHALLING_ERROR, False)], ids=["-6 and closes", "-5 and goes on"]
)
async def test_a_server_without_recursive_watches(zookeeper: ZooKeeperServer, *, error: int, closes: bool) -> None:
    """As 3.5 is. Each session asks each server once, alone, and remembers the answer."""
    old = OldServer((zookeeper.host, zookeeper.port), error=error, closes=closes)
    base = f"/{uuid.uuid4().hex}"
    with old:
        async with Scene(old.address, judged_at=zookeeper.address, session_timeout=LONG, base_path=base) as scene:
            for _ in range(3):
                old.cut()
                await scene.settled()
            scene.check_session_kept()
            assert old.refused == [wire.MULTI_READ] * 2  # by two sessions
            for connection in old.asked:
                assert wire.MULTI_READ not in connection or connection[0] == wire.MULTI_READ
            session = session_of(scene.publisher.registry)
            await wire.force_expiry(zookeeper.address, session.id, password_of(session))
            await scene.settled()
        assert old.refused == [wire.MULTI_READ] * 2


@pytest.mark.since(3, 6)
async def test_each_server_is_asked_for_itself(zookeeper: ZooKeeperServer) -> None:
    """In a rolling upgrade some know more than others."""
    target = (zookeeper.host, zookeeper.port)
    base = f"/{uuid.uuid4().hex}"
    with OldServer(target) as old, OldServer(target, unknown=()) as new:
        async with Scene(
            served_by(old, new), judged_at=zookeeper.address, session_timeout=LONG, base_path=base
        ) as scene:
            for here in (old, new) * 3:
                here.refuse()
                here.cut()
                await scene.settled()
                here.accept()
            scene.check_session_kept()
        assert old.refused == [wire.MULTI_READ] * 2
        assert any(wire.ADD_WATCH in connection for connection in new.asked)
        questions = [opcode for connection in new.asked for opcode in connection[:1]]
        assert questions.count(wire.MULTI_READ) == 2


@pytest.mark.since(3, 6)
async def test_a_server_that_knows_no_add_watch_only(zookeeper: ZooKeeperServer) -> None:
    """It closes the connection under a view that is being entered; the session goes on, on another."""
    base = f"/{uuid.uuid4().hex}"
    with OldServer((zookeeper.host, zookeeper.port), unknown={wire.ADD_WATCH}) as old:
        async with Scene(old.address, judged_at=zookeeper.address, session_timeout=LONG, base_path=base) as scene:
            for _ in range(2):
                old.cut()
                await scene.settled()
            scene.check_session_kept()
        assert old.refused == [wire.ADD_WATCH]  # by the view's session: the owner asks whether there are overrides


@pytest.mark.since(3, 6)
async def test_a_server_that_knows_one_shot_watches_only(start_zookeeper: StartZooKeeper) -> None:
    """ZooKeeper's own: it has MultiRead, and answers AddWatch with -5."""
    name = "org.apache.zookeeper.server.watch.WatchManagerOptimized"
    server = await start_zookeeper(tick_time_ms=200, properties={"zookeeper.watchManagerName": name})
    with OldServer((server.host, server.port), unknown=()) as proxy:
        async with Scene(proxy.address, judged_at=server.address, session_timeout=LONG) as scene:
            for _ in range(2):
                proxy.cut()
                await scene.settled()
            scene.check_session_kept()
        asked = [opcode for connection in proxy.asked for opcode in connection]
        assert asked.count(wire.ADD_WATCH) == 1  # by the view's session
        assert 105 not in asked  # SetWatches2, which it would refuse too


async def test_recursive_watches_that_are_demanded(zookeeper: ZooKeeperServer, chroot: str) -> None:
    with OldServer((zookeeper.host, zookeeper.port)) as old:
        servers = f"{old.address}{chroot}"
        async with aioregistry.connect(servers, session_timeout=LONG, watches="recursive") as registry:
            with pytest.raises(aioregistry._errors.UnsupportedServer, match=old.address):
                _ = await registry.discover("chat")
            assert registry.session.connected


# ---------------------------------------------------------------- servers without a quorum


@contextlib.asynccontextmanager
async def ensemble_that_may_lose_its_quorum(*, local_sessions: bool) -> AsyncIterator[ZooKeeperEnsemble]:
    settings = Settings(tick_time_ms=200, read_only_mode=True, local_sessions=local_sessions)
    with ZooKeeperEnsemble(settings) as ensemble:
        await ensemble.start()
        yield ensemble


async def lose_quorum(ensemble: ZooKeeperEnsemble) -> ZooKeeperServer:
    """Kill all members but the one that is returned, when that has noticed."""
    left, *others = ensemble.members
    for member in others:
        member.kill()
    async with asyncio.timeout(DEADLINE):
        while await asyncio.to_thread(lambda: left.mode) != "read-only":
            await asyncio.sleep(0.05)
    return left


async def test_a_stranger_reads_without_a_quorum() -> None:
    async with (
        ensemble_that_may_lose_its_quorum(local_sessions=True) as ensemble,
        aioregistry.connect(ensemble.connect_string, session_timeout=LONG) as before,
        before.register(instance_of("chat", id="kept")),
    ):
        left = await lose_quorum(ensemble)
        check_contained(told=[await refused(left.address)], names=[f"{left.address}: "])
        async with (
            Peer(left.address, session_timeout=TIMEOUT, allow_read_only=True) as peer,
            peer.registry.discover("chat") as view,
            peer.registry.register(instance_of("chat"), wait=False) as registration,
        ):
            session = session_of(peer.registry)
            assert session.read_only
            assert await peer.registry.services() == ["chat"]
            assert set(view.snapshot) == {"kept"}
            assert view.snapshot.stale_since is not None

            def left_twice() -> bool:
                claimed = registration.status is not Status.REGISTERING or view.fresh
                check_honest(claimed=claimed, contact_age=float("inf"), timeout=TIMEOUT)
                assert session.id == 0  # what such a server invents is nobody's
                return peer.states.count("suspended") == 2

            await until(left_twice)  # after a timeout each, to look for one with a quorum
            await ensemble.start()
            await registration.wait_live(DEADLINE)
            await view.wait_for(lambda snapshot: set(snapshot) == {"a", "kept"}, DEADLINE)
            await until(lambda: view.fresh)
            assert not session.read_only
            check_owned(live=True, session_id=session.id, owner=registration.owner)


@pytest.mark.since(3, 6)  # before, the member ends the session by itself, and lacks its nodes for ever
async def test_a_known_session_waits_for_the_quorum() -> None:
    """A server without one refuses it, which is no expiry. Only the publisher's session is the ensemble's: the other
    owns nothing, is local to a member, and goes with it."""
    async with (
        ensemble_that_may_lose_its_quorum(local_sessions=True) as ensemble,
        Scene(
            ensemble.connect_string, judged_at=ensemble.connect_string, session_timeout=TIMEOUT, allow_read_only=True
        ) as scene,
    ):
        left = await lose_quorum(ensemble)
        with scene.silence():
            await until(lambda: scene.registration.status is Status.PRESUMED_GONE)
            assert not scene.publisher.registry.session.read_only
            assert scene.id in scene.view.snapshot
        assert left.running
        await ensemble.start()
        await scene.settled()
        assert scene.chronicle.owners == [scene.session_id]
        assert len(scene.publisher.sessions) == 1


async def test_a_server_that_has_no_sessions_for_strangers() -> None:
    """Without local sessions a read-only server refuses everybody; before 3.6 it takes whoever wants to read."""
    async with ensemble_that_may_lose_its_quorum(local_sessions=False) as ensemble:
        left = await lose_quorum(ensemble)
        if RELEASE >= (3, 6):
            told = await refused(left.address, allow_read_only=True)
            check_contained(told=[told], names=[f"{left.address}: "])
        else:
            async with aioregistry.connect(left.address, session_timeout=LONG, allow_read_only=True) as registry:
                assert registry.session.read_only
                assert registry.session.id == 0
