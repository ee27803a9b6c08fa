"""The model repository over REST, as clients of Triton ask for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import bundles
from support.repositories import until
from support.serving import Running, row, serving

BASE = "/v2/repository"


async def index(server: Running, body: bytes = b"") -> dict[str, str]:
    reply = await server.ask("POST", f"{BASE}/index", body)
    assert reply.status == 200
    return {entry["name"]: entry["state"] for entry in reply.json}


async def test_models_are_listed_unloaded_and_loaded_with_empty_answers(tmp_path: Path) -> None:
    async with serving(tmp_path, bundles.linear(tmp_path / "a", name="a"), bundles.linear(tmp_path / "b", name="b")) as server:
        reply = await server.ask("POST", f"{BASE}/index")
        assert reply.json == [{"name": name, "version": "1", "state": "READY"} for name in ("a", "b")]
        gone = await server.ask("POST", f"{BASE}/models/b/unload", b'{"parameters":{"unload_dependents":false}}')
        assert (gone.status, gone.body) == (200, b"")
        assert (await server.infer("b", row(1, 2, 3, 4))).status == 404
        assert (await server.ask("GET", "/v2/models/b/ready")).status == 400
        assert await index(server, b'{"ready": true}') == {"a": "READY"}
        back = await server.ask("POST", f"{BASE}/models/b/load", b"{}")
        assert (back.status, back.body) == (200, b"")
        assert (await server.infer("b", row(1, 2, 3, 4))).status == 200
        await until(lambda: server.router.ready)
        assert await index(server) == {"a": "READY", "b": "READY"}


async def test_an_unknown_model_can_be_unloaded_and_not_loaded(tmp_path: Path) -> None:
    async with serving(tmp_path, bundles.linear(tmp_path / "a", name="a")) as server:
        assert (await server.ask("POST", f"{BASE}/models/nope/unload")).status == 200
        refused = await server.ask("POST", f"{BASE}/models/nope/load")
        assert refused.status == 404
        assert refused.json.keys() == {"error"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("models/a/load", b"[1]", 400),
        ("models/a/load", b'{"parameters": {"config": 3}}', 400),
        ("models/a/load", b'{"parameters": {"config": "{}", "file:1/model.onnx": "no base64!"}}', 400),
        ("models/a/load", b'{"parameters": {"file:1/model.onnx": "AAAA"}}', 400),
        ("models/a/unload", b'{"parameters": {"unload_dependents": "yes"}}', 400),
        ("models/..%2Fa/load", b"", 400),
        ("models/%2Fetc/load", b"", 400),
        ("models/a@champion/load", b"", 400),
        ("models/a/reload", b"", 404),
        ("index", b"{", 400),
    ],
)
async def test_a_wrong_request_is_refused_and_changes_nothing(tmp_path: Path, path: str, body: bytes, status: int) -> None:
    async with serving(tmp_path, bundles.linear(tmp_path / "a", name="a")) as server:
        assert (await server.ask("POST", f"{BASE}/{path}", body)).status == status
        assert await index(server) == {"a": "READY"}
