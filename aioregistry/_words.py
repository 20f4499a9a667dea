"""Instances in words: as JSON objects, as lines for people, their state and age. Pure."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from ._document import encode
from ._foreign import printable
from ._model import Entry, ServiceInstance
from .balancing import serves

__all__ = [
    "described",
    "document",
    "payload_of",
    "place",
    "printable",
    "shortened",
    "state_of",
    "to_json",
    "why_unavailable",
]

OUT_OF_SERVICE: Final = "out of service"


def document(instance: ServiceInstance[Any]) -> dict[str, Any]:
    """Return the fields of *instance* as they stand in its node, and ``enabled`` in any case."""
    fields: dict[str, Any] = json.loads(encode(instance))
    return fields | {"enabled": instance.enabled}


def described(instance: ServiceInstance[Any]) -> str:
    """Return *instance* as a line: id, place, payload."""
    parts = [instance.id, place(instance)]
    if (why := why_unavailable(instance)) is not None:
        parts.append(why)
    if instance.payload is not None:
        parts.append(payload_of(instance))
    return printable("  ".join(parts))


def why_unavailable(instance: ServiceInstance[Any]) -> str | None:
    """Return why *instance* is not to be called, as its document says; None if it is.

    One that is not enabled is "draining" if its document does not say why.
    """
    if not instance.enabled:
        return instance.status or "draining"
    return None if serves(instance) else OUT_OF_SERVICE


def state_of(entry: Entry[Any]) -> str:
    """Return the state of an instance in one word: that which keeps it from being picked comes first.

    A server of Spring Cloud's that says it is out of service counts as "draining".
    """
    if entry.suspicion is not None:
        return "suspect"
    why = why_unavailable(entry.instance)
    return "enabled" if why is None else "draining" if why == OUT_OF_SERVICE else why


def shortened(seconds: float) -> str:
    """Return a time in its largest unit, rounded down; a server's clock may be ahead of ours, or absurd."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(min(seconds, 99999 * 86400) // size)}{unit}"
    return f"{int(max(seconds, 0))}s" if seconds == seconds else "?"


def payload_of(instance: ServiceInstance[Any]) -> str:
    """Return the payload of *instance* as JSON for people, in their alphabets; to be made :func:`printable`."""
    return json.dumps(_finite(document(instance)["payload"]), ensure_ascii=False)


def place(instance: ServiceInstance[Any]) -> str:
    """Return where *instance* is reached, ``address:port``."""
    address = instance.address or "?"
    host = f"[{address}]" if ":" in address else address
    port = instance.ssl_port if instance.port is None else instance.port
    return host if port is None else f"{host}:{port}"


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return *value* as JSON that does a terminal no harm: in ASCII, without control characters.

    Numbers that JSON has no form for are text, as Jackson writes them: ``"Infinity"``.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False).replace("\x7f", "\\u007f")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
