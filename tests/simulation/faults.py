"""The faults of a world: as plain data, drawn by a seed or by Hypothesis, and what each does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from aioregistry import RequestTimeout, ServiceInstance
from aioregistry._bounds import MOST_EPOCHS
from aioregistry._document import encode
from aioregistry._markers import marker_name, marker_prefix
from aioregistry.server import _acl as access
from aioregistry.server._codes import Opcode
from tests.simulation import wellness
from tests.simulation.process import BASE, Claim, Followed, Held, Names, Process, Stage

if TYPE_CHECKING:
    from aioregistry.server._ensemble import Member
    from tests.simulation.world import World


class Fault(NamedTuple):
    """One thing that happens.

    Args:
        at: seconds after the beginning.
        kind: a key of FAULTS.
        target: which process or server, counted round.
        duration: seconds until it is over, where it lasts.
        dice: between 0 and 1; what else there is to choose.
    """

    at: float
    kind: str
    target: int
    duration: float
    dice: float


Doing: TypeAlias = Callable[["World", Fault], Awaitable[None]]


def drawn(draw: random.Random, weights: Mapping[str, int], *, length: float, every: float) -> list[Fault]:
    """Return the faults of a world, about one in so many seconds."""
    faults = []
    at = draw.expovariate(1 / every)
    kinds, chances = list(weights), list(weights.values())
    while at < length:
        (kind,) = draw.choices(kinds, chances)
        duration = draw.choice((0.05, 1.0, 3.0, 8.0, 20.0, 40.0)) * draw.uniform(0.5, 1.0)
        faults.append(Fault(at, kind, draw.randrange(1000), duration, draw.random()))
        at += draw.expovariate(1 / every)
    return faults


# ---------------------------------------------------------------- the network


async def _cut(world: World, fault: Fault) -> None:
    process = world.process(fault.target)
    world.note(process, f"connections cut: {world.network.reset(process.name)}")


async def _part(world: World, fault: Fault, *, there: bool, back: bool) -> None:
    """Between a process and all servers, or the one that the dice name."""
    process = world.process(fault.target)
    names = world.servers.names
    if fault.dice < 0.3:
        names = [names[fault.target % len(names)]]
    arrows = " and ".join(["to"] * there + ["from"] * back)
    world.note(process, f"nothing {arrows} {', '.join(names)} for {fault.duration:.2f} s")
    ways = [way for name in names for way in ([(process.name, name)] * there + [(name, process.name)] * back)]
    for way in ways:
        world.network.block(*way)
    await asyncio.sleep(fault.duration)
    for way in ways:
        world.network.unblock(*way)
    world.note(process, f"everything {arrows} {', '.join(names)} again")


async def _partition(world: World, fault: Fault) -> None:
    await _part(world, fault, there=True, back=True)


async def _mute(world: World, fault: Fault) -> None:
    await _part(world, fault, there=True, back=False)


async def _deafen(world: World, fault: Fault) -> None:
    await _part(world, fault, there=False, back=True)


async def _half_open(world: World, fault: Fault) -> None:
    process = world.process(fault.target)
    here = fault.dice < 0.5
    count = world.network.forget(process.name, here=here)
    world.note(process, f"half open: {count}; {'it' if here else 'the server'} knows")


async def _slow_link(world: World, fault: Fault) -> None:
    process = world.process(fault.target)
    seconds = 0.02 + fault.dice * 0.4
    world.note(process, f"latency {seconds:.3f} s for {fault.duration:.2f} s")
    world.network.latency(process.name, seconds)
    await asyncio.sleep(fault.duration)
    world.network.latency(process.name, None)


async def _refuse(world: World, fault: Fault) -> None:
    name = world.server_name(fault.target)
    world.servers_note(f"{name} refuses connections for {fault.duration:.2f} s")
    listener = world.network.listeners[name]
    world.network.reset(name)
    listener.refuses = True
    await asyncio.sleep(fault.duration)
    listener.refuses = False


async def _hang(world: World, fault: Fault) -> None:
    name = world.server_name(fault.target)
    world.servers_note(f"{name} swallows connects for {fault.duration:.2f} s")
    listener = world.network.listeners[name]
    world.network.reset(name)
    listener.hangs = True
    await asyncio.sleep(fault.duration)
    listener.hangs = False


async def _names_away(world: World, fault: Fault) -> None:
    """A name server that fails, hangs or is empty, while connections are lost."""
    process = world.process(fault.target)
    away = (Names.FAIL, Names.HANG, Names.EMPTY)[int(fault.dice * 3) % 3]
    world.note(process, f"look-ups {away.name} for {fault.duration:.2f} s; connections cut: {_reset(world, process)}")
    process.names = away
    await asyncio.sleep(fault.duration)
    process.names = Names.ANSWERED


def _reset(world: World, process: Process) -> int:
    return world.network.reset(process.name)


# ---------------------------------------------------------------- the servers


async def _member_down(world: World, fault: Fault) -> None:
    ensemble = world.servers.ensemble
    member = ensemble.members[fault.target % len(ensemble.members)]
    if len(ensemble.members) == 1 or not member.running:
        return
    name = world.server_name(fault.target)
    world.servers_note(f"{name} goes down for {fault.duration:.2f} s")
    await member.stop()
    await asyncio.sleep(fault.duration)
    if ensemble.history is not None and not member.running:
        await member.start(listen=False)
        world.servers_note(f"{name} is up")


async def _cut_off(world: World, fault: Fault) -> None:
    ensemble = world.servers.ensemble
    member = ensemble.members[fault.target % len(ensemble.members)]
    if len(ensemble.members) == 1 or member.is_cut_off or not member.running:
        return
    name = world.server_name(fault.target)
    world.servers_note(f"{name} is cut off from the others for {fault.duration:.2f} s")
    member.cut_off()
    await asyncio.sleep(fault.duration)
    member.heal()
    world.judges.disrupted()
    world.servers_note(f"{name} is with the others again")


async def _lag(world: World, fault: Fault) -> None:
    ensemble = world.servers.ensemble
    member = ensemble.members[fault.target % len(ensemble.members)]
    seconds = fault.dice * 3.0
    world.servers_note(f"{world.server_name(fault.target)} lags {seconds:.2f} s for {fault.duration:.2f} s")
    member.lag(seconds)
    await asyncio.sleep(fault.duration)
    member.lag(0.0)


async def _change_leader(world: World, fault: Fault) -> None:
    if world.servers.can_write():
        world.servers_note("another leader")
        world.servers.ensemble.change_leader()


async def _restart(world: World, fault: Fault) -> None:
    await world.restart_servers(fault.duration, "kept")


async def _wipe(world: World, fault: Fault) -> None:
    await world.restart_servers(fault.duration, "lost")


async def _roll_back(world: World, fault: Fault) -> None:
    if world.servers.ensemble.history is None:
        return
    backup = world.servers.backup()
    if fault.dice < 0.5:
        # A restored ensemble gets the epoch after its own: clients can prove it only behind another one.
        await _change_leader(world, fault)
    await asyncio.sleep(fault.dice * 20.0)
    await world.restart_servers(fault.duration, backup)
    await _permit_all(world)


async def _permit_all(world: World) -> None:
    """An operator lifts what was forbidden when the backup was made, and permitted since."""
    while not world.servers.can_write():
        await asyncio.sleep(1.0)
    services = [f"{BASE}/{service}" for service in world.servers.children(BASE)]
    instances = [f"{path}/{id}" for path in services for id in world.servers.children(path)]
    for path in (*services, *instances):
        node = world.servers.node(path)
        if node is not None and node.acl == READ_ONLY:
            world.servers.set_acl(path, access.OPEN)


async def _expire(world: World, fault: Fault) -> None:
    process = world.process(fault.target)
    if world.servers.can_write() and process.sessions:
        world.note(process, f"its session {process.sessions[-1]:#x} is expired")
        world.servers.ensemble.expire(process.sessions[-1])


_DISTURBED: Final = (
    Opcode.MULTI, Opcode.CREATE2, Opcode.SET_DATA, Opcode.GET_DATA, Opcode.SYNC, Opcode.MULTI_READ, Opcode.ADD_WATCH,
    Opcode.GET_CHILDREN, Opcode.SET_WATCHES2,
)  # fmt: skip
_THROTTLED: Final = -127


async def _disturb(world: World, fault: Fault) -> None:
    ensemble = world.servers.ensemble
    member = ensemble.members[fault.target % len(ensemble.members)]
    opcode = _DISTURBED[fault.target // 7 % len(_DISTURBED)]
    what = ("delayed", "refused", "its answer lost")[int(fault.dice * 3) % 3]
    world.servers_note(f"{world.server_name(fault.target)}: the next {opcode.name} is {what}")
    if what == "delayed":
        member.delay(opcode, min(fault.duration, 6.0))
    elif what == "refused":
        member.fail(opcode, _THROTTLED)
    else:
        member.lose_reply(opcode)


# ---------------------------------------------------------------- the processes and their machines


async def _stand_still(world: World, fault: Fault, *, slept: float, what: str) -> None:
    process = world.process(fault.target)
    if process.machine.stands_still:
        return
    world.note(process, f"{what} for {fault.duration:.2f} s")
    process.machine.stand_still()
    await asyncio.sleep(fault.duration)
    process.stood_still = True
    process.machine.go_on(slept=slept)
    world.note(process, "goes on")
    if process.stage is Stage.UP:
        world.judges.ask(process)  # before it hears anything


async def _sleep(world: World, fault: Fault) -> None:
    await _stand_still(world, fault, slept=fault.duration, what="sleeps")


async def _block(world: World, fault: Fault) -> None:
    await _stand_still(world, fault, slept=0.0, what="loop blocked")


async def _kill(world: World, fault: Fault) -> None:
    process = world.process(fault.target)
    crashed = fault.dice < 0.5
    world.kill(process, crashed=crashed)
    await asyncio.sleep(fault.duration * fault.dice)
    world.launch(process.part)


async def _leave(world: World, fault: Fault) -> None:
    process = world.process(fault.target)
    await world.leave(process)
    await asyncio.sleep(fault.duration)
    world.launch(process.part)


async def _twin(world: World, fault: Fault) -> None:
    """Another process claims the same ids; whoever comes to nothing by it leaves in the end."""
    process = world.process(fault.target)
    world.launch(process.part, standby=fault.dice < 0.5)


async def _rush(world: World, fault: Fault) -> None:
    """Several find the ghost of one that was killed."""
    process = world.process(fault.target)
    world.kill(process, crashed=fault.dice < 0.5)
    await asyncio.sleep(fault.dice)
    for _ in range(3):
        world.launch(process.part, standby=False)


# ---------------------------------------------------------------- the operators


def _path(world: World, fault: Fault) -> str | None:
    process = world.process(fault.target)
    claims = process.part.claims
    return claims[int(fault.dice * len(claims))].path if claims else None


async def _delete(world: World, fault: Fault) -> None:
    path = _path(world, fault)
    if path is not None and world.servers.delete(path):
        world.operator_note(f"deleted {path}")


async def _delete_service(world: World, fault: Fault) -> None:
    service = world.service(fault.target)
    for name in world.servers.children(f"{BASE}/{service}"):
        world.servers.delete(f"{BASE}/{service}/{name}")
    if world.servers.delete(f"{BASE}/{service}"):
        world.operator_note(f"deleted all of {service}")


async def _overwrite(world: World, fault: Fault) -> None:
    path = _path(world, fault)
    if path is not None and world.servers.set_data(path, b"\xff no instance"):
        world.operator_note(f"wrote garbage into {path}")


async def _litter(world: World, fault: Fault) -> None:
    path = f"{BASE}/{world.service(fault.target)}/litter-{fault.target}"
    if not world.servers.create(path, b"{" if fault.dice < 0.5 else b"\x00\xff"):
        return
    world.operator_note(f"left {path}")
    await asyncio.sleep(fault.duration)
    if fault.dice < 0.7 and world.servers.delete(path):
        world.operator_note(f"removed {path}")


FLOOD: Final = 1500
"""Changes: more than are kept for a consumer that takes none."""


async def _flood(world: World, fault: Fault) -> None:
    service = world.service(fault.target)
    path = f"{BASE}/{service}/flood-{fault.target}"
    world.operator_note(f"changes {path} {FLOOD} times")
    for number in range(FLOOD):
        instance = ServiceInstance(service, address="10.0.0.9", id=f"flood-{fault.target}", payload=number)
        if not world.servers.set_data(path, encode(instance)):
            world.servers.create(path, encode(instance))
        await asyncio.sleep(0.01)
    world.servers.delete(path)


STRANGERS: Final = 4
"""Instances: as many as most worlds have of their own, so that losing them is too much for a guard."""


async def _strangers(world: World, fault: Fault) -> None:
    """Instances of another library's, whose session ends some time."""
    service = world.service(fault.target)
    paths = [f"{BASE}/{service}/stranger-{fault.target}-{number}" for number in range(STRANGERS)]
    instances = [ServiceInstance(service, address="10.0.0.9", id=path.rpartition("/")[2]) for path in paths]
    there = [path for path, each in zip(paths, instances, strict=True) if world.servers.create(path, encode(each))]
    world.operator_note(f"{len(there)} strangers come to {service}")
    await asyncio.sleep(fault.duration)
    for path in there:
        world.servers.delete(path)
    world.operator_note(f"the strangers leave {service}")


