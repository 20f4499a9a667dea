"""Which operations each server was found to know."""

from __future__ import annotations

from aioregistry._protocol import AddWatch, CreateContainer, MultiRead
from aioregistry._runtime import Endpoint

__all__ = ["Features"]

# Operations that not every supported server knows; what one answered is remembered for it.
_LEARNED = frozenset({MultiRead.opcode, AddWatch.opcode, CreateContainer.opcode})


class Features:
    """The features that the servers' answers have shown."""

    def __init__(self) -> None:
        self._knows: dict[str, dict[int, bool]] = {}
        self._presumed_unknown: set[str] = set()
        """Servers that are taken to know no MultiRead because that cost the connection, which may have other causes."""

    def supports(self, server: Endpoint, opcode: int) -> bool | None:
        """Return whether *server* knows an operation; None until it was asked."""
        return self._knows.get(str(server), {}).get(opcode)

    def learned(self, server: Endpoint, opcode: int, *, known: bool) -> None:
        """Take note of what *server* answered, where that differs between servers."""
        if opcode in _LEARNED:
            self._knows.setdefault(str(server), {})[opcode] = known

    def presume_no_multi_read(self, server: Endpoint) -> None:
        """Take *server* to know no MultiRead, until :meth:`reconsider`."""
        self._knows.setdefault(str(server), {})[MultiRead.opcode] = False
        self._presumed_unknown.add(str(server))

    def reconsider(self, server: Endpoint) -> None:
        """Forget the presumptions about *server*, with all else that is known of it."""
        if str(server) in self._presumed_unknown:
            self._presumed_unknown.discard(str(server))
            self.forget(server)

    def forget(self, server: Endpoint) -> None:
        """Forget what *server* answered: another may be at its address."""
        self._knows.pop(str(server), None)
