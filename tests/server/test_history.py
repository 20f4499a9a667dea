from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aioregistry.server._acl import OPEN
from aioregistry.server._codes import Code, Opcode
from aioregistry.server._history import History, Transaction
from aioregistry.server._operations import Caller, Create, Delete
from aioregistry.server._settings import Settings
from aioregistry.server._tree import Tree

SETTINGS = Settings(clock=lambda: 1000.0)


def create(path: str, flags: int = 0) -> Create:
    return Create(Opcode.CREATE, path, b"", OPEN, flags)


class Log:
    """A history, and what it delivered."""

    def __init__(self) -> None:
        self.delivered: list[Transaction] = []
        self.may_commit = True
        self.history = History(
            Tree(), 0, settings=SETTINGS, deliver=self.delivered.append, may_commit=lambda: self.may_commit
        )

    def session(self, owner: str = "here") -> Caller:
        created = self.history.create_session(4000, owner).created
        assert created is not None
        return Caller(created.id)


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    log = Log()
    yield log
    log.history.stop()


async def test_every_transaction_is_delivered_in_order_the_failed_ones_too(log: Log) -> None:
    caller = log.session()
    log.history.write(caller, create("/a"), via="here")
    log.history.write(caller, create("/a"), via="here")
    log.history.write_all(caller, [create("/b"), Delete("/no", -1), create("/c")], via="here")
    log.history.fail(Code.MARSHALLING_ERROR)
    log.history.end_session(caller.session)
    assert [transaction.zxid for transaction in log.delivered] == [1, 2, 3, 4, 5, 6]
    assert [transaction.code for transaction in log.delivered] == [0, 0, Code.NODE_EXISTS, 0, Code.MARSHALLING_ERROR, 0]
    assert [len(transaction.changes) for transaction in log.delivered] == [0, 1, 0, 0, 0, 0]


async def test_replaying_what_was_delivered_gives_the_same_tree(log: Log) -> None:
    caller, replica = log.session(), Tree()
    log.history.write_all(caller, [create("/a"), create("/a/b", 1), create("/a/c", 3)], via="here")
    log.history.end_session(caller.session)
    for transaction in log.delivered:
        replica.replay(transaction.changes)
    assert {path: node.stat() for path, node in replica.nodes.items()} == {
        path: node.stat() for path, node in log.history.tree.nodes.items()
    }


async def test_a_session_writes_by_the_server_that_it_is_connected_to(log: Log) -> None:
    caller = log.session("here")
    moved = [
        log.history.write(caller, create("/a"), via="there"),
        log.history.write_all(caller, [create("/a")], via="there"),
    ]
    assert [transaction.code for transaction in moved] == [Code.SESSION_MOVED] * 2
    log.history.sessions.move(caller.session, "there")
    assert log.history.write(caller, create("/a"), via="there").code == Code.OK


async def test_a_session_that_is_over_does_not_write(log: Log) -> None:
    caller = log.session()
    log.history.end_session(caller.session)
    assert log.history.write(caller, create("/a"), via="here").code == Code.SESSION_EXPIRED


async def test_a_restored_session_belongs_to_who_writes_first(log: Log) -> None:
    caller = log.session()
    restored = History.of_backup(log.history.backup(), settings=SETTINGS, deliver=log.delivered.append)
    assert restored.write(caller, create("/a"), via="there").code == Code.OK
    assert restored.write(caller, create("/b"), via="here").code == Code.SESSION_MOVED


async def test_an_epoch_begins_above_all_zxids(log: Log) -> None:
    log.session()
    log.history.begin_epoch()
    assert log.history.fail(Code.NO_NODE).zxid == (1 << 32) + 1


async def test_a_backup_is_not_touched_by_what_follows(log: Log) -> None:
    caller = log.session()
    backup = log.history.backup()
    log.history.write(caller, create("/a"), via="here")
    assert "/a" not in backup.tree.nodes
    assert (backup.zxid, list(backup.timeouts_ms.values())) == (1, [4000])
