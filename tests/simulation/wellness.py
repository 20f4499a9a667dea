"""Whether instances are well, and what operators say of them: what happens to that, and what must come of it.

A process that is *checked* has two checks: a function of its own, and one on the loop of its caller, which is another
machine than the registry's, as in thread mode. Either may be sick, for a while or to the end. Operators take instances
into maintenance, or give them weights, through the registry of any process. Wall clocks of hosts are ahead or behind.

Judged are **Truthful** (who is sick is published as not enabled, in time and for as long; who is well and not in
maintenance is published as enabled at the quiet end) and **Obeyed** (views show what the overrides say that the servers
have). **Beating** (a blocked caller costs no session) is judged where nothing else happens to sessions. That a failing
instance keeps its node is Published, as for everybody. **Warm** (who registers again after an expiry is not new to a
balancer, nor is anybody for ever) is what docs/balancing.md says of WarmUp.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aioregistry import Check, LoopLagCheck, RegistryError, Removed, Resynced, ServiceInstance, View
from aioregistry.balancing import WarmUp
from aioregistry.server._nodes import Node
from tests.support.checkers import Violated, check_obeyed

if TYPE_CHECKING:
    from tests.simulation.engine import Machine
    from tests.simulation.faults import Fault
    from tests.simulation.process import Claim, Followed, Held, Process
    from tests.simulation.servers import Servers
    from tests.simulation.world import World

OVERRIDES: Final = "/services-overrides"
INTERVAL: Final = 1.0
TIMEOUT: Final = 0.5
FALL: Final = 3
RISE: Final = 2
BOUND: Final = INTERVAL * FALL + TIMEOUT
"""Seconds in which who only fails is failing."""


class Condition(enum.Enum):
    """The result of a process' own check."""

    WELL = enum.auto()
    FAILING = enum.auto()
    HANGING = enum.auto()
    FLAPPING = enum.auto()
    """It passes and fails as it comes."""


class Wellness:
    """Whether one process is well.

    Args:
        machine: of the registry.
        caller: the machine that stands for the caller's loop.
        draw: for what comes as it comes.
    """

    def __init__(self, machine: Machine, caller: Machine, draw: random.Random) -> None:
        self._machine = machine
        self.caller = caller
        self._draw = draw
        self._condition = Condition.WELL
        self._fails_since: dict[str, float] = {}  # by name of a check that must fail

    def checks(self) -> dict[str, Check]:
        return {
            "self": Check(self._probe, interval=INTERVAL, timeout=TIMEOUT, rise=RISE, fall=FALL),
            "caller": LoopLagCheck(self.caller, interval=INTERVAL, timeout=TIMEOUT, rise=RISE, fall=FALL),
        }

    async def _probe(self) -> bool:
        if self._condition is Condition.HANGING:
            await asyncio.get_running_loop().create_future()
        return self._condition is Condition.WELL or (
            self._condition is Condition.FLAPPING and self._draw.random() < 0.5
        )

    @property
    def condition(self) -> Condition:
        return self._condition

    def becomes(self, condition: Condition) -> None:
        self._condition = condition
        self._note()

    def block(self) -> None:
        self.caller.stand_still()
        self._note()

    def unblock(self) -> None:
        self.caller.go_on()
        self._note()

    @property
    def is_sick(self) -> bool:
        """Whether one of its checks must fail."""
        return bool(self._failing())

    def sick_for(self) -> float:
        """Seconds for which one and the same of its checks had to fail: two in turn may both have passed in between."""
        return max((self._machine.engine.now - since for since in self._fails_since.values()), default=0.0)

    def _failing(self) -> set[str]:
        """The checks that must fail."""
        own = self._condition in (Condition.FAILING, Condition.HANGING)
        return {name for name, fails in (("self", own), ("caller", self.caller.stands_still)) if fails}

    def _note(self) -> None:
        now = self._machine.engine.now
        self._fails_since = {name: self._fails_since.get(name, now) for name in self._failing()}


# ---------------------------------------------------------------- what happens


def _checked(world: World, fault: Fault) -> Process | None:
    """One of those that are checked."""
    there = [each for each in world.living() if each.part.checked]
    return there[fault.target % len(there)] if there else None


async def _sick(world: World, fault: Fault) -> None:
    await _becomes(world, fault, Condition.FAILING if fault.dice < 0.5 else Condition.HANGING)


async def _flap(world: World, fault: Fault) -> None:
    await _becomes(world, fault, Condition.FLAPPING)


async def _becomes(world: World, fault: Fault, condition: Condition) -> None:
    process = _checked(world, fault)
    if process is None or process.wellness.condition is not Condition.WELL:
        return
    world.note(process, f"its check is {condition.name} for {fault.duration:.2f} s")
    process.wellness.becomes(condition)
    await asyncio.sleep(fault.duration)
    if condition is not Condition.FLAPPING and fault.target % 4 == 0:
        world.note(process, "its check will not pass any more")
        return
    process.wellness.becomes(Condition.WELL)
    world.note(process, "its check passes")


