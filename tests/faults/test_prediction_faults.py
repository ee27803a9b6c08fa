"""Clients that leave, engines that die, replies that explode: nobody else notices."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inferloop.core.errors import EngineError, InvalidInput
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.batcher import Batcher
from inferloop.prediction.limits import Limits
from inferloop.prediction.predictor import Predictor
from support import bundles
from support.sessions import BreakingSession, GatedSession, SquareSession, rows


async def test_a_client_that_leaves_during_the_run_costs_its_seven_neighbors_nothing() -> None:
    session = GatedSession()
    batcher = Batcher(session)
    clients = [asyncio.create_task(_ask(batcher, value)) for value in range(8)]
    assert await asyncio.to_thread(session.entered.acquire, timeout=60)
    assert session.is_running.is_set()
    clients[3].cancel()
    await asyncio.wait([clients[3]])
    assert clients[3].cancelled()
    assert session.is_running.is_set(), "the client left while the engine ran its batch"
    session.gate.release()
    answers = await asyncio.gather(*clients, return_exceptions=True)
    assert [len(run) for run in session.runs] == [8], "all eight were in one batch"
    assert [answer for index, answer in enumerate(answers) if index != 3] == [value**2 for value in range(8) if value != 3]
    assert await _ask(batcher, 9, gate=session) == 81
    await batcher.close()


async def test_a_client_that_leaves_a_failing_batch_is_not_run_again() -> None:
    entered, go = threading.Event(), threading.Event()

    def fault(x: np.ndarray) -> BaseException | None:
        if len(x) == 1:
            return None
        entered.set()
        assert go.wait(60)
        return RuntimeError("the whole batch fails")

    session = BreakingSession(fault)
    batcher = Batcher(session)
    clients = [asyncio.create_task(_ask(batcher, value)) for value in range(3)]
    assert await asyncio.to_thread(entered.wait, 60)
    clients[1].cancel()
    await asyncio.wait([clients[1]])
    go.set()
    answers = await asyncio.gather(*clients, return_exceptions=True)
    assert (answers[0], answers[2]) == (0, 4)
    assert session.seen == [0, 2]
    await batcher.close()


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
async def test_a_poisoned_reply_callback_never_hurts_its_neighbors(inline: bool) -> None:
    loop = asyncio.get_running_loop()
    blown: list[object] = []
    loop.set_exception_handler(lambda _, context: blown.append(context["exception"]))
    batcher = Batcher(SquareSession(), inline=inline)
    futures = [batcher.submit(rows(value)) for value in range(4)]
    futures[1].add_done_callback(_explode)
    answers = await asyncio.gather(*futures)
    assert [answer["y"][0, 0] for answer in answers] == [0, 1, 4, 9]
    assert len(blown) == 1, "the callback did explode"
    assert (await batcher.submit(rows(5)))["y"][0, 0] == 25
    await batcher.close()


async def test_a_caller_that_refuses_its_answer_never_hurts_its_neighbors(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("the transport is closed")

    session = GatedSession()
    batcher = Batcher(session)
    first = batcher.submit(rows(0))
    batcher.enter(rows(1), refuse)
    last = batcher.submit(rows(2))
    assert await asyncio.to_thread(session.entered.acquire, timeout=60)
    session.gate.release(2)
    assert [(await future)["y"][0, 0] for future in (first, last)] == [0, 4]
    assert "answer not delivered" in caplog.text
    assert (await batcher.submit(rows(5)))["y"][0, 0] == 25
    await batcher.close()


@pytest.mark.parametrize(
    "error", [MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration], ids=lambda e: e.__name__
)
async def test_whatever_an_engine_raises_is_answered_and_the_loop_lives(error: type[BaseException], caplog: object) -> None:
    session = BreakingSession(lambda x: error() if 13 in x else None)
    batcher = Batcher(session)
    with pytest.raises(EngineError, match=error.__name__):
        await batcher.submit(rows(13))
    assert session.faults == 1
    assert (await batcher.submit(rows(4)))["y"][0, 0] == 16
    await batcher.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_an_engine_thread_that_dies_between_two_runs_is_replaced() -> None:
    batcher = Batcher(SquareSession())
    await batcher.submit(rows(1))
    worker = batcher._instances[0].worker
    assert worker is not None
    thread = worker.thread
    while sys._current_frames()[thread.ident or 0].f_code.co_name != "_main":
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # it is back at its queue: what hits it now hits it with the next batch
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)) == 1
    answers = await asyncio.gather(*[batcher.submit(rows(value)) for value in (2, 3)], return_exceptions=True)
    await asyncio.to_thread(thread.join, 60)
    assert not thread.is_alive(), "the thread did die"
    assert [type(answer) for answer in answers] == [EngineError, EngineError], "with this batch in hand"
    assert (await batcher.submit(rows(5)))["y"][0, 0] == 25
    await batcher.close()


async def test_a_cancelled_close_still_answers_everyone() -> None:
    session = GatedSession()
    batcher = Batcher(session, max_batch=1)
    futures = [batcher.submit(rows(value)) for value in range(3)]
    assert await asyncio.to_thread(session.entered.acquire, timeout=60)
    closing = asyncio.create_task(batcher.close(grace_s=60))
    await asyncio.sleep(0.01)
    closing.cancel()
    await asyncio.wait([closing])
    assert all(future.done() for future in futures)
    session.gate.release(3)


async def test_a_loop_that_ends_without_closing_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())

    def forgetful() -> None:
        async def main() -> None:
            session = GatedSession()
            batcher = Batcher(session)
            future = batcher.submit(rows(1))
            await asyncio.sleep(0.01)
            future.cancel()
            threading.Timer(0.05, session.gate.release).start()

        asyncio.run(main())

    await asyncio.to_thread(forgetful)
    await _until(lambda: not any("engine" in thread.name for thread in set(threading.enumerate()) - before))


async def test_an_image_that_is_no_image_fails_alone(tmp_path: Path) -> None:
    predictor = Predictor.load(bundles.image(tmp_path / "image"), limits=Limits(inline=False))
    samples = [{"image": b"\x89PNG broken" if index == 2 else bundles.png(40 * index)} for index in range(5)]
    answers = await asyncio.gather(*[predictor.apredict(sample) for sample in samples], return_exceptions=True)
    assert isinstance(answers[2], InvalidInput)
    alone = [predictor.predict(sample).scores for index, sample in enumerate(samples) if index != 2]
    together = [answer.scores for index, answer in enumerate(answers) if index != 2]
    assert together == [pytest.approx(scores, abs=1e-6) for scores in alone]
    await predictor.aclose()


async def test_predictions_go_on_when_the_ledger_takes_nothing_more(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", queue_rows=20)
    predictor = Predictor.load(bundles.numbers(tmp_path / "numbers"), ledger=ledger)
    ledger.close()
    answers = await asyncio.gather(*[predictor.apredict({"values": [1, 2, 3, 4]}) for _ in range(50)])
    assert len({answer.id for answer in answers}) == 50
    await predictor.aclose()


async def _ask(batcher: Batcher, value: int, *, gate: GatedSession | None = None) -> int:
    future = batcher.submit(rows(value))
    if gate is not None:
        gate.gate.release()
    return int((await future)["y"][0, 0])


def _explode(_: object) -> None:
    raise RuntimeError("poison")


async def _until(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
