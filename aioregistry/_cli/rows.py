"""Instances, and nodes that show no instance, as the rows that users select and sort."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from aioregistry import Entry, Invalid
from aioregistry._errors import session_name

from .._words import document, why_unavailable
from .answers import moment

__all__ = ["Row", "row_of"]


class Row(NamedTuple):
    """An instance, or a node that shows no instance.

    Args:
        node: which of them.
        fields: those of its JSON.
        state: the text of the column.
    """

    node: Entry[Any] | Invalid
    fields: Mapping[str, Any]
    state: str

    def get(self, column: str) -> Any:
        """Return the value of a column, for conditions and for the order."""
        return self.state if column == "state" else self.fields.get(column)


def row_of(node: Entry[Any] | Invalid) -> Row:
    """Return the row of *node*."""
    owner = session_name(node.owner)
    if isinstance(node, Invalid):
        fields: dict[str, Any] = {"id": node.id, "owner": owner, "created": None, "invalid": node.reason}
        return Row(node, fields, "invalid")
    created = moment(node.created, "milliseconds")
    fields = {**document(node.instance), "owner": owner, "created": created, "invalid": None}
    if node.weight < 1 and node.instance.enabled:
        fields["override_weight"] = node.weight
    state = why_unavailable(node.instance) or "listed"
    return Row(node, fields, state if node.suspicion is None else "suspect")
