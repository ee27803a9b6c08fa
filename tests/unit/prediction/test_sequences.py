"""State between requests: kept by sequence, in order, dropped in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import DataType, Tensors
from inferloop.core.errors import DeadlineExceeded, EngineError, InvalidBundle, InvalidInput, Overloaded, Unsupported
from inferloop.core.manifest import Manifest
from inferloop.core.signature import Role, Signature, TensorSpec
from inferloop.core.target import Target
from inferloop.prediction.limits import Limits
from inferloop.prediction.options import Options, SequenceStep
from inferloop.prediction.predictor import Predictor
from inferloop.prediction.router import Router
from inferloop.prediction.sequence.contract import Contract
from inferloop.prediction.sequence.sequences import Sequences
from inferloop.prediction.settings import Control, ControlKind, ModelSettings, SequenceSettings, StatePair
from inferloop.registry.registry import Registry
from support.served import adder
from support.sessions import BreakingSession

STATEFUL = ModelSettings(sequence=SequenceSettings())


def x(value: float) -> Tensors:
    return {"x": np.array([[value]], np.float32)}


def step(id_: int | str, *, start: bool = False, end: bool = False) -> Options:
    return Options(sequence=SequenceStep(id_, start, end))


@pytest.fixture
async def predictor(tmp_path: Path) -> AsyncIterator[Predictor]:
    async with Predictor.load(adder(tmp_path / "adder"), settings=STATEFUL) as loaded:
        yield loaded


async def total(predictor: Predictor, value: float, options: Options) -> float:
    return float((await predictor.ainfer(x(value), options=options)).outputs["y"][0, 0])


async def test_each_sequence_has_its_own_state(predictor: Predictor) -> None:
    assert await total(predictor, 1, step(7, start=True)) == 1
    assert await total(predictor, 10, step("other", start=True)) == 10
    assert await total(predictor, 2, step(7)) == 3
    assert await total(predictor, 20, step("other")) == 30
    assert await total(predictor, 3, step(7, end=True)) == 6


async def test_the_state_is_neither_asked_for_nor_given_out(predictor: Predictor) -> None:
    assert [spec.name for spec in (*predictor.bundle.signature.inputs, *predictor.bundle.signature.outputs)] == ["x", "y"]
    answer = await predictor.ainfer(x(1), options=step(1, start=True))
    assert list(answer.outputs) == ["y"]


async def test_requests_of_one_sequence_that_come_at_once_are_answered_in_order(predictor: Predictor) -> None:
    options = [step(1, start=True), *[step(1)] * 30, step(1, end=True)]
    totals = await asyncio.gather(*[total(predictor, value, option) for value, option in enumerate(options)])
    assert totals == np.cumsum(range(32)).tolist()


async def test_different_sequences_share_runs(tmp_path: Path) -> None:
    settings = ModelSettings(sequence=SequenceSettings(), limits=Limits(inline=True))
    async with Predictor.load(adder(tmp_path / "adder"), settings=settings) as predictor:
        await asyncio.gather(*[total(predictor, id_, step(id_, start=True)) for id_ in range(1, 17)])
        totals = await asyncio.gather(*[total(predictor, id_, step(id_, end=True)) for id_ in range(1, 17)])
        assert totals == [2 * id_ for id_ in range(1, 17)]
        assert predictor.meter.snapshot().execution_count == 2


@pytest.mark.parametrize("options", [Options(), step(0, start=True), step("")], ids=["none", "zero", "empty"])
async def test_a_request_without_a_sequence_is_refused(predictor: Predictor, options: Options) -> None:
    with pytest.raises(InvalidInput, match="must name its sequence"):
        await predictor.ainfer(x(1), options=options)


async def test_a_sequence_that_never_began_or_is_over_is_not_open(predictor: Predictor) -> None:
    with pytest.raises(InvalidInput, match="sequence 5 of model 'adder' is not open"):
        await predictor.ainfer(x(1), options=step(5))
    await predictor.ainfer(x(1), options=step(5, start=True, end=True))
    with pytest.raises(InvalidInput, match="not open"):
        await predictor.ainfer(x(1), options=step(5))


async def test_a_start_in_the_middle_begins_anew(predictor: Predictor) -> None:
    await predictor.ainfer(x(100), options=step(5, start=True))
    assert await total(predictor, 1, step(5, start=True)) == 1


async def test_a_bad_request_does_not_touch_its_sequence(predictor: Predictor) -> None:
    await predictor.ainfer(x(1), options=step(5, start=True))
    with pytest.raises(InvalidInput):
        await predictor.ainfer({"x": np.zeros((1, 3), np.float32)}, options=step(5, end=True))
    with pytest.raises(InvalidInput, match="one row"):
        await predictor.ainfer({"x": np.zeros((2, 1), np.float32)}, options=step(5))
    assert await total(predictor, 1, step(5)) == 2


async def test_a_caller_that_leaves_while_it_waits_lets_the_next_one_go(predictor: Predictor) -> None:
    await predictor.ainfer(x(1), options=step(5, start=True))
    first, leaving, last = (asyncio.ensure_future(total(predictor, value, step(5))) for value in (10, 100, 1000))
    await asyncio.sleep(0)
    leaving.cancel()
    assert [await first, await last] == [11, 1011]


async def test_too_many_open_sequences_are_overloaded(tmp_path: Path) -> None:
    settings = ModelSettings(sequence=SequenceSettings(max_sequences=2))
    async with Predictor.load(adder(tmp_path / "adder"), settings=settings) as predictor:
        for id_ in (1, 2):
            await predictor.ainfer(x(1), options=step(id_, start=True))
        with pytest.raises(Overloaded, match="2 sequences"):
            await predictor.ainfer(x(1), options=step(3, start=True))
        await predictor.ainfer(x(1), options=step(1, end=True))
        assert await total(predictor, 1, step(3, start=True)) == 1


async def test_a_silent_sequence_is_forgotten_without_any_traffic() -> None:
    sequences = Sequences(SequenceSettings(max_idle_s=0.01), dict, model="m")
    sequences.enter(SequenceStep(1, start=True))
    async with asyncio.timeout(60):
        while len(sequences):
            await asyncio.sleep(0.005)
    with pytest.raises(InvalidInput, match="not open"):
        sequences.enter(SequenceStep(1))


async def test_a_deadline_ends_the_wait_for_earlier_requests() -> None:
    sequences = Sequences(SequenceSettings(), dict, model="m")
    sequence = sequences.enter(SequenceStep(1, start=True))
    await sequence.turn(None)
    with pytest.raises(DeadlineExceeded, match="earlier requests"):
        await sequence.turn(asyncio.get_running_loop().time() + 0.01)
    sequence.end_turn()
    assert sequence.is_idle


async def test_a_failing_run_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    class Failing(BreakingSession):
        signature = adder(tmp_path / "adder").signature

        def run(self, inputs: Tensors) -> Tensors:
            if inputs["x"][0, 0] == 13:
                raise EngineError("unlucky")
            total = inputs["x"] + inputs["total"]
            return {"y": total, "total_out": total}

    bundle = Bundle.load(tmp_path / "adder")
    predictor = Predictor(bundle, [Failing(lambda _: None)], target=Target(), limits=Limits(inline=False), settings=STATEFUL)
    await predictor.ainfer(x(1), options=step(5, start=True))
    with pytest.raises(EngineError):
        await predictor.ainfer(x(13), options=step(5))
    assert await total(predictor, 2, step(5)) == 3
    await predictor.aclose()


async def test_a_stateful_model_answers_one_request_at_a_time_only_by_its_sequence(predictor: Predictor) -> None:
    with pytest.raises(Unsupported, match="keeps state"):
        predictor.infer(x(1))
    with pytest.raises(Unsupported, match="keeps state"):
        await predictor.apredict({"x": [1.0]})


def test_without_the_setting_callers_keep_the_state_themselves(tmp_path: Path) -> None:
    with Predictor.load(adder(tmp_path / "adder")) as predictor:
        outputs = predictor.infer({**x(1), "total": np.array([[5]], np.float32)})
    assert outputs["total_out"][0, 0] == 6


def test_control_inputs_say_where_a_request_stands() -> None:
    kinds = {"s": ControlKind.START, "e": ControlKind.END, "r": ControlKind.READY, "c": ControlKind.CORRID}
    inputs = tuple(TensorSpec(name, DataType.INT64, (None, 1)) for name in kinds)
    contract = Contract.of(
        Signature(inputs, (TensorSpec("y", DataType.FP32, (None,)),)),
        SequenceSettings(controls=tuple(Control(name, kind, false=-1) for name, kind in kinds.items())),
    )
    asked = contract.asked(SequenceStep(42, start=True))
    assert {name: array.tolist() for name, array in asked.items()} == {"s": [[1]], "e": [[-1]], "r": [[1]], "c": [[42]]}
    with pytest.raises(InvalidInput, match="sequence id 'car' is no INT64"):
        contract.asked(SequenceStep("car"))


def test_state_tensors_that_do_not_fit_are_found_at_load(tmp_path: Path) -> None:
    signature = adder(tmp_path / "adder").signature
    with pytest.raises(InvalidBundle, match="no output 'nope'"):
        Contract.of(signature, SequenceSettings(states=(StatePair("total", "nope"),)))
    wide = Signature(signature.inputs, (TensorSpec("w", DataType.FP32, (None, 9), Role.STATE),))
    with pytest.raises(InvalidBundle, match="does not fit the input"):
        Contract.of(wide, SequenceSettings())


def vad(path: Path, shared: Path) -> Bundle:
    """Silero's voice activity detector: 64 old and 512 new samples, a state, the sampling rate."""
    inputs = (
        TensorSpec("input", DataType.FP32, (1, 576)),
        TensorSpec("state", DataType.FP32, (2, 1, 128), Role.STATE),
        TensorSpec("sr", DataType.INT64, ()),
    )
    outputs = (TensorSpec("output", DataType.FP32, (1, 1)), TensorSpec("stateN", DataType.FP32, (2, 1, 128), Role.STATE))
    model = (shared / "models" / "silero-vad" / "silero_vad.onnx").read_bytes()
    return Bundle.write(path, Manifest(name="vad", signature=Signature(inputs, outputs)), {"model.onnx": model})


