"""Tests against ZooKeeper without installing it: servers that fail on request, a fault proxy, and a pytest plugin.

``docs/testing.md`` shows how. The plugin is loaded by pytest where aioregistry is installed.
"""

from __future__ import annotations

from ._ensemble import EnsembleMember, ZooKeeperEnsemble
from ._proxy import Direction, TcpProxy, ZooKeeperProxy
from ._servers import AnyZooKeeper, RealZooKeeper, ZooKeeper

__all__ = [
    "AnyZooKeeper",
    "Direction",
    "EnsembleMember",
    "RealZooKeeper",
    "TcpProxy",
    "ZooKeeper",
    "ZooKeeperEnsemble",
    "ZooKeeperProxy",
]