CLOSED: Final = (access.Rule(access.ALL - access.READ, "world", "anyone"),)


async def _close(world: World, fault: Fault) -> None:
    """A node may not be read for a while, and something happens to it meanwhile, of which nobody is told."""
    service = world.service(fault.target)
    path = f"{BASE}/{service}/closed-{fault.target}"
    instance = ServiceInstance(service, address="10.0.0.9", id=f"closed-{fault.target}", payload=0)
    if not world.servers.create(path, encode(instance)):
        return
    await asyncio.sleep(fault.duration * fault.dice)
    if not world.servers.set_acl(path, CLOSED):
        return
    what = ("deleted", "changed", "replaced", "left alone")[fault.target % 4]
    world.operator_note(f"{path} is closed and {what}")
    if what in ("deleted", "replaced"):
        world.servers.delete(path)
    if what == "replaced":
        world.servers.create(path, encode(instance))
    elif what == "changed":
        world.servers.set_data(path, encode(instance.replace(payload=1)))
    await asyncio.sleep(fault.duration)
    if world.servers.set_acl(path, access.OPEN):
        world.operator_note(f"{path} is open")


READ_ONLY: Final = (access.Rule(access.READ | access.ADMIN, "world", "anyone"),)


async def _forbid(world: World, fault: Fault) -> None:
    """A service may be read only for a while: nobody may register in it, update there or withdraw from it."""
    service = world.service(fault.target)
    path = f"{BASE}/{service}"
    if not world.servers.set_acl(path, READ_ONLY):
        return
    instances = [f"{path}/{id}" for id in world.servers.children(path)]
    for instance in instances:
        world.servers.set_acl(instance, READ_ONLY)
    world.operator_note(f"{path} may be read only, for {fault.duration:.2f} s")
    await asyncio.sleep(fault.duration)
    while not world.servers.can_write():
        await asyncio.sleep(1.0)
    for each in (path, *instances):
        world.servers.set_acl(each, access.OPEN)
    world.operator_note(f"{path} may be written")


