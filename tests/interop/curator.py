"""Apache Curator from Debian's packages: our own Java program over its service discovery."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

PACKAGES = "default-jdk-headless libcurator-discovery-java libcurator-recipes-java libzookeeper-java libslf4j-java"
# The jars of our own sources, the logger, and jute, which no manifest names; the rest is named in the jars' manifests.
JARS = tuple(
    Path("/usr/share/java", f"{name}.jar")
    for name in (
        "curator-x-discovery",
        "curator-framework",
        "curator-recipes",
        "zookeeper",
        "zookeeper-jute",
        "jackson-core",
        "jackson-databind",
        "slf4j-simple",
    )
)
SOURCES = Path(__file__).parent / "java"
COMPILE_TIMEOUT = 120.0
ANSWER_TIMEOUT = 60.0
END_TIMEOUT = 20.0

SPRING = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance"


class CuratorMissing(Exception):
    """The tools to compile and run Apache Curator are not installed."""


class CuratorFailed(Exception):
    """Curator could not do what it was told; the message is Java's."""


class JavaPrograms:
    """The compiled programs of a directory of Java sources."""

    def __init__(self, classes: Path) -> None:
        self._classpath = ":".join(map(str, (classes, *JARS)))

    @classmethod
    def compile(cls, sources: Path, classes: Path) -> JavaPrograms:
        """Compile *sources* into *classes*; blocks. Raises CuratorMissing."""
        missing = [str(jar) for jar in JARS if not jar.exists()] + ([] if shutil.which("javac") else ["javac"])
        if missing:
            raise CuratorMissing(f"{', '.join(missing)} missing: apt-get install -y --no-install-recommends {PACKAGES}")
        programs = cls(classes)
        files = map(str, sources.rglob("*.java"))
        command = ["javac", "-Xlint:all,-path", "-Werror", "-d", str(classes), "-cp", programs._classpath, *files]
        subprocess.run(command, check=True, timeout=COMPILE_TIMEOUT)
        return programs

    def command(self, main: str, *arguments: str) -> list[str]:
        """The command line that runs the class *main*."""
        # A short-lived JVM starts fastest with the first compiler only.
        options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
        return ["java", *options, "-cp", self._classpath, main, *arguments]


class CuratorPeer:
    """A JVM with Curator's ServiceDiscovery, which does what it is asked."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, do: str, **fields: Any) -> Any:
        """Have Curator *do* something; return what it says. Raises CuratorFailed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        async with asyncio.timeout(ANSWER_TIMEOUT):
            answer = json.loads(await self._process.stdout.readline())
        if "error" in answer:
            raise CuratorFailed(answer["error"])
        return answer["ok"]

    async def end(self) -> None:
        """Close Curator and its session, wait for the JVM to end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), END_TIMEOUT)


@contextlib.asynccontextmanager
async def curator_peer(
    programs: JavaPrograms, place: str, *, payload_class: str = "java.lang.Object", writes_enabled: bool = False
) -> AsyncIterator[CuratorPeer]:
    """Run a CuratorPeer below ``/services``.

    Args:
        programs: The compiled program.
        place: Where ZooKeeper is, with a chroot.
        payload_class: The class that payloads must be of. An Object is as Jackson's mark says, else as Jackson thinks.
        writes_enabled: Whether instances have an `enabled` field; without it they read as enabled.
    """
    mode = "full" if writes_enabled else "compatible"
    process = await asyncio.create_subprocess_exec(
        *programs.command("CuratorPeer", place, "/services", payload_class, mode),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    peer = CuratorPeer(process)
    try:
        yield peer
        await peer.end()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
