"""What Triton's clients ask beside tensors: outputs, classes, sequences, shared memory, decoupled models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import shared_memory

from inferloop.core.bundle import Bundle
from inferloop.prediction.settings import ModelSettings, SequenceSettings
from inferloop.serving.grpc.transport import GrpcTransport
from support.grpc_clients import X, tensor
from support.served import adder, rep
from support.serving import Running, serving

SETTINGS = {"rep": ModelSettings(decoupled=True), "adder": ModelSettings(sequence=SequenceSettings())}


@pytest.fixture
async def extended(tmp_path: Path, bundles: list[Bundle], transport: GrpcTransport) -> AsyncIterator[Running]:
    models = [*bundles, rep(tmp_path / "rep"), adder(tmp_path / "adder")]
    settings = lambda name: SETTINGS.get(name, ModelSettings())  # noqa: E731
    async with serving(tmp_path, *models, grpc=transport, settings=settings, shared_memory=True) as server:
        yield server


@pytest.fixture
async def asked(extended: Running) -> AsyncIterator[Any]:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{extended.grpc.port}") as client:
        yield client


async def test_only_the_outputs_that_were_asked_for_come_back_in_their_order(asked) -> None:
    wanted = [triton.InferRequestedOutput(name) for name in ("logits", "embedding")]
    both = await asked.infer("mlp", [tensor(X)], outputs=wanted)
    one = await asked.infer("mlp", [tensor(X)], outputs=wanted[:1])
    assert [output.name for output in both.get_response().outputs] == ["logits", "embedding"]
    assert [output.name for output in one.get_response().outputs] == ["logits"]
    with pytest.raises(triton.InferenceServerException, match="unexpected inference output 'zz' for model 'mlp'"):
        await asked.infer("mlp", [tensor(X)], outputs=[triton.InferRequestedOutput("zz")])


async def test_classes_come_instead_of_values(asked) -> None:
    answer = await asked.infer("mlp", [tensor(X)], outputs=[triton.InferRequestedOutput("logits", class_count=2)])
    values = (await asked.infer("mlp", [tensor(X)])).as_numpy("logits")[0]
    classes = [entry.decode().split(":") for entry in answer.as_numpy("logits")[0]]
    assert [int(entry[1]) for entry in classes] == np.argsort(values)[::-1][:2].tolist()


async def test_unknown_parameters_change_nothing(asked) -> None:
    answer = await asked.infer("linear", [tensor(X)], priority=1, parameters={"custom": "x", "n": 1, "f": 0.5, "b": True})
    plain = await asked.infer("linear", [tensor(X)])
    np.testing.assert_array_equal(answer.as_numpy("scores"), plain.as_numpy("scores"))


async def test_a_sequence_keeps_its_state(asked) -> None:
    totals = []
    for place, value in enumerate((1.0, 2.0, 4.0)):
        x = tensor(np.array([[value]], np.float32))
        answer = await asked.infer("adder", [x], sequence_id=7, sequence_start=place == 0, sequence_end=place == 2)
        totals.append(float(answer.as_numpy("y")[0, 0]))
    assert totals == [1.0, 3.0, 7.0]


async def test_a_sequence_over_a_stream_keeps_its_order(asked) -> None:
    async def requests():
        for place in range(20):
            x = tensor(np.array([[1.0]], np.float32))
            yield {"model_name": "adder", "inputs": [x], "sequence_id": 9, "sequence_start": place == 0}

    totals = [float(answer.as_numpy("y")[0, 0]) async for answer, error in asked.stream_infer(requests()) if error is None]
    assert totals == [float(number) for number in range(1, 21)]


async def test_a_decoupled_model_is_streamed_and_says_when_it_is_over(extended: Running) -> None:
    found: asyncio.Queue[Any] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    x = tensor(np.array([1, 5], np.float32))
    with triton.InferenceServerClient(f"127.0.0.1:{extended.grpc.port}") as client:
        client.start_stream(lambda result, error: loop.call_soon_threadsafe(found.put_nowait, error or result.get_response()))
        client.async_stream_infer("rep", [x], request_id="r", enable_empty_final_response=True)
        answers = [await asyncio.wait_for(found.get(), 60) for _ in range(3)]
        await asyncio.to_thread(client.stop_stream)
    finals = [answer.parameters["triton_final_response"].bool_param for answer in answers]
    values = [np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() for answer in answers[:-1]]
    assert (finals, values) == ([False, False, True], [[1, 5], [2, 6]])
    assert ([answer.id for answer in answers], len(answers[-1].outputs)) == (["r"] * 3, 0)


async def test_a_decoupled_model_is_not_answered_by_one_call(asked) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        await asked.infer("rep", [tensor(np.array([1, 5], np.float32))])
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


async def test_tensors_lie_in_shared_memory_on_both_sides(extended: Running, asked) -> None:
    given = shared_memory.create_shared_memory_region("given", f"/inferloop-given-{extended.port}", 16)
    taken = shared_memory.create_shared_memory_region("taken", f"/inferloop-taken-{extended.port}", 12)
    try:
        shared_memory.set_shared_memory_region(given, [X])
        await asked.register_system_shared_memory("given", f"/inferloop-given-{extended.port}", 16)
        await asked.register_system_shared_memory("taken", f"/inferloop-taken-{extended.port}", 12)
        x, scores = triton.InferInput("x", [1, 4], "FP32"), triton.InferRequestedOutput("scores")
        x.set_shared_memory("given", 16)
        scores.set_shared_memory("taken", 12)
        answer = await asked.infer("linear", [x], outputs=[scores])
        plain = await asked.infer("linear", [tensor(X)])
        status = await asked.get_system_shared_memory_status()
        found = shared_memory.get_contents_as_numpy(taken, np.float32, [1, 3]).copy()
    finally:
        await asyncio.to_thread(shared_memory.destroy_shared_memory_region, given)
        await asyncio.to_thread(shared_memory.destroy_shared_memory_region, taken)
    output = answer.get_output("scores")
    assert (sorted(status.regions), list(answer.get_response().raw_output_contents)) == (["given", "taken"], [])
    assert output.parameters["shared_memory_byte_size"].int64_param == 12
    np.testing.assert_array_equal(found, plain.as_numpy("scores"))