def chunks(audio: np.ndarray) -> list[Tensors]:
    padded = np.concatenate([np.zeros(64, np.float32), audio.ravel().astype(np.float32)])
    starts = range(0, len(padded) - 575, 512)
    return [{"input": padded[None, start : start + 576], "sr": np.array(16000, np.int64)} for start in starts]


async def test_a_real_voice_detector_streams_as_it_runs_offline(tmp_path: Path, shared: Path) -> None:
    expected = np.load(shared / "models" / "silero-vad" / "expected.npz")
    pieces = chunks(expected["in/audio16k"])
    bundle = vad(tmp_path / "vad", shared)
    state, offline = np.zeros((2, 1, 128), np.float32), []
    with Predictor.load(bundle) as plain:
        for piece in pieces:
            outputs = plain.infer({**piece, "state": state})
            state = outputs["stateN"]
            offline.append(float(outputs["output"][0, 0]))
    assert np.allclose(offline, expected["out/prob_per_512"].ravel(), atol=1e-4)
    with Registry(tmp_path / "registry") as registry:
        registry.register(bundle)
        async with Router(registry, settings=lambda name: STATEFUL) as router:
            await router.open(["vad"])
            for id_ in ("a", "b"):
                found = []
                for place, piece in enumerate(pieces):
                    options = step(id_, start=place == 0, end=place == len(pieces) - 1)
                    found.append(float((await router.infer("vad", piece, options=options)).outputs["output"][0, 0]))
                assert found == offline
