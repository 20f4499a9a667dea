"""A room: who is in it and what was said last. Chat servers and gateways each have their own copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from .line import Line
from .wire import Down, Message, People, Say

KEPT: Final = 200
"""Messages that a room remembers."""


class Log:
    """The last messages of a room, in an order on which all copies agree.

    A message's place is ``(at, id)``, where *at* is one more than the highest place known to the server that gives it
    (a Lamport clock, L. Lamport 1978). Where two servers gave one message a place, because the first died before all
    had heard of it, the smaller counts. So copies can be handed on and merged in any order, as often as one likes, and
    those who know the same messages have them in the same order.
    """

    def __init__(self) -> None:
        self._messages: dict[str, Message] = {}
        self._clock = 0

    def place(self, said: Say, by: str) -> Message:
        """Return *said* as a message with a place, the last one; the known one if it was said before."""
        message = Message(said.id, said.name, said.text, self._clock + 1, by)
        self.merge([message])
        return self._messages[said.id]

    def merge(self, messages: Iterable[Message]) -> list[Message]:
        """Take in *messages* and return what is new of them."""
        news: dict[str, Message] = {}
        for message in messages:
            known = self._messages.get(message.id)
            if known is None or (message.at, message.by) < (known.at, known.by):
                self._messages[message.id] = news[message.id] = message
                self._clock = max(self._clock, message.at)
        for forgotten in list(self)[:-KEPT]:
            del self._messages[forgotten.id]
        return [message for message in news.values() if message.id in self._messages]

    def get(self, id: str) -> Message | None:
        """Return the message of this id, if it is remembered."""
        return self._messages.get(id)

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(sorted(self._messages.values(), key=lambda message: (message.at, message.id)))


class Room:
    """The lines that lead to a room, the people at their other ends, and its log."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log = Log()
        self.people: dict[Line[Any], tuple[str, ...]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody at the other ends."""
        return tuple(sorted(name for names in self.people.values() for name in names))

    def tell(self, message: Down) -> None:
        """Send *message* down every line."""
        for line in self.people:
            line.send(message)

    def enter(self, line: Line[Any]) -> None:
        """Let *line* in; it is told what was said."""
        self.people[line] = ()
        for message in self.log:
            line.send(message)

    def leave(self, line: Line[Any]) -> None:
        """Forget *line*."""
        self.people.pop(line, None)

    def merge(self, messages: Iterable[Message]) -> None:
        """Take in *messages*, and tell what is new."""
        for message in self.log.merge(messages):
            self.tell(message)

    def tell_people(self) -> None:
        """Tell everybody at the other ends of each other."""
        self.tell(People(self.names))
