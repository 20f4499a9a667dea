"""The states of a session, drawn from their table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aioregistry._session.states import ENDED, FOLLOWING, SessionState, Transition

from .svg import GREY, Picture

__all__ = ["draw"]

PLACES: Final[Mapping[SessionState, tuple[float, float]]] = {
    SessionState.DISCONNECTED: (95, 75),
    SessionState.CONNECTED: (305, 75),
    SessionState.SUSPENDED: (515, 75),
    SessionState.RECONNECTED: (725, 75),
    SessionState.EXPIRED: (410, 180),
    SessionState.CLOSED: (305, 300),
    SessionState.FAILED: (515, 300),
}
WIDTH, HEIGHT = 130.0, 40.0
SAID: Final[Mapping[Transition, str]] = {
    Transition.SERVES: "a server accepts",
    Transition.SUSPENDED: "connection lost",
    Transition.LEFT: "session ended",
    Transition.CLOSED: "closed",
    Transition.FAILED: "failed",
}


def draw() -> str:
    """Return the diagram. Raises KeyError where a state has no place, or cannot be closed as all others can."""
    picture = Picture(820, 340, "The states of a session, and the moves between them")
    picture.rect(15, 30, 790, 190, "#f6f8fa", GREY)
    picture.text(25, 50, "from each of these it can be closed, or fail", 11, "start", GREY)
    for state, following in FOLLOWING.items():
        for news, after in following.items():
            if after not in ENDED:
                move(picture, state, after, SAID[news], both=state in FOLLOWING[after].values())
        if state not in ENDED and {*following.values()} < ENDED:
            raise KeyError(state)
    for end in sorted(ENDED, key=lambda state: state.value):
        x, y = PLACES[end]
        picture.line(x, 220, x, y - HEIGHT / 2, arrow=True)
        picture.text(x + 6, 252, SAID[Transition(end.value)], 11, "start")
    for state, (x, y) in PLACES.items():
        picture.rect(x - WIDTH / 2, y - HEIGHT / 2, WIDTH, HEIGHT, "#dbeafe" if state not in ENDED else "#e5e7eb", GREY)
        picture.text(x, y + 5, state.name)
    return str(picture)


def move(picture: Picture, before: SessionState, after: SessionState, said: str, both: bool) -> None:
    """Draw an arrow from the edge of one box to that of another, beside its counterpart if there are *both*."""
    (x1, y1), (x2, y2) = PLACES[before], PLACES[after]
    shift = (8 if x2 > x1 else -8) if both else 0
    if y1 == y2:
        side = WIDTH / 2 if x2 > x1 else -WIDTH / 2
        picture.line(x1 + side, y1 - shift, x2 - side, y2 - shift, arrow=True)
        picture.text((x1 + x2) / 2, y1 - shift + (18 if shift < 0 else -8), said, 9.5)
        return
    down = HEIGHT / 2 if y2 > y1 else -HEIGHT / 2
    x1, x2 = x1 + (-30 if x2 < x1 else 30 if y2 > y1 else -30), x2 + (30 if x2 < x1 else -30)
    picture.line(x1, y1 + down, x2, y2 - down, arrow=True)
    picture.text(
        (x1 + x2) / 2 + (10 if down > 0 else -10), (y1 + y2) / 2 + 12, said, 10, "start" if down > 0 else "end"
    )
