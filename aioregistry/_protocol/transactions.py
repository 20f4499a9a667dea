"""Requests of several parts: transactions, and reads of many nodes at once."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, ClassVar, NamedTuple

from aiozk.protocol.primitives import Primitive

from aioregistry._errors import ProtocolError, ServerError, TransactionAborted, server_error
from aioregistry._protocol.jute import (
    read_int,
    read_string,
    read_strings,
)
from aioregistry._protocol.message import Layout, Message
from aioregistry._protocol.messages import Create, Create2, CreateContainer, Delete, GetChildren, GetData, SetData
from aioregistry._protocol.records import (
    STAT,
    Stat,
    read_stat,
)

_OPERATION = struct.Struct(">i?i")  # jute's MultiHeader: type, done, err
_END_OPERATION = (-1, True, -1)
_END = _OPERATION.pack(*_END_OPERATION)

_FAILED = -1
"""The type under which a failed operation is answered, with its error code."""

_CREATED = (Create.opcode, Create2.opcode)
"""The types that creations are answered as: containers and nodes with a TTL as the second, a Create2 as the first and
without its Stat before ZOOKEEPER-4026."""


def _encode_operations(operations: Iterable[Message[Any]]) -> bytes:
    parts: list[bytes] = []
    for operation in operations:
        parts += (_OPERATION.pack(operation.opcode, False, -1), operation.encode())
    parts.append(_END)
    return b"".join(parts)


def _read_created(operation: Create | Create2, opcode: int, body: bytes, at: int) -> tuple[Any, int]:
    path, at = read_string(body, at)
    stat = None
    if opcode == Create2.opcode:
        stat, at = read_stat(body, at)
    return path if isinstance(operation, Create) else (path, stat), at


def _read_end(body: bytes, at: int) -> int:
    end = _OPERATION.unpack_from(body, at)
    if end != _END_OPERATION:
        raise ProtocolError(f"a reply to several operations goes on with {end} behind the last")
    return at + _OPERATION.size


class _Operations(Primitive):
    """The part that a transaction or MultiRead consists of, for aiozk's way of rendering and printing."""

    def render(self) -> tuple[str, list[Any]]:
        layout: list[str] = []
        values: list[Any] = []
        for operation in self.value:
            inner_layout, inner_values = operation.render()
            layout += ("i?i", inner_layout)
            values += (operation.opcode, False, -1, *inner_values)
        return "".join((*layout, "i?i")), [*values, *_END_OPERATION]

    @classmethod
    def parse(cls, body: bytes, at: int) -> tuple[list[Message[Any]], int]:
        operations: list[Message[Any]] = []
        while True:
            opcode, done, _ = _OPERATION.unpack_from(body, at)
            at += _OPERATION.size
            if done:
                return operations, at
            if opcode not in _BY_OPCODE:
                raise ProtocolError(f"operation {opcode} inside a transaction")
            operation, at = _BY_OPCODE[opcode].parse(body, at)
            operations.append(operation)


@dataclass(frozen=True, slots=True)
class Failure:
    """The operation that made a transaction fail."""

    index: int
    error: ServerError


class MultiReply(NamedTuple):
    """The outcome of a transaction: a result for every operation, or an error for every operation.

    A result is what the operation decodes to alone, but for ``Create2`` and its kin: ``(path, None)`` where the server
    keeps the Stat to itself, as for Create2 before ZOOKEEPER-4026 (not in 3.8). In a failed transaction the operations
    before the culprit are ``RolledBack``, those behind it ``RuntimeInconsistency``.
    """

    results: list[Any]

    @property
    def failed(self) -> Failure | None:
        """The culprit, or None when the transaction was applied."""
        errors = [Failure(index, error) for index, error in enumerate(self.results) if isinstance(error, ServerError)]
        culprits = (failure for failure in errors if failure.error.code not in _NOT_THE_CULPRIT)
        return next(culprits, errors[0] if errors else None)

    def raise_for_error(self) -> None:
        """Return when the transaction was applied.

        Raises:
            TransactionAborted: it was not; names the culprit.
        """
        if failure := self.failed:
            raise TransactionAborted(failure.index, failure.error, failure.error.zxid) from failure.error


_NOT_THE_CULPRIT = {0, -2}  # RolledBack, RuntimeInconsistency


