"""A world: one seed, one process of the operating system, no sockets, no clocks but its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from aioregistry._discovery.follower import AUDIT
from aioregistry.server._store import Data
from tests.simulation import wellness
from tests.simulation.engine import Engine, Machine, NothingWillHappen, TooBusy
from tests.simulation.faults import FAULTS, OUTSIDE, Fault, drawn, living, strike
from tests.simulation.judges import Judges
from tests.simulation.network import Network
from tests.simulation.process import Claim, Hooks, Part, Process, Stage
from tests.simulation.servers import Servers
from tests.simulation.timeline import Timeline
from tests.simulation.wellness import Wellness
from tests.support.checkers import Violated

SETTLING: Final = 4.0
"""Session timeouts from the last fault to the quiet end: a roll-back that cannot be proven takes one and a half."""

TURNS_TO_END: Final = 1_000_000
"""Callbacks in which a world that went round in circles is put away."""

APART: Final = {"flood": 0, "names away": 0, **dict.fromkeys(OUTSIDE, 0), **dict.fromkeys(wellness.FAULTS, 0)}
"""A flood takes a second to compute; names that are away, other servers' ways and the sick have worlds of their own."""

ALL_KINDS: Final = dict.fromkeys(FAULTS, 2) | {"wipe": 1, "roll back": 1, "cut": 4} | APART


@dataclass(frozen=True)
class Profile:
    """The kind of world that a seed makes.

    Args:
        length: seconds that faults go on for.
        every: seconds from fault to fault, on average.
        weights: how likely each kind of fault is.
        processes: how many there are at first, between two numbers.
        services: how many services.
        sizes: of the ensemble, one of them.
        timeouts: of sessions, one of them for each process; seconds.
        tick: of the servers; seconds.
        paces: of consumers, one of them for each process; seconds.
        updates: of payloads, one of them for each process; seconds.
        versions: of the servers, one of them.
        sampling: seconds between two looks at what everybody claims.
        most_turns: callbacks; who needs more goes round in circles.
        checked: the share of the processes whose instances have checks.
        clocks: seconds by which the wall clocks of hosts are ahead, one of them for each process.
    """

    length: float = 120.0
    every: float = 4.0
    weights: Mapping[str, int] = field(default_factory=lambda: ALL_KINDS)
    processes: tuple[int, int] = (3, 7)
    services: int = 2
    sizes: tuple[int, ...] = (1, 3, 3)
    timeouts: tuple[float, ...] = (4.0, 6.0, 10.0)
    tick: float = 1.0
    paces: tuple[float, ...] = (0.0, 0.0, 8.0)
    updates: tuple[float | None, ...] = (None, 3.0, 20.0)
    versions: tuple[str, ...] = ("3.5", "3.8", "3.8", "3.9")
    sampling: float = 2.0
    most_turns: int = 3_000_000
    checked: float = 0.0
    clocks: tuple[float, ...] = (0.0,)


DEFAULT: Final = Profile()


@dataclass(frozen=True)
class Outcome:
    """How a world went.

    Args:
        violation: the first.
        digest: of the timeline.
        lines: of the timeline.
        seconds: of virtual time.
        turns: callbacks.
        limits: how often the known limit of the fence was seen.
    """

    seed: int
    violation: Violated | None
    digest: str
    lines: tuple[str, ...]
    seconds: float
    turns: int
    limits: int

    def told(self, count: int = 60) -> str:
        """The end of the story, and how to hear all of it again."""
        what = "all is well" if self.violation is None else f"VIOLATED {self.violation}"
        return "\n".join([*self.lines[-count:], f"seed {self.seed}: {what}"])


