"""The gateway of the chat, by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from docs.examples.chat.gateway import Gateway


class Closed:
    """A view that is closed, once the gateway was made on it; its balancer has set everybody aside, until now."""

    set_aside: ClassVar = {"chat-1": -0.1}

    def balancer(self, *_: object, **__: object) -> Closed:
        return self

    async def changes(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    @property
    def snapshot(self) -> Any:
        raise AssertionError("the view is closed")


async def test_closed_it_takes_nobody_back() -> None:
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    view: Any = Closed()
    gateway = Gateway(view, view)
    gateway.failed("chat-1")
    await gateway.close()
    over = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.05, over.set_result, None)  # behind whatever was due before
    await over
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert troubles == []
