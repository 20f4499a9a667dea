"""The observers of the session: streams of states, callbacks of the rooms above, and the hooks for events."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable

from aioregistry import _foreign as foreign
from aioregistry._errors import RegistryError
from aioregistry._incident_log import IncidentLog
from aioregistry._streams import Source, Stream

from .states import ENDED, SessionState

__all__ = ["Hook", "Observers", "Timer"]

Hook = Callable[[str, dict[str, object]], None]

Timer = Callable[[int, float], None]
"""Is called for each answer with the request's opcode and the seconds from its sending; it must not raise or block."""

_STATES_KEPT = 64


class Observers:
    """The observers that get the session's states.

    Args:
        hooks: each called with a name and fields for every event worth a metric.
        repeated: logs the errors that they raise.
    """

    def __init__(self, hooks: Iterable[Hook], repeated: IncidentLog) -> None:
        self._hooks = dict(enumerate(hooks))
        self._repeated = repeated
        self._states: Source[SessionState] = Source()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self.timers: tuple[Timer, ...] = ()
        """Those who measure how long answers take; nothing is measured without one."""
        self._numbers = itertools.count(len(self._hooks))

    def states(self) -> Stream[SessionState]:
        """Return a stream of the states from the next one on; a slow consumer misses the oldest of more than 64."""
        stream: Stream[SessionState] = Stream(_STATES_KEPT)
        self._states.attach(stream)
        return stream

    def observe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call *callback* after each change of state; it must not block. Returns what removes it."""
        number = next(self._numbers)
        self._callbacks[number] = callback

        def remove() -> None:
            self._callbacks.pop(number, None)

        return remove

    def emit(self, name: str, **fields: object) -> None:
        """Tell the hooks, each with a dict of its own; what one raises is logged, and nothing else suffers."""
        for hook in tuple(self._hooks.values()):
            try:
                foreign.call(hook, name, dict(fields))
            except foreign.ForeignError as failure:
                self._repeated.tell(
                    "hook", logging.WARNING, "on_event raised on %s\n%s", name, foreign.traced(failure.error)
                )

    def listen(self, hook: Hook) -> Callable[[], None]:
        """Tell *hook* of every event from now on, too. Returns what removes it."""
        number = next(self._numbers)
        self._hooks[number] = hook

        def remove() -> None:
            self._hooks.pop(number, None)

        return remove

    def time(self, opcode: int, seconds: float) -> None:
        """Tell the timers that a request was answered after *seconds*."""
        for timer in self.timers:
            timer(opcode, seconds)

    def announce(self, state: SessionState, failure: RegistryError | None) -> None:
        """Tell all of a *state*; the streams end with the last one, with *failure* where the session failed."""
        self._states.offer(state)
        for callback in list(self._callbacks.values()):
            self.call(callback)
        if state in ENDED:
            self._states.close(failure if state is SessionState.FAILED else None)

    def call(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call back into a room above: a defect there must not end the connection for all others."""
        try:
            foreign.call(callback, *arguments)
        except foreign.ForeignError as failure:
            self._repeated.tell(
                *("callback", logging.ERROR, "%r raised\n%s"),
                *(callback, foreign.traced(failure.error)),
            )
