"""A command's registry, whose outages and failing checks are lines on standard error, when they begin and end.

The log says that an outage lasts, with the reason and what to do; its lines are let through now and then. The end of
one is a line of the command's own.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Final

import aioregistry
from aioregistry import Registry

from .logs import Format
from .options import connection
from .output import Output

__all__ = ["connected"]

AGAIN: Final = 60.0
"""Seconds after which a command says again that an outage lasts."""


@contextlib.asynccontextmanager
async def connected(
    arguments: argparse.Namespace, output: Output, *, wait: bool = True, connect_timeout: float | None = None
) -> AsyncIterator[Registry]:
    """Give the registry that *arguments* name, and tell of its outages on *output* until the body ends.

    It logs nothing while the command waits for it: if the command gives up, its last line says why.

    Args:
        arguments: of the command line.
        output: standard error.
        wait: give it when a server has accepted the session; else at once.
        connect_timeout: seconds for that; the session timeout unless given.

    Raises what :func:`aioregistry.connect` and entering it raise.
    """
    outages = _Outages(output, arguments.form)
    async with aioregistry.connect(
        **connection(arguments),
        wait=wait,
        connect_timeout=connect_timeout,
        on_event=outages.on_event,
    ) as registry:
        outages.telling = not arguments.verbose  # else the log does
        arguments.own_lines.events["session.outage"] = outages.shows
        try:
            yield registry
        finally:
            outages.telling = False


class _Outages:
    """Tells of the outages of a registry whose ``on_event`` is :meth:`on_event`.

    Args:
        output: standard error, which holds up nothing: a terminal that stands still must not stop heartbeats.
        form: makes its lines.
    """

    def __init__(self, output: Output, form: Format) -> None:
        self._output, self._form = output, form
        self.telling = self._told = False
        self._told_at = 0.0

    def shows(self) -> bool:
        """Return whether the log's line of this moment, that an outage lasts, is to be shown."""
        now = time.monotonic()
        if not self.telling or (self._told and now - self._told_at < AGAIN):
            return False
        self._told, self._told_at = True, now
        return True

    def on_event(self, name: str, fields: dict[str, object]) -> None:
        """Write the line for an event of the session, where it has one."""
        if not self.telling:
            return
        if name == "session.outage_over" and self._told:
            self._told = False
            text = f"connected to ZooKeeper at {fields['server']} after {fields['seconds']:.1f} s without it"
            self._put(self._form.said(text, event=name, seconds=fields["seconds"], server=fields["server"]))
        elif name == "health.check":
            self._tell_of_check(name, **fields)

    def _tell_of_check(
        self, event: str, *, check: object, probe: object, state: object, reason: object, **fields: object
    ) -> None:
        passes = state == "passing"
        outcome = "passes" if passes else f"fails, so it is listed as not enabled: {reason}"
        text, level = f"check {check!r} ({probe}) {outcome}", logging.INFO if passes else logging.WARNING
        told = {"check": check, "probe": probe, "state": state, "reason": reason, **fields}
        self._put(self._form.said(text, level, event=event, **told))

    def _put(self, line: str) -> None:
        with contextlib.suppress(OSError):  # standard error is gone: its user finds that out anyway
            _ = self._output.put(line)
