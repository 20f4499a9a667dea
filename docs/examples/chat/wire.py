"""The messages on the wire, by pages and gateways to chat servers and back: JSON in WebSocket frames."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

SERVICE: Final = "chat"
"""The name under which chat servers are registered."""

ROOM: Final = r"/rooms/{room:[\w-]{1,40}}"
"""The name of a room in URLs, those of chat servers and gateways alike."""

Name = Annotated[str, Meta(min_length=1, max_length=40)]
MessageId = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z-]{1,64}\Z")]
Text = Annotated[str, Meta(min_length=1, max_length=2000)]


class Say(msgspec.Struct, tag_field="kind", tag="say", frozen=True):
    """Please tell the room. The id is its author's: a reader that gets it twice knows it."""

    id: MessageId
    name: Name
    text: Text


class Message(msgspec.Struct, tag_field="kind", tag="message", frozen=True):
    """Somebody said something: *at* is its place in the room (see room.py), *by* the server that gave it."""

    id: MessageId
    name: Name
    text: Text
    at: int
    by: str


class Hello(msgspec.Struct, tag_field="kind", tag="hello", frozen=True):
    """The people at this end of the line, and the messages known here; sent first, and when people come or go."""

    people: tuple[Name, ...] = ()
    known: tuple[Message, ...] = ()


class People(msgspec.Struct, tag_field="kind", tag="people", frozen=True):
    """Everybody in the room."""

    names: tuple[str, ...]


ServerState = Literal["listed", "leaving", "set aside", "suspect"]


class Server(msgspec.Struct, frozen=True):
    """A chat server, as a gateway sees it."""

    id: str
    state: ServerState


class Servers(msgspec.Struct, tag_field="kind", tag="servers", frozen=True):
    """From a gateway: which server has the room now, if any, and which there are."""

    room: str | None
    all: tuple[Server, ...]


class Happened(msgspec.Struct, tag_field="kind", tag="happened", frozen=True):
    """From a gateway: what became of the room's server, for people to read."""

    what: str
    text: str


Up = Hello | Say
Down = Message | People | Servers | Happened

UP: Final[msgspec.json.Decoder[Up]] = msgspec.json.Decoder(Up)
DOWN: Final[msgspec.json.Decoder[Down]] = msgspec.json.Decoder(Down)
