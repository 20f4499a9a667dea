"""The known limit of the fence is recognised by what was seen and done, and nothing else passes for it."""

from __future__ import annotations

import struct
from copy import copy
from types import SimpleNamespace
from typing import Any, Final

import pytest

from aioregistry import Status
from aioregistry.server._acl import OPEN
from aioregistry.server._codes import Opcode
from aioregistry.server._nodes import Node
from aioregistry.server._operations import Create, Delete, Operation, SetData
from tests.simulation.judges import Move, beyond_the_fence
from tests.simulation.process import Evidence, Sight
from tests.simulation.profiles import PROFILES
from tests.simulation.servers import fences
from tests.simulation.world import World

PATH: Final = "/services/chat/a"
CLAIM: Final = 20
OWN: Final = 0xA
GHOST: Final = Sight(20, czxid=10, version=1, owner=0xB)
"""The sights of the slow one."""
AWAY: Final = Move(21, before=1, after=0)
"""A quicker one took it …"""
BACK: Final = Move(22, before=0, after=1)
"""… and a newer one took that: here is the version again."""
TAKING: Final = Move(23, before=1, after=0)
NEWER: Final = 22


def judged(
    *, seen: Sight | None = GHOST, czxid: int = NEWER, fence: int | None = 1, moves: tuple[Move, ...] = ()
) -> bool:
    process: Any = SimpleNamespace(last_sights={} if seen is None else {PATH: seen}, sessions=[OWN])
    return beyond_the_fence(process, PATH, CLAIM, czxid, fence, moves or (AWAY, BACK, TAKING))


def test_two_changes_brought_the_version_back() -> None:
    assert judged()


def test_so_did_an_expiry_and_a_newcomer() -> None:
    seen = GHOST._replace(version=0)
    moves = (Move(21, before=0, after=None), Move(22, before=None, after=0), Move(23, before=0, after=1))
    assert judged(seen=seen, fence=0, moves=moves)


def test_a_node_of_his_own_was_his_to_take() -> None:
    own = Sight(21, czxid=21, version=1, owner=OWN)
    assert judged(seen=own, moves=(Move(22, 1, 0), Move(23, 0, 1), Move(24, 1, None)), czxid=23)


@pytest.mark.parametrize(
    "otherwise",
    [
        pytest.param({"moves": (BACK, TAKING)}, id="one change is what the fence holds against"),
        pytest.param({"moves": (AWAY, Move(22, before=1, after=1), TAKING)}, id="a takeover without a fence"),
        pytest.param({"moves": (AWAY, BACK, Move(23, before=1, after=1))}, id="without a fence himself"),
        pytest.param({"fence": None}, id="by no version"),
        pytest.param({"fence": -1}, id="by any version"),
        pytest.param({"fence": 0}, id="by another version than he saw"),
        pytest.param({"czxid": GHOST.czxid}, id="the very node that he saw"),
        pytest.param({"seen": GHOST._replace(czxid=CLAIM + 1)}, id="he saw a newer one's, and took it"),
        pytest.param({"seen": GHOST._replace(zxid=22)}, id="he saw what came after"),
        pytest.param({"seen": None}, id="he saw nothing"),
    ],
)
def test_this_is_not_the_limit(otherwise: dict[str, Any]) -> None:
    assert not judged(**otherwise)


class Asked(World):
    """Before everybody leaves it is asked what was seen of the nodes that live registrations have."""

    seen: list[tuple[Sight, Node]]

    async def _end(self) -> None:
        held = [held for process in self.judges.processes for held in process.held]
        self.seen = [
            (each.process.last_sights[each.claim.path], copy(node))  # a withdrawal writes it once more
            for each in held
            if each.registration.status is Status.LIVE and (node := self.servers.node(each.claim.path)) is not None
        ]
        await super()._end()


def test_what_was_seen_is_read_off_the_wire() -> None:
    world = Asked(0, PROFILES["short"])
    assert world.run().violation is None
    assert len(world.seen) > 2
    for sight, node in world.seen:
        assert (sight.czxid, sight.version, sight.owner) == (node.created, node.version, node.owner)
        assert sight.zxid >= node.mzxid


@pytest.mark.parametrize(
    ("error", "first_sights"),
    [
        pytest.param(-101, {PATH: CLAIM}, id="there is no node"),
        pytest.param(-127, {}, id="the server drops the read"),
        pytest.param(-102, {}, id="the server refuses the read"),
    ],
)
def test_a_read_that_shows_nothing_is_no_sight(error: int, first_sights: dict[str, int]) -> None:
    process: Any = SimpleNamespace(evidence=0.0, first_sights={}, last_sights={})
    machine: Any = SimpleNamespace(boot=lambda: 1.0)
    evidence = Evidence(machine, process)
    path = PATH.encode()

    evidence.sent(b"a greeting")
    evidence.got(framed(struct.pack(">iiq", 0, 6000, OWN)))
    evidence.sent(framed(struct.pack(">iii", 1, Opcode.SYNC, len(path)) + path))
    evidence.sent(framed(struct.pack(">iii", 2, Opcode.GET_DATA, len(path)) + path + b"\1"))
    evidence.got(framed(struct.pack(">iqi", 1, CLAIM, 0)) + framed(struct.pack(">iqi", 2, CLAIM, error)))

    assert process.first_sights == first_sights
    assert process.last_sights == {}


def framed(message: bytes) -> bytes:
    return struct.pack(">i", len(message)) + message


def test_a_transaction_goes_by_the_version_of_its_first_change() -> None:
    takeover: list[Operation] = [Delete(PATH, 0), Create(Opcode.CREATE2, PATH, b"", OPEN, 1), SetData(PATH, b"", 0)]
    assert fences(takeover) == {PATH: 0}
    assert fences([SetData(PATH, b"", 3)]) == {PATH: 3}
    assert fences([None]) == {}
