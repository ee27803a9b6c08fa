"""Batching never changes an answer: every datatype, mixed requests, bad neighbors, callers that leave, one to three instances."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import EngineError, InferloopError, InvalidInput, Overloaded
from inferloop.core.protocols import Session
from inferloop.core.signature import Signature, TensorSpec
from inferloop.prediction.batcher import Batcher

BOUNDED = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
POISON = "poison"


def values(dtype: DataType, rows: int, length: int, seed: int) -> Array:
    """Any values of that type; BYTES of any length."""
    random = np.random.default_rng(seed)
    if dtype is DataType.BYTES:
        made = np.empty((rows, length), object)
        made.ravel()[:] = [random.bytes(int(random.integers(0, 9))) for _ in range(rows * length)]
        return made
    return random.integers(0, 100, (rows, length)).astype(dtype.numpy)


def answer(inputs: Tensors) -> dict[str, Array]:
    """Reverses `x` and tells the length of each row's `tag`; what the session computes, row by row."""
    lengths = np.array([len(item) for item in inputs["tag"][:, 0]], np.int64)
    return {"y": inputs["x"][:, ::-1], "length": lengths[:, None]}


class RowSession(Session):
    """Computes `answer`; fails whole runs with a poisoned row; never runs in two threads at once."""

    def __init__(self, dtype: DataType, max_batch: int) -> None:
        self.signature = Signature(
            (TensorSpec("x", dtype, (None, None)), TensorSpec("tag", DataType.BYTES, (None, 1))),
            (TensorSpec("y", dtype, (None, None)), TensorSpec("length", DataType.INT64, (None, 1))),
        )
        self.broken: list[str] = []
        self._max_batch = max_batch
        self._alone = threading.Lock()

    def run(self, inputs: Tensors) -> dict[str, Array]:
        if not self._alone.acquire(blocking=False):
            self.broken.append("two runs at once")
            return answer(inputs)
        try:
            if len(inputs["x"]) > self._max_batch:
                self.broken.append(f"{len(inputs['x'])} rows in one run")
            if POISON.encode() in inputs["tag"].ravel().tolist():
                raise EngineError(POISON)
            return answer(inputs)
        finally:
            self._alone.release()

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Request:
    """What one caller sends, and how it behaves."""

    rows: int
    length: int
    seed: int
    fault: str  # none, engine, shape, dtype, name
    priority: int
    patience: int | None  # turns of the loop until it leaves

    def inputs(self, dtype: DataType) -> Tensors:
        tag = np.full((self.rows, 1), POISON.encode() if self.fault == "engine" else b"fine", object)
        made = {"x": values(dtype, self.rows, self.length, self.seed), "tag": tag}
        if self.fault == "shape":
            made["tag"] = made["tag"][:, 0]
        if self.fault == "dtype":
            made["x"] = made["x"].astype(np.complex64) if dtype is not DataType.BYTES else np.zeros((self.rows, self.length))
        if self.fault == "name":
            made["z"] = made["x"]
        return made


requests = st.builds(
    Request,
    rows=st.integers(1, 4),
    length=st.integers(0, 3),
    seed=st.integers(0, 999),
    fault=st.sampled_from(("none",) * 6 + ("engine", "shape", "dtype", "name")),
    priority=st.integers(0, 4),
    patience=st.sampled_from((None,) * 4 + (0, 1, 3)),
)


@dataclass
class Caller:
    """Sends one request and notes every answer."""

    request: Request
    dtype: DataType
    answers: list[Tensors | BaseException] = field(default_factory=list)

    async def ask(self, batcher: Batcher) -> None:
        try:
            future = batcher.submit(self.request.inputs(self.dtype), priority=self.request.priority)
        except InferloopError as error:
            self.answers.append(error)
            return
        if self.request.patience is not None:
            for _ in range(self.request.patience):
                await asyncio.sleep(0)
            future.cancel()
        try:
            self.answers.append(await future)
        except (InferloopError, asyncio.CancelledError) as error:
            self.answers.append(error)

    def check(self) -> None:
        (got,) = self.answers
        fault = self.request.fault
        if isinstance(got, dict):
            assert fault == "none"
            expected = answer(self.request.inputs(self.dtype))
            for name, array in expected.items():
                assert got[name].dtype == array.dtype
                assert got[name].tolist() == array.tolist()
        elif isinstance(got, asyncio.CancelledError):
            assert self.request.patience is not None
        elif isinstance(got, InvalidInput):
            assert fault in ("shape", "dtype", "name")
        else:
            assert isinstance(got, EngineError)
            assert fault == "engine"