async def _forge(world: World, fault: Fault) -> None:
    """A stranger writes what withdrawals write, but for the withdrawal, of whomever he has seen."""
    service = world.service(fault.target)
    world.operator_note(f"a stranger forges withdrawals from {service} for {fault.duration:.2f} s")
    seen: dict[str, int] = {}
    for _ in range(int(fault.duration) + 1):
        for id in world.servers.children(f"{BASE}/{service}"):
            node = world.servers.node(f"{BASE}/{service}/{id}")
            if node is not None:
                seen[id] = node.created
        for id, czxid in seen.items():
            marker = f"{BASE}-withdrawn/{marker_name(marker_prefix(service, id), czxid)}"
            if world.servers.create(marker, b""):
                world.servers.delete(marker)
        await asyncio.sleep(1.0)


# ---------------------------------------------------------------- the outside: servers of other makes and states


def _members(world: World, fault: Fault) -> list[Member]:
    """One of them, or all."""
    members = world.servers.ensemble.members
    return [members[fault.target % len(members)]] if fault.dice < 0.3 else members


LIMIT: Final = 8192
"""Bytes of a request that servers take where one process has longer ones."""


async def _poison(world: World, fault: Fault) -> None:
    """The servers take no long requests from now on, and one process has one."""
    process = world.process(fault.target)
    for member in world.servers.ensemble.members:
        member.max_buffer = LIMIT
    claim = Claim(world.service(fault.target), f"large-{fault.target}")
    if any(held.claim == claim for held in process.held):
        return
    world.note(process, f"registers more than the {LIMIT} bytes that the servers take")
    process.go(_register(process, claim, {"by": process.name, "much": "x" * 2 * LIMIT}))


