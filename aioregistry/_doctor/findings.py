"""Checks and their findings, as types. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from .picture import Picture

__all__ = ["SEVERITIES", "Check", "Finding", "Unknown"]

Severity = str
SEVERITIES: Final = ("critical", "warning", "notice")
"""In the order of harm. A notice is nothing that is wrong by itself, and changes no exit code."""


class Finding(NamedTuple):
    """One thing that is wrong.

    Args:
        anchor: of its paragraph in the documentation.
        severity: one of :data:`SEVERITIES`.
        place: a path or the address of a server.
        text: the fault that was found there.
        advice: what to do.
    """

    anchor: str
    severity: Severity
    place: str
    text: str
    advice: str


class Unknown(NamedTuple):
    """A question without an answer, and the reason."""

    anchor: str
    reason: str


class Check(NamedTuple):
    """A kind of finding.

    Args:
        anchor: of its paragraph in the documentation.
        severity: of what it finds.
        title: the fault, in a few words.
        advice: what to do.
        find: yields place and text of each.
    """

    anchor: str
    severity: Severity
    title: str
    advice: str
    find: Callable[[Picture], Iterable[tuple[str, str]]]
