"""Several answers to one request: as they come, no faster than they are taken, no longer than somebody listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import DeadlineExceeded, EngineError, InvalidInput, Unavailable, Unsupported
from inferloop.core.protocols import StreamingSession
from inferloop.core.target import Target
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.limits import Limits
from inferloop.prediction.predictor import Predictor
from inferloop.prediction.settings import ModelSettings
from inferloop.prediction.streaming import AHEAD
from support.served import echo, rep

DECOUPLED = ModelSettings(decoupled=True)


class Counting(StreamingSession):
    """Answers 0, 1, 2, ...; raises at `fails_at`; notes how far it got and whether its stream was closed."""

    def __init__(self, bundle: Bundle, *, count: int = 3, fails_at: int = -1) -> None:
        self.signature = bundle.signature
        self.count = count
        self.fails_at = fails_at
        self.made = 0
        self.ended = False

    def run(self, inputs: Tensors) -> dict[str, Array]:
        return {"y": inputs["x"]}

    def stream(self, inputs: Tensors) -> Iterator[dict[str, Array]]:
        try:
            for place in range(self.count):
                if place == self.fails_at:
                    raise EngineError("it broke")
                self.made = place + 1
                yield {"y": inputs["x"] * 0 + place}
        finally:
            self.ended = True

    def close(self) -> None:
        pass


def counting(path: Path, **options: int) -> tuple[Predictor, Counting]:
    bundle = echo(path / "echo")
    session = Counting(bundle, **options)
    return Predictor(bundle, [session], target=Target(), limits=Limits(), settings=DECOUPLED), session


def x(rows: int = 1) -> Tensors:
    return {"x": np.zeros((rows, 2), np.float32)}


async def drained(answers: AsyncIterator[object]) -> None:
    """Take all that come."""
    async for _ in answers:
        pass


async def until(condition: object) -> None:
    async with asyncio.timeout(60):
        while not condition():  # type: ignore[operator]  # a function of no arguments
            await asyncio.sleep(0.005)


async def test_a_decoupled_model_answers_with_each_slice(tmp_path: Path) -> None:
    async with Predictor.load(rep(tmp_path / "rep"), settings=DECOUPLED) as predictor:
        tensors = {"x": np.array([1, 5], np.float32)}
        answers = [answer async for answer in predictor.astream(tensors, id="asked")]
    assert [answer.outputs["y"].tolist() for answer in answers] == [[1, 5], [2, 6]]
    assert [answer.id for answer in answers] == ["asked.0", "asked.1"]
    assert predictor.bundle.signature.output("y").shape == (None,)


async def test_a_decoupled_model_has_no_single_answer(tmp_path: Path) -> None:
    async with Predictor.load(rep(tmp_path / "rep"), settings=DECOUPLED) as predictor:
        with pytest.raises(Unsupported, match="doesn't support models with decoupled transaction policy"):
            await predictor.ainfer({"x": np.zeros(2, np.float32)})
        with pytest.raises(Unsupported):
            predictor.infer({"x": np.zeros(2, np.float32)})


async def test_any_other_model_streams_its_one_answer(tmp_path: Path) -> None:
    async with Predictor.load(echo(tmp_path / "echo")) as predictor:
        answers = [answer async for answer in predictor.astream(x(), id="asked")]
    assert [answer.id for answer in answers] == ["asked"]


async def test_a_bad_request_is_refused_before_it_reaches_the_engine(tmp_path: Path) -> None:
    predictor, session = counting(tmp_path)
    with pytest.raises(InvalidInput):
        await anext(predictor.astream({"x": np.zeros((1, 9), np.float32)}))
    assert session.made == 0
    await predictor.aclose()


async def test_a_model_may_give_no_answer(tmp_path: Path) -> None:
    predictor, _ = counting(tmp_path, count=0)
    assert [answer async for answer in predictor.astream(x())] == []
    await predictor.aclose()


async def test_a_slow_caller_holds_the_model_up(tmp_path: Path) -> None:
    predictor, session = counting(tmp_path, count=1000)
    async with aclosing(predictor.astream(x())) as answers:
        await anext(answers)
        await until(lambda: session.made >= AHEAD)
        await asyncio.sleep(0.02)
        assert session.made <= AHEAD + 3
    await until(lambda: session.ended)
    assert session.made <= AHEAD + 3
    await predictor.aclose()


async def test_a_failure_between_two_answers_ends_the_stream_and_not_the_session(tmp_path: Path) -> None:
    predictor, session = counting(tmp_path, fails_at=2)
    answers = predictor.astream(x())
    assert [(await anext(answers)).outputs["y"][0, 0] for _ in range(2)] == [0, 1]
    with pytest.raises(EngineError, match="it broke"):
        await anext(answers)
    session.fails_at = -1
    assert len([answer async for answer in predictor.astream(x())]) == 3
    await predictor.aclose()


async def test_the_deadline_ends_a_stream(tmp_path: Path) -> None:
    predictor, session = counting(tmp_path, count=10**9)
    with pytest.raises(DeadlineExceeded):
        await drained(predictor.astream(x(), deadline=time.monotonic() + 0.05))
    await until(lambda: session.ended)
    await predictor.aclose()


async def test_closing_ends_a_stream_after_its_grace(tmp_path: Path) -> None:
    bundle = echo(tmp_path / "echo")
    session = Counting(bundle, count=10**9)
    predictor = Predictor(bundle, [session], target=Target(), limits=Limits(drain_s=0.01), settings=DECOUPLED)
    answers = predictor.astream(x())
    await anext(answers)
    await predictor.aclose()
    with pytest.raises(Unavailable):
        await drained(answers)
    await until(lambda: session.ended)


async def test_each_answer_of_a_stream_is_in_the_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        async with Predictor.load(rep(tmp_path / "rep"), settings=DECOUPLED, ledger=ledger) as predictor:
            answers = [answer async for answer in predictor.astream({"x": np.zeros(2, np.float32)})]
        ledger.flush()
        assert [record.id for record in ledger.predictions()] == [answer.id for answer in answers]
