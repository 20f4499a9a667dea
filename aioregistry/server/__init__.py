"""An in-memory server of ZooKeeper's protocol, for development, demos and tests; production is a real ensemble.

``docs/server.md`` says how it is used, and where it deviates from Apache's.
"""

from __future__ import annotations

from aioregistry.server._ensemble import Ensemble, Member
from aioregistry.server._history import Backup
from aioregistry.server._server import ZooKeeperServer

__all__ = ["Backup", "Ensemble", "Member", "ZooKeeperServer"]
