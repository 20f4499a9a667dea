"""Imports of frameworks: the extra of an integration's name installs what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aioregistry._extras import needs

__all__ = ["extra"]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import a framework within this block; if it is missing, the error names the extra that installs it.

    Raises:
        ModuleNotFoundError: the framework is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        text = needs(f"aioregistry.integrations.{name}", (missing.name or name).partition(".")[0], name)
        raise ModuleNotFoundError(text, name=missing.name) from missing
