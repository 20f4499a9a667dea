"""Health: checks of what an instance needs, and what their results say of it."""

from __future__ import annotations

from .check import Check
from .command import CommandCheck
from .http import HttpCheck
from .loop_lag import LoopLagCheck
from .runner import Checks, CheckStatus, Runner, checked_checks
from .table import CheckState
from .tcp import TcpCheck

__all__ = [
    "Check",
    "CheckState",
    "CheckStatus",
    "Checks",
    "CommandCheck",
    "HttpCheck",
    "LoopLagCheck",
    "Runner",
    "TcpCheck",
    "checked_checks",
]
