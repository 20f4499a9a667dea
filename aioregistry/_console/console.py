"""The console as a whole: its settings, and the state of the registry, for browsers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aioregistry import Registry, Snapshot
from aioregistry._errors import session_name
from aioregistry._incident_log import IncidentLog
from aioregistry._words import place, printable, state_of

from .following import MAX_SERVICES, Following
from .hub import Hub
from .passwords import Hash
from .recorder import Recorder
from .rows import JsonRow, instance_detail, invalid_detail, service_row

__all__ = ["Console", "Settings"]

log = logging.getLogger("aioregistry.console")

_FOUND_AT_MOST: Final = 200


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How browsers may use it.

    Attributes:
        hosts: names by which browsers ask for it, besides addresses and localhost.
        passwords: hashes by user; None where this console has no login.
        user_header: the header in which a proxy names the user; None where there is no such proxy.
        proxies: addresses of the proxies that may.
        allow_drain: whether instances may be taken into maintenance.
        warm_up: seconds for which an instance is shown as warming up.
        secure: whether it is reached by HTTPS only.
    """

    hosts: frozenset[str] = frozenset()
    passwords: Mapping[str, Hash] | None = field(default=None, repr=False)
    user_header: str | None = None
    proxies: frozenset[str] = frozenset()
    allow_drain: bool = False
    warm_up: float = 30.0
    secure: bool = False


class Console:
    """The state of a registry, for browsers.

    Args:
        settings: how browsers may use it.
        registry: entered, and followed by *following*.
        following: of all its services.
        recorder: of its history.
        hub: of the browsers.
    """

    def __init__(
        self, settings: Settings, registry: Registry, following: Following, recorder: Recorder, hub: Hub
    ) -> None:
        self.settings = settings
        self.registry, self.recorder, self.hub = registry, recorder, hub
        self._following = following
        self.repeated: IncidentLog = IncidentLog(log)
        """The log of events that many requests may cause; its owner closes it."""

    def status(self) -> dict[str, Any]:
        """Return the message about the session and the whole registry."""
        following, session = self._following, self.registry.session
        outage = following.outage
        return {
            "now": time.time(),
            "session": session.state.value,
            "server": None if session.server is None else printable(str(session.server)),
            "base": printable(self.registry.base_path or "/"),
            "outage": None if outage is None else {"since": outage.since, "reason": printable(outage.reason)},
            "failure": None if following.failure is None else printable(str(following.failure)),
            "epoch": following.epoch,
            "unread": following.unread,
            "beyond": following.beyond,
            "most": MAX_SERVICES,
            "history": None if self.recorder.failure is None else printable(self.recorder.failure),
            "history_since": self.recorder.failing_since,
        }

    def names(self) -> list[str]:
        """Return the names of the services."""
        return sorted(self._following.services)

    def service(self, name: str) -> JsonRow | None:
        """Return the row of a service, or None if it is unknown."""
        followed = self._following.services.get(name)
        if followed is None:
            return None
        return service_row(name, followed.snapshot, followed.refusal, followed.new(self.settings.warm_up))

    def shown(self, name: str) -> tuple[Snapshot[Any], dict[str, float]] | None:
        """Return a service's snapshot, and since when instances are new; None where there is no such service."""
        followed = self._following.services.get(name)
        if followed is None or followed.snapshot is None:
            return None
        return followed.snapshot, followed.new(self.settings.warm_up)

    def detail(self, service: str, id: str) -> dict[str, Any] | None:
        """Return all that is known of an instance, or None if there is no such instance."""
        followed = self._following.services.get(service)
        snapshot = None if followed is None else followed.snapshot
        if followed is None or snapshot is None:
            return None
        if id in snapshot.entries:
            new = followed.new(self.settings.warm_up).get(id)
            return instance_detail(snapshot.entries[id], snapshot.overrides.get(id), new)
        return invalid_detail(snapshot.invalid[id]) if id in snapshot.invalid else None

    def found(self, text: str) -> Iterator[list[str] | None]:
        """Yield service and id of instances that have *text* in id, address or owner, and None after each service."""
        wanted, left = text.casefold(), _FOUND_AT_MOST
        for name in self.names():
            snapshot = self._following.services[name].snapshot if name in self._following.services else None
            for id, entry in {} if snapshot is None else snapshot.entries.items():
                where = place(entry.instance)
                if any(wanted in each.casefold() for each in (id, where, session_name(entry.owner))):
                    yield [name, printable(name), id, printable(id), printable(where), state_of(entry)]
                    left -= 1
                    if not left:
                        return
            yield None
