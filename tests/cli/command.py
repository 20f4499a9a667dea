"""The `aioregistry` command as its users meet it: a process with arguments, two streams and an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Self

TIMEOUT = 100.0  # seconds: more than a loaded machine needs, and than the demo waits for what it expects
ROOT = Path(__file__).parents[2]


class Ended(Exception):
    """The command ended before it said what was waited for."""


class Command:
    """A running `aioregistry`; killed at the end of its context if it has not ended.

    Args:
        arguments: The command line.
        environment: Variables beside those of the test.
    """

    module = "aioregistry"

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._arguments = arguments
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("AIOREGISTRY_")}
        self._environment |= environment
        self._process: Process

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-m", self.module, *self._arguments),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            cwd=ROOT,
            env=self._environment,
            limit=2**24,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def line(self) -> str:
        """The next line of standard output; raises Ended where the process has no more to say there."""
        return await self._line(self._process.stdout)

    async def error_line(self) -> str:
        """The next line of standard error; raises Ended where the process has no more to say there."""
        return await self._line(self._process.stderr)

    async def _line(self, stream: asyncio.StreamReader | None) -> str:
        assert stream is not None
        async with asyncio.timeout(TIMEOUT):
            line = await stream.readline()
        if not line.endswith(b"\n"):
            code, stdout, stderr = await self.end()
            raise Ended(f"exit code {code}, after {line!r}, with {stdout!r} left on stdout and {stderr!r} on stderr")
        return line.decode().removesuffix("\n")

    async def error_lines_until(self, expected: str) -> list[str]:
        """The lines of standard error up to the first that contains *expected*."""
        lines = [await self.error_line()]
        while expected not in lines[-1]:
            lines.append(await self.error_line())
        return lines

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def stop(self) -> None:
        """Stop the process (SIGSTOP), as a machine does that falls asleep; return when it stands still."""
        self.send(signal.SIGSTOP)
        stat = Path(f"/proc/{self._process.pid}/stat")
        async with asyncio.timeout(TIMEOUT):
            while stat.read_text().rpartition(")")[2].split()[0] != "T":
                await asyncio.sleep(0.001)

    def catches(self, number: signal.Signals) -> bool:
        """Whether the process has a handler for the signal; Linux's /proc knows."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (number - 1) & 1)

    def hold(self) -> None:
        """Read nothing more of standard output, as a pager that waits for a key."""
        self._pipe(1).pause_reading()

    def go_on(self) -> None:
        """Read again after `hold`."""
        self._pipe(1).resume_reading()

    def stop_reading(self) -> None:
        """Go away, as `head` does when it has enough: both streams are closed at our end."""
        self._pipe(1).close()
        self._pipe(2).close()

    def _pipe(self, descriptor: int) -> asyncio.ReadTransport:
        transport: asyncio.SubprocessTransport = self._process._transport  # type: ignore[attr-defined] # the only way
        pipe = transport.get_pipe_transport(descriptor)
        assert isinstance(pipe, asyncio.ReadTransport)
        return pipe

    async def exit_code(self) -> int:
        async with asyncio.timeout(TIMEOUT):
            return await self._process.wait()

    async def end(self) -> tuple[int, str, str]:
        """The exit code and what is left to read of both streams."""
        async with asyncio.timeout(TIMEOUT):
            stdout, stderr = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, stdout.decode(), stderr.decode()


async def outcome(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run a command to its end: exit code, standard output, standard error."""
    async with Command(*arguments, **environment) as command:
        return await command.end()