class Multi(Message[MultiReply]):
    """A transaction of creates, deletes and setData: all of them, or nothing."""

    opcode = 14
    writes = True
    parts: ClassVar[Layout] = (("ops", _Operations),)

    def __init__(self, ops: Sequence[Message[Any]]) -> None:
        self.ops = ops

    def encode(self) -> bytes:
        return _encode_operations(self.ops)

    def read_reply(self, body: bytes, at: int) -> tuple[MultiReply, int]:
        results: list[Any] = []
        for operation in self.ops:
            opcode, done, code = _OPERATION.unpack_from(body, at)
            at += _OPERATION.size
            if opcode == _FAILED and not done:
                code, at = read_int(body, at)
                results.append(server_error(code, operation.path))
            elif isinstance(operation, Create | Create2) and opcode in _CREATED:
                result, at = _read_created(operation, opcode, body, at)
                results.append(result)
            elif opcode == operation.opcode:
                result, at = operation.read_reply(body, at)
                results.append(result)
            else:
                raise ProtocolError(f"operation {len(results)}, {operation.subject}, was answered as type {opcode}")
        return MultiReply(results), _read_end(body, at)


class MultiRead(Message[list[Any]]):
    """Several GetData and GetChildren without watches, in one round trip (ZooKeeper 3.6).

    Each is answered as it would be alone, or with a :class:`~aioregistry._errors.ServerError`.
    """

    opcode = 22
    parts: ClassVar[Layout] = (("ops", _Operations),)

    def __init__(self, ops: Sequence[GetData | GetChildren]) -> None:
        self.ops = ops

    def encode(self) -> bytes:
        return _encode_operations(self.ops)

    def read_reply(self, body: bytes, at: int) -> tuple[list[Any], int]:
        return _read_reads(body, at, (op.opcode for op in self.ops), lambda index: self.ops[index].path)


class MultiReadData(Message[list[tuple[bytes, Stat] | ServerError]]):
    """GetData of many children of one node, in one round trip: the way a service's instances are read."""

    opcode = MultiRead.opcode
    parts = MultiRead.parts

    def __init__(self, parent: str, names: Sequence[str]) -> None:
        self.path = parent
        self.names = names
        self._prefix = parent if parent.endswith("/") else parent + "/"

    @property
    def ops(self) -> list[GetData]:
        """The same as operations of a :class:`MultiRead`."""
        return [GetData(self._prefix + name) for name in self.names]

    def encode(self) -> bytes:
        prefix = self._prefix.encode()
        pack, size = _GET_DATA_OPERATION.pack, len(prefix)
        parts: list[bytes] = []
        for name in self.names:
            raw = name.encode()
            parts += (pack(4, False, -1, size + len(raw)), prefix, raw, b"\x00")
        parts.append(_END)
        return b"".join(parts)

    def read_reply(self, body: bytes, at: int) -> tuple[list[tuple[bytes, Stat] | ServerError], int]:
        return _read_reads(body, at, repeat(4, len(self.names)), lambda index: self._prefix + self.names[index])


_GET_DATA_OPERATION = struct.Struct(">i?ii")  # MultiHeader and the length of the path
_READ_RESULT = struct.Struct(">i?ii")  # MultiHeader and the first of what follows: a length, a count or the error again


def _read_reads(body: bytes, at: int, opcodes: Iterable[int], path_of: Callable[[int], str]) -> tuple[list[Any], int]:
    """The results of a MultiRead: one loop without calls into Python, for it reads every instance of a service."""
    read_head, read_fields, new, stat_class = _READ_RESULT.unpack_from, STAT.unpack_from, tuple.__new__, Stat
    results: list[Any] = []
    append = results.append
    for expected in opcodes:
        opcode, done, code, length = read_head(body, at)
        if opcode == 4 == expected and length >= 0:
            at += 13
            end = at + length
            append((body[at:end], new(stat_class, read_fields(body, end))))
            at = end + 68
        elif opcode == _FAILED and not done:
            append(server_error(code, path_of(len(results))))
            at += 13
        elif opcode == expected:
            result, at = _READ_ALONE[opcode](body, at + 9)
            append(result)
        else:
            raise ProtocolError(f"the read of {path_of(len(results))} was answered as type {opcode}")
    return results, _read_end(body, at)


_READ_ALONE: dict[int, Callable[[bytes, int], tuple[Any, int]]] = {
    GetData.opcode: GetData("").read_reply,  # with null data
    GetChildren.opcode: read_strings,
}


_BY_OPCODE: dict[int, type[Message[Any]]] = {
    operation.opcode: operation
    for operation in (Create, Create2, CreateContainer, Delete, SetData, GetData, GetChildren)
}
"""The operations of a transaction or a MultiRead."""
