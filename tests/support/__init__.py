"""A real Apache ZooKeeper to test against, faults to strike it with, and an observer who is not the library.

Nothing in here imports aioregistry: what judges the library shares no code with it.
"""

from __future__ import annotations
