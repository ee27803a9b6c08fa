"""Keys over REST, from the header to the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferloop.serving.key_file import create
from inferloop.serving.keys import Keys
from inferloop.serving.scopes import Scope
from support.bundles import linear
from support.serving import Running, row, serving

BODY = row(0.5, -1.0, 2.0, 0.25)


@pytest.fixture
def secret(tmp_path: Path) -> str:
    return create(tmp_path / "keys.json", [Scope.INFER], name="shop")[0]


@pytest.fixture
async def running(tmp_path: Path, secret: str) -> AsyncIterator[Running]:
    async with serving(tmp_path, linear(tmp_path / "linear"), keys=Keys(tmp_path / "keys.json")) as server:
        yield server


async def test_a_key_with_the_scope_predicts(running: Running, secret: str) -> None:
    assert (await running.infer("linear", BODY, authorization=f"Bearer {secret}")).status == 200


async def test_without_a_key_it_is_401_with_a_hint_and_nothing_else(running: Running) -> None:
    reply = await running.infer("linear", BODY)
    assert (reply.status, list(reply.json)) == (401, ["error"])
    assert "Bearer" in reply.headers["Inferloop-Hint"]


async def test_a_key_without_the_scope_is_403(running: Running, secret: str) -> None:
    reply = await running.ask("POST", "/v2/repository/models/linear/unload", authorization=f"Bearer {secret}")
    assert reply.status == 403
    assert (await running.ask("POST", "/v2/feedback", b"[]", authorization=f"Bearer {secret}")).status == 403


async def test_health_needs_no_key_and_metadata_needs_any(running: Running, secret: str) -> None:
    assert [(await running.ask("GET", f"/v2/health/{kind}")).status for kind in ("live", "ready")] == [200, 200]
    assert (await running.ask("GET", "/v2/models")).status == 401
    assert (await running.ask("GET", "/metrics")).status == 401
    assert (await running.ask("GET", "/v2/models", authorization=f"Bearer {secret}")).status == 200


async def test_a_large_body_is_refused_before_it_is_read(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"POST /v2/models/linear/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\n")  # and no body
    assert b" 401 " in await asyncio.wait_for(reader.readline(), 60)
    writer.close()


async def test_the_page_names_no_model_where_keys_are_asked_for(running: Running) -> None:
    page = await running.ask("GET", "/", accept="text/html")
    assert page.status == 200
    assert b"linear" not in page.body