async def _block_caller(world: World, fault: Fault) -> None:
    process = _checked(world, fault)
    if process is None or process.wellness.caller.stands_still:
        return
    world.note(process, f"its caller is blocked for {fault.duration:.2f} s")
    process.wellness.block()
    await asyncio.sleep(fault.duration)
    process.wellness.unblock()
    world.note(process, "its caller goes on")


LASTING: Final = (2.0, 15.0, 3600.0, None)
"""Seconds of an override."""

WEIGHTS: Final = (None, None, 0.25, 0.0)
"""The part of its share of calls that an operator gives; None is maintenance."""


async def _maintain(world: World, fault: Fault) -> None:
    """An operator takes an instance into maintenance, or gives it a weight, and ends that or leaves it to its time."""
    owner, operator = world.process(fault.target), world.process(fault.target // 7)
    if not owner.held or operator.machine.stands_still:
        return
    claim = owner.held[fault.target % len(owner.held)].claim
    seconds, any_incarnation = LASTING[int(fault.dice * 100) % len(LASTING)], fault.dice < 0.5
    weight = WEIGHTS[fault.target // 3 % len(WEIGHTS)]
    who = "any incarnation" if any_incarnation else "this incarnation"
    world.note(operator, f"drains {claim.path}, {who}, weight {weight}, for {seconds} s")
    operator.go(_drain(operator, claim, seconds, weight, any_incarnation=any_incarnation))
    await asyncio.sleep(fault.duration)
    if fault.target % 2 and operator in [each for each in world.living() if not each.machine.stands_still]:
        world.note(operator, f"enables {claim.path}")
        operator.go(_enable(operator, claim))


PATIENCE: Final = 10.0
"""Seconds that an operator waits."""


async def _drain(
    operator: Process, claim: Claim, seconds: float | None, weight: float | None, *, any_incarnation: bool
) -> None:
    await _told(
        operator.registry.overrides.drain(
            claim.service,
            claim.id,
            reason="a test",
            weight=weight,
            seconds=seconds,
            any_incarnation=any_incarnation,
            by=operator.name,
        )
    )


async def _enable(operator: Process, claim: Claim) -> None:
    await _told(operator.registry.overrides.enable(claim.service, claim.id))


async def _told(what: Awaitable[object]) -> None:
    """Only the servers' state afterwards is judged, not the operators' answers."""
    with contextlib.suppress(TimeoutError, RegistryError):
        await asyncio.wait_for(what, PATIENCE)


FAULTS: Final[Mapping[str, Callable[[World, Fault], Awaitable[None]]]] = MappingProxyType(
    {"sick": _sick, "flap": _flap, "block caller": _block_caller, "maintain": _maintain}
)


# ---------------------------------------------------------------- who is new

WARMING: Final = 15.0
"""Seconds for which new instances get fewer calls."""


class Warmth:
    """A balancer of one view that lets new instances warm up, and a notebook of its own of who may be new.

    Args:
        view: opened just now, so that who is in it is not new.
        now: returns the time.
    """

    def __init__(self, view: View[Any], now: Callable[[], float]) -> None:
        self._view = view
        self._now = now
        self._changes = view.changes()
        self._balancer = view.balancer(WarmUp("round-robin", seconds=WARMING))
        self._known = {id: _last(entry.instance) for id, entry in view.snapshot.entries.items()}
        self._since: dict[str, float] = {}

    async def follow(self) -> None:
        """Take note of who comes for the first time, and of who is enabled again, be that while it was not listed."""
        async for change in self._changes:
            for each in change.changes if isinstance(change, Resynced) else (change,):
                known, (registered, enabled) = self._known.get(each.id), _last(each.instance)
                if isinstance(each, Removed):
                    pass  # it may be back, as it was or not
                elif known is None or known[0] != registered or (enabled and not known[1]):
                    self._since[each.id] = self._now()
                self._known[each.id] = (registered, enabled)

    def judge(self) -> None:
        """Where nobody can be new, all are picked alike."""
        entries = self._view.snapshot.entries
        if not entries or any(
            entry.suspicion is not None or not entry.instance.enabled or entry.weight < 1 for entry in entries.values()
        ):
            return  # who is picked then has other reasons
        if any(self._now() - self._since.get(id, float("-inf")) <= WARMING + 1.0 for id in entries):
            return
        picked: Counter[str] = Counter()
        for _ in range(2 * len(entries)):
            pick = self._balancer.pick()
            picked[pick.id] += 1
            pick.abandoned()
        if picked != dict.fromkeys(entries, 2):
            raise Violated("Warm", f"nobody is new, and the picks are {dict(sorted(picked.items()))}")


def _last(instance: ServiceInstance[Any]) -> tuple[int | None, bool]:
    """The values that tell whether an instance is another one, or may be picked again."""
    return instance.registration_time_ms, instance.enabled


# ---------------------------------------------------------------- what must come of it


class Shown(NamedTuple):
    """The published or shown state of an instance: whether it is enabled, and why not."""

    enabled: bool
    status: str | None


class Said(NamedTuple):
    """An operator's override of an instance."""

    maintenance: bool
    weight: float | None

    @property
    def share(self) -> float:
        """The part of its share of calls that it is to get."""
        return 0.0 if self.maintenance else 1.0 if self.weight is None else self.weight


class Wellbeing:
    """Judges what is published and shown.

    Args:
        servers: returns what is there.
        slack: seconds for what is under way.
    """

    def __init__(self, servers: Callable[[], Servers], slack: float) -> None:
        self._there = servers
        self._slack = slack
        self._live_since: dict[str, float] = {}

    @property
    def _servers(self) -> Servers:
        return self._there()

    def sample(self, process: Process, held: Held, *, live: bool) -> None:
        """An instance that has been sick, and live, for long is not published as enabled."""
        now = process.machine.engine.now
        if not live or not process.part.checked or held.closed:
            self._live_since.pop(held.name, None)
            return
        since = self._live_since.setdefault(held.name, now)
        # A request whose answer is lost is asked again on another connection, within a session timeout or two.
        bound = BOUND + 2 * process.part.session_timeout + self._slack
        if min(process.wellness.sick_for(), now - since) <= bound:
            return
        published = self._published(held)
        if published is not None and published.enabled:
            seconds = process.wellness.sick_for()
            raise Violated("Truthful", f"{held.name} has been sick for {seconds:.1f} s, and is published as enabled")

    def interrupted(self, process: Process) -> None:
        """Its machine stands still, and so do its checks."""
        for held in process.held:
            self._live_since.pop(held.name, None)

    def quiet(self, process: Process) -> None:
        """Nothing has changed for long: what is published is true."""
        for held in process.held:
            if held.told:
                continue
            published, due = self._published(held), self._due(process, held)
            if published is not None and published != due:
                raise Violated("Truthful", f"{held.name} is published as {published}, and is to be {due}")

    def views(self, followed: Followed) -> None:
        """Views show what is published, but for those in maintenance, and the weights that operators gave."""
        shown = followed.view.snapshot.entries
        service = followed.service
        said = {id: self._override(service, id) for id in shown}
        idle = {id for id, override in said.items() if override is not None and override.share == 0}
        picked = [id for id, entry in shown.items() if entry.instance.enabled and entry.weight > 0]
        check_obeyed(seen=idle, picked=picked)
        for id, entry in shown.items():
            node, override = self._servers.node(f"/services/{service}/{id}"), said[id]
            weight = 1.0 if override is None or override.weight is None else override.weight
            if entry.weight != weight:
                raise Violated("Obeyed", f"{id} is shown with the weight {entry.weight:g}, and is to have {weight:g}")
            if node is None or (override is not None and override.maintenance):
                continue
            document = _document(node)
            due = Shown(document.get("enabled", True), document.get("status"))
            found = Shown(entry.instance.enabled, entry.instance.status)
            if found != due:
                raise Violated(
                    "Obeyed", f"{id} is shown as {found}, and is published as {due}; no maintenance is in force"
                )

    def _published(self, held: Held) -> Shown | None:
        node = self._servers.node(held.claim.path)
        if node is None or node.owner != held.process.registry.session.id:
            return None  # which others judge
        document = _document(node)
        return Shown(document.get("enabled", True), document.get("status"))

    def _due(self, process: Process, held: Held) -> Shown:
        override = self._override(held.claim.service, held.claim.id)
        if override is not None and override.maintenance:
            return Shown(False, "maintenance")
        return Shown(False, "failing") if process.part.checked and process.wellness.is_sick else Shown(True, None)

    def _override(self, service: str, id: str) -> Said | None:
        """The operator's override of it that is in force."""
        override = self._servers.node(f"{OVERRIDES}/{service}/{id}")
        node = self._servers.node(f"/services/{service}/{id}")
        if override is None or node is None or not override.data:
            return None
        says = json.loads(override.data)
        seconds, meant = says["seconds"], says["registrationTimeUTC"]
        ended = seconds is not None and override.mtime / 1000 + seconds < self._servers.machine.wall()
        if ended or (meant is not None and meant != _document(node).get("registrationTimeUTC")):
            return None
        return Said(says["enabled"] is False, says["weight"])


def _document(node: Node) -> dict[str, Any]:
    try:
        found = json.loads(node.data or b"")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
