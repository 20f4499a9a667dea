"""Whether an instance is published as enabled: only if everybody who has a say agrees. One table. Pure.

Each of the voters is for or against, whatever the others say: an owner who enables an instance does not end its
maintenance, and a check that passes again does not end its draining.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, Literal

from aioregistry._model import InstanceStatus

__all__ = ["STATUS_OF", "Voter", "status_of"]

Voter = Literal["maintenance", "draining", "owner", "health"]

STATUS_OF: Final[Mapping[Voter, InstanceStatus]] = MappingProxyType(
    {
        "maintenance": "maintenance",  # an operator's override
        "draining": "draining",  # the end has begun
        "owner": "draining",  # `update(enabled=False)`
        "health": "failing",
    }
)
"""The status that is published where a voter is against; of several the uppermost.

A consumer that has too few instances may pick one that is failing, and no other: so that is said only where nothing
else is the matter.
"""


def status_of(against: Collection[Voter]) -> InstanceStatus | None:
    """Return why the instance is not enabled, or None if it is enabled."""
    return next((status for voter, status in STATUS_OF.items() if voter in against), None)
