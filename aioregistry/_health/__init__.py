"""Health: checks of what an instance needs, and what their results say of it.

The ready-made checks are in files of their own: few programs need one, and each costs an import.
"""

from __future__ import annotations

from .check import Check
from .runner import Checks, CheckStatus, Runner, checked_checks
from .table import CheckState

__all__ = ["Check", "CheckState", "CheckStatus", "Checks", "Runner", "checked_checks"]
