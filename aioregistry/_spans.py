"""Spans of OpenTelemetry, for programs that use it: where they have not imported it, nothing is imported or done here.

A span is begun in the context of the caller, whose span is its parent, and is not made current: tasks that outlive it
would keep it as the parent of whatever they begin.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Final, Protocol

from . import _foreign as foreign
from ._incident_log import IncidentLog

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OpenTelemetrySpan
    from opentelemetry.util.types import AttributeValue

__all__ = ["NO_SPAN", "Place", "Span", "begin", "tell_the_rest"]

log = logging.getLogger("aioregistry.spans")

_API: Final = "opentelemetry.trace"

_REPEATED: Final[dict[asyncio.AbstractEventLoop, IncidentLog]] = {}
"""The incident log of each loop: a tracer that fails does so for all registries of the process, at each span."""


class Place(Protocol):
    """A server."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class Span:
    """A span that is under way, or an empty one."""

    def __init__(self, span: OpenTelemetrySpan | None = None) -> None:
        self._span = span

    def end(
        self, error: BaseException | None = None, *, server: Place | None = None, **attributes: AttributeValue
    ) -> None:
        """End it; nothing happens if it has ended, or is empty.

        Args:
            error: the exception that ended it. A cancellation is not an error of the span, but its type is recorded.
            server: the server that the session is connected to.
            attributes: by their names behind ``aioregistry.``.
        """
        span, self._span = self._span, None
        if span is not None:
            try:
                foreign.call(_end, span, error, server, attributes)
            except foreign.ForeignError as failure:
                _tell("a span could not be ended: %s", failure)


NO_SPAN: Final = Span()


def begin(name: str, **attributes: AttributeValue) -> Span:
    """Begin a span and return it; an empty one if the program does not use OpenTelemetry.

    Args:
        name: behind ``aioregistry.``; one of few.
        attributes: by their names behind ``aioregistry.``.
    """
    if _API not in sys.modules:
        return NO_SPAN
    try:
        return Span(foreign.call(_begin, name, attributes))
    except foreign.ForeignError as failure:
        _tell("no span could be begun: %s", failure)
        return NO_SPAN


def tell_the_rest() -> None:
    """Tell what this loop's spans failed with, as far as it was counted and not told yet: a registry closes."""
    if (repeated := _REPEATED.pop(asyncio.get_running_loop(), None)) is not None:
        repeated.close()


def _tell(text: str, failure: foreign.ForeignError) -> None:
    loop = asyncio.get_running_loop()
    if loop not in _REPEATED:
        for other in list(_REPEATED):
            if other.is_closed():
                _ = _REPEATED.pop(other, None)
        _REPEATED[loop] = IncidentLog(log)
    _REPEATED[loop].tell(text, logging.WARNING, text, failure)


def _begin(name: str, attributes: dict[str, AttributeValue]) -> OpenTelemetrySpan:
    from opentelemetry.trace import SpanKind, get_tracer

    tracer = get_tracer("aioregistry")
    return tracer.start_span(f"aioregistry.{name}", kind=SpanKind.CLIENT, attributes=_named(attributes))


def _end(
    span: OpenTelemetrySpan, error: BaseException | None, server: Place | None, attributes: dict[str, AttributeValue]
) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attributes(_named(attributes))
    if server is not None:
        span.set_attributes({"server.address": server.host, "server.port": server.port})
    if error is not None:
        kind = type(error)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        span.set_attribute("error.type", f"{module}{kind.__qualname__}")
        if not isinstance(error, asyncio.CancelledError):
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, foreign.shown(error)))
    span.end()


def _named(attributes: dict[str, AttributeValue]) -> dict[str, AttributeValue]:
    return {f"aioregistry.{name}": value for name, value in attributes.items()}
