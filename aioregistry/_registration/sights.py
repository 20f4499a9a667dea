"""The evidence of answers: of the node, and of a request's outcome. Pure."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, TypeAlias

from aioregistry._errors import ConnectionLost, NodeExists, NoNode, PoisonRequest, RequestTooLarge, ServerError
from aioregistry._protocol import MultiReply, Reply

from .plan import Node

__all__ = ["Observation", "Ownership", "Refusal", "claim_of", "error_of", "node_read", "node_there"]


Refusal: TypeAlias = ServerError | RequestTooLarge | PoisonRequest
"""The errors of a request itself, not of its connection or session."""


class Observation(NamedTuple):
    """A read of the node: its state, and the zxid of the reply."""

    node: Node | None
    zxid: int


class Ownership(NamedTuple):
    """The evidence that the node is ours: which session owns it, and on which connection that was seen."""

    owner: int
    generation: int


def claim_of(creation: asyncio.Future[Reply[Any]], known: int) -> int | None:
    """Return the claim of a registration that created its node without a look; *known*: the quorum's zxid before.

    A client that takes the node from us between our creation and the read behind it is newer, and not a ghost.
    """
    error = creation.exception()
    if error is None:
        _, stat = creation.result().value
        return int(stat.czxid)
    if isinstance(error, NodeExists | NoNode):
        return error.zxid
    # It may have been applied. A node made since this session exists is newer: to yield to a ghost costs its
    # timeout, to take the node from a newer claimant would be a fight.
    return known or None if isinstance(error, ConnectionLost) else None


def error_of(answer: asyncio.Future[Reply[Any]]) -> Refusal | None:
    """Return the error of a request, inside a transaction too; raises that of the connection or session."""
    try:
        if isinstance(result := answer.result().value, MultiReply):
            result.raise_for_error()
    except (ServerError, RequestTooLarge, PoisonRequest) as error:
        return error
    return None


def node_read(reading: asyncio.Future[Any]) -> tuple[Node | None, int]:
    """Return the node, and the zxid of the reply; raises the error of the read."""
    try:
        zxid, (data, stat) = reading.result()
    except NoNode as absence:
        return None, absence.zxid
    return Node(stat.ephemeral_owner, stat.version, stat.czxid, data), zxid


def node_there(sight: Observation) -> Node:
    assert sight.node is not None, "the table plans this only where there is a node"
    return sight.node
