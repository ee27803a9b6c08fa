"""Our client, tritonclient and an ASGI host against the same server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferloop.client.client import Client, Truth
from inferloop.client.sync import SyncClient
from inferloop.core.errors import InvalidInput, NotFound, Unavailable
from inferloop.net.http import Request, Response
from inferloop.net.http_server import HttpServer
from inferloop.net.limits import HttpLimits
from inferloop.serving.rest.asgi import AsgiApp
from support.bundles import linear, text
from support.serving import Running, row, serving

X = np.array([[0.5, -1.0, 2.0, 0.25], [1, 2, 3, 4]], np.float32)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path, linear(tmp_path / "linear"), text(tmp_path / "text")) as server:
        yield server


async def test_our_client_sends_tensors_in_binary_and_gets_the_same_numbers_as_json(running: Running) -> None:
    async with Client(running.url) as client:
        assert await client.is_ready()
        assert [model["name"] for model in await client.models()] == ["linear", "text"]
        answer = await client.infer("linear", {"x": X}, outputs=["scores"])
    plain = await running.infer("linear", row(*X[0].tolist()))
    assert (answer.model, answer.version, answer.outputs["scores"].shape) == ("linear", "1", (2, 3))
    np.testing.assert_allclose(answer.outputs["scores"][0], plain.json["outputs"][0]["data"], rtol=1e-6)


async def test_our_client_predicts_and_gives_feedback(running: Running) -> None:
    async with Client(running.url) as client:
        answer = await client.predict("text", b"hello", content_type="text/plain", key="c1")
        stored = await client.feedback([Truth(answer.id, "hot", by="anna"), Truth("none", "hot")])
    assert answer.scores[answer.label] == answer.score
    assert (stored.count, list(stored.refused)) == (1, ["none"])
    record = await asyncio.to_thread(running.ledger.prediction, answer.id)
    assert (record.key, record.source) == ("c1", "rest")


async def test_our_client_raises_the_errors_that_the_server_had(running: Running) -> None:
    async with Client(running.url) as client:
        with pytest.raises(NotFound, match="unknown model: 'nope' is not found") as caught:
            await client.infer("nope", {"x": X})
        assert caught.value.hint == "loaded: linear, text"
        with pytest.raises(InvalidInput, match="data-type is 'FP64', but model 'linear' expects 'FP32'"):
            await client.infer("linear", {"x": X.astype(np.float64)})


async def test_our_client_says_that_there_is_no_server() -> None:
    async with Client("http://127.0.0.1:9") as client:
        assert not await client.is_ready()
        with pytest.raises(Unavailable, match="no server at"):
            await client.models()


async def test_the_client_without_a_loop_does_the_same_from_any_thread(running: Running) -> None:
    def calls() -> None:
        with SyncClient(running.url) as client:
            assert client.is_ready()
            assert [model["name"] for model in client.models()] == ["linear", "text"]
            with ThreadPoolExecutor(4) as threads:
                answers = list(threads.map(lambda _: client.infer("linear", {"x": X}), range(8)))
            assert {answer.outputs["scores"].tobytes() for answer in answers} == {answers[0].outputs["scores"].tobytes()}
            answer = client.predict("text", b"hello", content_type="text/plain")
            assert client.feedback([Truth(answer.id, "hot")]).count == 1
            with pytest.raises(NotFound, match="unknown model: 'nope' is not found"):
                client.infer("nope", {"x": X})
        with pytest.raises(InvalidInput, match="not open"):
            client.models()

    await asyncio.to_thread(calls)


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b"{}", b"\xff"])
async def test_our_client_says_that_another_kind_of_server_answers(body: bytes) -> None:
    async def other(request: Request) -> Response:
        return Response(200, body)

    async with HttpServer(other, port=0) as server, Client(f"http://127.0.0.1:{server.port}") as client:
        for call in (client.models(), client.predict("m", b"a"), client.infer("m", {"x": X}), client.feedback([Truth("a", "b")])):
            with pytest.raises(Unavailable, match="not as `inferloop serve` does"):
                await call


@pytest.mark.parametrize("url", ["nonsense", "", "ftp://127.0.0.1:8000", "http://"])
async def test_our_client_says_what_is_no_url(url: str) -> None:
    async with Client(url) as client:
        with pytest.raises(InvalidInput, match="is no URL of a server"):
            await client.models()


async def test_tritonclient_works_unchanged(running: Running) -> None:
    reason = "tritonclient without its http part: pip install 'tritonclient[http]'"
    http: Any = pytest.importorskip("tritonclient.http", reason=reason, exc_type=Exception)

    def calls() -> None:
        client = http.InferenceServerClient(f"127.0.0.1:{running.port}")
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("linear")
        assert not client.is_model_ready("nope")
        assert client.get_server_metadata()["name"] == "inferloop"
        assert client.get_model_metadata("linear", "1")["inputs"][0]["shape"] == [-1, 4]
        expected = None
        for binary in (True, False):
            given = http.InferInput("x", X.shape, "FP32")
            given.set_data_from_numpy(X, binary_data=binary)
            for outputs in (None, [http.InferRequestedOutput("scores", binary_data=binary)]):
                for packed in (None, "gzip", "deflate"):
                    result = client.infer(
                        "linear", [given], outputs=outputs, request_id="7", request_compression_algorithm=packed
                    )
                    scores = result.as_numpy("scores")
                    expected = scores if expected is None else expected
                    np.testing.assert_allclose(scores, expected, rtol=1e-6)
                    assert result.get_response()["id"] == "7"
        with pytest.raises(http.InferenceServerException, match="unknown model: 'nope' is not found"):
            client.infer("nope", [given])
        client.close()

    await asyncio.to_thread(calls)


async def test_an_asgi_host_gets_the_same_answers(running: Running) -> None:
    app = AsgiApp(running.app, limits=HttpLimits(body_bytes=1000))

    async def ask(method: str, path: str, *parts: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        incoming = [{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts]
        sent: list[Any] = []

        async def receive() -> Any:
            return incoming.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
        await app(scope, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]

    assert (await ask("GET", "/v2/health/ready", b""))[2] == b'{"ready":true}'
    status, headers, body = await ask("POST", "/v2/models/text/infer", b'{"text":', b' "hello"}')
    assert (status, headers[b"content-length"], b"label" in body) == (200, str(len(body)).encode(), True)
    assert (await ask("POST", "/v2/models/text/infer", b"x" * 1001))[0] == 413


async def test_an_asgi_host_may_tell_its_lifespan(running: Running) -> None:
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await AsgiApp(running.app)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
