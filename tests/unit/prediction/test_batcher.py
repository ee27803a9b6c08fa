"""The batcher's promises, one by one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest

from inferloop.core.errors import DeadlineExceeded, EngineError, InvalidInput, Overloaded, Unavailable
from inferloop.prediction.batcher import SLOW_RUNS, Batcher
from inferloop.prediction.meter import Meter
from support.sessions import BreakingSession, GatedSession, SquareSession, rows

BOTH = pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])


async def entered(session: GatedSession) -> None:
    """Wait until a run has begun."""
    assert await asyncio.to_thread(session.entered.acquire, timeout=60)


@BOTH
async def test_a_request_gets_its_own_rows(inline: bool) -> None:
    batcher = Batcher(SquareSession(), inline=inline)
    first, second = batcher.submit(rows(2, 3)), batcher.submit(rows(5))
    assert (await first)["y"][:, 0].tolist() == [4, 9]
    assert (await second)["y"][:, 0].tolist() == [25]
    await batcher.close()


async def test_an_idle_engine_starts_without_a_timer() -> None:
    session = GatedSession()
    batcher = Batcher(session)
    answer = batcher.submit(rows(2))
    await asyncio.sleep(0)
    assert batcher.waiting_rows == 0, "one turn of the loop is enough to hand the request over"
    session.gate.release()
    await answer
    await batcher.close()


async def test_what_queued_while_the_engine_was_busy_shares_the_next_run() -> None:
    session = GatedSession()
    batcher = Batcher(session)
    first = batcher.submit(rows(1))
    await entered(session)
    others = [batcher.submit(rows(value)) for value in (2, 3, 4)]
    session.gate.release(2)
    await asyncio.gather(first, *others)
    assert [len(run) for run in session.runs] == [1, 3]
    await batcher.close()


async def test_requests_of_different_shapes_never_share_a_run() -> None:
    session = SquareSession()
    batcher = Batcher(session)
    answers = await asyncio.gather(*[batcher.submit(rows(value, length=1 + value % 2)) for value in range(6)])
    assert [answer["y"].tolist() for answer in answers] == [[[value**2] * (1 + value % 2)] for value in range(6)]
    assert sorted(len(run) for run in session.runs) == [3, 3]
    await batcher.close()


async def test_the_delay_waits_for_company_and_a_full_batch_does_not_wait() -> None:
    session = SquareSession()
    batcher = Batcher(session, max_batch=4, max_delay_s=600.0)
    full = [batcher.submit(rows(value)) for value in range(4)]
    await asyncio.wait_for(asyncio.gather(*full), 60)
    assert [len(run) for run in session.runs] == [4]
    await batcher.close()


async def test_the_delay_ends() -> None:
    session = SquareSession()
    batcher = Batcher(session, max_batch=4, max_delay_s=0.02)
    assert (await batcher.submit(rows(2)))["y"].tolist() == [[4, 4]]
    assert [len(run) for run in session.runs] == [1]
    await batcher.close()


async def test_closing_does_not_wait_for_the_delay() -> None:
    batcher = Batcher(SquareSession(), max_delay_s=600.0)
    answer = batcher.submit(rows(3))
    await asyncio.sleep(0.01)
    assert await batcher.close(grace_s=60)
    assert answer.result()["y"].tolist() == [[9, 9]]


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"z": np.ones((1, 2), np.int64)},
        {"x": np.ones((1, 2), np.float32)},
        {"x": np.ones(2, np.int64)},
        {"x": np.ones((0, 2), np.int64)},
        {"x": np.ones((5, 2), np.int64)},
    ],
    ids=["missing", "unknown", "dtype", "rank", "empty", "too many rows"],
)
async def test_a_bad_request_is_refused_before_it_can_join_a_batch(inputs: dict[str, np.ndarray]) -> None:
    session = SquareSession()
    batcher = Batcher(session, max_batch=4)
    neighbor = batcher.submit(rows(2))
    with pytest.raises(InvalidInput):
        batcher.submit(inputs)
    assert (await neighbor)["y"].tolist() == [[4, 4]]
    assert len(session.runs) == 1
    await batcher.close()


async def test_a_full_queue_is_overloaded_at_once() -> None:
    session = GatedSession()
    batcher = Batcher(session, max_batch=4, queue_rows=6)
    running = batcher.submit(rows(1))
    await entered(session)
    waiting = [batcher.submit(rows(1, 2, 3)) for _ in range(2)]
    with pytest.raises(Overloaded, match="6 rows wait") as caught:
        batcher.submit(rows(9))
    assert caught.value.retry_after_s > 0
    session.gate.release(5)
    await asyncio.gather(running, *waiting)
    await batcher.close()


async def test_those_who_left_make_room_in_a_full_queue() -> None:
    session = GatedSession()
    batcher = Batcher(session, max_batch=4, queue_rows=4)
    running = batcher.submit(rows(1))
    await entered(session)
    left = batcher.submit(rows(1, 2, 3, 4))
    left.cancel()
    stays = batcher.submit(rows(7))
    session.gate.release(5)
    await running
    assert (await stays)["y"].tolist() == [[49, 49]]
    assert session.seen == [1, 7]
    await batcher.close()


async def test_an_expired_request_never_reaches_the_engine() -> None:
    session = GatedSession()
    batcher = Batcher(session)
    running = batcher.submit(rows(1))
    await entered(session)
    on_time = batcher.submit(rows(3), deadline=time.monotonic() + 600)
    with pytest.raises(DeadlineExceeded):
        await batcher.submit(rows(2), deadline=time.monotonic() + 0.02)
    assert session.is_running.is_set(), "it was answered at its deadline, while the engine was still busy"
    session.gate.release(5)
    await asyncio.gather(running, on_time)
    assert session.seen == [1, 3]
    await batcher.close()


async def test_a_deadline_that_is_over_on_arrival_is_refused() -> None:
    batcher = Batcher(SquareSession())
    with pytest.raises(DeadlineExceeded):
        batcher.submit(rows(1), deadline=time.monotonic() - 1)
    await batcher.close()


async def test_a_deadline_shortens_the_wait_for_company() -> None:
    batcher = Batcher(SquareSession(), max_delay_s=1e6)
    answer = await batcher.submit(rows(4), deadline=time.monotonic() + 5.0)  # leaves after half of it
    assert answer["y"].tolist() == [[16, 16]]
    await batcher.close()


@BOTH
async def test_a_failing_batch_fails_only_the_guilty(inline: bool) -> None:
    session = BreakingSession(lambda x: ValueError("13 is unlucky") if 13 in x else None)
    batcher = Batcher(session, inline=inline)
    answers = await asyncio.gather(*[batcher.submit(rows(value)) for value in (1, 13, 3)], return_exceptions=True)
    assert isinstance(answers[1], EngineError)
    assert "unlucky" not in str(answers[1]), "what the engine raised is for the log, not for the client"
    assert [answers[0]["y"].tolist(), answers[2]["y"].tolist()] == [[[1, 1]], [[9, 9]]]
    assert (await batcher.submit(rows(5)))["y"].tolist() == [[25, 25]]
    await batcher.close()


async def test_each_caller_of_a_broken_engine_gets_an_error_of_its_own() -> None:
    batcher = Batcher(BreakingSession(lambda x: SystemExit(1)))
    answers = await asyncio.gather(*[batcher.submit(rows(value)) for value in range(3)], return_exceptions=True)
    assert [type(answer) for answer in answers] == [EngineError] * 3
    assert len({id(answer) for answer in answers}) == 3
    await batcher.close()


class _ShortSession(SquareSession):
    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = super().run(inputs)
        return {"y": outputs["y"][:1]} if len(inputs["x"]) > 1 else outputs


async def test_an_engine_that_loses_rows_does_not_shift_the_answers() -> None:
    batcher = Batcher(_ShortSession())
    answers = await asyncio.gather(*[batcher.submit(rows(value)) for value in (1, 2, 3)])
    assert [answer["y"][0, 0] for answer in answers] == [1, 4, 9]
    await batcher.close()


async def test_closing_answers_what_was_accepted_and_takes_nothing_more() -> None:
    session = GatedSession()
    batcher = Batcher(session, max_batch=2)
    accepted = [batcher.submit(rows(value)) for value in range(5)]
    closing = asyncio.create_task(batcher.close(grace_s=60))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        batcher.submit(rows(9))
    session.gate.release(9)
    assert await closing
    assert [answer.result()["y"][0, 0] for answer in accepted] == [0, 1, 4, 9, 16]


async def test_closing_refuses_what_is_not_answered_in_time() -> None:
    session = GatedSession()
    batcher = Batcher(session, max_batch=1)
    accepted = [batcher.submit(rows(value)) for value in range(3)]
    await entered(session)
    assert not await batcher.close(grace_s=0.01), "the engine is not free"
    assert all(isinstance(answer.exception(), Unavailable) for answer in accepted)
    session.gate.release(9)


async def test_closing_twice_does_nothing() -> None:
    batcher = Batcher(SquareSession())
    await batcher.submit(rows(1))
    assert await batcher.close()
    assert await batcher.close()


class Slow(SquareSession):
    """Takes as long as `pauses` say, then no time."""

    def __init__(self, *pauses: float) -> None:
        super().__init__()
        self.pauses = list(pauses)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(self.pauses.pop(0) if self.pauses else 0)
        return super().run(inputs)


async def test_a_slow_model_leaves_the_event_loop_by_itself() -> None:
    batcher = Batcher(Slow(*[0.02] * SLOW_RUNS), inline=True)
    for _ in range(SLOW_RUNS):
        assert batcher.inline
        await batcher.submit(rows(1))
    assert not batcher.inline
    assert (await batcher.submit(rows(3)))["y"][0, 0] == 9
    await batcher.close()


async def test_a_run_that_a_neighbor_held_up_does_not_move_a_quick_model() -> None:
    batcher = Batcher(Slow(0.02), inline=True)
    await batcher.submit(rows(1))
    assert batcher.inline
    await batcher.close()


async def test_what_is_asked_in_answer_to_a_late_request_joins_the_queue_that_is_swept() -> None:
    session = GatedSession()
    batcher = Batcher(session, queue_rows=3)
    running = batcher.submit(rows(0))
    await entered(session)
    again: list[asyncio.Future[object]] = []

    def ask_again(outcome: object) -> None:
        assert isinstance(outcome, DeadlineExceeded)
        if len(again) < 2:
            again.append(batcher.submit(rows(7)))

    late = [batcher.enter(rows(number), ask_again, deadline=time.monotonic() + 60) for number in range(3)]
    for job in late:
        job.deadline = time.monotonic()  # their timer has not rung yet
    last = batcher.submit(rows(5))
    assert len(again) == 2, "the queue was swept"
    session.gate.release(3)
    assert [(await future)["y"][0, 0] for future in (running, last, *again)] == [0, 25, 49, 49]
    assert batcher.waiting_rows == 0
    await batcher.close()


async def test_what_is_asked_in_answer_to_a_request_that_comes_late_to_the_engine_is_kept() -> None:
    session = GatedSession()
    batcher = Batcher(session, queue_rows=3)
    running = batcher.submit(rows(0))
    await entered(session)
    again: list[asyncio.Future[object]] = []
    late = batcher.enter(rows(1), lambda _: again.append(batcher.submit(rows(7))), deadline=time.monotonic() + 60)
    waiting = [batcher.submit(rows(2)), batcher.submit(rows(3))]
    late.deadline = time.monotonic()
    session.gate.release(3)
    assert [(await future)["y"][0, 0] for future in (running, *waiting)] == [0, 4, 9]
    assert [(await future)["y"][0, 0] for future in again] == [49]
    assert batcher.waiting_rows == 0
    await batcher.close()


async def test_a_meter_that_fails_costs_its_batch_and_not_the_instance() -> None:
    class Broken(Meter):
        def waited(self, seconds: Sequence[float]) -> None:
            if seconds:
                raise RuntimeError("no meter today")

    batcher = Batcher(SquareSession(), meter=Broken("m", 1))
    with pytest.raises(EngineError, match="RuntimeError"):
        await batcher.submit(rows(1))
    with pytest.raises(EngineError, match="RuntimeError"):
        await batcher.submit(rows(2))
    await batcher.close()
