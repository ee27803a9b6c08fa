"""ModelStreamInfer: many requests on one call, answers in order, errors that do not end it, streams that end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from inferloop.net.http2 import frames
from inferloop.serving.grpc.transport import GrpcTransport
from support.grpc_clients import X, tensor
from support.http2_peer import Peer, block, data, framed
from support.serving import Running, serving

Request = triton.service_pb2.ModelInferRequest


def request(array: np.ndarray = X, *, model: str = "linear", id: str = "") -> Request:  # noqa: A002 - the field's word
    message = Request(model_name=model, id=id, raw_input_contents=[array.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=array.shape)
    return message


@asynccontextmanager
async def stream(running: Running, **metadata: str) -> AsyncIterator[grpc.aio.StreamStreamCall]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc.port}") as channel:
        stub = triton.service_pb2_grpc.GRPCInferenceServiceStub(channel)
        yield stub.ModelStreamInfer(metadata=tuple(metadata.items()))


async def all_of(call: grpc.aio.StreamStreamCall, *requests: Request) -> list[triton.service_pb2.ModelStreamInferResponse]:
    for message in requests:
        await call.write(message)
    await call.done_writing()
    return [answer async for answer in call]


async def test_the_answers_of_a_stream_come_in_the_order_of_its_requests(running: Running) -> None:
    async with stream(running) as call:
        answers = await all_of(call, *(request(X * n, model=("linear", "mlp")[n % 2], id=str(n)) for n in range(100)))
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(100)]
    direct = (await running.router.infer("linear", {"x": X * 98})).outputs["scores"]
    np.testing.assert_allclose(np.frombuffer(answers[98].infer_response.raw_output_contents[0], np.float32), direct[0], rtol=1e-5)


async def test_an_answer_of_a_stream_says_that_it_is_the_last_and_how_feedback_names_it(running: Running) -> None:
    async with stream(running) as call:
        message = request()
        message.parameters["triton_enable_empty_final_response"].bool_param = True
        (answer,) = await all_of(call, message)
    parameters = answer.infer_response.parameters
    await asyncio.to_thread(running.ledger.flush)
    assert parameters["triton_final_response"].bool_param is True
    assert running.ledger.prediction(parameters["inferloop_prediction_id"].string_param).source == "grpc"


async def test_what_is_wrong_with_one_request_leaves_the_stream_open(running: Running) -> None:
    wrong = request(np.zeros((1, 3), np.float32), id="b")
    async with stream(running) as call:
        answers = await all_of(call, request(id="a"), wrong, Request(model_name="nope", id="c"), request(id="d"))
    assert [answer.infer_response.id for answer in answers] == ["a", "b", "c", "d"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, False]
    assert answers[1].error_message.startswith("[request id: b] unexpected shape for input 'x'")


async def test_a_client_that_asks_for_a_status_gets_it_and_the_stream_ends(running: Running) -> None:
    async with stream(running, triton_grpc_error="true") as call:
        await call.write(request(model="nope"))
        with pytest.raises(grpc.RpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "Request for unknown model: 'nope' is not found"


def stream_ids(body: bytes) -> list[str]:
    """The ids of the answers in the messages of a stream."""
    ids = []
    while body:
        end = 5 + int.from_bytes(body[1:5], "big")
        ids.append(triton.service_pb2.ModelStreamInferResponse.FromString(body[5:end]).infer_response.id)
        body = body[end:]
    return ids


async def test_a_status_ends_a_stream_that_has_more_requests_under_way(running: Running) -> None:
    """All five requests arrive at once: grpcio's client loses the status where it writes to a call that has ended."""
    requests = (request(id="a"), request(model="nope"), request(id="b"), request(model="nope"), request(id="c"))
    fields = block("/inference.GRPCInferenceService/ModelStreamInfer", (b"triton_grpc_error", b"true"), (b"te", b"trailers"))
    async with Peer(running.grpc.port) as peer:
        peer.send(
            frames.head(len(fields), frames.HEADERS, frames.END_HEADERS, 1) + fields,
            data(1, b"".join(framed(sent.SerializeToString()) for sent in requests), flags=0),
        )
        assert await peer.status(1) == str(grpc.StatusCode.NOT_FOUND.value[0])
        assert stream_ids(peer.bodies[1]) in (["a"], ["a", "b"], ["a", "b", "c"])


async def test_tritonclient_streams(running: Running, client) -> None:
    answers: asyncio.Queue = asyncio.Queue()
    loop = asyncio.get_running_loop()
    client.start_stream(lambda result, error: loop.call_soon_threadsafe(answers.put_nowait, (result, error)))
    for number in range(10):
        client.async_stream_infer("linear", [tensor(X)], request_id=str(number))
    got = [await asyncio.wait_for(answers.get(), 60) for _ in range(10)]
    await asyncio.to_thread(client.stop_stream)
    assert [(result.get_response().id, error) for result, error in got] == [(str(number), None) for number in range(10)]


async def test_a_client_that_leaves_takes_its_requests_along(running: Running) -> None:
    async with stream(running) as call:
        for number in range(50):
            await call.write(request(id=str(number)))
        call.cancel()
    async with stream(running) as call:
        (answer,) = await all_of(call, request(id="next"))
    assert answer.infer_response.id == "next"


async def test_an_open_stream_does_not_hold_up_a_server_that_stops(tmp_path: Path, bundles, transport: GrpcTransport) -> None:
    async with serving(tmp_path, *bundles, grpc=transport) as running, stream(running) as call:
        await call.write(request(id="a"))
        first = await call.read()
        await asyncio.wait_for(running.grpc.drain(30), 60)
        with pytest.raises(grpc.RpcError) as caught:
            await call.read()
    assert (first.infer_response.id, caught.value.code()) == ("a", grpc.StatusCode.UNAVAILABLE)