class World:
    """Everything there is.

    Args:
        seed: decides about everything.
        profile: what about.
        faults: in the place of those that the seed draws.
        judged: the one guarantee that is judged; all of them unless given.
    """

    def __init__(
        self,
        seed: int,
        profile: Profile = DEFAULT,
        faults: Sequence[Fault] | None = None,
        *,
        judged: str | None = None,
    ) -> None:
        self.seed = seed
        self.profile = profile
        draw = self._draw("world")
        self.faults = drawn(draw, profile.weights, length=profile.length, every=profile.every)
        if faults is not None:
            self.faults = sorted(faults)
        self.engine = Engine(profile.most_turns)
        self.timeline = Timeline(self.engine)
        alone = all(fault.kind in wellness.FAULTS for fault in self.faults)
        self.judges = Judges(self.engine, self.timeline, judged, undisturbed=alone)
        self.machine = self._machine("world")
        self.network = Network(self.engine, self._draw("network"))
        self.size = draw.choice(profile.sizes)
        self.version = draw.choice(profile.versions)
        self.parts = self._cast(draw)
        self.servers: Servers
        self._restarting = False
        self._runs = itertools.count(1)
        self._numbers = itertools.count(1)
        self._going_on: dict[asyncio.Task[None], str] = {}

    def run(self) -> Outcome:
        """Let it happen."""
        with _listening(self._logged):
            try:
                self.engine.run(self.machine, self._whole())
            except (NothingWillHappen, TooBusy) as stuck:
                self.judges.violated(Violated("Bounded", f"{type(stuck).__name__} {stuck}"))
                self.engine.most_turns += TURNS_TO_END
                with contextlib.suppress(NothingWillHappen, TooBusy):
                    self.engine.run(self.machine, self._give_up())
        violations = self.judges.violations
        return Outcome(
            self.seed,
            violations[0] if violations else None,
            self.timeline.digest(),
            tuple(self.timeline.lines),
            self.engine.now,
            self.engine.turns,
            self.judges.limits,
        )

    async def _whole(self) -> None:
        await self._begin()
        sampling = asyncio.ensure_future(self._sample())
        try:
            await self._let_faults_happen()
            await self._come_to_rest()
            if not self.judges.violations:
                self.judges.quiet()
        finally:
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling
        await self._end()

    async def _give_up(self) -> None:
        """Leave nothing behind that the next world, or a test's end, would hear of."""
        rest = asyncio.all_tasks(self.machine) - {asyncio.current_task()} - self._going_on.keys()
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)
        await self._end()

    async def _begin(self) -> None:
        """The servers, and everybody who is there at first."""
        # Here, as they are bound to the loop that runs.
        self.servers = Servers(
            self.machine, self.network, self.judges, size=self.size, tick=self.profile.tick, version=self.version
        )
        self.judges.servers = self.servers
        self.timeline.note("world", f"seed {self.seed}: {self.size} servers like {self.version}")
        await self.servers.start()
        for part in self.parts:
            self.launch(part)

    # ------------------------------------------------------------ the course of it

    async def _let_faults_happen(self) -> None:
        for fault in self.faults:
            await asyncio.sleep(max(0.0, fault.at - self.engine.now))
            if self.judges.violations:
                return
            if living(self.judges.processes):
                task = asyncio.ensure_future(strike(self, fault))
                self._going_on[task] = fault.kind
                task.add_done_callback(self._happened)
        await asyncio.sleep(max(0.0, self.profile.length - self.engine.now))

    def _happened(self, task: asyncio.Task[None]) -> None:
        kind = self._going_on.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise RuntimeError(f"the fault {kind!r} failed") from error

    async def _come_to_rest(self) -> None:
        while self._going_on:
            await asyncio.wait(list(self._going_on))
        self.servers.calm()
        for process in self.judges.processes:
            process.changes_nothing = True
        self.timeline.note("world", "no more faults")
        until = self.engine.now + max(SETTLING * max(self.profile.timeouts), AUDIT + SETTLING)
        while self.engine.now < until and not self.judges.violations:
            await asyncio.sleep(self.profile.sampling)

    async def _sample(self) -> None:
        while not self.judges.violations:
            await asyncio.sleep(self.profile.sampling)
            self.judges.sample()

    async def _end(self) -> None:
        """Everybody leaves."""
        self.timeline.note("world", "everybody leaves")
        for process in self.judges.processes:
            for machine in (process.machine, process.wellness.caller):
                if machine.stands_still:  # after a violation
                    machine.go_on()
        # The killed did nothing any more; that which ran on unheard is put away.
        for process in [*self.judges.processes]:
            if process.stage in (Stage.UP, Stage.KILLED):
                await self.leave(process)
        if self._going_on:
            for task in list(self._going_on):
                task.cancel()
            await asyncio.wait(list(self._going_on))
        left = [
            f"{task.get_name()} on {process.name}"
            for process in self.judges.processes
            for task in sorted(asyncio.all_tasks(process.machine), key=asyncio.Task.get_name)
        ]
        if not self.judges.violations:
            self.judges.over(left)
        await self.servers.stop()

    # ------------------------------------------------------------ what faults ask for

    def process(self, number: int) -> Process:
        """One of those that live."""
        there = self.living()
        return there[number % len(there)]

    def living(self) -> list[Process]:
        return living(self.judges.processes)

    def server_name(self, number: int) -> str:
        return self.servers.names[number % len(self.servers.names)]

    def service(self, number: int) -> str:
        return f"s{number % self.profile.services + 1}"

    def note(self, process: Process, what: str) -> None:
        self.timeline.note(process.name, f"* {what}")

    def servers_note(self, what: str) -> None:
        self.timeline.note("servers", f"* {what}")

    def operator_note(self, what: str) -> None:
        self.timeline.note("operator", f"* {what}")

    def launch(self, part: Part, *, standby: bool | None = None) -> Process:
        """Start a process; its claims are made as standby, where that is said."""
        if standby is not None:
            way: Literal["standby", "stop"] = "standby" if standby else "stop"
            part = replace(part, claims=tuple(replace(claim, on_displaced=way) for claim in part.claims))
        machine = self._machine(f"{part.name}.{next(self._runs)}")
        machine.wall_ahead = part.clock_ahead
        hooks = Hooks(
            self.timeline.note,
            self.judges.violated,
            self.judges.session_event,
            self.judges.closed,
            self.judges.told,
            lambda: next(self._numbers),
        )
        caller = self._machine(f"{machine.name}'s caller")
        process = Process(
            part,
            machine,
            self.network,
            self.servers.connect_string,
            self._draw(machine.name),
            hooks,
            Wellness(machine, caller, self._draw(caller.name)),
        )
        self.judges.processes.append(process)
        self.timeline.note(process.name, f"starts, timeout {part.session_timeout:g} s")
        process.start()
        return process

    def kill(self, process: Process, *, crashed: bool) -> None:
        """As by SIGKILL, where the system closes its connections, or with the whole machine, where nobody does."""
        self.note(process, "its machine crashes" if crashed else "is killed")
        process.stage = Stage.KILLED
        process.killed_at = self.engine.now
        self.network.kill(process.name, silently=crashed)

    async def leave(self, process: Process) -> None:
        """Let a process end as one that is asked to."""
        self.note(process, "is asked to leave")
        process.stood_still = process.machine.stands_still
        over = self.machine.create_future()
        task = process.machine.create_task(process.leave())
        task.add_done_callback(lambda _: over.set_result(None))
        await over
        if (error := task.exception()) is not None:
            self.judges.violated(Violated("Withdrawn", f"{process.name} could not leave: {error!r}"))
        self.note(process, "has left")

    async def restart_servers(self, downtime: float, data: Data) -> None:
        """Stop all servers, and start them with what was there, with nothing, or with what was there once."""
        if self._restarting or self.servers.ensemble.history is None:
            return
        self._restarting = True
        shown = data if isinstance(data, str) else f"rolled back to {data.zxid:#x}"
        self.servers_note(f"all go down for {downtime:.2f} s, their data {shown}")
        await self.servers.stop()
        await asyncio.sleep(downtime)
        if data != "kept":
            self.judges.history_lost()
        await self.servers.start(data)
        self._restarting = False
        self.servers_note("all are up")

    # ------------------------------------------------------------ what the seed decides

    def _draw(self, what: str) -> random.Random:
        # By a text, whose hash is SHA-512: the same in every process.
        return random.Random(f"{self.seed} {what}")

    def _cast(self, draw: random.Random) -> list[Part]:
        profile = self.profile
        services = [f"s{number}" for number in range(1, profile.services + 1)]
        parts = []
        checked, clocks = self._draw("checked"), self._draw("clocks")
        for number in range(1, draw.randint(*profile.processes) + 1):
            count = draw.choice((0, 1, 1, 2))
            claims = tuple(Claim(draw.choice(services), f"a{number}-{each}") for each in range(count))
            parts.append(
                Part(
                    f"p{number}",
                    claims,
                    tuple(draw.sample(services, draw.randint(0 if claims else 1, len(services)))),
                    draw.choice(profile.timeouts),
                    draw.choice(profile.paces),
                    draw.choice(profile.updates),
                    draw.choice(("auto", "auto", "one-shot")),
                    checked.random() < profile.checked,
                    clocks.choice(profile.clocks),
                )
            )
        return parts

    def _machine(self, name: str) -> Machine:
        # It has what is used of an event loop.
        return Machine(name, self.engine, self._defect)  # type: ignore[abstract]

    # ------------------------------------------------------------ what must not happen

    def _defect(self, machine: Machine, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        self.judges.violated(Violated("Contained", f"on {machine.name}: {context.get('message')}: {error!r}"))

    def _logged(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.CRITICAL or record.exc_info:
            self.judges.violated(Violated("Contained", f"a defect was logged: {record.getMessage()}"))


class _Ear(logging.Handler):
    def __init__(self, hear: Any) -> None:
        super().__init__(logging.ERROR)
        self.emit = hear  # type: ignore[method-assign]


@contextlib.contextmanager
def _listening(hear: Any) -> Iterator[None]:
    """Have what the library logs as a defect heard, and nothing shown."""
    logger = logging.getLogger("aioregistry")
    ear, level, propagate = _Ear(hear), logger.level, logger.propagate
    logger.addHandler(ear)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)
        logger.propagate = propagate
