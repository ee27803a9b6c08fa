"""A driven coroutine behaves as a Task would, without being one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from inferloop.core.work import Done, Drive, Settled, Work


class Outcome:
    """Keeps what `done` was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, BaseException | None]] = []

    def __call__(self, value: Any, error: BaseException | None) -> None:
        self.calls.append((value, error))

    async def heard(self) -> None:
        """Wait for the first call."""
        async with asyncio.timeout(60):
            while not self.calls:
                await asyncio.sleep(0.001)


def drive(coroutine: Coroutine[Any, Any, Any]) -> tuple[Drive[Any], Outcome]:
    outcome = Outcome()
    driven = Drive(coroutine)
    driven.start(outcome)
    return driven, outcome


async def test_a_coroutine_that_waits_for_nothing_is_done_at_once() -> None:
    async def answer() -> int:
        return 7

    assert drive(answer())[1].calls == [(7, None)]


async def test_it_goes_on_when_its_future_is_done() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait() -> int:
        await asyncio.sleep(0)
        return await future + 1

    _, outcome = drive(wait())
    await asyncio.sleep(0)
    future.set_result(1)
    await outcome.heard()
    assert outcome.calls == [(2, None)]


async def test_an_error_is_handed_on() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    _, outcome = drive(fail())
    await outcome.heard()
    assert isinstance(outcome.calls[0][1], ValueError)


async def test_cancelling_cancels_the_future_and_reaches_the_coroutine_once() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    seen: list[str] = []

    async def wait() -> None:
        try:
            await future
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    driven, outcome = drive(wait())
    driven.cancel()
    await outcome.heard()
    assert future.cancelled()
    assert seen == ["cancelled"]
    assert isinstance(outcome.calls[0][1], asyncio.CancelledError)
    assert len(outcome.calls) == 1


async def test_what_is_cancelled_while_it_runs_ends_at_its_next_wait() -> None:
    async def cancel_myself() -> None:
        await asyncio.sleep(0)
        driven.cancel()
        await asyncio.Event().wait()

    driven, outcome = drive(cancel_myself())
    await outcome.heard()
    assert isinstance(outcome.calls[0][1], asyncio.CancelledError)


async def test_a_thread_can_be_awaited() -> None:
    _, outcome = drive(asyncio.to_thread(lambda: 3))
    await outcome.heard()
    assert outcome.calls == [(3, None)]


class Manual(Work[int]):
    """Ends when the test says so."""

    def __init__(self) -> None:
        self.cancelled = 0

    def start(self, done: Done[int]) -> None:
        self.done = done

    def cancel(self) -> None:
        self.cancelled += 1
        self.done(None, asyncio.CancelledError())


async def test_work_can_be_awaited() -> None:
    work = Manual()
    waiting = asyncio.ensure_future(wait_for(work))
    await asyncio.sleep(0)
    work.done(7, None)
    assert await waiting == 7
    assert work.cancelled == 0


async def test_an_error_reaches_who_awaits() -> None:
    work = Manual()
    waiting = asyncio.ensure_future(wait_for(work))
    await asyncio.sleep(0)
    work.done(None, ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await waiting


async def test_cancelling_who_awaits_cancels_the_work_once() -> None:
    work = Manual()
    waiting = asyncio.ensure_future(wait_for(work))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.cancelled == 1


async def test_a_value_that_is_there_ends_at_once() -> None:
    outcome = Outcome()
    Settled(3).start(outcome)
    assert outcome.calls == [(3, None)]
    assert await Settled(4) == 4


async def wait_for(work: Work[int]) -> int:
    return await work
