"""The ensemble of a world: the embedded server, and what its history tells those who judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from aioregistry.server import Ensemble
from aioregistry.server._acl import ACL, OPEN
from aioregistry.server._codes import Opcode
from aioregistry.server._ensemble import Member
from aioregistry.server._history import OWN, Backup, History, Transaction
from aioregistry.server._nodes import Node
from aioregistry.server._operations import Caller, Create, Delete, Operation, SetACL, SetData
from aioregistry.server._store import Data
from tests.simulation.engine import Machine
from tests.simulation.network import Listener, Network


class Witness(Protocol):
    """The listeners to the history."""

    def committed(self, transaction: Transaction, writer: int, fences: Mapping[str, int]) -> None:
        """In the name of the session *writer*; OWN where the servers themselves, or an operator, did it.

        *fences* are the versions that it went by, by path; -1 is any.
        """

    def disrupted(self) -> None:
        """The timers of all sessions started anew."""


class WatchedEnsemble(Ensemble):
    """An ensemble that tells a witness of every transaction, before any replica has it."""

    def __init__(self, size: int, witness: Witness, **options: Any) -> None:
        super().__init__(size, **options)
        self._witness = witness
        self._writer = OWN
        self._fences: dict[str, int] = {}
        for member in self.members:
            vars(member)["propose"] = self._noting_the_writer(member.propose)

    def _noting_the_writer(self, propose: Callable[..., None]) -> Callable[..., None]:
        def propose_as(decide: Any, done: Any) -> None:
            asked = getattr(decide, "keywords", {})
            caller = asked.get("caller")
            operations = asked.get("operations") or [asked.get("operation")]

            def decide_as(history: History) -> Transaction:
                self._writer = OWN if caller is None else caller.session
                self._fences = fences(operations)
                try:
                    return decide(history)  # type: ignore[no-any-return]
                finally:
                    self._writer, self._fences = OWN, {}

            propose(decide_as, done)

        return propose_as

    def _broadcast(self, transaction: Transaction) -> None:
        self._witness.committed(transaction, self._writer, self._fences)
        super()._broadcast(transaction)

    def elect(self, preferred: Any = None) -> None:
        super().elect(preferred)
        self._witness.disrupted()


class Servers:
    """The ensemble on the network, and its operators.

    Args:
        machine: that all members run on; their clocks are good.
        size: how many members.
        tick: seconds.
        version: to behave like.
    """

    def __init__(
        self, machine: Machine, network: Network, witness: Witness, *, size: int, tick: float, version: str
    ) -> None:
        self.machine = machine
        self.tick = tick
        self.ensemble = WatchedEnsemble(size, witness, tick_time=tick, version=version, clock=machine.wall)
        self.names = [f"zk{number}" for number in range(1, size + 1)]
        self.connect_string = ",".join(self.names)
        for name, member in zip(self.names, self.ensemble.members, strict=True):
            network.listeners[name] = Listener(machine, member.protocol_factory, partial(_runs, member))

    async def start(self, data: Data = "kept") -> None:
        await self.ensemble.start(data, listen=False)

    async def stop(self) -> None:
        await self.ensemble.stop()

    def calm(self) -> None:
        """Forget what was to happen to requests to come."""
        for member in self.ensemble.members:
            member.forget_faults()

    # ------------------------------------------------------------ what there is

    def node(self, path: str) -> Node | None:
        """As the quorum has it."""
        history = self.ensemble.history
        if history is None:
            return None
        return history.tree.nodes.get(path)

    def children(self, path: str) -> list[str]:
        node = self.node(path)
        return [] if node is None else sorted(node.children)

    def can_write(self) -> bool:
        return self.ensemble.history is not None and self.ensemble.can_commit()

    def backup(self) -> Backup:
        return self.ensemble.backup()

    # ------------------------------------------------------------ what operators do

    def create(self, path: str, data: bytes) -> bool:
        return self._write(Create(Opcode.CREATE, path, data, OPEN, 0))

    def set_data(self, path: str, data: bytes) -> bool:
        return self._write(SetData(path, data, -1))

    def set_acl(self, path: str, acl: ACL) -> bool:
        return self._write(SetACL(path, acl, -1))

    def delete(self, path: str) -> bool:
        return self._write(Delete(path, -1))

    def _write(self, operation: Operation) -> bool:
        if not self.can_write():
            return False
        return self.ensemble.running_history().write(Caller(OWN), operation, via=None).code == 0


def fences(operations: Sequence[Operation | None]) -> dict[str, int]:
    """The version that each path's first change goes by."""
    versions: dict[str, int] = {}
    for operation in operations:
        if isinstance(operation, Delete | SetData):
            versions.setdefault(str(operation.path), operation.version)
    return versions


def _runs(member: Member) -> bool:
    return member.running
