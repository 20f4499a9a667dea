"""Record the conversations with the installed ZooKeeper: ``python -m tests.protocol.record [NAME …]``.

Writes ``transcripts/NAME.json``: what was sent and what came back, frame by frame, in hexadecimal.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.protocol.conversations import CONVERSATIONS, Conversation
from tests.support.zookeeper import Settings, ZooKeeperEnsemble, ZooKeeperServer

TRANSCRIPTS = Path(__file__).parent / "transcripts"
SILENCE = 1.0  # how long a server is listened to that may be about to close the connection, seconds

STANDALONE = {"extended_types": Settings(extended_types=True)}
CUT_OFF = {
    "read_only": Settings(read_only_mode=True, local_sessions=True),
    "read_only_refused": Settings(read_only_mode=True),
}


@contextmanager
def server_for(name: str) -> Iterator[ZooKeeperServer]:
    """A fresh server of the kind that the conversation needs."""
    if name in CUT_OFF:
        with ZooKeeperEnsemble(CUT_OFF[name]) as ensemble:
            yield ensemble.members[0]
    else:
        with ZooKeeperServer(STANDALONE.get(name, Settings(extended_types=False))) as server:
            yield server


def record(connection: socket.socket, conversation: Conversation) -> Iterator[dict[str, Any]]:
    """Say what the conversation says; yield what was sent and every frame received up to and with the reply."""
    xids = count(1)
    for step, request in conversation.items():
        xid = None if step == "connect" else request.special_xid or next(xids)
        payload = request.serialize(xid)
        connection.sendall(struct.pack(">i", len(payload)) + payload)
        yield {"step": step, "sent": payload.hex(), "received": [frame.hex() for frame in until_reply(connection, xid)]}


def until_reply(connection: socket.socket, xid: int | None) -> Iterator[bytes]:
    """The events that come before the reply, and the reply."""
    while True:
        (length,) = struct.unpack(">i", receive(connection, 4))
        frame = receive(connection, length)
        yield frame
        if xid is None or struct.unpack_from(">i", frame) == (xid,):
            return


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the server closed the connection")
        data += part
    return data


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False


def transcript(name: str) -> dict[str, Any]:
    with server_for(name) as server:
        server.launch()
        server.wait_until_serving()
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            steps = list(record(connection, CONVERSATIONS[name]))
            return {"server": server.version, "steps": steps, "closed_by_server": is_closed(connection)}


def main(names: list[str]) -> None:
    for name in names or CONVERSATIONS:
        (TRANSCRIPTS / f"{name}.json").write_text(json.dumps(transcript(name), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
