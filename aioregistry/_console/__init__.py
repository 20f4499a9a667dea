"""The web console: services and instances live, a recorded timeline, maintenance; the extra `console`.

:mod:`.following` follows all services and tells :mod:`.recorder` and :mod:`.hub`; :mod:`.app` answers browsers.
"""

from __future__ import annotations

__all__: list[str] = []
