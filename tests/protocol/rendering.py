"""aiozk's rendering of a message: the second opinion on every byte that ours encode and decode."""

from __future__ import annotations

import struct
from typing import Any

from aiozk.exc import ResponseError
from aiozk.protocol.part import Part
from aiozk.protocol.response import response_xref
from aiozk.protocol.transaction import TransactionResponse

from aioregistry._errors import ServerError


def rendered(part: Any) -> bytes:
    """A part as bytes, by aiozk's way over ``parts``."""
    layout, values = part.render()
    return struct.pack("!" + layout, *values)


def response(opcode: int, **values: Any) -> bytes:
    """The body of a reply, by the response class that aiozk's table has for the opcode."""
    return rendered(response_xref[opcode](**values))


def plain(value: Any) -> Any:
    """A decoded value, ours or aiozk's, as nested tuples: parts in the order of their layout, errors as codes."""
    match value:
        case ServerError(code=code):
            return ("error", code)
        case ResponseError(error_code=code):
            return ("error", code)
        case TransactionResponse():
            return plain(value.responses)
        case Part():
            fields = tuple(plain(getattr(value, name)) for name, _ in value.parts)
            return fields[0] if len(fields) == 1 else fields
        case list() | tuple():
            return tuple(map(plain, value))
    return value
