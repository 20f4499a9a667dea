"""`aioregistry demo`: chat servers that stay listed, a gateway that routes by them, faults that strike one by one."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiozk.exc

import aioregistry
from aioregistry import Registry, RegistryError, View

from ..server import ZooKeeperServer
from .output import Output
from .process import DONE, cancel_this_task
from .stage import SERVICE, ChatServer, DemoResult, Gateway, Happening, Log
from .telling import JsonTeller, Teller, TextTeller, sentence, wants_colour

SERVERS = {"chat-1": 7001, "chat-2": 7002, "chat-3": 7003}
USERS = ("ada", "alan", "barbara", "edsger", "grace", "john", "leslie", "niklaus", "tony")
PAUSE = 1.0  # seconds between the acts, for readers
CLEANUP_TIMEOUT = 5.0  # seconds
SHORTEST_TICK, LONGEST_TICK = 0.1, 2.0  # seconds, of the server in memory


class BrokenPromise(RegistryError):
    """The gateway saw something that it must not see."""


@dataclass(frozen=True)
class Stage:
    """Where the acts take place."""

    log: Log
    servers: dict[str, ChatServer]
    view: View[Any]
    registry: Registry
    chroot: str

    def saw(self, mark: Happening, server: str) -> tuple[str, ...]:
        """The changes of *server* that the gateway saw since *mark*."""
        return tuple(entry.event for entry in self.log.after(mark, "gateway", server))


# ---------------------------------------------------------------- the acts


async def cut(stage: Stage) -> DemoResult:
    """The session outlives its connection."""
    server = "chat-1"
    mark = stage.log.tell("fault", "cut", f"the connection of {server} to ZooKeeper is cut", server)
    stage.servers[server].proxy.cut()
    live = await stage.log.first(mark, server, "live")
    await asyncio.sleep(PAUSE)  # time enough for the gateway to see something, if there were anything
    return of_cut(stage.saw(mark, server), live.at - mark.at, stage.registry.session.timeout)


async def silence(stage: Stage) -> DemoResult:
    """Only ZooKeeper ends a session; then everything is put back."""
    server = "chat-2"
    mark = stage.log.tell("fault", "silenced", f"the network of {server} swallows every byte", server)
    stage.servers[server].proxy.silence()
    gone = await stage.log.first(mark, "gateway", "removed", server)
    text = f"the network of {server} is back; {gone.at - mark.at:.1f} s of silence have cost it its session"
    healed = stage.log.tell("fault", "healed", text, server)
    stage.servers[server].proxy.cut()  # a client that is connected by now has lost bytes
    stage.servers[server].proxy.heal()
    back = await stage.log.first(healed, "gateway", "added", server)
    await stage.log.first(healed, server, "live")
    saw = stage.saw(mark, server)
    until = "listed again, once the network was back,"
    return DemoResult("session expired", saw, back.at - gone.at, back.at - healed.at, until, saw == GAP)


async def kill(stage: Stage) -> DemoResult:
    """A restarted process takes over its own ghost, whose session would take the node with it when it ends."""
    server = "chat-3"
    mark = await stage.servers[server].kill()
    await stage.servers[server].start()
    live = await stage.log.first(mark, server, "live")
    await stage.log.first(mark, "gateway", ("replaced", "added"), server)
    # Ticks are half the shortest timeout a server grants (unless set); expiry is rounded up to the next one.
    ghost_lasts = stage.registry.session.timeout * 1.75
    text = f"ZooKeeper ends the dead process's session within {ghost_lasts:.0f} s: does it take the node with it?"
    stage.log.tell("demo", "waiting", text)
    await asyncio.sleep(ghost_lasts)
    if server in stage.view.snapshot:
        stage.log.tell("gateway", "kept", f"still lists {server}", server)
    listings = sum(entry.event == "live" for entry in stage.log.after(mark, server))
    return of_kill(stage.saw(mark, server), live.at - mark.at, listings)


async def delete(stage: Stage) -> DemoResult:
    """A live registration puts back what a person deletes."""
    server = "chat-1"
    path = f"{stage.chroot}/services/{SERVICE}/{server}"
    mark = stage.log.tell("fault", "deleted", f"a person deletes the node of {server}", server)
    await _deleted(stage.registry, path)
    # A node that is put back fast enough was never gone for a client that reads after the event.
    back = await stage.log.first(mark, "gateway", ("added", "replaced"), server)
    await stage.log.first(mark, server, "live")
    saw = stage.saw(mark, server)
    gone = next((entry.at for entry in stage.log.after(mark, "gateway", server) if entry.event == "removed"), None)
    unlisted = None if gone is None else back.at - gone
    return DemoResult("node deleted by hand", saw, unlisted, back.at - mark.at, "it was back", saw in (GAP, REPLACED))


async def stop(stage: Stage) -> DemoResult:
    """A server that leaves in order is gone at once."""
    server = "chat-3"
    mark = stage.log.tell("fault", "stopped", f"{server} gets SIGTERM", server)
    await stage.servers[server].stop()
    gone = await stage.log.first(mark, "gateway", "removed", server)
    saw = stage.saw(mark, server)
    return DemoResult("asked to stop", saw, None, gone.at - mark.at, "it had left", saw == ("removed",))


ACTS: dict[str, Callable[[Stage], Awaitable[DemoResult]]] = {
    "A connection is cut. The session lives on.": cut,
    "The network is silent until the session expires. Everything is put back.": silence,
    "A process is killed and restarted within the session timeout. It takes over from its ghost.": kill,
    "A person deletes a node. Its owner puts it back.": delete,
    "A server is asked to stop. It withdraws first.": stop,
}


async def _deleted(registry: Registry, path: str) -> None:
    """Delete the node, whatever becomes of a request."""
    while True:
        try:
            await registry.client.delete(path)
        except aiozk.exc.NoNode:  # the session of its owner has ended meanwhile, or the lost request was applied
            return
        except aiozk.exc.ConnectError:
            continue  # the next one waits for the connection
        else:
            return


# ---------------------------------------------------------------- the verdicts that depend on how fast this machine is

GAP, REPLACED = ("removed", "added"), ("replaced",)


def of_cut(saw: tuple[str, ...], took: float, session_timeout: float) -> DemoResult:
    """Judge a cut: a session outlives it, where its owner is back in time; *took* is how long that took, in seconds.

    ZooKeeper hears of every session at least each third of its timeout. So it may end one that is away for two thirds.
    """
    late = took >= session_timeout / 2 and saw in (GAP, REPLACED)
    until = "chat-1 was live again"
    if late:
        until += ", too late for its session, for this machine is slow: it has a new one"
    return DemoResult("connection cut", saw, None, took, until, saw == () or late)


def of_kill(saw: tuple[str, ...], took: float, listings: int) -> DemoResult:
    """Judge a restart: a process that is there before its ghost's session ends takes over.

    On a slow machine the ghost may be gone by then: it has to be. A ghost must not take the new process's
    node with it, which is then live twice: *listings* says how often it came to be.
    """
    if saw == (*GAP, "kept") and listings == 1:
        return DemoResult(
            "killed and restarted", saw, None, took, "the new process came, and its ghost had gone,", True
        )
    until = "the new process had taken over"
    return DemoResult("killed and restarted", saw, None, took, until, saw == (*REPLACED, "kept"))


# ---------------------------------------------------------------- the play


async def demo(arguments: argparse.Namespace) -> int:
    """Play every act and tell what the gateway saw; raises BrokenPromise when it saw what it must not see."""
    teller: Teller = JsonTeller() if arguments.json else TextTeller(in_colour=wants_colour(sys.stdout, os.environ))
    async with Output(sys.stdout, cancel_this_task()) as output:
        log = Log(lambda happening: output.put(teller.happening(happening)))
        verdicts = await _play(arguments, log)
        await output.line(teller.summary(verdicts, log.tell("demo", "ended", "curtain")))
    broken = [verdict.fault for verdict in verdicts if not verdict.promised]
    if broken:
        raise BrokenPromise(f"these faults did not go as promised: {', '.join(broken)}")
    return DONE


async def _play(arguments: argparse.Namespace, log: Log) -> list[DemoResult]:
    async with _zookeeper(arguments) as hosts, _stage(arguments, hosts, log) as stage:
        verdicts = []
        for number, (title, act) in enumerate(ACTS.items(), 1):
            await asyncio.sleep(PAUSE)
            log.tell("demo", "act", f"{number}. {title}")
            verdicts.append(await act(stage))
            log.tell("demo", "verdict", sentence(verdicts[-1]))
        return verdicts


@contextlib.asynccontextmanager
async def _zookeeper(arguments: argparse.Namespace) -> AsyncIterator[str]:
    """The servers that were given, or one in memory."""
    if arguments.zookeeper is not None:
        yield arguments.zookeeper
        return
    # Two ticks are the shortest timeout that a server grants.
    tick_time = min(max(arguments.session_timeout / 2, SHORTEST_TICK), LONGEST_TICK)
    async with ZooKeeperServer(tick_time=tick_time) as server:
        yield server.address


@contextlib.asynccontextmanager
async def _stage(arguments: argparse.Namespace, hosts: str, log: Log) -> AsyncIterator[Stage]:
    """Set the stage in a chroot of its own, below the one that was given, and clear it away at the end."""
    chroot = f"/aioregistry-demo-{uuid.uuid4().hex[:8]}"
    _, slash, given_chroot = hosts.partition("/")
    session_timeout = arguments.session_timeout
    async with (
        aioregistry.connect(hosts, session_timeout=session_timeout, base_path=f"{chroot}/services") as registry,
        _cleared(registry, chroot),
        registry.discover(SERVICE) as view,
        contextlib.AsyncExitStack() as stack,
    ):
        kind = "ZooKeeper" if arguments.zookeeper else "the embedded server"
        zookeeper = registry.session.server
        assert zookeeper is not None  # entered: connected
        log.session_timeout = registry.session.timeout
        opening = log.tell(
            "demo", "opened", f"{kind} {zookeeper}, session timeout {registry.session.timeout:g} s: "
            f"{len(SERVERS)} chat servers, a gateway, {len(USERS)} users"
        )  # fmt: skip
        follower = asyncio.create_task(Gateway(view, USERS, log).follow())
        stack.push_async_callback(_cancelled, follower)
        servers = {
            name: ChatServer(
                name,
                port,
                zookeeper=(zookeeper.address, zookeeper.port),
                chroot=f"{slash}{given_chroot.rstrip('/')}{chroot}",
                session_timeout=session_timeout,
                log=log,
            )
            for name, port in SERVERS.items()
        }
        for server in servers.values():
            await stack.enter_async_context(server)
        for name in servers:
            await log.first(opening, "gateway", "added", name)
            await log.first(opening, name, "live")
        yield Stage(log, servers, view, registry, chroot)
        log.tell("demo", "closing", "the remaining servers are asked to stop")


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


@contextlib.asynccontextmanager
async def _cleared(registry: Registry, path: str) -> AsyncIterator[None]:
    try:
        yield
    finally:
        # Empty containers may be reaped while we delete them, and ZooKeeper may be what failed: then it stays.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLEANUP_TIMEOUT):
                await registry.client.deleteall(path)
