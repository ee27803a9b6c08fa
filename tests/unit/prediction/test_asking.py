"""A request of tensors without a coroutine: one answer each, versions held until then, nothing for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

import numpy as np
import pytest

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import DeadlineExceeded, InvalidInput
from inferloop.core.work import Work
from inferloop.prediction.limits import Limits
from inferloop.prediction.live import Loaded
from inferloop.prediction.prediction import Inference
from inferloop.prediction.predictor import Predictor
from inferloop.prediction.routed import Routed
from support import bundles

ROW = {"x": np.float32([[0.1, 0.2, 0.3, 0.4]])}


class Heard:
    """Keeps what `done` was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Inference | None, BaseException | None]] = []
        self.called = asyncio.Event()

    def __call__(self, answer: Inference | None, error: BaseException | None) -> None:
        self.calls.append((answer, error))
        self.called.set()


async def outcome(work: Work[Inference]) -> Heard:
    heard = Heard()
    work.start(heard)
    await heard.called.wait()
    return heard


async def test_the_answer_comes_once_and_is_counted(tmp_path: Path) -> None:
    async with Predictor.load(bundles.numbers(tmp_path / "m")) as predictor:
        heard = await outcome(predictor.ask(ROW, id="asked"))
        ((answer, error),) = heard.calls
        assert error is None
        assert answer is not None
        assert (answer.id, answer.rows) == ("asked", 1)
        assert predictor.meter.snapshot().success.count == 1


async def test_what_refuses_a_request_is_heard_and_counted(tmp_path: Path) -> None:
    async with Predictor.load(bundles.numbers(tmp_path / "m")) as predictor:
        wrong: Tensors = {"x": np.float32([[1.0]])}
        ((_, error),) = (await outcome(predictor.ask(wrong))).calls
        assert isinstance(error, InvalidInput)
        assert predictor.meter.snapshot().fail.count == 1


async def test_one_who_leaves_hears_of_it_once_and_is_counted(tmp_path: Path) -> None:
    async with Predictor.load(bundles.numbers(tmp_path / "m")) as predictor:
        heard = Heard()
        work = predictor.ask(ROW)
        work.start(heard)
        work.cancel()
        work.cancel()
        await predictor.ainfer(ROW)
        assert [type(error) for _, error in heard.calls] == [asyncio.CancelledError]
        assert predictor.meter.snapshot().fail.count == 1


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_version_is_not_closed_before_its_answer(tmp_path: Path, *, leaves: bool) -> None:
    loaded = Loaded(Predictor.load(bundles.numbers(tmp_path / "m"), limits=Limits(max_delay_s=60, inline=False)))
    work = Routed(loaded.predictor.ask(ROW), loaded, None)
    heard = Heard()
    work.start(heard)
    retiring = asyncio.create_task(loaded.retire(grace_s=60))
    await asyncio.sleep(0.05)
    assert not retiring.done()
    if leaves:
        work.cancel()
    else:  # company for a full batch
        for _ in range(63):
            loaded.predictor.ask(ROW).start(Heard())
    await heard.called.wait()
    await asyncio.wait_for(retiring, 60)


async def test_deadlines_far_and_near_are_kept_by_one_timer(tmp_path: Path) -> None:
    async with Predictor.load(bundles.numbers(tmp_path / "m"), limits=Limits(max_delay_s=300, inline=False)) as predictor:
        batcher = predictor._looped.batcher()
        batcher._max_delay_s = 300  # the deadline shortens the wait for company: this engine is taken
        batcher._free.clear()
        now = time.monotonic()
        kept = [asyncio.ensure_future(predictor.ainfer(ROW, deadline=now + after)) for after in (300, 0.05, 0.1, 0.02)]
        errors = await asyncio.gather(*kept[1:], return_exceptions=True)
        assert [type(error) for error in errors] == [DeadlineExceeded] * 3
        assert time.monotonic() - now >= 0.1
        assert not kept[0].done()
        kept[0].cancel()
        batcher._free.extend(batcher._instances)


async def test_requests_leave_nothing_for_the_garbage_collector(tmp_path: Path) -> None:
    async with Predictor.load(bundles.numbers(tmp_path / "m")) as predictor:
        loaded = Loaded(predictor)
        await predictor.ainfer(ROW)
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await outcome(Routed(loaded.predictor.ask(ROW), loaded, None))
            assert gc.collect() < 50
        finally:
            gc.enable()