async def _register(process: Process, claim: Claim, payload: object) -> None:
    await process.register(claim, payload)


async def _replace(world: World, fault: Fault) -> None:
    """A fresh session in the place of the one that is offered, which lives on."""
    process = world.process(fault.target)
    for member in world.servers.ensemble.members:
        member.replace_sessions()
    world.servers_note(f"every session that is offered is replaced for {fault.duration:.2f} s")
    world.note(process, f"connections cut: {_reset(world, process)}")
    await asyncio.sleep(fault.duration)
    for member in world.servers.ensemble.members:
        member.replace_sessions(False)


async def _throttle(world: World, fault: Fault) -> None:
    members = _members(world, fault)
    world.servers_note(f"{len(members)} throttle for {fault.duration:.2f} s")
    for member in members:
        member.throttle()
    await asyncio.sleep(fault.duration)
    for member in members:
        member.throttle(False)


ABSURD: Final = (0.001, 0.05, 86400.0, (2**31 - 1) / 1000)
"""Seconds."""


async def _grant(world: World, fault: Fault) -> None:
    """Clients are told session timeouts that cannot be meant, until an administrator restarts the servers."""
    seconds = ABSURD[fault.target % len(ABSURD)]
    members = world.servers.ensemble.members
    world.servers_note(f"clients are told a timeout of {seconds:g} s for {fault.duration:.2f} s")
    for member in members:
        member.grant(seconds)
    process = world.process(fault.target)
    world.note(process, f"connections cut: {_reset(world, process)}")
    await asyncio.sleep(fault.duration)
    for member in members:
        member.grant(None)
        member.drop()


