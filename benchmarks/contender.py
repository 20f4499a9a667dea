"""A contender: one library (or ours), used as its users would at their best, behind the same few methods."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from benchmarks.workload import Sample

ADDED, UPDATED, REMOVED = "added", "updated", "removed"

Tell = Callable[[str, str], None]
"""Called with what happened (one of the three above) and the id, once the consumer has the new payload in hand."""

SESSION_TIMEOUT = 3.0


class Contender(Protocol):
    """One session to one server. A fresh process makes one and uses it for one measure."""

    async def open(self, address: str) -> None:
        """Connect; return when a request can be sent."""

    async def cold_sync(self, service: str) -> list[Any]:
        """Set what tells of changes from now on, read every instance, return the decoded payloads."""

    async def follow(self, service: str, tell: Tell) -> None:
        """Sync, and tell of every change from then on until closed."""

    async def register(self, samples: Sequence[Sample]) -> None:
        """Return when all are listed, and keep them listed until closed, whatever happens."""

    async def close(self) -> None:
        """End in good order: what was registered goes."""


def make(name: str) -> Contender:
    """The contender of the module *name* in ``benchmarks/contenders``."""
    module = importlib.import_module(f"benchmarks.contenders.{name}")
    contender: Contender = module.contender()
    return contender
