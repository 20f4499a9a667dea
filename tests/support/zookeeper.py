"""Apache ZooKeeper itself, from Debian's packages: one server, or an ensemble whose members can be cut off from each
other.

Servers are managed by plain processes and blocking calls, bound to no event loop, so that a fixture of the whole
session and the tests' own loops can share them. Slow operations have an asynchronous form that leaves the test's loop
running.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import functools
import itertools
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from aioregistry.testing._ports import ReservedPort
from aioregistry.testing._proxy import Direction, Link, TcpProxy

PACKAGES = "default-jre-headless libzookeeper-java libslf4j-java"
ELSEWHERE = os.environ.get("AIOREGISTRY_ZOOKEEPER_JARS")
"""Where the jars of another release are, all that it needs but slf4j's (`nox -s releases` fetches some); Debian's if
unset."""

# Before all others: the logs are the same whatever is there.
LOGGING = (Path("/usr/share/java/slf4j-api.jar"), Path("/usr/share/java/slf4j-simple.jar"))
# Its manifest names the others that it needs.
DEBIANS_JARS = (*LOGGING, Path("/usr/share/java/zookeeper.jar"))
JARS = (*LOGGING, *sorted(Path(ELSEWHERE).glob("*.jar"))) if ELSEWHERE else DEBIANS_JARS

# Debian's zookeeper.jar names other jars of Jetty's (libzookeeper-java depends on them all), but not these.
ADMIN_JARS = (Path("/usr/share/java/servlet-api.jar"), Path("/usr/share/java/jetty9-util-ajax.jar"))


def _version_of(jars: tuple[Path, ...]) -> str:
    for jar in jars:
        if found := re.search(r"zookeeper-(\d+\.\d+\.\d+)\.jar$", jar.resolve().name):
            return found[1]
    return DEBIAN


DEBIAN = "3.8.0"
VERSION = _version_of(JARS)
"""That of the servers that tests get."""
RELEASE = tuple(map(int, VERSION.split(".")[:2]))
"""Without the patch."""

MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
POLL_INTERVAL = 0.01

# Serial collector, first compiler only, small heap: a start takes half the processor time of the defaults. A
# directory written for one test needs no fsync and no 64 MiB of preallocated log (preAllocSize is in KiB).
JVM_OPTIONS = (
    "-Xmx192m",
    "-Xss512k",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-XX:-UsePerfData",
)
SYSTEM_PROPERTIES = {
    "java.net.preferIPv4Stack": "true",
    "zookeeper.forceSync": "no",
    "zookeeper.preAllocSize": "64",
    "zookeeper.jmx.log4j.disable": "true",
    "zookeeper.jmxenabled": "false",
    "org.slf4j.simpleLogger.showDateTime": "true",
    "org.slf4j.simpleLogger.dateTimeFormat": "HH:mm:ss.SSS",
    "org.slf4j.simpleLogger.showShortLogName": "true",
    # Elections are repeated after 0.2, 0.4, 0.8 … seconds, by default up to a minute: too long for a test to wait.
    "zookeeper.fastleader.maxNotificationInterval": "800",
    # It logs every four-letter word, and starting is waited for by asking them.
    "org.slf4j.simpleLogger.log.org.apache.zookeeper.server.NIOServerCnxn": "warn",
}


class ZooKeeperMissing(Exception):
    """The packages to run Apache ZooKeeper are not installed."""


class ZooKeeperFailed(Exception):
    """A server did not do what it was told in time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server is set up.

    Args:
        tick_time_ms: The server's tick; sessions expire on multiples of it.
        min_session_timeout_ms: Lower bound of negotiated timeouts; ZooKeeper's default is 2 ticks.
        max_session_timeout_ms: Upper bound; ZooKeeper's default is 20 ticks.
        extended_types: Whether nodes with a time to live can be created.
        container_check_interval_ms: How often empty containers are swept; ZooKeeper's default is a minute.
        jute_max_buffer: The largest request, bytes; None leaves ZooKeeper's 1 MiB less one.
        read_only_mode: Whether a member without its quorum serves reads to those who accept it.
        local_sessions: Whether sessions are local to a member until they write an ephemeral node.
        sync_limit_ticks: How long a follower and its leader bear each other's silence.
        init_limit_ticks: How long a follower may take to catch up, and how long who believes to be elected waits for
            others to agree: an election that split takes this long to be repeated.
        max_client_connections: How many connections one address may have; 0 for any number.
        words: The four-letter words that are allowed.
        admin_port: Where its AdminServer listens; None for none. It needs ADMIN_JARS too.
        properties: Further Java system properties.
        jvm_options: more options of the JVM.
        jars: the class path.
    """

    tick_time_ms: int = 500
    min_session_timeout_ms: int = 500
    max_session_timeout_ms: int = 120_000
    extended_types: bool = True
    container_check_interval_ms: int | None = None
    jute_max_buffer: int | None = None
    read_only_mode: bool = False
    local_sessions: bool = False
    sync_limit_ticks: int = 10
    init_limit_ticks: int = 5
    max_client_connections: int = 0
    words: str = "*"
    admin_port: int | None = None
    properties: dict[str, str] = dataclasses.field(default_factory=dict)
    jvm_options: tuple[str, ...] = JVM_OPTIONS
    jars: tuple[Path, ...] = JARS

    def config(self) -> dict[str, str]:
        """The lines of zoo.cfg."""
        config = {
            "tickTime": str(self.tick_time_ms),
            "minSessionTimeout": str(self.min_session_timeout_ms),
            "maxSessionTimeout": str(self.max_session_timeout_ms),
            "syncLimit": str(self.sync_limit_ticks),
            "initLimit": str(self.init_limit_ticks),
            "maxClientCnxns": str(self.max_client_connections),
            "admin.enableServer": _java(self.admin_port is not None),
            "4lw.commands.whitelist": self.words,
        }
        if self.admin_port is not None:
            config |= {"admin.serverPort": str(self.admin_port), "admin.serverAddress": "127.0.0.1"}
        if self.local_sessions:
            config |= {"localSessionsEnabled": "true", "localSessionsUpgradingEnabled": "true"}
        return config

    def system_properties(self) -> dict[str, str]:
        properties = {"zookeeper.extendedTypesEnabled": _java(self.extended_types)}
        if self.read_only_mode:
            properties["readonlymode.enabled"] = "true"
        if self.container_check_interval_ms is not None:
            properties["znode.container.checkIntervalMs"] = str(self.container_check_interval_ms)
        if self.jute_max_buffer is not None:
            properties["jute.maxbuffer"] = str(self.jute_max_buffer)
        return SYSTEM_PROPERTIES | properties | self.properties


def _java(value: bool) -> str:
    return "true" if value else "false"


def _launcher(jars: tuple[Path, ...]) -> list[str]:
    """The command that runs a JVM which dies with this process, however that dies."""
    java, setpriv = shutil.which("java"), shutil.which("setpriv")
    missing = (
        [str(jar) for jar in jars if not jar.exists()] + ([] if java else ["java"]) + ([] if setpriv else ["setpriv"])
    )
    if not java or not setpriv or missing:
        raise ZooKeeperMissing(
            f"Apache ZooKeeper cannot run without {', '.join(missing)}: apt-get update && "
            f"apt-get install -y --no-install-recommends {PACKAGES}{'' if setpriv else ' util-linux'}"
        )
    return [setpriv, "--pdeathsig", "KILL", "--", java]


@functools.cache
def java_class(name: str, jars: tuple[Path, ...] = JARS) -> str:
    """A class of ZooKeeper's as the jars have it: who packs them up in something else may move it."""
    if jars[: len(DEBIANS_JARS)] == DEBIANS_JARS:
        return name
    for jar in jars:
        for entry in zipfile.ZipFile(jar).namelist():
            if entry.endswith(name.replace(".", "/") + ".class"):
                return entry.removesuffix(".class").replace("/", ".")
    raise ZooKeeperMissing(f"no jar of {', '.join(map(str, jars))} has {name}")