FALSE: Final = (-(2**63), -2, (MOST_EPOCHS + 1) << 32, 2**63 - 1)
"""Zxids that no server can mean."""


async def _falsify(world: World, fault: Fault) -> None:
    """One answer has a zxid that cannot be meant."""
    process, zxid = world.process(fault.target), FALSE[int(fault.dice * len(FALSE))]
    world.note(
        process, f"the next answer has zxid {zxid:#x}, on connections: {world.network.falsify(process.name, zxid)}"
    )


async def _disown(world: World, fault: Fault) -> None:
    """A leader without a quorum calls a session expired, which is never committed; some leave at that very moment."""
    process = world.process(fault.target)
    if not process.sessions:
        return
    session = process.sessions[-1]
    world.note(process, f"its session {session:#x} is called expired, which is not committed")
    for member in world.servers.ensemble.members:
        member.disown(session)
    if fault.dice < 0.5:
        return
    held = next((each for each in process.held if not each.told), None)
    if held is not None:
        await asyncio.sleep(fault.dice * 0.5)
        await _again(world, fault._replace(duration=min(fault.duration, 3.0)))


async def _lead_late(world: World, fault: Fault) -> None:
    """The leader applies later than the others, and says that it is up to date; a view on whatever server syncs."""
    ensemble = world.servers.ensemble
    if not world.servers.can_write():
        return
    leader, seconds = ensemble.leader, 0.02 + fault.dice
    world.servers_note(f"the leader applies {seconds:.2f} s later than it answers, for {fault.duration:.2f} s")
    leader.lag(seconds, syncs=False)
    over = world.engine.now + fault.duration
    number = 0
    while world.engine.now < over:
        number += 1
        await _write_and_sync(world, fault, number)
        await asyncio.sleep(1.0)
    leader.lag(0.0)


async def _write_and_sync(world: World, fault: Fault, number: int) -> None:
    process = world.process(fault.target + number)
    if not process.followed or process.machine.stands_still:
        return
    followed = process.followed[fault.target % len(process.followed)]
    path = f"{BASE}/{followed.service}/synced-{fault.target}-{number}"
    instance = ServiceInstance(followed.service, address="10.0.0.9", id=path.rpartition("/")[2])
    if not world.servers.create(path, encode(instance)):
        return
    node = world.servers.node(path)
    assert node is not None
    over: asyncio.Future[None] = world.machine.create_future()
    process.go(_sync(world, process, followed, path, node.created, over))
    await asyncio.wait([over], timeout=10.0)
    world.servers.delete(path)


