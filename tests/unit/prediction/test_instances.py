"""How a model is held: instances, queue timeouts, warm-up, remembered answers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import EngineError, InvalidInput, Overloaded, Unsupported
from inferloop.core.target import Target
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.batcher import Batcher
from inferloop.prediction.cache import AnswerCache, key_of
from inferloop.prediction.limits import Limits
from inferloop.prediction.predictor import Predictor
from inferloop.prediction.session import open_sessions
from inferloop.prediction.settings import ModelSettings, SequenceSettings
from support import bundles
from support.served import adder
from support.sessions import GatedSession, SquareSession, rows


class Meeting(SquareSession):
    """A run ends when runs of all sessions have begun."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self._barrier = barrier

    def run(self, inputs: Tensors) -> dict[str, Array]:
        self._barrier.wait()
        return super().run(inputs)


async def test_instances_run_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=60)
    batcher = Batcher([Meeting(barrier) for _ in range(3)], max_batch=1)
    answers = await asyncio.gather(*[batcher.submit(rows(value)) for value in (1, 2, 3)])
    assert [answer["y"][0, 0] for answer in answers] == [1, 4, 9]
    assert await batcher.close()


async def test_a_busy_instance_does_not_hold_up_the_other() -> None:
    busy, free = GatedSession(), SquareSession()
    batcher = Batcher([free, busy])
    first = batcher.submit(rows(1))
    assert await asyncio.to_thread(busy.entered.acquire, timeout=60)
    assert (await batcher.submit(rows(2)))["y"][0, 0] == 4
    assert not first.done()
    busy.gate.release()
    await first
    assert await batcher.close()


async def test_closing_waits_for_every_instance() -> None:
    sessions = [GatedSession(), GatedSession()]
    batcher = Batcher(sessions, max_batch=1)
    futures = [batcher.submit(rows(value)) for value in (1, 2)]
    for session in sessions:
        assert await asyncio.to_thread(session.entered.acquire, timeout=60)
    closing = asyncio.ensure_future(batcher.close())
    sessions[0].gate.release()
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    assert not closing.done()
    sessions[1].gate.release()
    assert await closing
    assert sorted(int(future.result()["y"][0, 0]) for future in futures) == [1, 4]


async def test_several_instances_never_run_on_the_event_loop() -> None:
    batcher = Batcher([SquareSession(), SquareSession()], inline=True)
    assert not batcher.inline
    await batcher.close()


def test_instances_share_one_session_where_it_may_run_concurrently(tmp_path: Path) -> None:
    bundle = bundles.linear(tmp_path / "linear")
    shared = open_sessions(bundle, Target(), ModelSettings(instances=3))
    own = open_sessions(bundle, Target.parse("numpy"), ModelSettings(instances=3))
    assert [len(set(map(id, sessions))) for sessions in (shared, own)] == [1, 3]


async def test_a_model_of_several_instances_answers_as_one(tmp_path: Path) -> None:
    bundle = bundles.numbers(tmp_path / "numbers")
    given = [{"values": [value, 1.0, 2.0, 3.0]} for value in range(50)]
    with Predictor.load(bundle) as one:
        expected = [one.predict(item) for item in given]
    async with Predictor.load(bundle, settings=ModelSettings(instances=2)) as several:
        answers = await asyncio.gather(*[several.apredict(item) for item in given])
    assert [answer.label for answer in answers] == [answer.label for answer in expected]


async def test_a_request_that_waits_too_long_for_the_engine_is_refused() -> None:
    session = GatedSession()
    batcher = Batcher(session, queue_timeout_s=0.02)
    first = batcher.submit(rows(1))
    assert await asyncio.to_thread(session.entered.acquire, timeout=60)
    with pytest.raises(Overloaded, match=r"waited 0\.02 s"):
        await batcher.submit(rows(2))
    session.gate.release(2)
    assert (await first)["y"][0, 0] == 1, "the engine had it in time, however long it took"
    await batcher.close()


