"""`aioregistry register … -- COMMAND`: a program that is registered while it lives and is well."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from typing import Any, Final

from aioregistry import InvalidArgument, RegistryError
from aioregistry._registration import vote

from .child import Child, NotStarted, exit_code_of
from .init import passed_on
from .output import Output
from .process import is_ignored
from .register import Listing

__all__ = ["sidecar"]

_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""The signals that ask servers to end; they are drained before it is passed on. SIGHUP has many of them read their
configuration again."""

_DRAIN: Final = 2.0
"""Seconds, as a Membership drains unless told otherwise."""


async def sidecar(arguments: argparse.Namespace) -> int:
    """Run the program, keep its instance registered while it lives, and return its exit code, 128 + n for a signal.

    Raises what ended the registration by itself, once the program has ended: it is sent SIGTERM then.
    """
    drain = _DRAIN if arguments.drain is None else arguments.drain
    if not 0 <= drain < float("inf"):
        raise InvalidArgument("drain", drain, "give a number of seconds, 0 or more")
    listing = Listing(arguments)
    try:
        child = Child(arguments.program)
        async with Output(sys.stderr, lambda: None) as output:
            return await _Sidecar(arguments, listing, child, output, drain).run()
    except NotStarted as error:
        print(arguments.form.said(str(error)), file=sys.stderr)
        return error.exit_code


class _Sidecar:
    def __init__(
        self, arguments: argparse.Namespace, listing: Listing, child: Child, output: Output, drain: float
    ) -> None:
        self._form = arguments.form
        self._listing = listing
        self._child = child
        self._output = output
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in passed_on():
            if not is_ignored(number):
                loop.add_signal_handler(number, self._signalled, number)
        self._child.start()
        keeping = loop.create_task(self._listing.keep(self._output, self._say), name="keep it registered")
        either: list[asyncio.Future[Any]] = [self._child.exited, keeping]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        ended_by_itself = not self._child.exited.done()
        if ended_by_itself:
            self._child.send(signal.SIGTERM)
            await asyncio.wait([self._child.exited])
        if self._draining is not None:
            self._draining.cancel()
        keeping.cancel()
        await asyncio.wait([keeping])
        error = None if keeping.cancelled() else keeping.exception()
        if error is not None and (ended_by_itself or not isinstance(error, RegistryError)):
            raise error
        if error is not None:
            await self._say(self._form.said(str(error)))
        return exit_code_of(self._child.exited.result())

    def _signalled(self, number: signal.Signals) -> None:
        if number not in _ENDING or self._draining is not None or not self._drain:
            # A second signal need not wait for the end of the draining.
            if number in _ENDING:
                self._disable()
                if self._draining is not None:
                    self._draining.cancel()
            self._child.send(number)
        elif self._disable():
            self._draining = asyncio.get_running_loop().create_task(self._passed_on_later(number), name="drain")
        else:
            self._child.send(number)  # no consumer could have found it

    def _disable(self) -> bool:
        """Tell consumers to send nothing new; return whether some may have found the instance."""
        registration = self._listing.registration
        if registration is None:
            return False
        was_listed = registration.owner is not None
        vote(registration, "draining", up=False)
        return was_listed

    async def _passed_on_later(self, number: signal.Signals) -> None:
        text = f"draining for {self._drain:g} s, then {number.name} goes on to {self._child.program}"
        telling = asyncio.ensure_future(self._say(self._form.said(text)))
        await asyncio.sleep(self._drain)
        self._child.send(number)
        await telling

    async def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # standard error is gone: that ends no server
            await self._output.line(line)