async def _sync(
    world: World, process: Process, followed: Followed, path: str, czxid: int, over: asyncio.Future[None]
) -> None:
    try:
        await followed.view.sync(timeout=5.0)
        world.judges.synced(followed, path, czxid, process.name)
    except RequestTimeout:
        pass  # it promises nothing
    finally:
        world.machine.call_soon(_finish, over)


def _finish(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


async def _again(world: World, fault: Fault) -> None:
    """Registrations are closed, registered again and closed, while the servers are away."""
    process = world.process(fault.target)
    held = next((each for each in process.held if not each.told), None)
    if held is None or process.machine.stands_still:
        return
    world.note(process, f"nothing to the servers for {fault.duration:.2f} s, and {held.name} is closed")
    ways = [(process.name, name) for name in world.servers.names]
    for way in ways:
        world.network.block(*way)
    done: asyncio.Future[None] = world.machine.create_future()
    closed: list[Held] = []
    lost = world.judges.lost_histories
    process.go(_close_and_register(world, process, held, fault, closed, done))
    await asyncio.sleep(fault.duration)
    for way in ways:
        world.network.unblock(*way)
    world.note(process, "the servers are there again")
    await asyncio.wait([done], timeout=60.0)
    for _ in range(5):
        if world.judges.lost_histories > lost:
            return  # a history in which a node is not withdrawn yet may have come back (docs/guarantees.md)
        for each in closed:
            world.judges.says_withdrawn(each)
        await asyncio.sleep(1.0)


async def _close_and_register(
    world: World, process: Process, held: Held, fault: Fault, closed: list[Held], done: asyncio.Future[None]
) -> None:
    changes = int(fault.dice * 100)
    try:
        for left in range(changes % 3, -1, -1):
            await process.unregister(held)
            closed.append(held)
            world.judges.says_withdrawn(held)
            if any(other.claim == held.claim and not other.closed for other in process.held):
                return  # another fault has registered it again
            if left or changes % 2:
                held = await process.register(held.claim, {"by": process.name, "left": left})
                await asyncio.sleep(process.draw.uniform(0.0, 1.0))
    finally:
        world.machine.call_soon(_finish, done)


OUTSIDE: Final = ("poison", "replace", "throttle", "grant", "falsify", "disown", "lead late", "again", "forbid")
"""Servers of other makes, or in other states; they have worlds of their own."""

FAULTS: Final[Mapping[str, Doing]] = MappingProxyType(
    {
        "cut": _cut,
        "partition": _partition,
        "mute": _mute,
        "deafen": _deafen,
        "half open": _half_open,
        "slow link": _slow_link,
        "refuse": _refuse,
        "hang": _hang,
        "member down": _member_down,
        "cut off": _cut_off,
        "lag": _lag,
        "change leader": _change_leader,
        "restart": _restart,
        "wipe": _wipe,
        "roll back": _roll_back,
        "expire": _expire,
        "disturb": _disturb,
        "sleep": _sleep,
        "block": _block,
        "kill": _kill,
        "leave": _leave,
        "twin": _twin,
        "rush": _rush,
        "delete": _delete,
        "delete service": _delete_service,
        "overwrite": _overwrite,
        "litter": _litter,
        "flood": _flood,
        "strangers": _strangers,
        "close": _close,
        "forge": _forge,
        "names away": _names_away,
        "poison": _poison,
        "replace": _replace,
        "throttle": _throttle,
        "grant": _grant,
        "falsify": _falsify,
        "disown": _disown,
        "lead late": _lead_late,
        "again": _again,
        "forbid": _forbid,
        **wellness.FAULTS,
    }
)
"""The effect of each kind; it is over when the coroutine is."""


def strike(world: World, fault: Fault) -> Awaitable[None]:
    return FAULTS[fault.kind](world, fault)


def living(processes: list[Process]) -> list[Process]:
    return [process for process in processes if process.stage is Stage.UP]
