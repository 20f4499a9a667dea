"""The notes of a view's core, for the log and the hook."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

from aioregistry._incident_log import IncidentLog
from aioregistry._model import Entry
from aioregistry._session import ReadingSessionPort

from .stages import Held, Misfit, Notice, Recalled, Released

__all__ = ["Telling"]

log = logging.getLogger("aioregistry.discovery")

_NAMED_IN_LOG: Final = 10


class Telling:
    """Logs and emits the notices of the view of the service *name*."""

    def __init__(self, name: str, session: ReadingSessionPort) -> None:
        self._name = name
        self._session = session
        self._repeated = IncidentLog(log, service=name)

    def tell(self, notices: Iterable[Notice]) -> None:
        """Tell of each; what repeats is told once, then counted."""
        for notice in notices:
            self._WORDS[type(notice)](self, notice)

    def close(self) -> None:
        """Nothing more comes."""
        self._repeated.close()

    def _held(self, notice: Held) -> None:
        entries = notice.entries
        reason, named = _reason(entries[0]), _named([entry.instance.id for entry in entries])
        text = "%s: %d held back, for %s: %s"
        self._repeated.tell(("held", reason), logging.WARNING, text, self._name, len(entries), reason, named)
        for entry in entries:
            self._session.emit("discovery.held", service=self._name, id=entry.instance.id, reason=_reason(entry))

    def _released(self, notice: Released) -> None:
        for why in dict.fromkeys(release.why for release in notice.releases):
            ids = [release.id for release in notice.releases if release.why == why]
            text = "%s: %d no longer suspect, %s: %s"
            self._repeated.tell(("released", why), logging.INFO, text, self._name, len(ids), why, _named(ids))
        for release in notice.releases:
            self._session.emit("discovery.released", service=self._name, id=release.id, why=release.why)

    def _misfit(self, notice: Misfit) -> None:
        text = "the payload of %s/%s does not fit: %s"
        self._repeated.tell("misfit", logging.WARNING, text, self._name, notice.id, notice.reason, id=notice.id)

    def _recalled(self, notice: Recalled) -> None:
        number, known_at = notice
        text = "%s begins with %d instances from a file: there is no connection"
        log.warning(text, self._name, number, extra={"service": self._name})
        self._session.emit("discovery.recalled", service=self._name, instances=number, known_at=known_at)

    _WORDS: ClassVar[Mapping[type[Any], Callable[[Telling, Any], None]]] = {
        Held: _held,
        Released: _released,
        Misfit: _misfit,
        Recalled: _recalled,
    }


def _reason(entry: Entry[Any]) -> str:
    assert entry.suspicion is not None
    return entry.suspicion.reason


def _named(ids: list[str]) -> str:
    more = len(ids) - _NAMED_IN_LOG
    return ", ".join(ids[:_NAMED_IN_LOG]) + (f" and {more} more" if more > 0 else "")
