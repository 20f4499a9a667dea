"""Ten thousand instances that come as fast as a real ZooKeeper takes them, and are counted."""

from __future__ import annotations

import json
from typing import Final

from tests.support import wire
from tests.support.judge import NODE_EXISTS

WAVES: Final = 20
SIZE: Final = 500
"""Instances of one transaction: fewer than are kept for a consumer of changes, so that a quick one misses none."""


class Flood:
    """Creates instances of one service by a client of its own.

    Args:
        address: of the server.
        service: the path of the service's node.
    """

    def __init__(self, address: str, service: str) -> None:
        self._address, self._service = address, service
        self.ids: set[str] = set()
        """The nodes that were created, as the server has confirmed them."""

    async def wave(self, count: int = SIZE) -> list[str]:
        """Create *count* more in one transaction; return their ids when the server has it."""
        ids = [f"i{number:05}" for number in range(len(self.ids), len(self.ids) + count)]
        # A connection for each: those who count may take longer between two than a session lives.
        async with await wire.connect(self._address) as connection:
            for path in (self._service.rpartition("/")[0], self._service):
                parent = await connection.reply(connection.send(wire.create(path)))
                assert parent.error in (0, NODE_EXISTS)
            creates = [wire.create(f"{self._service}/{id}", _document(id)) for id in ids]
            reply = await connection.reply(connection.send(wire.multi(creates)))
            assert not reply.error
        self.ids.update(ids)
        return ids


def _document(id: str) -> bytes:
    return json.dumps({"name": "chat", "id": id, "address": "10.0.0.7", "port": 7000}).encode()
