"""Random traffic, random faults: every request gets exactly one answer, and it is its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferloop.core.datatypes import Array
from inferloop.core.errors import EngineError, InferloopError, Overloaded, Unavailable
from inferloop.prediction.batcher import Batcher
from support.sessions import BreakingSession, rows

POISON = 1_000_000
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Request:
    """What one client does."""

    count: int
    length: int
    poisoned: bool
    leaves_after: int | None  # turns of the loop; None: it stays
    pause: int  # turns of the loop before it comes


requests = st.builds(
    Request,
    count=st.integers(1, 5),
    length=st.integers(1, 3),
    poisoned=st.booleans() | st.just(False),
    leaves_after=st.none() | st.integers(0, 4),
    pause=st.integers(0, 2),
)
traffic = st.lists(requests, min_size=1, max_size=24)


class Client:
    """Sends one request and keeps what it got."""

    def __init__(self, number: int, plan: Request) -> None:
        self.plan = plan
        self.values = [POISON if plan.poisoned else number * 10 + row for row in range(plan.count)]
        self.future: asyncio.Future[dict[str, Array]] | None = None
        self.answers = 0
        self.refusal: InferloopError | None = None

    async def send(self, batcher: Batcher) -> None:
        try:
            self.future = batcher.submit(rows(*self.values, length=self.plan.length))
        except InferloopError as error:
            self.refusal = error
            return
        self.future.add_done_callback(self._count)
        if self.plan.leaves_after is not None:
            for _ in range(self.plan.leaves_after):
                await asyncio.sleep(0)
            self.future.cancel()

    def _count(self, _: object) -> None:
        self.answers += 1

    def check(self) -> str:
        """The kind of its answer, after checking that the answer is right."""
        if self.refusal is not None:
            return type(self.refusal).__name__
        assert self.future is not None
        assert self.answers == 1, f"{self.answers} answers"
        if self.future.cancelled():
            assert self.plan.leaves_after is not None
            return "left"
        error = self.future.exception()
        if error is None:
            assert not self.plan.poisoned
            expected = np.repeat(np.array(self.values)[:, None] ** 2, self.plan.length, axis=1)
            np.testing.assert_array_equal(self.future.result()["y"], expected)
            return "answered"
        return type(error).__name__


async def serve(
    plans: list[Request], session: BreakingSession, *, close_at: int | None = None, **options: object
) -> Counter[str]:
    """Let the clients come one after another; count what became of each."""
    batcher = Batcher(session, **options)
    clients = [Client(number, plan) for number, plan in enumerate(plans)]
    tasks = []
    closing = None
    for number, client in enumerate(clients):
        for _ in range(client.plan.pause):
            await asyncio.sleep(0)
        if number == close_at:
            closing = asyncio.create_task(batcher.close(grace_s=10))
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(client.send(batcher)))
    await asyncio.gather(*tasks)
    if closing is not None:
        await closing
    await batcher.close(grace_s=10)
    await asyncio.sleep(0)
    for run in session.runs:
        assert len(run) <= options.get("max_batch", 64)
    return Counter(client.check() for client in clients)


@QUICK
@given(plans=traffic, inline=st.booleans(), max_batch=st.integers(5, 12))
def test_everyone_who_stays_gets_exactly_his_answer(plans: list[Request], inline: bool, max_batch: int) -> None:
    session = BreakingSession(lambda x: RuntimeError("poison") if POISON in x else None)
    kinds = asyncio.run(serve(plans, session, inline=inline, max_batch=max_batch))
    assert set(kinds) <= {"answered", "left", "EngineError"}
    staying = [plan for plan in plans if plan.leaves_after is None]
    assert kinds["answered"] >= sum(not plan.poisoned for plan in staying)
    assert kinds["EngineError"] >= sum(plan.poisoned for plan in staying)


@QUICK
@given(plans=traffic, inline=st.booleans(), every=st.integers(2, 5))
def test_an_engine_that_fails_every_kth_run_costs_no_one_his_answer(plans: list[Request], inline: bool, every: int) -> None:
    calls = Counter[str]()

    def fault(_: Array) -> BaseException | None:
        calls["runs"] += 1
        return MemoryError("no room") if calls["runs"] % every == 0 else None

    harmless = [Request(plan.count, plan.length, False, plan.leaves_after, plan.pause) for plan in plans]
    kinds = asyncio.run(serve(harmless, BreakingSession(fault), inline=inline))
    assert sum(kinds.values()) == len(plans)
    assert set(kinds) <= {"answered", "left", "EngineError"}


@QUICK
@given(plans=traffic, inline=st.booleans(), share=st.floats(0, 1))
def test_a_shutdown_in_mid_traffic_leaves_no_one_waiting(plans: list[Request], inline: bool, share: float) -> None:
    close_at = int(share * (len(plans) - 1))
    session = BreakingSession(lambda x: RuntimeError("poison") if POISON in x else None)
    kinds = asyncio.run(serve(plans, session, close_at=close_at, inline=inline, max_delay_s=0.001))
    assert sum(kinds.values()) == len(plans)
    assert set(kinds) <= {"answered", "left", "EngineError", Unavailable.__name__}


@QUICK
@given(plans=traffic, inline=st.booleans(), queue_rows=st.integers(5, 10))
def test_a_small_queue_refuses_and_answers_and_nothing_else(plans: list[Request], inline: bool, queue_rows: int) -> None:
    harmless = [Request(plan.count, plan.length, False, plan.leaves_after, 0) for plan in plans]
    kinds = asyncio.run(serve(harmless, BreakingSession(lambda x: None), inline=inline, max_batch=5, queue_rows=queue_rows))
    assert sum(kinds.values()) == len(plans)
    assert set(kinds) <= {"answered", "left", Overloaded.__name__}


@QUICK
@given(plans=traffic)
def test_those_who_poisoned_a_run_fail_and_no_one_else(plans: list[Request]) -> None:
    session = BreakingSession(lambda x: EngineError("poison") if POISON in x else None)
    staying = [Request(plan.count, plan.length, plan.poisoned, None, 0) for plan in plans]
    kinds = asyncio.run(serve(staying, session))
    assert kinds["answered"] == sum(not plan.poisoned for plan in staying)
    assert kinds["EngineError"] == sum(plan.poisoned for plan in staying)
