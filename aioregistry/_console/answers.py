"""The common part of the console's requests and answers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from aioregistry._words import to_json

__all__ = ["EventStream", "Refused", "as_json", "body_of", "compressed", "refusal", "text_of"]

_LONGEST_BODY: Final = 16_384
_BODY_WITHIN: Final = 10.0
_SENT_WITHIN: Final = 30.0
"""Seconds after which a browser that reads nothing is let go."""

_COMPRESSED_FROM: Final = 1000


class Refused(Exception):
    """A request is not granted: with *status*, and the reason as *text*."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


def refusal(request: Request, refused: Refused) -> Response:
    """Return the answer to a request that is not granted."""
    if request.url.path.startswith("/api/"):
        return as_json(request, {"error": refused.text}, refused.status, refused.headers)
    headers = {"cache-control": "no-store", **refused.headers}
    return Response(f"{refused.text}\n", refused.status, headers, "text/plain")


def text_of(request: Request, name: str) -> str:
    """Return the request's value for *name*. Raises Refused if there is no value."""
    value = request.query_params.get(name, "")
    if not value:
        raise Refused(400, f"{name} is missing")
    return value


async def body_of(request: Request) -> bytes:
    """Return the body. Raises Refused where it is too long, or does not arrive."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_WITHIN):
            async for part in request.stream():
                body += part
                if len(body) > _LONGEST_BODY:
                    raise Refused(413, f"the request is longer than {_LONGEST_BODY} bytes")
    except TimeoutError:
        raise Refused(408, f"the request did not arrive within {_BODY_WITHIN:g} s", connection="close") from None
    return bytes(body)


def as_json(request: Request, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return *content* as JSON."""
    return compressed(
        request, to_json(content).encode(), status, {"cache-control": "no-store", **(headers or {})}, "application/json"
    )


def compressed(request: Request, body: bytes, status: int, headers: Mapping[str, str], media: str) -> Response:
    """Return *body*, compressed where that is worth it and the browser takes it."""
    own = {**headers, "vary": "accept-encoding"}
    if len(body) >= _COMPRESSED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, 5)
        own["content-encoding"] = "gzip"
    return Response(body, status, own, media)


class EventStream(Response):
    """Server-sent events until the browser goes, or reads nothing for too long.

    Args:
        messages: the messages to send.
    """

    def __init__(self, messages: AsyncGenerator[bytes, None]) -> None:
        super().__init__(media_type="text/event-stream")
        self._messages = messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI says so
        """Answer."""
        sending = asyncio.create_task(self._send_all(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            ended, _ = await asyncio.gather(sending, gone, return_exceptions=True)
        # The browser is gone, or reads nothing: OSError and its TimeoutError. All else is a defect.
        if isinstance(ended, Exception) and not isinstance(ended, OSError):
            raise ended

    async def _send_all(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        headers.append((b"x-accel-buffering", b"no"))
        await _sent(send, {"type": "http.response.start", "status": 200, "headers": headers})
        async with contextlib.aclosing(self._messages) as messages:
            async for message in messages:
                await _sent(send, {"type": "http.response.body", "body": message, "more_body": True})
        await _sent(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _sent(send: Send, message: Message) -> None:
    async with asyncio.timeout(_SENT_WITHIN):
        await send(message)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
