"""The inputs of a view core's stages, the state that they share, and their answers. Pure.

A stage is told of every event, with the changes that the stages before it made of it, and answers with those that the
next is told. Its memory is its own; the common state is in :class:`State`. Most stages care for few events:
whatever a subclass does not override passes through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from aioregistry._model import Difference, Entry, Invalid, Override

from .guard import Moment, Release, Subset
from .guard_options import Guard
from .mirror import News

if TYPE_CHECKING:
    from .kept import Kept

__all__ = [
    "Called",
    "Differences",
    "Due",
    "Event",
    "FreshnessChanged",
    "Held",
    "Listing",
    "Misfit",
    "Notice",
    "Opened",
    "Options",
    "Overridden",
    "Recalled",
    "Released",
    "Stage",
    "State",
    "Withdrawn",
]

P = TypeVar("P")

Differences: TypeAlias = tuple[Difference[P], ...]


# ---------------------------------------------------------------- events


class Opened(NamedTuple):
    """The view begins; the first event, and once."""

    kept: Kept | None
    """The contents of its file."""
    listed: bool
    """The service was read before, on this connection or another: there is something to show."""
    synced: bool
    """All was read on this connection."""


class FreshnessChanged(NamedTuple):
    """The view's snapshot has become true, or is not any more."""

    fresh: bool


class Withdrawn(NamedTuple):
    """A marker came: the node of *id* that *czxid* created is withdrawn. Its removal comes next."""

    id: str
    czxid: int


class Called(NamedTuple):
    """A call to *id* that began at *since* was good, or its connection was refused."""

    id: str
    refused: bool
    since: float


class Due(NamedTuple):
    """The clock has reached the time that was asked for."""


class Overridden(NamedTuple):
    """These overrides of operators are in force, by id."""

    overrides: Mapping[str, Override]


Event: TypeAlias = Opened | News | FreshnessChanged | Withdrawn | Called | Due | Overridden


# ---------------------------------------------------------------- notices


class Held(NamedTuple):
    """These removals are held back."""

    entries: tuple[Entry[Any], ...]


class Released(NamedTuple):
    """These are not suspects any longer."""

    releases: tuple[Release, ...]


class Misfit(NamedTuple):
    """A payload does not fit the type of the view."""

    id: str
    reason: str


class Recalled(NamedTuple):
    """The view begins with so many instances from its file, as of *known_at* (seconds since the epoch)."""

    instances: int
    known_at: float


Notice: TypeAlias = Held | Released | Misfit | Recalled


# ---------------------------------------------------------------- shared state


class Listing(Protocol):
    """The server's list, as a mirror knows it; it changes in place, and only together with its news."""

    entries: dict[str, Entry[Any]]
    invalid: dict[str, Invalid]
    as_of: int


class Options(NamedTuple):
    """The options of a view."""

    payload_type: Any
    """The type that payloads are converted to; Any where they stay as they are."""
    guard: Guard | None
    kept: bool
    """Whether it has a file."""
    subsets: Callable[[], Iterable[Subset]]
    """Returns the parts that the guard judges beside the whole service."""
    overridden: bool = False
    """Whether overrides of operators are read."""


class State(Generic[P]):
    """The state that all stages share.

    Attributes:
        at: now.
        listing: the server's list.
        listed: the instances of it; its own, unless payloads are converted.
        misfits: the nodes whose payloads cannot be converted.
        overlay: the entries that are shown beside *listed*, or differ from it, by id. Only the core changes it.
        overrides: of operators, those that are in force, by id.
        covered: the entries that are not shown because an override covers them, by id.
        recalled: the instances that the file kept, while they are shown because nothing was read yet.
        refusing: the number of instances that have refused a connection and not answered since.
        notices: the events to report; stages append to it.
    """

    __slots__ = (
        "at",
        "covered",
        "listed",
        "listing",
        "misfits",
        "notices",
        "overlay",
        "overrides",
        "recalled",
        "refusing",
    )

    def __init__(self, listing: Listing) -> None:
        self.at = Moment(0.0, 0.0)
        self.listing = listing
        self.listed: dict[str, Entry[P]] = listing.entries
        self.misfits: dict[str, Invalid] = {}
        self.overlay: dict[str, Entry[P]] = {}
        self.overrides: Mapping[str, Override] = {}
        self.covered: dict[str, Entry[P]] = {}
        self.recalled: Kept | None = None
        self.refusing = 0
        self.notices: list[Notice] = []

    @property
    def as_of(self) -> int:
        """The zxid of the latest observation that is shown."""
        return self.listing.as_of if self.recalled is None else self.recalled.as_of


class Stage(Generic[P]):
    """One stage; it passes everything on.

    Attributes:
        wake: when :class:`Due` is to come, at the latest; None while nothing depends on the clock.
    """

    def __init__(self, state: State[P]) -> None:
        self.state = state
        self.wake: float | None = None

    def opened(self, event: Opened, changes: Differences[P]) -> Differences[P]:
        """The view begins."""
        return changes

    def news(self, event: News, changes: Differences[P]) -> Differences[P]:
        """The server's listing changed."""
        return changes

    def freshness_changed(self, event: FreshnessChanged, changes: Differences[P]) -> Differences[P]:
        """The snapshot has become true, or is not any more."""
        return changes

    def withdrawn(self, event: Withdrawn, changes: Differences[P]) -> Differences[P]:
        """A marker came."""
        return changes

    def called(self, event: Called, changes: Differences[P]) -> Differences[P]:
        """A call ended."""
        return changes

    def due(self, event: Due, changes: Differences[P]) -> Differences[P]:
        """The clock has come so far."""
        return changes

    def overridden(self, event: Overridden, changes: Differences[P]) -> Differences[P]:
        """Other overrides are in force."""
        return changes
