"""The four-letter words: questions without a session, answered by text and the end of the connection.

The formats are those of ``org.apache.zookeeper.server.command``, which monitoring reads. Values that a server in memory
lacks (latencies, files) are told as 0 or left out.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from aioregistry.server._codes import Opcode
from aioregistry.server._connection import Connection
from aioregistry.server._replica import Replica
from aioregistry.server._sessions import Session
from aioregistry.server._settings import Settings

NOT_SERVING: Final = "This ZooKeeper instance is not currently serving requests\n"

BUILT: Final = "aioregistry, built on 2026-11-21 00:00 UTC"
"""Where Apache's servers tell their commit and date."""


class Server(Protocol):
    """The part of a server that the words ask."""

    settings: Settings
    replica: Replica
    connections: dict[Connection, None]

    @property
    def port(self) -> int: ...

    @property
    def serving(self) -> bool: ...

    @property
    def mode(self) -> str: ...

    @property
    def received(self) -> int: ...

    @property
    def sent(self) -> int: ...

    @staticmethod
    def time() -> float: ...

    def live_sessions(self) -> list[Session]: ...


def answer(server: Server, word: bytes) -> str | None:
    """The answer to a word, or None if it is unknown."""
    if word in _ALWAYS:
        return _ALWAYS[word](server)
    if word in _SERVING:
        return _SERVING[word](server) if server.serving else NOT_SERVING
    if word in _NOT_ALLOWED:
        return f"{word.decode()} is not executed because it is not in the whitelist.\n"
    return None


def _ruok(_: Server) -> str:
    return "imok"


def _isro(server: Server) -> str:
    return "rw" if server.serving else "null"


def _envi(server: Server) -> str:
    environment = {
        "zookeeper.version": _version(server),
        "host.name": platform.node(),
        "python.version": platform.python_version(),
        "python.implementation": platform.python_implementation(),
        "python.executable": sys.executable,
        "os.name": platform.system(),
        "os.arch": platform.machine(),
        "os.version": platform.release(),
        "user.dir": os.getcwd(),  # noqa: PTH109  # the string
    }
    return _lines(["Environment:", *(f"{name}={value}" for name, value in environment.items())])


def _srvr(server: Server) -> str:
    return _lines([f"Zookeeper version: {_version(server)}", *_statistics(server)])


def _stat(server: Server) -> str:
    clients = [_connection(server, connection, brief=True) for connection in server.connections]
    return _lines([f"Zookeeper version: {_version(server)}", "Clients:", *clients, "", *_statistics(server)])


def _cons(server: Server) -> str:
    return _lines([*(_connection(server, connection, brief=False) for connection in server.connections), ""])


def _conf(server: Server) -> str:
    settings = server.settings
    configuration = {
        "clientPort": -1 if settings.ssl else server.port,
        "secureClientPort": server.port if settings.ssl else -1,
        "dataDir": "",
        "dataDirSize": 0,
        "dataLogDir": "",
        "dataLogSize": 0,
        "tickTime": round(settings.tick_time * 1000),
        "maxClientCnxns": settings.max_connections_per_client,
        "minSessionTimeout": settings.min_timeout_ms,
        "maxSessionTimeout": settings.max_timeout_ms,
        **({"clientPortListenBacklog": -1} if server.settings.profile.tells_more else {}),
        "serverId": settings.server_id,
    }
    return _lines(f"{name}={value}" for name, value in configuration.items())


def _dump(server: Server) -> str:
    expiries = {session.id: session.expires for session in server.live_sessions()}
    lines = ["SessionTracker dump:"]
    lines += _sets(server, "Session", [(tick, _hexadecimal(number)) for number, tick in expiries.items()])
    ephemerals = server.replica.tree.ephemerals
    lines += ("ephemeral nodes dump:", f"Sessions with Ephemerals ({len(ephemerals)}):")
    for owner, paths in ephemerals.items():
        lines += (f"{_hexadecimal(owner)}:", *(f"\t{path}" for path in paths))
    now = int(server.time() / server.settings.tick_time)
    lines.append("Connections dump:")
    lines += _sets(
        server,
        "Connections",
        [
            # Apache's servers end silent connections by a clock of their own, which runs with the sessions'.
            (
                expiries.get(connection.session_id, now),
                f"ip: /{_peer(connection)} sessionId: {_hexadecimal(connection.session_id)}",
            )
            for connection in server.connections
        ],
    )
    return _lines(lines)


def _sets(server: Server, kind: str, members: list[tuple[int, str]]) -> list[str]:
    """The sessions that end, by tick."""
    by_tick: dict[int, list[str]] = {}
    for tick, member in members:
        by_tick.setdefault(tick, []).append(member)
    lines = [f"{kind} Sets ({len(by_tick)})/({len(members)}):"]
    for tick, together in sorted(by_tick.items()):
        lines += (f"{len(together)} expire at {_date(server, tick)}:", *(f"\t{member}" for member in together))
    return lines


