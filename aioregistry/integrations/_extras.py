"""What an integration needs beside aioregistry comes with an extra of its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["extra"]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around the imports of a framework: where it is missing, say which extra to install.

    Raises:
        ModuleNotFoundError: with the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"aioregistry.integrations.{name} needs {missing.name}: pip install 'aioregistry-zookeeper[{name}]'",
            name=missing.name,
        ) from missing
