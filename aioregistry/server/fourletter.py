"""The four-letter words: questions without a session, answered by text and the end of the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aioregistry.server.endpoint import Endpoint


def answer(endpoint: Endpoint, word: bytes) -> str | None:
    """The answer to a word, or None where it is none."""
    if word == b"ruok":
        return "imok"
    return None
