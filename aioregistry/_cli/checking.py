"""The options ``--check-…``: checks of an instance that is another process's."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from aioregistry import Check, CommandCheck, HttpCheck, InvalidArgument, TcpCheck

__all__ = ["checks_of"]

_KINDS: Final[Mapping[str, Callable[..., Check]]] = MappingProxyType(
    {"http": HttpCheck, "tcp": TcpCheck, "command": CommandCheck}
)
_OPTIONS: Final = ("interval", "timeout", "rise", "fall", "initial")


def checks_of(arguments: argparse.Namespace) -> dict[str, Check]:
    """Return the checks that *arguments* ask for, by name: ``http``, and ``http-2`` for the second of a kind.

    Raises InvalidArgument naming the option and its value.
    """
    checks: dict[str, Check] = {}
    for kind in _KINDS:
        for number, what in enumerate(getattr(arguments, f"check_{kind}"), 1):
            checks[kind if number == 1 else f"{kind}-{number}"] = _check(kind, what, arguments)
    if not checks:
        for option in _OPTIONS:
            if (value := getattr(arguments, f"check_{option}")) is not None:
                raise InvalidArgument(
                    f"check_{option}", value, "needs a check: give --check-http, --check-tcp or --check-command too"
                )
    return checks


def _check(kind: str, what: str, arguments: argparse.Namespace) -> Check:
    given: dict[str, Any] = {option: getattr(arguments, f"check_{option}") for option in _OPTIONS}
    try:
        return _KINDS[kind](what, **{option: value for option, value in given.items() if value is not None})
    except InvalidArgument as error:
        field = error.field if error.field in _OPTIONS else kind
        raise InvalidArgument(f"check_{field}", error.value, error.reason) from None