# The kernel's death signal follows the thread that started a child; this catches what is left at an orderly end.
_processes: dict[subprocess.Popen[bytes], None] = {}


@atexit.register
def _kill_what_is_left() -> None:
    for process in list(_processes):
        process.kill()


def four_letter_word(address: tuple[str, int], word: str, *, timeout: float = 5.0) -> str:
    """Ask a server by one of ZooKeeper's four-letter words; blocks for at most about `timeout` seconds.

    Raises:
        OSError: Nobody answers there.
    """
    with socket.create_connection(address, timeout) as connection:
        connection.settimeout(timeout)
        connection.sendall(word.encode())
        answer = bytearray()
        while chunk := connection.recv(65536):
            answer += chunk
    return answer.decode()


class ZooKeeperServer:
    """A ZooKeeper server process with a port and a data directory that outlive it.

    Args:
        settings: How it is set up.
        server_id: Its id in an ensemble.
        ensemble: The lines of zoo.cfg that make it a member, as it sees the others; none for a standalone server.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        server_id: int = 0,
        ensemble: dict[str, str] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.server_id = server_id
        self.host = "127.0.0.1"
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self._directory = Path(tempfile.mkdtemp(prefix="zookeeper-"))
        self._data = self._directory / "data"
        self.log = self._directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._copies = itertools.count()
        self._write_config(ensemble or {})

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether there is a process, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def version(self) -> str:
        """The running server's version: "3.8.0"."""
        found = re.match(r"Zookeeper version: (\d+\.\d+\.\d+)", self.ask("srvr"))
        assert found is not None
        return found[1]

    @property
    def mode(self) -> str | None:
        """Standalone, leader, follower or read-only; None while it does not serve or answer."""
        try:
            found = re.search(r"^Mode: (\S+)$", self.ask("srvr", timeout=1.0), re.MULTILINE)
        except OSError:
            return None
        return found[1] if found else None

    def ask(self, word: str, *, timeout: float = 5.0) -> str:
        """The answer to a four-letter word; blocks. Raises OSError when there is none."""
        return four_letter_word((self.host, self.port), word, timeout=timeout)

    async def four_letter(self, word: str) -> str:
        """The answer to a four-letter word. Raises OSError when there is none."""
        return await asyncio.to_thread(self.ask, word)

    def launch(self) -> None:
        """Start the process and do not wait for it to serve."""
        if self.running:
            raise ZooKeeperFailed(f"the server on {self.address} is running already")
        command = [
            *_launcher(self.settings.jars),
            *self.settings.jvm_options,
            *(f"-D{name}={value}" for name, value in self.settings.system_properties().items()),
            "-cp",
            ":".join(map(str, self.settings.jars)),
            java_class(MAIN, self.settings.jars),
            str(self._directory / "zoo.cfg"),
        ]
        self._data.mkdir(exist_ok=True)
        (self._data / "myid").write_text(f"{self.server_id}\n")
        with self.log.open("ab") as log:
            # A group of its own: an interrupt from the keyboard is for the tests, which then end their servers.
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
        self._paused = False
        _processes[self._process] = None

    def wait_until_serving(self, timeout: float = START_TIMEOUT) -> None:
        """Block until the server serves clients. Raises ZooKeeperFailed with the end of its log when it does not."""
        deadline = time.monotonic() + timeout
        while self.mode is None:
            self.require_running()
            if time.monotonic() > deadline:
                raise ZooKeeperFailed(f"the server on {self.address} does not serve:\n{self._log_tail()}")
            time.sleep(POLL_INTERVAL)

    def require_running(self) -> None:
        """Raise ZooKeeperFailed with the end of the log when there is no process."""
        if not self.running:
            raise ZooKeeperFailed(f"the server on {self.address} is not running:\n{self._log_tail()}")

    async def start(self) -> None:
        """Start, and return when it serves (in an ensemble: when it is part of a quorum, or read-only)."""
        self.launch()
        await asyncio.to_thread(self.wait_until_serving)

    def kill(self) -> None:
        """SIGKILL: sessions stay in the data directory, nobody is told. Returns when the process is gone."""
        self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM. Returns when the process is gone; by force if it takes too long."""
        await asyncio.to_thread(self._end, signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered. Returns when every thread has stopped."""
        self._signal(signal.SIGSTOP)
        self._paused = True
        assert self._process is not None
        # The signal is only sent: on a busy machine a thread may still answer for a while.
        deadline = time.monotonic() + STOP_TIMEOUT
        while os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                raise ZooKeeperFailed(f"the server on {self.address} does not stop")
            time.sleep(POLL_INTERVAL)

    def resume(self) -> None:
        """SIGCONT after `pause`; the server takes the time for lost and expires whoever it has not heard of."""
        self._signal(signal.SIGCONT)
        self._paused = False

    def limit_open_files(self, limit: int) -> None:
        """Allow the running process no more than *limit* open files, connections among them."""
        self.require_running()
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (limit, limit))

    @property
    def paused(self) -> bool:
        return self._paused and self.running

    async def restart(self) -> None:
        """Kill, and start with the same port and data."""
        self.kill()
        await self.start()

    def wipe(self) -> None:
        """Forget all data; the server must not be running."""
        self._require_stopped()
        shutil.rmtree(self._data, ignore_errors=True)

    def snapshot_data(self) -> Path:
        """A copy of the data directory as it is now, running or not, for `restore_data`; it goes with the server."""
        copy = self._directory / f"copy-{next(self._copies)}"
        shutil.copytree(self._data, copy)
        return copy

    def restore_data(self, copy: Path) -> None:
        """Go back to an older copy of the data; the server must not be running."""
        self.wipe()
        shutil.copytree(copy, self._data)

    def close(self) -> None:
        """Kill the server if it runs, remove its directory, give the port back."""
        if self.running:
            self.kill()
        self._reserved.release()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ZooKeeperServer {self.address} {'running' if self.running else 'down'}>"

    def _write_config(self, ensemble: dict[str, str]) -> None:
        config = self.settings.config() | ensemble
        config |= {"dataDir": str(self._data), "clientPort": str(self.port), "clientPortAddress": self.host}
        (self._directory / "zoo.cfg").write_text("".join(f"{name}={value}\n" for name, value in config.items()))

    def _signal(self, number: signal.Signals) -> None:
        self.require_running()
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        assert self._process is not None
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)
        del _processes[self._process]
        self._process = None

    def _require_stopped(self) -> None:
        if self.running:
            raise ZooKeeperFailed(f"the server on {self.address} is running: its data must not be touched")

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])


