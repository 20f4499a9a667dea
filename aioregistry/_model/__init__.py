"""The values that are registered and discovered: instances, snapshots, changes."""

from __future__ import annotations

from aioregistry._payload import check_payload_type

from .changes import Added, Change, Difference, Invalidated, Removed, Resynced, Updated
from .fields import DOCUMENT_NAMES, FIELDS, NO_EXTRA, STATUSES, InstanceStatus, ServiceType
from .instance import AsWritten, Draft, ServiceInstance, as_written, with_payload_type
from .override import Override
from .snapshot import Entry, Invalid, Snapshot, Suspicion

__all__ = [
    "DOCUMENT_NAMES",
    "FIELDS",
    "NO_EXTRA",
    "STATUSES",
    "Added",
    "AsWritten",
    "Change",
    "Difference",
    "Draft",
    "Entry",
    "InstanceStatus",
    "Invalid",
    "Invalidated",
    "Override",
    "Removed",
    "Resynced",
    "ServiceInstance",
    "ServiceType",
    "Snapshot",
    "Suspicion",
    "Updated",
    "as_written",
    "check_payload_type",
    "with_payload_type",
]
