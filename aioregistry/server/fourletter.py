"""The four-letter words: questions without a session, answered by text and the end of the connection.

The formats are those of ``org.apache.zookeeper.server.command``, which monitoring reads. What a server in memory does
not have (latencies, files) is told as 0 or left out.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aioregistry.server.connection import Connection
    from aioregistry.server.endpoint import Endpoint

NOT_SERVING: Final = "This ZooKeeper instance is not currently serving requests\n"

BUILT: Final = "aioregistry, built on 2026-11-21 00:00 UTC"
"""Where Apache's servers tell their commit and date."""


def answer(endpoint: Endpoint, word: bytes) -> str | None:
    """The answer to a word, or None where it is none."""
    if word in _ALWAYS:
        return _ALWAYS[word](endpoint)
    if word in _SERVING:
        return _SERVING[word](endpoint) if endpoint.serving else NOT_SERVING
    if word in _NOT_ALLOWED:
        return f"{word.decode()} is not executed because it is not in the whitelist.\n"
    return None


def _ruok(_: Endpoint) -> str:
    return "imok"


def _isro(endpoint: Endpoint) -> str:
    return "rw" if endpoint.serving else "null"


def _envi(endpoint: Endpoint) -> str:
    environment = {
        "zookeeper.version": _version(endpoint),
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


def _srvr(endpoint: Endpoint) -> str:
    return _lines([f"Zookeeper version: {_version(endpoint)}", *_statistics(endpoint)])


def _stat(endpoint: Endpoint) -> str:
    clients = [_connection(connection, brief=True) for connection in endpoint.connections]
    return _lines([f"Zookeeper version: {_version(endpoint)}", "Clients:", *clients, "", *_statistics(endpoint)])


def _cons(endpoint: Endpoint) -> str:
    return _lines([*(_connection(connection, brief=False) for connection in endpoint.connections), ""])


def _conf(endpoint: Endpoint) -> str:
    settings = endpoint.settings
    configuration = {
        "clientPort": -1 if settings.ssl else endpoint.port,
        "secureClientPort": endpoint.port if settings.ssl else -1,
        "dataDir": "",
        "dataDirSize": 0,
        "dataLogDir": "",
        "dataLogSize": 0,
        "tickTime": round(settings.tick_time * 1000),
        "maxClientCnxns": settings.max_connections_per_client,
        "minSessionTimeout": settings.min_timeout_ms,
        "maxSessionTimeout": settings.max_timeout_ms,
        "clientPortListenBacklog": -1,
        "serverId": settings.server_id,
    }
    return _lines(f"{name}={value}" for name, value in configuration.items())


def _dump(endpoint: Endpoint) -> str:
    by_tick: dict[int, list[int]] = {}
    sessions = endpoint.live_sessions()
    for session in sessions:
        by_tick.setdefault(session.expires, []).append(session.id)
    lines = ["SessionTracker dump:", f"Session Sets ({len(by_tick)})/({len(sessions)}):"]
    for tick, ids in sorted(by_tick.items()):
        lines += (f"{len(ids)} expire at {_date(endpoint, tick)}:", *(f"\t{_hexadecimal(number)}" for number in ids))
    ephemerals = endpoint.tree.ephemerals
    lines += ("ephemeral nodes dump:", f"Sessions with Ephemerals ({len(ephemerals)}):")
    for owner, paths in ephemerals.items():
        lines += (f"{_hexadecimal(owner)}:", *(f"\t{path}" for path in paths))
    lines += ("Connections dump:", f"Connections Sets (1)/({len(endpoint.connections)}):")
    for connection in endpoint.connections:
        lines.append(f"\tip: /{_peer(connection)} sessionId: {_hexadecimal(connection.session_id)}")
    return _lines(lines)


def _mntr(endpoint: Endpoint) -> str:
    tree = endpoint.tree
    metrics = {
        "version": _version(endpoint),
        "server_state": endpoint.mode,
        "avg_latency": 0.0,
        "max_latency": 0,
        "min_latency": 0,
        "packets_received": endpoint.received,
        "packets_sent": endpoint.sent,
        "num_alive_connections": len(endpoint.connections),
        "outstanding_requests": 0,
        "znode_count": len(tree.nodes),
        "watch_count": endpoint.watches.count,
        "ephemerals_count": sum(map(len, tree.ephemerals.values())),
        "approximate_data_size": sum(
            len(path) + len(node.data or b"") for path, node in tree.nodes.items() if path != "/"
        ),
        "global_sessions": len(endpoint.live_sessions()),
        "local_sessions": 0,
    }
    return _lines(f"zk_{name}\t{value}" for name, value in metrics.items())


_ALWAYS: dict[bytes, Callable[[Endpoint], str]] = {b"ruok": _ruok, b"isro": _isro, b"envi": _envi}

_SERVING: dict[bytes, Callable[[Endpoint], str]] = {
    b"srvr": _srvr,
    b"stat": _stat,
    b"mntr": _mntr,
    b"conf": _conf,
    b"cons": _cons,
    b"dump": _dump,
}

_NOT_ALLOWED: Final = frozenset({b"srst", b"crst", b"dirs", b"wchs", b"wchc", b"wchp", b"gtmk", b"stmk", b"hash"})
"""The words of Apache's servers that this one has no answer to."""


def _statistics(endpoint: Endpoint) -> list[str]:
    return [
        "Latency min/avg/max: 0/0.0/0",
        f"Received: {endpoint.received}",
        f"Sent: {endpoint.sent}",
        f"Connections: {len(endpoint.connections)}",
        "Outstanding: 0",
        f"Zxid: {_hexadecimal(endpoint.zxid)}",
        f"Mode: {endpoint.mode}",
        f"Node count: {len(endpoint.tree.nodes)}",
    ]


def _connection(connection: Connection, *, brief: bool) -> str:
    text = f" /{_peer(connection)}[1](queued=0,recved={connection.received},sent={connection.sent}"
    if connection.session_id and not brief:
        text += (
            f",sid={_hexadecimal(connection.session_id)},lop={connection.last_opcode},"
            f"est={connection.established_ms},to={connection.timeout_ms},lcxid={_hexadecimal(connection.last_xid)}"
        )
    return f"{text})"


def _peer(connection: Connection) -> str:
    return ":".join(map(str, connection.peer[:2])) if isinstance(connection.peer, tuple) else str(connection.peer)


def _version(endpoint: Endpoint) -> str:
    return f"{endpoint.profile.release}-{BUILT}"


def _date(endpoint: Endpoint, tick: int) -> str:
    left = tick * endpoint.settings.tick_time - endpoint.time()
    return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(endpoint.settings.clock() + left))


def _hexadecimal(number: int) -> str:
    return hex(number & 0xFFFFFFFFFFFFFFFF)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
