"""The page for browsers."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.bundles import linear, text
from support.serving import Running, row, serving


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path, linear(tmp_path / "linear"), text(tmp_path / "text")) as server:
        yield server


async def test_a_browser_sees_the_models_and_a_line_to_try(running: Running) -> None:
    page = await running.ask("GET", "/", accept="text/html,application/xhtml+xml")
    content = page.body.decode()
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "READY" in content
    assert f"http://127.0.0.1:{running.port}/v2/models/text/infer" in content


async def test_the_page_loads_nothing_from_elsewhere(running: Running) -> None:
    page = await running.ask("GET", "/", accept="text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert not any(word in page.body for word in (b"<script", b"src=", b"@import", b"url("))


async def test_a_host_header_cannot_write_into_the_page(running: Running) -> None:
    page = await running.ask("GET", "/", accept="text/html", host="<script>alert(1)</script>")
    assert b"<script>" not in page.body


async def test_everybody_else_finds_nothing_at_the_root(running: Running) -> None:
    for accept in ("*/*", "application/json"):
        reply = await running.ask("GET", "/", accept=accept)
        assert (reply.status, list(reply.json)) == (404, ["error"])


async def test_a_large_answer_is_compressed_for_who_asks(running: Running) -> None:
    rows = {"inputs": [{"name": "x", "shape": [64, 4], "datatype": "FP32", "data": [0.1] * 256}]}
    plain = await running.infer("linear", rows, accept_encoding="identity")
    async with running.session.post(
        f"{running.url}/v2/models/linear/infer", json=rows, headers={"Accept-Encoding": "gzip"}, auto_decompress=False
    ) as reply:
        assert reply.headers["Content-Encoding"] == "gzip"
        assert len(gzip.decompress(await reply.read())) == len(plain.body)


async def test_a_small_answer_is_never_compressed(running: Running) -> None:
    reply = await running.infer("linear", row(0.0, 0.0, 0.0, 0.0), accept_encoding="gzip")
    assert "Content-Encoding" not in reply.headers
