"""Keeping an instance listed: the plan (pure), the worker that carries it out, and the public handle."""

from __future__ import annotations

from .handle import (
    OnConflict,
    OnDisplaced,
    Registration,
    Status,
    begin_withdrawal,
    cause_of_end,
    close_all,
    has_ended,
    vote,
)
from .votes import Voter, status_of
from .withdrawals import Withdrawals

__all__ = [
    "OnConflict",
    "OnDisplaced",
    "Registration",
    "Status",
    "Voter",
    "Withdrawals",
    "begin_withdrawal",
    "cause_of_end",
    "close_all",
    "has_ended",
    "status_of",
    "vote",
]
