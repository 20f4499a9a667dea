"""Every state that a model can come to, each visited once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

W = TypeVar("W")
T = TypeVar("T")

Key = tuple[Hashable, ...]
Move = tuple[str, Callable[[W], None]]
"""Its name, and its effect."""

Story = tuple[str, "Story"] | tuple[()]
"""The last step, and those before."""


class Model(Protocol[W]):
    """The model to search."""

    def first(self) -> W:
        """The state that everything begins with."""

    def twin(self, world: W) -> W:
        """A copy of all that may change."""

    def keys(self, world: W) -> Iterable[Key]:
        """All that the future depends on, and nothing else; several where states that mirror each other are one."""

    def what_goes_well(self, world: W) -> Iterator[Move[W]]:
        """The steps that cost nothing."""

    def what_goes_wrong(self, world: W) -> Iterator[Move[W]]:
        """The faults."""

    def judge(self, world: W) -> None:
        """Raise an AssertionError where something does not hold."""

    def judge_new(self, world: W) -> None:
        """As `judge`, what is looked at once in each state."""


class Explored(NamedTuple):
    """The findings of a search.

    Args:
        states: how many there are, or were seen.
        closed: whether these are all.
        faults: what the last of them took; all that take fewer were visited.
        violation: the first, and how it came to it.
    """

    states: int
    closed: bool
    faults: int
    violation: AssertionError | None = None
    story: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = "all there are" if self.closed else f"more are left, of {self.faults} faults"
        return f"{self.states} states, {shown}"


def search(model: Model[W], *, faults: int, seconds: float) -> Explored:
    """Visit every state for as long as *seconds* allow: those of the fewest faults first, and of these the nearest.

    So a state that is seen again has seen as few faults before, and whatever can still happen to it was tried.
    """
    hunt = _Hunt(model, time.monotonic() + seconds)
    spent = 0
    try:
        states = hunt.without_faults(hunt.first(), keep=faults > 0)
        for spent in range(1, faults + 1):
            states = hunt.without_faults(hunt.by_a_fault(states), keep=spent < faults)
    except _TimeIsUp:
        return Explored(len(hunt.seen), closed=False, faults=spent)
    except _Found as found:
        return Explored(len(hunt.seen), False, spent, found.violation, _told(found.story))
    return Explored(len(hunt.seen), closed=True, faults=faults)


class Seen:
    """The states that were seen, each as the numbers of its key's parts, which are few beside them."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._seen: set[tuple[int, ...]] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, keys: Iterable[Key]) -> bool:
        """Whether it is new."""
        numbers, before = self._numbers, len(self._seen)
        self._seen.add(min(tuple([numbers.setdefault(part, len(numbers)) for part in key]) for key in keys))
        return len(self._seen) > before


class _TimeIsUp(Exception):
    pass


class _Found(Exception):
    def __init__(self, violation: AssertionError, story: Story) -> None:
        self.violation, self.story = violation, story


class _State(NamedTuple, Generic[W]):
    world: W
    story: Story


class _Hunt(Generic[W]):
    def __init__(self, model: Model[W], until: float) -> None:
        self.seen = Seen()
        self._model = model
        self._until = until

    def first(self) -> list[_State[W]]:
        world = self._model.first()
        self.seen.add(self._model.keys(world))
        return [_State(world, ())]

    def without_faults(self, level: list[_State[W]], *, keep: bool) -> list[_State[W]]:
        """Visit what *level* leads to without a fault; return it with all of that, if they are to be kept."""
        reached = list(level)
        while level:
            level = [new for state in level for new in self._new(state, self._model.what_goes_well(state.world))]
            if keep:
                reached += level
        return reached

    def by_a_fault(self, states: list[_State[W]]) -> list[_State[W]]:
        return [new for state in states for new in self._new(state, self._model.what_goes_wrong(state.world))]

    def _new(self, state: _State[W], moves: Iterator[Move[W]]) -> Iterator[_State[W]]:
        model = self._model
        for name, move in moves:
            if time.monotonic() > self._until:
                raise _TimeIsUp
            successor, story = model.twin(state.world), (name, state.story)
            try:
                move(successor)
                model.judge(successor)
                if not self.seen.add(model.keys(successor)):
                    continue
                model.judge_new(successor)
            except AssertionError as violation:
                raise _Found(violation, story) from violation
            yield _State(successor, story)


def _told(story: Story) -> tuple[str, ...]:
    lines: list[str] = []
    while story:
        line, story = story
        lines.append(line)
    return tuple(reversed(lines))


def shallow(thing: T) -> T:
    """A copy that shares what it holds: `copy.copy` without the detour over pickling."""
    other: Any = object.__new__(type(thing))
    other.__dict__.update(thing.__dict__)
    return other  # type: ignore[no-any-return]
