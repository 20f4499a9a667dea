"""Panic: too few instances are well to carry all calls; the others are suspects, and those whose checks fail. Pure."""

from __future__ import annotations

__all__ = ["panics"]


def panics(well: int, known: int, panic: float, *, already: bool) -> bool:
    """Return whether too few of the *known* instances are *well*: neither suspect nor failing.

    It begins a sixteenth of them later than it ends, so that one that comes and goes does not move all the others.
    """
    enough = panic * known
    return well < (enough if already else enough - known // 16)
