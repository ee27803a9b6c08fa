"""`generate` and `generate_stream`: plain values in and out, and one event for each answer of a decoupled model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferloop.prediction.settings import ModelSettings
from support import served
from support.serving import Running, serving

ONE = b'data: {"model_name":"rep","model_version":"1","y":[%b]}\n\n'
TWO = ONE % b"1.0,2.0" + ONE % b"2.0,3.0"


def _settings(name: str) -> ModelSettings:
    return ModelSettings(decoupled=name == "rep")


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    bundles = served.rep(tmp_path / "rep"), served.echo(tmp_path / "echo")
    async with serving(tmp_path, *bundles, settings=_settings) as world:
        yield world


async def test_every_answer_of_a_decoupled_model_is_an_event(running: Running) -> None:
    reply = await running.ask("POST", "/v2/models/rep/generate_stream", b'{"x": [1.0, 2.0]}')
    assert (reply.status, reply.body) == (200, TWO)
    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["Transfer-Encoding"] == "chunked"
    assert reply.headers["Inferloop-Prediction-Id"]


async def test_a_plain_model_gives_one_event_or_one_object(running: Running) -> None:
    content = {"id": "7", "model_name": "echo", "model_version": "1", "y": [1.0, 2.0]}
    body = b'{"x": [1, 2], "id": "7", "temperature": 0.5}'
    one = await running.ask("POST", "/v2/models/echo/versions/1/generate", body)
    event = await running.ask("POST", "/v2/models/echo/generate_stream", body)
    assert (one.status, one.json) == (200, content)
    assert json.loads(event.body.removeprefix(b"data: ")) == content


async def test_one_value_stands_for_itself_in_both_directions(running: Running) -> None:
    reply = await running.ask("POST", "/v2/models/echo/generate", b'{"x": [[NaN, 2.5]]}')
    assert str(reply.json["y"]) == "[nan, 2.5]"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("echo/generate", b"", 400),
        ("echo/generate", b"[]", 400),
        ("echo/generate", b"{", 400),
        ("echo/generate", b"{}", 400),
        ("echo/generate", b"[" * 100_000, 400),
        ("echo/generate", b'{"x": "text"}', 400),
        ("echo/generate", b'{"x": [1, 2, 3]}', 400),
        ("echo/generate", b'{"x": [[1], [2]]}', 400),
        ("echo/generate", b'{"x": [[1, 2], [3]]}', 400),
        ("echo/generate", b'{"x": []}', 400),
        ("echo/generate", b'{"x": {"a": 1}}', 400),
        ("echo/generate", b'{"x": [1, 2], "z": [1]}', 400),
        ("echo/generate", b'{"x": [1, 2], "id": 7}', 400),
        ("echo/generate", b'{"x": [1, 2], "parameters": []}', 400),
        ("echo/generate", b'{"x": [1, 2], "timeout": "soon"}', 400),
        ("echo/generate_stream", b'{"x": [1, 2, 3]}', 400),
        ("none/generate", b'{"x": [1, 2]}', 404),
        ("none/generate_stream", b'{"x": [1, 2]}', 404),
        ("echo/versions/9/generate_stream", b'{"x": [1, 2]}', 404),
        ("rep/generate", b'{"x": [1, 2]}', 400),
    ],
)
async def test_what_is_wrong_is_a_status_before_the_first_event(running: Running, path: str, body: bytes, status: int) -> None:
    reply = await running.ask("POST", f"/v2/models/{path}", body)
    assert (reply.status, list(reply.json)) == (status, ["error"])


async def test_a_connection_serves_other_requests_after_a_stream_in_their_order(running: Running) -> None:
    body = b'{"x": [1.0, 2.0]}'
    head = b"POST /v2/models/rep/generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    last = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await _exchange(running.port, (head + body) * 2 + last)
    parts = answer.split(b"HTTP/1.1 200 OK\r\n")
    assert len(parts) == 4
    assert all(part.endswith(b"\r\n0\r\n\r\n") for part in parts[1:3])
    assert b"chunked" not in parts[3]


async def test_a_client_that_keeps_no_connection_gets_the_events_unchunked_up_to_the_end(running: Running) -> None:
    body = b'{"x": [1.0, 2.0]}'
    head = b"POST /v2/models/rep/generate_stream HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = await _exchange(running.port, head + body)
    assert answer.endswith(b"\r\n\r\n" + TWO)
    assert b"Connection: close" in answer
    assert b"chunked" not in answer


async def test_a_client_that_takes_nothing_and_leaves_sets_the_model_free(running: Running) -> None:
    values = ",".join(["1.5"] * 1_000_000).encode()
    body = b'{"x": [%b]}' % values
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
    writer.write(b"POST /v2/models/rep/generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await reader.readexactly(12)
    writer.transport.abort()
    async with asyncio.timeout(60):
        while running.server.connections:
            await asyncio.sleep(0.01)
    reply = await running.ask("POST", "/v2/models/rep/generate_stream", b'{"x": [1.0, 2.0]}')
    assert reply.body == TWO


async def _exchange(port: int, sent: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer
