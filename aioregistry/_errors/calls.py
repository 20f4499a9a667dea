"""The base of all exceptions, and those of a caller who erred."""

from __future__ import annotations

import reprlib

from aioregistry import _foreign as foreign

__all__ = [
    "HandleClosed",
    "InvalidArgument",
    "InvalidType",
    "RegistryError",
    "RequestTooLarge",
    "UsageError",
    "wrong_argument",
]


class RegistryError(Exception):
    """Base of every exception that aioregistry raises on purpose."""


# A value may be a megabyte, nested without end, or an object whose repr fails: an error stays a line in a log.
_REPR = reprlib.Repr()
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 200


def _shown(value: object) -> str:
    try:
        return foreign.call(_REPR.repr, value)
    except foreign.ForeignError:
        return f"<{type(value).__name__}>"


class InvalidArgument(RegistryError, ValueError):
    """An argument is wrong; nothing was done.

    ``field`` names the argument, and ``value`` is the value that you gave (a credential is never shown).
    """

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(field, value, reason)
        self.field = field
        self.value = value
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field}={_shown(self.value)}: {self.reason}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


class InvalidType(InvalidArgument, TypeError):
    """An argument has a type that it cannot have."""


def wrong_argument(field: str, value: object, reason: str, *types: type) -> InvalidArgument:
    """Return the error for a *value* that is wrong: an :class:`InvalidType` unless it is one of *types*.

    A bool is not a number here, though Python counts it as one.
    """
    fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    return (InvalidArgument if fits else InvalidType)(field, value, reason)


class RequestTooLarge(InvalidArgument):
    """The request would exceed the server's ``jute.maxbuffer``, which closes the connection of the sender."""

    def __init__(self, field: str, size: int, limit: int) -> None:
        super().__init__(field, f"<{size} bytes>", f"the request would take {size} bytes, jute.maxbuffer is {limit}")
        self.size = size
        self.limit = limit


class UsageError(RegistryError, RuntimeError):
    """A handle was used before it was entered, twice, from another event loop or thread, or after a fork."""


class HandleClosed(UsageError):
    """The handle was used after it was closed."""
