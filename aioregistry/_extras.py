"""The one message for a missing package that an extra of aioregistry installs."""

from __future__ import annotations

from typing import Final

__all__ = ["needs"]

_HOW: Final = "https://github.com/aioregistry/aioregistry#install"
"""It says how to install the package, and its extras, from where it is published today."""


def needs(what: str, packages: str, extra: str) -> str:
    """Return that *what* needs *packages*, and which *extra* installs them."""
    return f"{what} needs {packages}: install aioregistry-zookeeper[{extra}] as {_HOW} describes"
