"""Panic: too few instances are confirmed to carry all calls. Pure."""

from __future__ import annotations

__all__ = ["panics"]


def panics(confirmed: int, known: int, panic: float, *, already: bool) -> bool:
    """Return whether too few of the *known* instances are *confirmed*.

    It begins a sixteenth of them later than it ends, so that one that comes and goes does not move all the others.
    """
    enough = panic * known
    return confirmed < (enough if already else enough - known // 16)
