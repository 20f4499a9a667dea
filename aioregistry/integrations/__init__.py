"""Integrations with frameworks, servers and clients, one module each; ``docs/integrations/`` shows how to use them.

Nothing is imported here: each module needs its framework, which an extra of the same name installs.
"""

from __future__ import annotations

__all__: list[str] = []
