"""Many requests to load and unload at once, and requests that bring what cannot be used: nothing is lost or left behind."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from inferloop.core.errors import EngineError, InferloopError, InvalidBundle, NotFound
from inferloop.prediction.catalog import NO_OVERRIDE, Override
from inferloop.prediction.live import State
from inferloop.prediction.repository.repository import Control, Repository
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.serving.operations.model_config import ModelConfigs
from inferloop.serving.services import Services
from support import bundles
from support.repositories import numbered, place

X = {"x": np.ones((1, 2), np.float32)}


def refused_by_the_engine() -> bytes:
    """A file that reads as ONNX, with an operator that no engine has."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Nonsense", ["x"], ["y"])], "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


async def test_a_model_answers_everyone_whose_request_to_load_it_was_granted(tmp_path: Path) -> None:
    numbered(tmp_path / "models", "m", 1)
    with Registry(tmp_path / "registry") as registry, Repository(tmp_path / "models", control=Control.EXPLICIT) as repository:
        async with Router(registry, repository=repository) as router:

            async def load_and_ask() -> int:
                await router.load("m")
                return (await router.infer("m", X)).version

            for _ in range(3):
                assert await asyncio.gather(*(load_and_ask() for _ in range(8))) == [1] * 8
                await router.unload("m")


async def test_a_mixture_of_loads_and_unloads_ends_with_what_was_asked_last(tmp_path: Path) -> None:
    for name in "ab":
        numbered(tmp_path / "models", name, 1)
    with Registry(tmp_path / "registry") as registry, Repository(tmp_path / "models", control=Control.EXPLICIT) as repository:
        async with Router(registry, repository=repository) as router:
            changes = [change(name) for _ in range(10) for name in "ab" for change in (router.load, router.unload)]
            await asyncio.gather(*changes)
            await router.load("a")
            await router.unload("b")
            assert (await router.infer("a", X)).version == 1
            with pytest.raises(NotFound):
                await router.infer("b", X)
            await router.settled()


async def test_a_file_of_a_request_that_the_engine_refuses_is_the_fault_of_the_request(tmp_path: Path) -> None:
    numbered(tmp_path / "models", "m", 1)
    with Registry(tmp_path / "registry") as registry, Repository(tmp_path / "models", control=Control.EXPLICIT) as repository:
        async with Router(registry, repository=repository) as router:
            await router.load("m")
            for name in ("new", "m"):
                with pytest.raises(InvalidBundle, match="Nonsense"):
                    await router.load(name, override=Override("{}", {"1/model.onnx": refused_by_the_engine()}))
            assert (await router.infer("m", X)).version == 1, "what answered before goes on"


async def test_files_that_cannot_be_used_do_not_stay_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "uploads"))
    with Registry(tmp_path / "registry") as registry, Repository(tmp_path / "models", control=Control.EXPLICIT) as repository:
        async with Router(registry, repository=repository) as router:
            for content in (b"no model", refused_by_the_engine()):
                with pytest.raises(InvalidBundle):
                    await router.load("new", override=Override("{}", {"1/model.onnx": content}))
                assert list((tmp_path / "uploads").iterdir()) == []
                assert router.index() == []


@pytest.mark.parametrize("broken", ["engine", "file", "config", "path"])
async def test_a_load_that_fails_over_an_open_model_changes_nothing_that_is_shown_kept_or_loaded_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(uploads))
    good = numbered(tmp_path / "elsewhere", "m", 5).read_bytes()
    new = {
        "engine": Override('{"max_batch_size": 9}', {"7/model.onnx": refused_by_the_engine()}),
        "file": Override('{"max_batch_size": 9}', {"7/model.onnx": b"no model"}),
        "config": Override('{"max_batch_size": 9, "parameters": 3}', {"7/model.onnx": good}),
        "path": Override('{"max_batch_size": 9}', {"7/model.onnx": good, "../7/model.onnx": good}),
    }[broken]
    numbered(tmp_path / "models", "m", 1)
    with Registry(tmp_path / "registry") as registry, Repository(tmp_path / "models", control=Control.EXPLICIT) as repository:
        async with Router(registry, repository=repository, poll_s=0.01) as router:
            await router.open([])
            for kept in (
                NO_OVERRIDE,
                Override('{"max_batch_size": 3}'),
                Override('{"max_batch_size": 4}', {"5/model.onnx": good}),
            ):
                await router.load("m", override=kept)
                before = shown(router), sorted(uploads.rglob("*"))
                with pytest.raises(InferloopError):
                    await router.load("m", override=new)
                for _ in range(5):  # nor does whoever follows the directory make it come true
                    await asyncio.sleep(0.02)
                assert (shown(router), sorted(uploads.rglob("*"))) == before
                assert (await router.infer("m", X)).outputs["y"][0, 0] == before[0]["version"]
            assert before[0]["version"] == 5
            await router.load("m")
            assert shown(router)["version"] == 1
            assert list(uploads.iterdir()) == []


def shown(router: Router) -> dict[str, object]:
    """All that is said of `m`."""
    config = ModelConfigs(Services(router)).config("m")
    return {"index": router.index(), "models": router.models(), "version": router.bundle("m").version, "config": config}


async def test_a_reload_that_fails_half_way_keeps_nothing_of_it_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "inferloop")
    numbered(tmp_path / "models", "m", 1, config="version_policy { all { } }")
    with Registry(tmp_path / "registry") as registry, Repository(tmp_path / "models", control=Control.EXPLICIT) as repository:
        async with Router(registry, repository=repository) as router:
            await router.load("m")
            place(tmp_path / "models", "m", 1, refused_by_the_engine())
            numbered(tmp_path / "models", "m", 2)
            with pytest.raises(EngineError, match="Nonsense"):
                await router.load("m")
            assert (await router.infer("m", X)).version == 1
            await router.settled()
            moved = [record for record in caplog.records if record.getMessage() in ("model loaded", "model unloaded")]
            said = [(record.getMessage(), record.version) for record in moved]  # type: ignore[attr-defined]  # a fact of the line
            assert said == [("model loaded", 1), ("model loaded", 2), ("model unloaded", 2)]
            assert [(line.version, line.state, line.reason) for line in router.index()] == [(1, State.READY, "")]


async def test_a_request_opens_no_bundle_that_lies_where_the_server_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles.linear(tmp_path / "lying", name="lying")
    monkeypatch.chdir(tmp_path)
    with Registry(tmp_path / "registry") as registry:
        async with Router(registry) as router:
            with pytest.raises(NotFound):
                await router.load("lying")
            assert router.models() == []
