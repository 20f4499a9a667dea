"""Handles: opened once, closed once, by whoever, and clear about every other use."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from aioregistry._errors import HandleClosed, UsageError
from aioregistry._handles import Handle, finished
from aioregistry._runtime import running_loop


class Door(Handle):
    """A handle whose opening and closing wait to be let through."""

    def __init__(self, *, opens: bool = True, closes: bool = True, refused: bool = False) -> None:
        if refused:
            raise ValueError("refused")
        self.may_open, self.may_close = asyncio.Event(), asyncio.Event()
        self.failure: Exception | None = None
        self.opened = self.closed = 0
        if opens:
            self.may_open.set()
        if closes:
            self.may_close.set()
        super().__init__()

    async def _open(self) -> None:
        await self.may_open.wait()
        if self.failure is not None:
            raise self.failure
        self.opened += 1

    async def _close(self) -> None:
        await self.may_close.wait()
        self.closed += 1
        if self.failure is not None:
            raise self.failure

    def use(self) -> None:
        self._check()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_as_a_context() -> None:
    door = Door()
    async with door as entered:
        assert entered is door
        door.use()
    assert (door.opened, door.closed) == (1, 1)


async def test_awaited_and_closed() -> None:
    door = await Door()
    door.use()
    await door.aclose()
    assert (door.opened, door.closed) == (1, 1)


async def test_awaited_and_then_entered_once() -> None:
    door = await Door()
    async with door:
        with pytest.raises(UsageError, match="is entered: a handle is entered or awaited once"):
            _ = await door.__aenter__()
    assert (door.opened, door.closed) == (1, 1)


async def test_opened_in_one_task_and_closed_in_another() -> None:
    door = await asyncio.create_task(_opened(Door()))
    door.use()
    await asyncio.create_task(door.aclose())
    assert door.closed == 1


async def _opened(door: Door) -> Door:
    return await door


class TestMisuse:
    async def test_used_before_it_is_entered(self) -> None:
        door = Door()
        with pytest.raises(UsageError, match="Door is not entered"):
            door.use()
        await door.aclose()

    async def test_used_while_it_is_being_entered(self) -> None:
        door = Door(opens=False)
        entering = asyncio.ensure_future(_opened(door))
        await turns()
        with pytest.raises(UsageError, match="is being entered"):
            door.use()
        door.may_open.set()
        await (await entering).aclose()

    async def test_used_while_and_after_it_is_closed(self) -> None:
        door = await Door(closes=False)
        closing = asyncio.ensure_future(door.aclose())
        await turns()
        with pytest.raises(HandleClosed, match="is being closed"):
            door.use()
        door.may_close.set()
        await closing
        with pytest.raises(HandleClosed, match="is closed"):
            door.use()

    @pytest.mark.parametrize("again", [_opened, Door.__aenter__])
    async def test_entered_twice(self, again: Callable[[Door], Any]) -> None:
        async with Door() as door:
            with pytest.raises(UsageError, match="once"):
                await again(door)
        with pytest.raises(UsageError, match="is closed"):
            await again(door)

    async def test_closed_while_it_is_being_entered(self) -> None:
        door = Door(opens=False)
        entering = asyncio.ensure_future(_opened(door))
        await turns()
        with pytest.raises(UsageError, match="is being entered: cancel"):
            await door.aclose()
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            _ = await entering
        await door.aclose()
        assert door.closed == 0

    def test_from_another_loop(self) -> None:
        with asyncio.Runner() as mine, asyncio.Runner() as other:
            door = mine.run(_made_and_opened())

            async def use() -> None:
                with pytest.raises(UsageError, match="another event loop"):
                    door.use()
                with pytest.raises(UsageError, match="another event loop"):
                    await door.aclose()

            other.run(use())
            mine.run(door.aclose())

    async def test_from_another_thread(self) -> None:
        raised: list[BaseException] = []
        async with Door() as door:

            def use() -> None:
                try:
                    door.use()
                except UsageError as error:
                    raised.append(error)

            thread = threading.Thread(target=use)
            thread.start()
            await asyncio.to_thread(thread.join)
        assert "no asyncio event loop" in str(raised[0])

    async def test_after_a_fork(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with Door() as door:
            with monkeypatch.context() as child:
                child.setattr(os, "getpid", lambda: -1)
                with pytest.raises(UsageError, match="before a fork"):
                    door.use()

    def test_without_a_loop(self) -> None:
        with pytest.raises(UsageError, match="no asyncio event loop"):
            running_loop()

    def test_under_another_framework(self) -> None:
        door = Door()
        coroutine = _opened(door)
        with pytest.raises(UsageError, match="asyncio"):
            coroutine.send(None)
        with pytest.raises(UsageError, match="is not entered"):
            door.use()
        asyncio.run(door.aclose())


async def _made_and_opened() -> Door:
    return await Door()


class TestOpeningFails:
    async def test_by_an_exception(self) -> None:
        door = Door()
        door.failure = OSError("no")
        with pytest.raises(OSError, match="no"):
            _ = await door
        with pytest.raises(HandleClosed):
            door.use()
        await door.aclose()
        assert door.closed == 0

    async def test_by_cancellation(self) -> None:
        door = Door(opens=False)
        entering = asyncio.ensure_future(_opened(door))
        await turns()
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            _ = await entering
        with pytest.raises(HandleClosed):
            door.use()


class TestClosing:
    async def test_happens_once_however_often_it_is_asked_for(self) -> None:
        door = await Door(closes=False)
        closings = [asyncio.ensure_future(door.aclose()) for _ in range(3)]
        await turns()
        assert not any(closing.done() for closing in closings)
        door.may_close.set()
        await asyncio.gather(*closings)
        await door.aclose()
        assert door.closed == 1

    async def test_what_was_never_opened_is_closed_without_closing(self) -> None:
        door = Door()
        await door.aclose()
        assert door.closed == 0
        with pytest.raises(UsageError, match="is closed"):
            _ = await door

    async def test_a_failure_is_raised_to_all_who_wait(self) -> None:
        door = await Door(closes=False)
        closings = [asyncio.ensure_future(door.aclose()) for _ in range(2)]
        await turns()
        door.failure = OSError("no")
        door.may_close.set()
        for closing in closings:
            with pytest.raises(OSError, match="no"):
                await closing
        await door.aclose()

    async def test_goes_on_when_the_caller_is_cancelled_and_then_raises_it(self) -> None:
        door = await Door(closes=False)
        closing = asyncio.ensure_future(door.aclose())
        await turns()
        for _ in range(3):
            closing.cancel()
            await turns()
        assert not closing.done()
        door.may_close.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert door.closed == 1

    async def test_a_failure_goes_before_the_cancellation(self) -> None:
        door = await Door(closes=False)
        closing = asyncio.ensure_future(door.aclose())
        await turns()
        closing.cancel()
        await turns()
        door.failure = OSError("no")
        door.may_close.set()
        with pytest.raises(OSError, match="no") as raised:
            await closing
        assert isinstance(raised.value.__cause__, asyncio.CancelledError)

    async def test_by_a_cancelled_body(self) -> None:
        door = Door(closes=False)

        async def body() -> None:
            async with door:
                await asyncio.Event().wait()

        task = asyncio.ensure_future(body())
        await turns()
        task.cancel()
        await turns()
        assert not task.done()
        door.may_close.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert door.closed == 1

    async def test_by_a_deadline_of_asyncio(self) -> None:
        door = await Door(closes=False)
        asyncio.get_running_loop().call_later(0.02, door.may_close.set)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await door.aclose()
        assert door.closed == 1

    async def test_by_a_scope_of_anyio(self) -> None:
        door = Door(closes=False)
        asyncio.get_running_loop().call_later(0.02, door.may_close.set)
        with anyio.move_on_after(0.01) as scope:
            async with door:
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert door.closed == 1

    async def test_a_scope_of_anyio_does_not_spin_while_it_lasts(self) -> None:
        """A cancelled scope cancels whatever its task awaits again in every turn of the loop."""
        door = await Door(closes=False)
        waits = 0
        wait = asyncio.wait

        async def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal waits
            waits += 1
            return await wait(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch, anyio.CancelScope() as scope:
            patch.setattr(asyncio, "wait", counted)
            closing_soon = asyncio.get_running_loop().call_later(0.05, door.may_close.set)
            scope.cancel()
            await door.aclose()
            assert closing_soon.when() <= asyncio.get_running_loop().time()
        assert (door.closed, waits) == (1, 1)

    async def test_finished_waits_for_the_end(self) -> None:
        async def fine() -> None:
            await turns()

        task = asyncio.ensure_future(fine())
        await finished(task)
        assert task.done()


def drop(_: Door) -> None:
    """Take the last reference."""


class TestDropped:
    """A warning for what was forgotten, and for nothing else."""

    def test_before_it_was_entered(self) -> None:
        with pytest.warns(RuntimeWarning, match="Door was made but never entered or awaited"):
            drop(Door())

    def test_before_it_was_closed(self) -> None:
        async def forget() -> None:
            _ = await Door()

        with pytest.warns(ResourceWarning, match="Door was never closed"):
            asyncio.run(forget())

    def test_after_it_was_closed(self) -> None:
        async def use() -> None:
            async with Door():
                pass

        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            asyncio.run(use())
            gc.collect()
        assert told == []

    def test_before_it_was_made(self, recwarn: pytest.WarningsRecorder) -> None:
        with pytest.raises(ValueError, match="refused"):
            _ = Door(refused=True)
        gc.collect()
        assert not recwarn.list

    def test_in_a_child_process(self, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
        door: Door | None = asyncio.run(_made_and_opened())
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            assert door is not None
            door = None
            gc.collect()
        assert not recwarn.list
