"""The data of a single server, or of an ensemble: a history while it runs, and a backup while it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from aioregistry._errors import UsageError
from aioregistry.server._history import Backup, History, Transaction
from aioregistry.server._settings import Settings
from aioregistry.server._tree import Tree

Data: TypeAlias = Literal["kept", "lost"] | Backup


class Store:
    """The data that outlive a stop: nodes, sessions with their timeouts, the last zxid.

    Args:
        owner: gives the name of the server or the ensemble, for errors.
        first_tree: makes the tree that a history begins with; called when one begins.
    """

    def __init__(self, owner: Callable[[], str], first_tree: Callable[[], Tree]) -> None:
        self._owner = owner
        self._first_tree = first_tree
        self._kept: Backup | None = None
        self.history: History | None = None

    def begin(
        self,
        data: Data,
        *,
        settings: Settings,
        deliver: Callable[[Transaction], None],
        may_commit: Callable[[], bool] = lambda: True,
    ) -> History:
        """Make the history that goes on from *data*; the caller starts it. The arguments are those of `History`."""
        if data != "kept":
            self._kept = None if data == "lost" else data
        self.history = History.of_backup(self.backup(), settings=settings, deliver=deliver, may_commit=may_commit)
        return self.history

    def end(self) -> None:
        """Stop the history, and keep what it has."""
        if self.history is not None:
            self._kept = self.history.backup()
            self.history.stop()
            self.history = None

    def backup(self) -> Backup:
        if self.history is not None:
            return self.history.backup()
        if self._kept is None or not self._kept.zxid:  # nothing was written: the first tree may be another by now
            return Backup(self._first_tree(), 0, {})
        return self._kept

    def running(self) -> History:
        """Return the history.

        Raises:
            UsageError: the owner does not run.
        """
        if self.history is None:
            raise UsageError(f"{self._owner()} does not run")
        return self.history

    def refuse_to_run_twice(self) -> None:
        """Raise UsageError if the owner runs."""
        if self.history is not None:
            raise UsageError(f"{self._owner()} runs already")
