"""Processes that keep one instance registered, for the faults to strike: the contenders, and Curator in a JVM."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import tempfile
from pathlib import Path

from benchmarks import lab
from benchmarks.contender import SESSION_TIMEOUT
from benchmarks.workload import BASE_PATH, Sample
from tests.interop.curator import JavaPrograms

CURATOR_MODES = {"curator": "discovery", "curator_node": "node"}
JAVA_SOURCES = Path(__file__).parent / "java"


class Claimant:
    """A process that registers one instance with the contender *name*."""

    def __init__(self, process: asyncio.subprocess.Process, registering: asyncio.Task[None]) -> None:
        self._process = process
        self.registering = registering

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self.registering.cancel()


class Claimants:
    """Starts claimants; ends what is left of them."""

    def __init__(self) -> None:
        self._started: list[Claimant] = []
        self._java: JavaPrograms | None = None
        self._classes = tempfile.TemporaryDirectory(prefix="claimants-")

    async def start(self, name: str, address: str, sample: Sample) -> Claimant:
        """Start a process that registers *sample*; its `registering` is done when it is listed."""
        claimant = await (self._start_java if name in CURATOR_MODES else self._start_python)(name, address, sample)
        self._started.append(claimant)
        return claimant

    async def end(self) -> None:
        """Kill all."""
        while self._started:
            await self._started.pop().kill()

    async def _start_python(self, name: str, address: str, sample: Sample) -> Claimant:
        worker = await lab.start(name)

        async def register() -> None:
            await worker.ask("open", address=address)
            await worker.ask("register", service=sample.service, count=1)

        return Claimant(worker.process, asyncio.create_task(register()))

    async def _start_java(self, name: str, address: str, sample: Sample) -> Claimant:
        if self._java is None:
            self._java = JavaPrograms.compile(JAVA_SOURCES, Path(self._classes.name))
        timeout_ms = str(int(SESSION_TIMEOUT * 1000))
        arguments = (
            CURATOR_MODES[name],
            address,
            timeout_ms,
            BASE_PATH,
            sample.service,
            sample.address,
            str(sample.port),
        )
        command = self._java.command("CuratorClaimant", *arguments)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )

        async def register() -> None:
            assert process.stdout is not None
            await process.stdout.readline()

        return Claimant(process, asyncio.create_task(register()))
