"""ModelInfer from tritonclient to the engine and back, with everything real, over every transport."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from inferloop.core.datatypes import DataType
from inferloop.net.limits import HttpLimits
from inferloop.serving.grpc.front_end import GrpcFrontEnd
from inferloop.serving.grpc.transport import GrpcTransport
from inferloop.serving.services import Services
from inferloop.serving.tracing import Tracing
from support.grpc_clients import X, echo, tensor
from support.serving import Running, row, serving

ECHOED = [datatype for datatype in DataType if datatype is not DataType.BF16]  # the engine gives no BF16 to NumPy
EDGES = {"b": [[True, False]], "i": [[-1, 1]], "u": [[0, 1]], "f": [[1.5, -np.inf]], "O": [[b"", "häß".encode()]]}


def refused(ask, *arguments, **options) -> tuple[str, str]:
    """The code and message of a call that must fail."""
    with pytest.raises(triton.InferenceServerException if hasattr(ask, "__self__") else grpc.RpcError) as caught:
        ask(*arguments, **options)
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


async def test_tensors_are_answered_as_rest_answers_them(running: Running, client) -> None:
    answer = await asyncio.to_thread(client.infer, "mlp", [tensor(X)], request_id="r1")
    rest = (await running.infer("mlp", row(*X[0].tolist()))).json["outputs"]
    got = answer.get_response()
    assert (got.model_name, got.model_version, got.id) == ("mlp", "1", "r1")
    assert [output.name for output in got.outputs] == [output["name"] for output in rest]
    for output in rest:
        np.testing.assert_allclose(answer.as_numpy(output["name"]).ravel(), output["data"], rtol=1e-6)


async def test_the_asynchronous_client_gets_the_same(running: Running) -> None:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{running.grpc.port}") as client:
        answers = await asyncio.gather(*(client.infer("linear", [tensor(X * n)], request_id=str(n)) for n in range(20)))
    direct = [(await running.router.infer("linear", {"x": X * n})).outputs["scores"] for n in range(20)]
    assert [answer.get_response().id for answer in answers] == [str(n) for n in range(20)]
    np.testing.assert_allclose([answer.as_numpy("scores") for answer in answers], direct, rtol=1e-5)


@pytest.mark.parametrize("datatype", ECHOED)
async def test_every_datatype_goes_both_ways(tmp_path: Path, transport: GrpcTransport, datatype: DataType) -> None:
    array = np.array(EDGES[datatype.numpy.kind], dtype=datatype.numpy)
    async with (
        serving(tmp_path, echo(tmp_path / "echo", datatype), grpc=transport) as running,
        triton_aio.InferenceServerClient(f"127.0.0.1:{running.grpc.port}") as client,
    ):
        answer = await client.infer(f"echo_{datatype.value.lower()}", [tensor(array, datatype=datatype.value)])
    assert answer.get_response().outputs[0].datatype == datatype
    np.testing.assert_array_equal(answer.as_numpy("y"), array)


async def test_typed_contents_are_answered_with_typed_contents(running: Running) -> None:
    request = triton.service_pb2.ModelInferRequest(model_name="linear", model_version="1", id="t")
    entry = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    entry.contents.fp32_contents.extend(X[0].tolist())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc.port}") as channel:
        answer = await triton.service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    direct = (await running.router.infer("linear", {"x": X})).outputs["scores"]
    assert (list(answer.raw_output_contents), answer.id) == ([], "t")
    np.testing.assert_allclose(answer.outputs[0].contents.fp32_contents, direct[0], rtol=1e-6)


async def test_twenty_megabytes_go_both_ways(tmp_path: Path, transport: GrpcTransport) -> None:
    array = np.arange(5_000_000, dtype=np.float32).reshape(1, -1)
    async with (
        serving(tmp_path, echo(tmp_path / "echo"), grpc=transport) as running,
        triton_aio.InferenceServerClient(f"127.0.0.1:{running.grpc.port}") as client,
    ):
        answer = await client.infer("echo_fp32", [tensor(array)])
    np.testing.assert_array_equal(answer.as_numpy("y"), array)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_compressed_requests_are_read(running: Running, client, algorithm: str) -> None:
    rows = [tensor(np.ones((64, 4), np.float32))]
    answer = await asyncio.to_thread(client.infer, "linear", rows, compression_algorithm=algorithm)
    assert answer.as_numpy("scores").shape == (64, 3)


async def test_a_message_beyond_the_limit_is_refused(tmp_path: Path, transport: GrpcTransport) -> None:
    async with serving(tmp_path, echo(tmp_path / "echo"), http=HttpLimits(body_bytes=100_000), grpc=transport) as running:
        with triton.InferenceServerClient(f"127.0.0.1:{running.grpc.port}") as client:
            large = tensor(np.zeros((1, 100_000), np.float32))
            code, _ = await asyncio.to_thread(refused, client.infer, "echo_fp32", [large])
            bomb, _ = await asyncio.to_thread(refused, client.infer, "echo_fp32", [large], compression_algorithm="gzip")
            small = await asyncio.to_thread(client.infer, "echo_fp32", [tensor(X)])
    assert (code, bomb, small.as_numpy("y").shape) == ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED", (1, 4))


WRONG = {
    "an unknown model": ("nope", X, {}, "NOT_FOUND", "Request for unknown model: 'nope' is not found"),
    "an unknown version": ("linear", X, {"model_version": "9"}, "NOT_FOUND", "version 9"),
    "a version in words": ("linear", X, {"model_version": "new"}, "INVALID_ARGUMENT", "'new'"),
    "a wrong shape": (
        "linear",
        np.zeros((1, 3), np.float32),
        {},
        "INVALID_ARGUMENT",
        "unexpected shape for input 'x' for model 'linear'. Expected [-1,4], got [1,3]",
    ),
    "a wrong datatype": (
        "linear",
        np.zeros((1, 4), np.int32),
        {},
        "INVALID_ARGUMENT",
        "input 'x' data-type is 'INT32', but model 'linear' expects 'FP32'",
    ),
    "no rows": ("linear", np.zeros((0, 4), np.float32), {}, "INVALID_ARGUMENT", "the batch is empty"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_request_is_refused_with_the_code_of_its_error(client, name: str) -> None:
    model, array, options, code, words = WRONG[name]
    got, message = await asyncio.to_thread(refused, client.infer, model, [tensor(array)], **options)
    assert got == code
    assert words in message


async def test_wrong_input_names_and_counts_are_refused(client) -> None:
    named = await asyncio.to_thread(refused, client.infer, "linear", [tensor(X, name="zzz")])
    extra = await asyncio.to_thread(refused, client.infer, "linear", [tensor(X), tensor(X, name="zzz")])
    assert (named[0], extra[0]) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert "missing required input(s) ['x']" in named[1]
    assert "unexpected inference input 'zzz' for model 'linear'" in extra[1]


async def test_the_prediction_id_and_hints_are_trailing_metadata(running: Running) -> None:
    request = triton.service_pb2.ModelInferRequest(model_name="linear", raw_input_contents=[X.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc.port}") as channel:
        stub = triton.service_pb2_grpc.GRPCInferenceServiceStub(channel)
        call = stub.ModelInfer(request)
        await call
        prediction_id = dict(await call.trailing_metadata())["inferloop-prediction-id"]
        request.model_name = "nope"
        call = stub.ModelInfer(request)
        with suppress(grpc.RpcError):
            await call
        hint = dict(await call.trailing_metadata())["inferloop-hint"]
    await asyncio.to_thread(running.ledger.flush)
    assert hint == "loaded: linear, mlp"
    assert running.ledger.prediction(prediction_id).source == "grpc"


async def test_a_deadline_that_has_passed_is_told(client) -> None:
    code, _ = await asyncio.to_thread(refused, client.infer, "linear", [tensor(X)], timeout=1)  # a microsecond
    assert code == "DEADLINE_EXCEEDED"


async def test_malformed_messages_are_invalid_and_the_server_goes_on(running: Running, client) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc.port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for message in (b"\xff", b"\x0a\xff", b"", bytes(range(256))):
            with pytest.raises(grpc.RpcError) as caught:
                await call(message)
            assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
        with pytest.raises(grpc.RpcError) as caught:
            await channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (await asyncio.to_thread(client.infer, "linear", [tensor(X)])).as_numpy("scores").shape == (1, 3)


async def test_calls_that_are_called_off_leave_the_others_their_answers(running: Running) -> None:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{running.grpc.port}") as client:
        tasks = [asyncio.create_task(client.infer("linear", [tensor(X * n)])) for n in range(40)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks[1::2])
    direct = [(await running.router.infer("linear", {"x": X * n})).outputs["scores"] for n in range(1, 40, 2)]
    np.testing.assert_allclose([answer.as_numpy("scores") for answer in answers], direct, rtol=1e-5)


async def test_a_server_that_stops_answers_what_it_took(tmp_path: Path, bundles, transport: GrpcTransport) -> None:
    async with serving(tmp_path, *bundles, grpc=transport) as running:
        client = triton_aio.InferenceServerClient(f"127.0.0.1:{running.grpc.port}")
        answer = await client.infer("linear", [tensor(X)])
        started = time.monotonic()
    assert time.monotonic() - started < 20
    assert answer.as_numpy("scores").shape == (1, 3)
    with pytest.raises(triton.InferenceServerException):
        await client.infer("linear", [tensor(X)], client_timeout=60)
    await client.close()


async def test_the_key_of_a_call_goes_into_the_ledger(running: Running) -> None:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{running.grpc.port}") as client:
        call = await client.infer("linear", [tensor(X)], headers={"inferloop-key": "customer-7"})
    assert call.as_numpy("scores").shape == (1, 3)
    await asyncio.to_thread(running.ledger.flush)
    assert (await asyncio.to_thread(running.ledger.erase, "customer-7")).predictions == 1


async def test_a_traced_call_is_written_down_with_its_request_id(tmp_path: Path, bundles, transport: GrpcTransport) -> None:
    async with serving(tmp_path, *bundles) as running:
        services = Services(running.router, tracing=Tracing(tmp_path / "traces"))
        async with (
            GrpcFrontEnd(services, port=0, transport=transport) as front_end,
            triton_aio.InferenceServerClient(f"127.0.0.1:{front_end.port}") as client,
        ):
            await client.update_trace_settings("linear", {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"})
            await client.infer("linear", [tensor(X)], request_id="r-1")
            await client.update_trace_settings("linear", {"trace_level": ["OFF"]})
            await client.infer("linear", [tensor(X)], request_id="r-2")
        await asyncio.to_thread(services.tracing.close)
    head, stamps = json.loads((tmp_path / "traces" / "trace.json").read_text())
    assert (head["model_name"], head["request_id"]) == ("linear", "r-1")
    assert next(stamp["name"] for stamp in stamps["timestamps"]) == "REQUEST_START"
