"""The state of a view, as a value: events go in, effects come out. Pure.

The core knows the server's list and the entries shown beside it; its stages decide, one after the other, what an event
changes. A view has only the stages that it needs; without any, the core holds no instance itself, and shows the
mirror's own.

:data:`STAGES` is their order. Each stage sees the server's news as the stages before it changed them, so payloads have
their type before any stage compares them, and the guard judges an instance that went since the file was written as it
judges a removal. A new stage is a file and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from aioregistry._model import Entry, Invalid, Invalidated, Override, Removed

from .conversion import Conversion
from .guard import Moment
from .mirror import News
from .overriding import Overriding
from .recall import Recall
from .stages import (
    Called,
    Differences,
    Due,
    Event,
    FreshnessChanged,
    Listing,
    Notice,
    Opened,
    Options,
    Overridden,
    Stage,
    State,
    Withdrawn,
)
from .suspects import Suspecting

if TYPE_CHECKING:
    from .kept import Kept

__all__ = ["STAGES", "Effects", "ViewCore"]

P = TypeVar("P")

STAGES: Final[tuple[Callable[[Options, State[Any]], Stage[Any] | None], ...]] = (
    Conversion.asked_for,
    Recall.asked_for,
    Suspecting.asked_for,
    Overriding.asked_for,
)

_METHODS: Final[Mapping[type[Any], str]] = {
    Opened: "opened",
    News: "news",
    FreshnessChanged: "freshness_changed",
    Withdrawn: "withdrawn",
    Called: "called",
    Due: "due",
    Overridden: "overridden",
}


class Effects(NamedTuple, Generic[P]):
    """The consequences of an event."""

    changes: Differences[P]
    """Of the shown entries."""
    resynced: bool
    """The view was behind and has caught up: *changes* are the differences."""
    invalid: tuple[Invalidated, ...]
    """Nodes that show no instance and did not before, or for another reason."""
    wake_at: float | None
    """When the core is to be told that the clock has come so far, at the latest."""
    notices: tuple[Notice, ...]
    """The notes for the log and the hook."""
    first: bool = False
    """The view showed the file's instances before: *changes* are those of the first list."""


class ViewCore(Generic[P]):
    """The instances that one view shows.

    Args:
        listing: the server's list; its owner changes it, and reports that by :class:`News`.
        options: the options of the view.
    """

    def __init__(self, listing: Listing, options: Options) -> None:
        self._state: State[P] = State(listing)
        made = [asked_for(options, self._state) for asked_for in STAGES]
        self._stages: tuple[Stage[P], ...] = tuple(stage for stage in made if stage is not None)

    def step(self, event: Event, at: Moment) -> Effects[P]:
        """Take note of *event*, which happened at *at*."""
        state = self._state
        state.at = at
        news = event if type(event) is News else None
        changes: Differences[P] = () if news is None else news.changes
        before, recalled = changes, state.recalled is not None
        method = _METHODS[type(event)]
        for stage in self._stages:
            changes = getattr(stage, method)(event, changes)
        if state.overlay or changes is not before:
            self._lay(changes)
        notices: tuple[Notice, ...] = ()
        if state.notices:
            notices = tuple(state.notices)
            state.notices.clear()
        wakes = [stage.wake for stage in self._stages if stage.wake is not None]
        wake_at = min(wakes) if wakes else None
        if news is None:
            return Effects(changes, False, (), wake_at, notices)
        invalid: tuple[Invalidated, ...] = ()
        if news.invalid or state.misfits:
            nodes = (*news.invalid, *(state.misfits[each.id] for each in news.changes if each.id in state.misfits))
            invalid = tuple([Invalidated(node, state.as_of) for node in nodes])
        return Effects(changes, news.resynced, invalid, wake_at, notices, recalled)

    def _lay(self, changes: Differences[P]) -> None:
        """Remember what *changes* show otherwise than it is listed."""
        listed, overlay = self._state.listed, self._state.overlay
        for change in changes:
            id = change.id
            if type(change) is Removed or listed.get(id) is change.entry:
                overlay.pop(id, None)
            else:
                overlay[id] = change.entry

    # ------------------------------------------------------------------ shown entries

    @property
    def entries(self) -> dict[str, Entry[P]]:
        """The instances that are shown, by id; a new dict, made in time linear in the service."""
        state = self._state
        entries = state.listed.copy()
        entries.update(state.overlay)
        return entries

    @property
    def invalid(self) -> dict[str, Invalid]:
        """The nodes that show no instance, by id; a new dict."""
        return {**self._state.listing.invalid, **self._state.misfits}

    @property
    def as_of(self) -> int:
        """The zxid of the latest observation that is shown."""
        return self._state.as_of

    @property
    def recalled(self) -> Kept | None:
        """The file's contents, while they are shown because nothing was read yet."""
        return self._state.recalled

    @property
    def heeds_answers(self) -> bool:
        """Whether a good call can matter: some instances have refused connections, or are shown beside the list."""
        return bool(self._state.overlay) or self._state.refusing > 0

    @property
    def suspects(self) -> dict[str, Entry[P]]:
        """The shown entries that are not listed, by id; a new dict."""
        return {id: entry for id, entry in self._state.overlay.items() if entry.suspicion is not None}

    def __len__(self) -> int:
        return len(self._state.listed) + len(self.suspects)

    @property
    def to_keep(self) -> dict[str, Entry[Any]]:
        """The contents for a file: payloads as they were read, whatever is left of them here, and suspects."""
        covered = self._state.covered
        suspects = {id: covered.get(id, entry) for id, entry in self.suspects.items()}
        return {**self._state.listing.entries, **suspects}

    @property
    def overrides(self) -> Mapping[str, Override]:
        """The overrides of operators that are in force, by id."""
        return self._state.overrides
