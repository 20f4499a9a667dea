"""Routes from which Prometheus and others read the instances: an ASGI application, mounted or served by itself."""

from __future__ import annotations

import json
import logging
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

from aioregistry import InvalidArgument, RegistryError, ServiceInstance, Snapshot, View
from aioregistry._arguments import is_whole
from aioregistry._errors import wrong_argument
from aioregistry._exports import ALIKE, CONTENT_TYPES, FORMATS, Services, Weights, render, selected, usable, weights_of
from aioregistry._incident_log import IncidentLog

from .membership import Membership

__all__ = ["Exports"]

_Scope: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger("aioregistry.integrations")

_TEXT: Final = "text/plain; charset=utf-8"


class Exports:
    """An ASGI application that answers GET of ``/prometheus``, ``/envoy``, ``/haproxy``, ``/nginx`` and ``/json``.

    Each route answers with the list that ``aioregistry export`` writes in that format: the instances that are enabled.
    ``?service=NAME``, which may be repeated, selects services. The status is 200, even if the list is empty. It is 503
    while a service was never synced, or never had *minimum* instances: on an error Prometheus keeps the list it has. If
    a service had *minimum* instances and has fewer now, the answer has the instances of the last answer before, and the
    log says so once at WARNING. It needs no extra. Any framework can mount it:
    ``app.mount("/sd", Exports(membership, "chat"))``.

    Args:
        source: a membership that discovers the services, or a mapping of names to views, which you close yourself.
        services: names of services; those of a mapping may be left out.
        minimum: if a service has fewer instances than this, keep its former ones; 0 or more, as ``--minimum`` of
            ``aioregistry export``.

    Raises:
        InvalidArgument: an argument is wrong; at once, naming it.
    """

    def __init__(self, source: Membership | Mapping[str, View[Any]], *services: str, minimum: int = 0) -> None:
        _check_source(source)
        if not is_whole(minimum) or minimum < 0:
            raise wrong_argument("minimum", minimum, "give a number of instances, 0 or more", int)
        names = services or (tuple(source) if isinstance(source, Mapping) else ())
        if not names:
            raise InvalidArgument("services", services, "give the names of services that the membership discovers")
        for name in names:
            if isinstance(source, Mapping) and name not in source:
                raise InvalidArgument("services", name, "there is no view of it")
        self._source = source
        self._services = names
        self._minimum = minimum
        self._former: dict[str, tuple[ServiceInstance[Any], ...]] = {}
        self._weights: dict[str, Weights] = {}
        """The weights of the instances in `_former`."""
        self._short: set[str] = set()
        """The services that had too few instances when they were asked for last."""
        self._repeated = IncidentLog(_log)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer a request, as ASGI says it."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            self._repeated.close()
            return
        if scope["type"] != "http":
            raise RuntimeError(f"this application does not serve {scope['type']!r}")
        status, content_type, text = self._answer(scope)
        body = text.encode()
        headers = {
            "content-type": content_type,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            **({"allow": "GET, HEAD"} if status == 405 else {}),
        }
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer(self, scope: _Scope) -> tuple[int, str, str]:
        format = scope["path"].rstrip("/").rpartition("/")[2]
        if format not in FORMATS:
            return 404, _TEXT, f"there is {', '.join(f'/{each}' for each in FORMATS)}\n"
        if scope["method"] not in ("GET", "HEAD"):
            return 405, _TEXT, "only GET is answered\n"
        query = urllib.parse.parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        wanted = query.get("service", list(self._services))
        unknown = [name for name in wanted if name not in self._services]
        if unknown:
            return 404, _TEXT, f"there is no view of {json.dumps(unknown[0])}\n"
        try:
            snapshots = {name: self._view(name).snapshot for name in wanted}
        except InvalidArgument:
            raise
        except RegistryError as error:
            return 503, _TEXT, f"{json.dumps(str(error))}\n"
        waiting = [name for name, snapshot in snapshots.items() if not self._has_enough(name, snapshot)]
        if waiting:
            return 503, _TEXT, f"{json.dumps(waiting[0])} never had {self._minimum} instances so far\n"
        services: Services = {name: self._former[name] for name in snapshots}
        return 200, CONTENT_TYPES[format], render(format, services, self._weights).text

    def _has_enough(self, name: str, snapshot: Snapshot[Any]) -> bool:
        """Take what there is of a service, unless that is too little; return whether there ever was enough."""
        weights = weights_of(snapshot.entries.values())
        present = usable(snapshot.values(), weights)
        former = {name: self._former[name]} if name in self._former else None
        chosen = selected({name: present}, former, minimum=self._minimum)
        self._tell(name, len(present), kept=bool(chosen.collapsed), waiting=bool(chosen.waiting))
        if chosen.services is not None:
            self._former[name] = chosen.services[name]
            self._weights[name] = self._weights.get(name, ALIKE) if chosen.collapsed else weights
        return chosen.services is not None

    def _tell(self, name: str, left: int, *, kept: bool, waiting: bool) -> None:
        if (name in self._short) is (kept or waiting):
            return
        self._short ^= {name}
        if kept:
            text = "%d of %s left, fewer than the minimum of %d: its former instances are kept"
            self._repeated.tell((name, "kept"), logging.WARNING, text, left, name, self._minimum, service=name)
        elif waiting:
            text = "%d of %s so far, fewer than the minimum of %d: its routes answer 503"
            self._repeated.tell((name, "waiting"), logging.WARNING, text, left, name, self._minimum, service=name)
        else:
            text = "%s: there are enough instances"
            self._repeated.tell((name, "enough"), logging.INFO, text, name, service=name)

    def _view(self, name: str) -> View[Any]:
        return self._source.view(name) if isinstance(self._source, Membership) else self._source[name]


def _check_source(source: object) -> None:
    if not isinstance(source, Membership | Mapping):
        raise InvalidArgument("source", source, "give a Membership, or a mapping of names to views")


async def _lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