def _mntr(server: Server) -> str:
    tree = server.replica.tree
    metrics = {
        "version": _version(server),
        "server_state": server.mode,
        "avg_latency": _average(server),
        "max_latency": 0,
        "min_latency": 0,
        "packets_received": server.received,
        "packets_sent": server.sent,
        "num_alive_connections": len(server.connections),
        "outstanding_requests": 0,
        "znode_count": len(tree.nodes),
        "watch_count": server.replica.watches.count,
        "ephemerals_count": sum(map(len, tree.ephemerals.values())),
        "approximate_data_size": sum(
            len(path) + len(node.data or b"") for path, node in tree.nodes.items() if path != "/"
        ),
    }
    if server.settings.profile.tells_more:
        metrics |= {"global_sessions": len(server.live_sessions()), "local_sessions": 0}
    return _lines(f"zk_{name}\t{value}" for name, value in metrics.items())


_ALWAYS: dict[bytes, Callable[[Server], str]] = {b"ruok": _ruok, b"isro": _isro, b"envi": _envi}

_SERVING: dict[bytes, Callable[[Server], str]] = {
    b"srvr": _srvr,
    b"stat": _stat,
    b"mntr": _mntr,
    b"conf": _conf,
    b"cons": _cons,
    b"dump": _dump,
}

_NOT_ALLOWED: Final = frozenset({b"srst", b"crst", b"dirs", b"wchs", b"wchc", b"wchp", b"gtmk", b"stmk", b"hash"})
"""The words of Apache's servers that this one has no answer to."""

_LAST: Final[dict[int, str]] = {
    0: "SESS",
    **dict.fromkeys((Opcode.CREATE, Opcode.CREATE2, Opcode.CREATE_CONTAINER, Opcode.CREATE_TTL), "CREA"),
    Opcode.DELETE: "DELE",
    Opcode.EXISTS: "EXIS",
    Opcode.GET_DATA: "GETD",
    Opcode.SET_DATA: "SETD",
    Opcode.GET_ACL: "GETA",
    Opcode.SET_ACL: "SETA",
    **dict.fromkeys((Opcode.GET_CHILDREN, Opcode.GET_CHILDREN2), "GETC"),
    Opcode.SYNC: "SYNC",
    Opcode.PING: "PING",
    Opcode.MULTI: "MULT",
    Opcode.CHECK_WATCHES: "CHKW",
    Opcode.REMOVE_WATCHES: "REMW",
    Opcode.MULTI_READ: "MLTR",
    Opcode.SET_WATCHES: "SETW",
    Opcode.GET_EPHEMERALS: "GETE",
    Opcode.GET_ALL_CHILDREN_NUMBER: "GETACN",
    Opcode.SET_WATCHES2: "STW2",
    Opcode.ADD_WATCH: "ADDW",
    Opcode.WHO_AM_I: "HOMI",
}
"""How a connection's last request is told (``FinalRequestProcessor``); others are "NA"."""


def _statistics(server: Server) -> list[str]:
    return [
        f"Latency min/avg/max: 0/{_average(server)}/0",
        f"Received: {server.received}",
        f"Sent: {server.sent}",
        f"Connections: {len(server.connections)}",
        "Outstanding: 0",
        f"Zxid: {_hexadecimal(server.replica.zxid)}",
        f"Mode: {server.mode}",
        f"Node count: {len(server.replica.tree.nodes)}",
    ]


def _average(server: Server) -> str:
    return "0.0" if server.settings.profile.tells_more else "0"


def _connection(server: Server, connection: Connection, *, brief: bool) -> str:
    # A client that asks by a word is not read any further, and the word counts.
    asks = not connection.session_id
    text = f" /{_peer(connection)}[{0 if asks else 1}]("
    text += f"queued=0,recved={connection.received + asks},sent={connection.sent}"
    if not asks and not brief:
        last = connection.last_opcode
        text += (
            f",sid={_hexadecimal(connection.session_id)},lop={_LAST.get(last, 'NA')},"
            f"est={connection.established_ms},to={connection.timeout_ms},lcxid={_hexadecimal(connection.last_xid)},"
            f"lzxid={_hexadecimal(server.replica.zxid)},lresp=0,llat=0,minlat=0,avglat=0,maxlat=0"
        )
    return f"{text})"


def _peer(connection: Connection) -> str:
    return ":".join(map(str, connection.peer[:2])) if isinstance(connection.peer, tuple) else str(connection.peer)


def _version(server: Server) -> str:
    return f"{server.settings.profile.release}-{BUILT}"


def _date(server: Server, tick: int) -> str:
    left = tick * server.settings.tick_time - server.time()
    return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(server.settings.clock() + left))


def _hexadecimal(number: int) -> str:
    return hex(number & 0xFFFFFFFFFFFFFFFF)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