def test_warm_up_runs_the_sizes_that_it_is_told(tmp_path: Path) -> None:
    bundle = bundles.linear(tmp_path / "linear")

    class Noting(SquareSession):
        signature = bundle.signature

        def run(self, inputs: Tensors) -> dict[str, Array]:
            self.runs.append(inputs["x"])
            if len(inputs["x"]) == 7:
                raise EngineError("seven is too much")
            return {"scores": inputs["x"][:, :3]}

    session = Noting()
    settings = ModelSettings(warmup_rows=(5, 100))
    Predictor(bundle, [session], target=Target(), limits=Limits(max_batch=16), settings=settings).close()
    assert [len(run) for run in session.runs][-2:] == [5, 16]
    with pytest.raises(EngineError, match="seven"):
        Predictor(bundle, [Noting()], target=Target(), limits=Limits(), settings=ModelSettings(warmup_rows=(7,)))


async def test_an_equal_request_gets_the_remembered_answer(tmp_path: Path) -> None:
    bundle = bundles.mlp(tmp_path / "mlp")
    x = {"x": np.ones((2, 4), np.float32)}
    with Ledger(tmp_path / "ledger.db") as ledger:
        async with Predictor.load(bundle, settings=ModelSettings(cached=True), ledger=ledger) as predictor:
            first, second = await predictor.ainfer(x), await predictor.ainfer({"x": x["x"].copy()})
            other = await predictor.ainfer({"x": x["x"] * 2})
            snapshot = predictor.meter.snapshot()
        ledger.flush()
        assert len({record.id for record in ledger.predictions()}) == 6, "every row of every answer has its record"
    assert first.id != second.id
    assert {name: array.tolist() for name, array in second.outputs.items()} == {
        name: array.tolist() for name, array in first.outputs.items()
    }
    assert other.outputs["logits"].tolist() != first.outputs["logits"].tolist()
    assert (snapshot.cache_hit.count, snapshot.cache_miss.count, snapshot.execution_count) == (1, 2, 2)


async def test_a_refused_request_is_not_remembered(tmp_path: Path) -> None:
    async with Predictor.load(bundles.mlp(tmp_path / "mlp"), settings=ModelSettings(cached=True)) as predictor:
        for _ in range(2):
            with pytest.raises(InvalidInput):
                await predictor.ainfer({"x": np.ones((2, 5), np.float32)})


def test_the_cache_forgets_what_was_not_used_for_longest() -> None:
    cache = AnswerCache(max_bytes=3000)
    for number in range(3):
        cache.put(bytes([number]), {"y": np.zeros(100)})
        cache.get(b"\0")
    assert [cache.get(bytes([number])) is not None for number in range(3)] == [True, False, True]
    assert cache.size_bytes <= 3000
    cache.put(b"large", {"y": np.zeros(1000)})
    assert cache.get(b"large") is None


def test_a_remembered_answer_cannot_be_changed_by_those_who_get_it() -> None:
    cache = AnswerCache(max_bytes=10_000)
    array = np.zeros(3)
    cache.put(b"key", {"y": array})
    array[0] = 1
    found = cache.get(b"key")
    assert found is not None
    assert found["y"].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        found["y"][0] = 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros((1, 4), np.float32), np.zeros((2, 2), np.float32)),
        (np.zeros(4, np.float32), np.zeros(4, np.int32)),
        (np.array([b"ab", b"c"], object), np.array([b"a", b"bc"], object)),
        (np.array([b"a"], object), np.array(["a"], object)),
    ],
    ids=["shape", "type", "texts", "bytes"],
)
def test_different_inputs_have_different_keys(one: Array, other: Array) -> None:
    assert key_of({"x": one}) != key_of({"x": other})
    assert key_of({"x": one}) != key_of({"z": one})
    assert key_of({"x": one, "z": other}) == key_of({"z": other, "x": one})


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    for wrong in (
        {"instances": 0},
        {"queue_timeout_s": -1},
        {"priority_levels": 2, "default_priority": 3},
        {"warmup_rows": (0,)},
    ):
        with pytest.raises(InvalidInput):
            ModelSettings(**wrong)
    with pytest.raises(Unsupported, match="keep state and to be decoupled"):
        Predictor.load(adder(tmp_path / "adder"), settings=ModelSettings(decoupled=True, sequence=SequenceSettings()))