async def serve(callers: list[Caller], sessions: list[RowSession], **options: object) -> None:
    batcher = Batcher(sessions, **options)  # type: ignore[arg-type]  # of the options each test gives
    await asyncio.gather(*[caller.ask(batcher) for caller in callers])
    assert await batcher.close()
    assert batcher.waiting_rows == 0


@BOUNDED
@given(
    asked=st.lists(requests, min_size=1, max_size=20),
    dtype=st.sampled_from(list(DataType)),
    instances=st.integers(1, 3),
    max_batch=st.integers(4, 9),
    levels=st.integers(0, 3),
    inline=st.booleans(),
    delay=st.sampled_from((0.0, 0.0, 0.001)),
)
def test_every_answer_is_that_of_its_request_alone(
    asked: list[Request], dtype: DataType, instances: int, max_batch: int, levels: int, inline: bool, delay: float
) -> None:
    sessions = [RowSession(dtype, max_batch) for _ in range(instances)]
    callers = [Caller(request, dtype) for request in asked]
    options = {"max_batch": max_batch, "priority_levels": levels, "inline": inline, "max_delay_s": delay}
    asyncio.run(serve(callers, sessions, **options))
    assert [problem for session in sessions for problem in session.broken] == []
    for caller in callers:
        caller.check()


@BOUNDED
@given(asked=st.lists(requests, min_size=1, max_size=20), instances=st.integers(1, 3), queue_rows=st.integers(4, 8))
def test_a_small_queue_refuses_some_and_answers_all_others(asked: list[Request], instances: int, queue_rows: int) -> None:
    callers = [Caller(request, DataType.INT64) for request in asked]
    sessions = [RowSession(DataType.INT64, 4) for _ in range(instances)]
    asyncio.run(serve(callers, sessions, max_batch=4, queue_rows=queue_rows))
    for caller in callers:
        if not isinstance(caller.answers[0], Overloaded):
            caller.check()


class OrderSession(RowSession):
    """Waits with its first run until the test says so; notes the order of the tags."""

    def __init__(self) -> None:
        super().__init__(DataType.INT64, 64)
        self.entered, self.go = threading.Event(), threading.Event()
        self.order: list[int] = []

    def run(self, inputs: Tensors) -> dict[str, Array]:
        self.entered.set()
        assert self.go.wait(60)
        self.order += [int(item) for item in inputs["tag"][:, 0]]
        return super().run(inputs)


@settings(max_examples=30, deadline=None)
@given(priorities=st.lists(st.integers(1, 3), min_size=1, max_size=12), max_batch=st.integers(1, 4))
def test_what_waits_goes_by_priority_and_then_by_arrival(priorities: list[int], max_batch: int) -> None:
    session = OrderSession()

    def request(tag: int) -> Tensors:
        return {"x": np.zeros((1, 1), np.int64), "tag": np.array([[str(tag).encode()]], object)}

    async def run() -> None:
        batcher = Batcher(session, max_batch=max_batch, priority_levels=3)
        futures = [batcher.submit(request(99), priority=3)]
        assert await asyncio.to_thread(session.entered.wait, 20)
        futures += [batcher.submit(request(place), priority=priority) for place, priority in enumerate(priorities)]
        session.go.set()
        await asyncio.gather(*futures)
        await batcher.close()

    asyncio.run(run())
    assert session.order[1:] == sorted(range(len(priorities)), key=lambda place: (priorities[place], place))
