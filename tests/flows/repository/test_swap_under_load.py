"""Versions change under a steady load over REST: every request is answered, by one version, and every version did answer."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from inferloop.net.http_server import HttpServer
from inferloop.net.limits import HttpLimits
from inferloop.prediction.limits import Limits
from inferloop.prediction.repository.repository import Control, Repository
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.serving.rest.app import App
from inferloop.serving.services import Services
from support import bundles
from support.repositories import numbered, until

ROW = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
VALUES = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


class Load:
    """Clients that ask over REST without a pause and keep the books."""

    def __init__(self, url: str, body: object) -> None:
        self._url = url
        self._body = body
        self._stop = asyncio.Event()
        self.answers = Counter[str]()
        self.failed: list[str] = []

    async def run(self, session: aiohttp.ClientSession) -> None:
        while not self._stop.is_set():
            async with session.post(self._url, json=self._body) as response:
                content = await response.json(content_type=None)
                if response.status != 200:
                    self.failed.append(f"{response.status}: {content}")
                    continue
            self.answers[content["model_version"]] += 1

    def stop(self) -> None:
        self._stop.set()

    async def more(self, version: int, count: int = 20) -> None:
        """Wait until a version has answered so many more requests."""
        wanted = self.answers[str(version)] + count
        await until(lambda: self.failed != [] or self.answers[str(version)] >= wanted)


@asynccontextmanager
async def under_load(
    folder: Path, body: object, *, repository: Repository | None = None, inline: bool | None = None, names: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Router, Load]]:
    """A server over REST and eight clients of its model `m`; at the end nothing may have failed."""
    limits = Limits(inline=inline, queue_rows=4096)
    with Registry(folder / "registry") as registry:
        async with Router(registry, repository=repository, limits=limits, poll_s=0.01) as router:
            await router.open(names)
            app = App(Services(router))
            async with HttpServer(app.handle, port=0, limits=HttpLimits()) as server, aiohttp.ClientSession() as session:
                load = Load(f"http://127.0.0.1:{server.port}/v2/models/m/infer", body)
                clients = [asyncio.create_task(load.run(session)) for _ in range(8)]
                try:
                    yield router, load
                finally:
                    load.stop()
                    await asyncio.gather(*clients)
    assert load.failed == []


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
async def test_no_request_fails_while_files_are_added_replaced_and_removed(tmp_path: Path, inline: bool) -> None:
    root = tmp_path / "models"
    numbered(root, "m", 1)
    with Repository(root, control=Control.POLL, poll_s=0.02) as repository:
        async with under_load(tmp_path, ROW, repository=repository, inline=inline) as (router, load):
            await load.more(1)
            for version in (2, 3):
                numbered(root, "m", version)
                await load.more(version)
            shutil.rmtree(root / "m" / "3")
            await load.more(2)
            before = router.predictor("m")
            numbered(root, "m", 2, answer=7)
            await until(lambda: router.predictor("m") is not before)
            await load.more(2)
            numbered(root, "broken", 1).write_bytes(b"nothing")
            await until(lambda: any(line.name == "broken" and line.reason for line in router.index()))
            await load.more(2)
    assert set(load.answers) == {"1", "2", "3"}


async def test_no_request_fails_while_a_model_is_loaded_again_and_again_by_request(tmp_path: Path) -> None:
    root = tmp_path / "models"
    numbered(root, "m", 1)
    with Repository(root, control=Control.EXPLICIT) as repository:
        async with under_load(tmp_path, ROW, repository=repository, names=("m",)) as (router, load):
            await load.more(1)
            for version in range(2, 8):
                numbered(root, "m", version)
                await router.load("m")
                assert router.bundle("m").version == version
                await load.more(version, 5)
    assert set(load.answers) == {str(version) for version in range(1, 8)}


async def test_no_request_fails_under_canary_while_versions_are_promoted(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        for version in (1, 2, 3):
            registry.register(bundles.linear(tmp_path / f"v{version}", name="m", seed=version))
        registry.promote("m", 1, by="test")
        async with under_load(tmp_path, VALUES, names=("m",)) as (router, load):
            for now, beside in ((1, 2), (2, 3), (3, 1)):
                await asyncio.to_thread(registry.promote, "m", now, by="test")
                await asyncio.to_thread(registry.set_canary, "m", beside, share=0.4, by="test")
                await until(lambda now=now: router.bundle("m").version == now and len(router.models()) == 2)
                await load.more(now)
                await load.more(beside)
    assert set(load.answers) == {"1", "2", "3"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident memory from /proc: run it on Linux")
def test_memory_is_given_back_after_a_model_is_unloaded() -> None:
    import importlib.util

    path = Path(__file__).parents[3] / "benchmarks" / "serve_cycles.py"
    spec = importlib.util.spec_from_file_location("serve_cycles", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    measured = module.measure(cycles=15, megabytes=20)
    assert measured["loaded_mb"] > 15, "it was really loaded"
    assert measured["rss_growth"] < 0.05
