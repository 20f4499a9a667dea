"""The events of a world, one line each: the time, the subject, the event."""

from __future__ import annotations

import hashlib

from tests.simulation.engine import Engine


class Timeline:
    """The trace of a world; the same seed gives the same, to the letter."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.lines: list[str] = []

    def note(self, who: str, what: str) -> None:
        self.lines.append(f"{self._engine.now:12.6f}  {who:<12} {what}")

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()

    def last(self, count: int) -> str:
        return "\n".join(self.lines[-count:])