class _ElectionLink(Link):
    """Has callbacks go through a proxy too.

    Of two members the one with the higher id calls. Called by the other it hangs up and calls back, at the address
    that the other's first message has: 127.0.0.1 becomes the address, just as long, of the proxy that leads back.
    """

    proxy: _ElectionProxy

    def __init__(self, proxy: _ElectionProxy) -> None:
        super().__init__(proxy)
        self._introduced = False

    def filter(self, direction: Direction, data: bytes) -> bytes:
        if direction is Direction.TO_SERVER and not self._introduced:
            self._introduced = True
            return data.replace(b"127.0.0.1", self.proxy.way_back.encode())
        return data


class _ElectionProxy(TcpProxy):
    def __init__(self, target: tuple[str, int], *, listen: tuple[str, int], way_back: str) -> None:
        self.way_back = way_back
        super().__init__(target, listen=listen)

    def new_link(self) -> Link:
        return _ElectionLink(self)


class ZooKeeperEnsemble:
    """Servers that form a quorum, with a proxy between every two of them in each direction.

    Each member's configuration says 127.0.0.1 of itself only. For every other member it says a loopback address that
    belongs to this one pair, where proxies listen on the other's quorum and election ports.

    Args:
        settings: How each member is set up; or those of each, one after another.
        size: How many members there are, where *settings* does not say it.
    """

    def __init__(self, settings: Settings | Sequence[Settings] | None = None, *, size: int = 3) -> None:
        of_each = settings if isinstance(settings, Sequence) else [settings] * size
        ids = range(1, len(of_each) + 1)
        self._ports = {number: (ReservedPort(), ReservedPort()) for number in ids}
        self._proxies = {
            (caller, callee): self._proxies_between(caller, callee) for caller, callee in itertools.permutations(ids, 2)
        }
        self.members = [
            ZooKeeperServer(each, server_id=number, ensemble=self._as_seen_by(number))
            for number, each in zip(ids, of_each, strict=True)
        ]

    @property
    def connect_string(self) -> str:
        return ",".join(member.address for member in self.members)

    async def start(self) -> None:
        """Start the members that are not running; return when all serve."""
        self._launch_missing()
        await asyncio.to_thread(self._wait_for_quorum)

    def start_blocking(self) -> None:
        """`start` for fixtures that outlive a loop."""
        self._launch_missing()
        self._wait_for_quorum()

    def leader(self) -> ZooKeeperServer:
        """The member that leads now (one cut off from its quorum does until it notices). Raises ZooKeeperFailed when
        none does."""
        return self._in_mode("leader")[0]

    def followers(self) -> list[ZooKeeperServer]:
        """The members that follow now. Raises ZooKeeperFailed when none does."""
        return self._in_mode("follower")

    def cut_off(self, member: ZooKeeperServer) -> None:
        """Part `member` from all others by silence: nothing is closed, nothing arrives. Clients reach it as before."""
        for proxy in self._proxies_of(member):
            proxy.silence()

    def heal(self, member: ZooKeeperServer) -> None:
        """End what `cut_off` began; what was under way arrives late."""
        for proxy in self._proxies_of(member):
            proxy.heal()

    async def rolling_restart(self) -> None:
        """Kill and start the members one after another, the next when all serve again."""
        for member in self.members:
            member.kill()
            await self.start()

    def kill(self) -> None:
        """Kill every member that runs."""
        for member in self.members:
            if member.running:
                member.kill()

    def wipe(self) -> None:
        """Forget all data; no member must be running."""
        for member in self.members:
            member.wipe()

    def snapshot_data(self) -> list[Path]:
        """Copies of all data directories, for `restore_data`."""
        return [member.snapshot_data() for member in self.members]

    def restore_data(self, copies: list[Path]) -> None:
        """Go back to older copies; no member must be running."""
        for member, copy in zip(self.members, copies, strict=True):
            member.restore_data(copy)

    def repair(self) -> None:
        """Heal every cut, resume who is paused, start who is down; block until all serve as one quorum."""
        for proxy in itertools.chain.from_iterable(self._proxies.values()):
            proxy.restore()
        for member in self.members:
            if member.paused:
                member.resume()
        self.start_blocking()

    def close(self) -> None:
        for member in self.members:
            member.close()
        for proxy in itertools.chain.from_iterable(self._proxies.values()):
            proxy.close()
        for port in itertools.chain.from_iterable(self._ports.values()):
            port.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _proxies_between(self, caller: int, callee: int) -> tuple[TcpProxy, TcpProxy]:
        quorum, election = (port.number for port in self._ports[callee])
        address, way_back = _pair_address(caller, callee), _pair_address(callee, caller)
        return (
            TcpProxy(("127.0.0.1", quorum), listen=(address, quorum)),
            _ElectionProxy(("127.0.0.1", election), listen=(address, election), way_back=way_back),
        )

    def _as_seen_by(self, number: int) -> dict[str, str]:
        return {
            f"server.{other}": ":".join(
                [
                    "127.0.0.1" if other == number else _pair_address(number, other),
                    *(str(port.number) for port in ports),
                ]
            )
            for other, ports in self._ports.items()
        }

    def _in_mode(self, mode: str) -> list[ZooKeeperServer]:
        members = [member for member in self.members if not member.paused and member.mode == mode]
        if not members:
            raise ZooKeeperFailed(f"there is no {mode}")
        return members

    def _proxies_of(self, member: ZooKeeperServer) -> Iterable[TcpProxy]:
        for pair, proxies in self._proxies.items():
            if member.server_id in pair:
                yield from proxies

    def _launch_missing(self) -> None:
        for member in self.members:
            if not member.running:
                member.launch()

    def _wait_for_quorum(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        expected = ["follower"] * (len(self.members) - 1) + ["leader"]
        while sorted(modes := [member.mode or "none" for member in self.members]) != expected:
            if time.monotonic() > deadline:
                raise ZooKeeperFailed(f"the members do not form a quorum: {modes}")
            for member in self.members:
                member.require_running()
            time.sleep(POLL_INTERVAL)


def _pair_address(caller: int, callee: int) -> str:
    return f"127.1.{caller}.{callee}"
