"""Instances as JSON objects and as lines for people."""

from __future__ import annotations

import json
from typing import Any

from .._document import encode
from .._model import ServiceInstance


def document(instance: ServiceInstance[Any]) -> dict[str, Any]:
    """Return the fields of *instance* as they stand in its node, and ``enabled`` in any case."""
    fields: dict[str, Any] = json.loads(encode(instance))
    return fields | {"enabled": instance.enabled}


def described(instance: ServiceInstance[Any]) -> str:
    """Return *instance* as a line: id, place, payload."""
    parts = [instance.id, place(instance)]
    if not instance.enabled:
        parts.append("draining")
    if instance.payload is not None:
        parts.append(json.dumps(document(instance)["payload"], ensure_ascii=False))
    return printable("  ".join(parts))


def place(instance: ServiceInstance[Any]) -> str:
    """Return where *instance* is reached, ``address:port``."""
    address = instance.address or "?"
    host = f"[{address}]" if ":" in address else address
    port = instance.ssl_port if instance.port is None else instance.port
    return host if port is None else f"{host}:{port}"


def printable(text: str) -> str:
    """Return *text* without what moves a cursor: anybody may write a node, and a terminal obeys what it is shown."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
