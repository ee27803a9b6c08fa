"""A directory of models behind a real router: layouts, versions, polling, loading by request, and what must not get in."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from inferloop.core.errors import InferloopError, InvalidBundle, InvalidInput, NotFound, Unsupported
from inferloop.prediction.catalog import Override
from inferloop.prediction.live import State
from inferloop.prediction.repository.repository import Control, Repository
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.serving.operations.model_config import ModelConfigs
from inferloop.serving.operations.repository import Repository as Operations
from inferloop.serving.services import Services
from support import bundles
from support.repositories import doubling, numbered, place, until

X = {"x": np.ones((1, 2), np.float32)}


@asynccontextmanager
async def routing(folder: Path, control: Control = Control.NONE) -> AsyncIterator[Router]:
    """A router over `folder/models` and an empty registry."""
    (folder / "models").mkdir(exist_ok=True)
    with Registry(folder / "registry") as registry, Repository(folder / "models", control=control, poll_s=0.02) as repository:
        async with Router(registry, repository=repository, poll_s=0.01) as router:
            await router.open([])
            yield router


async def asked(router: Router, name: str, version: int | None = None) -> float:
    """The first element of the only output."""
    answer = await router.infer(name, X, version=version)
    return float(next(iter(answer.outputs.values()))[0, 0])


def states(router: Router) -> dict[str, str]:
    return {f"{line.name}:{line.version}": line.state for line in router.index()}


async def test_the_layouts_of_all_three_servers_are_served_side_by_side(tmp_path: Path) -> None:
    root = tmp_path / "models"
    bundles.linear(root / "ours" / "4", name="another")
    bundles.linear(root / "single", name="single")
    numbered(root, "triton", 1, config='max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 2 }')
    numbered(root, "openvino", 7, file="saved.onnx")
    async with routing(tmp_path) as router:
        assert states(router) == {"openvino:7": "READY", "ours:4": "READY", "single:1": "READY", "triton:1": "READY"}
        assert (await router.infer("ours", {"x": np.ones((3, 4), np.float32)})).version == 4
        assert [await asked(router, "triton"), await asked(router, "openvino")] == [1, 7]
        assert router.settings("triton").limits.max_batch == 8  # type: ignore[union-attr]  # the configuration says it


async def test_only_the_models_of_a_list_are_served_where_there_is_one(tmp_path: Path) -> None:
    root = tmp_path / "models"
    for version in (1, 2, 3):
        numbered(root, "folder", version)
    numbered(root, "unlisted", 1)
    policy = {"specific": {"versions": [1, 3]}}
    entry = {"name": "listed", "base_path": "folder", "model_version_policy": policy, "nireq": 4}
    (root / "config.json").write_text(json.dumps({"model_config_list": [{"config": entry}]}))
    async with routing(tmp_path) as router:
        assert states(router) == {"listed:1": "READY", "listed:3": "READY"}


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", [3]),
        ("version_policy: { latest { num_versions: 2 } }", [2, 3]),
        ("version_policy: { all { } }", [1, 2, 3]),
        ("version_policy: { specific { versions: [1, 2, 9] } }", [1, 2]),
    ],
)
async def test_a_version_policy_decides_which_versions_are_open_at_once(tmp_path: Path, policy: str, served: list[int]) -> None:
    for version in (1, 2, 3):
        numbered(tmp_path / "models", "m", version, config=f'{policy} platform: "onnxruntime_onnx"')
    async with routing(tmp_path) as router:
        assert [line.version for line in router.index()] == served
        assert [await asked(router, "m", version) for version in served] == served
        assert await asked(router, "m") == served[-1], "the highest answers by default"
        for version in {1, 2, 3}.difference(served):
            with pytest.raises(NotFound):
                await asked(router, "m", version)


async def test_our_own_configuration_says_how_a_model_is_held(tmp_path: Path) -> None:
    numbered(tmp_path / "models", "m", 1)
    text = "batch: {max: 4, max_delay: 1ms}\nqueue: {rows: 64}\ninstances: 2\nwarmup: [1, 4]\nthreads: 1\nparameters: {team: a}\n"
    (tmp_path / "models" / "m" / "model.yaml").write_text(text)
    async with routing(tmp_path) as router:
        settings = router.settings("m")
        assert settings.limits is not None
        assert (settings.instances, settings.limits.max_batch, settings.limits.max_delay_s) == (2, 4, 0.001)
        assert await asked(router, "m") == 1


async def test_an_ensemble_of_the_repository_is_opened_after_its_models(tmp_path: Path) -> None:
    root = tmp_path / "models"
    tensors = 'input { name: "a" data_type: TYPE_FP32 dims: 2 } output { name: "b" data_type: TYPE_FP32 dims: 2 }'
    steps = [("a", "m"), ("m", "b")]
    text = "".join(
        f'step {{ model_name: "twice" input_map {{ key: "x" value: "{a}" }} output_map {{ key: "y" value: "{b}" }} }}'
        for a, b in steps
    )
    (root / "again").mkdir(parents=True)
    config = f'platform: "ensemble" max_batch_size: 8 {tensors} ensemble_scheduling {{ {text} }}'
    (root / "again" / "config.pbtxt").write_text(config)
    doubling(root, "twice")
    async with routing(tmp_path) as router:
        answer = await router.infer("again", {"a": np.ones((2, 2), np.float32)})
        assert answer.outputs["b"].tolist() == [[4, 4], [4, 4]]
    async with routing(tmp_path, Control.EXPLICIT) as router:
        await router.load("again")
        assert [line.name for line in router.index() if line.state is State.READY] == ["again", "twice"]
        await router.unload("again", dependents=True)
        assert not [line for line in router.index() if line.state is State.READY]


async def test_without_a_batch_axis_every_request_is_run_by_itself(tmp_path: Path) -> None:
    config = (
        'max_batch_size: 0 input { name: "x" data_type: TYPE_FP32 dims: -1 } output { name: "y" data_type: TYPE_FP32 dims: -1 }'
    )
    doubling(tmp_path / "models", "m", config=config, shape=(None,))
    async with routing(tmp_path) as router:
        assert not router.bundle("m").signature.batched
        for size in (3, 200):
            answer = await router.infer("m", {"x": np.ones(size, np.float32)})
            assert answer.outputs["y"].tolist() == [2.0] * size


@pytest.mark.parametrize(
    ("config", "shape", "says"),
    [
        ('max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: [ 1, 2 ] }', (None, 2), "batch included"),
        ('max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }', (1, 2), "batch not included"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }', (None, 2), "no batch axis"),
        ('max_batch_size: 4 input { name: "z" data_type: TYPE_FP32 dims: [ 2 ] }', (None, 2), "no input 'z'"),
        ('max_batch_size: 4 input { name: "x" data_type: TYPE_INT32 dims: [ 2 ] }', (None, 2), "INT32"),
    ],
)
async def test_a_configuration_that_does_not_fit_says_both_shapes_and_where_the_batch_is(
    tmp_path: Path, config: str, shape: tuple[int | None, ...], says: str
) -> None:
    doubling(tmp_path / "models", "m", config=config, shape=shape)
    async with routing(tmp_path, Control.EXPLICIT) as router:
        with pytest.raises(InvalidBundle, match=says):
            await router.load("m")


async def test_a_model_that_cannot_be_loaded_hurts_no_other(tmp_path: Path) -> None:
    numbered(tmp_path / "models", "good", 1)
    place(tmp_path / "models", "damaged", 1, b"no model at all")
    (tmp_path / "models" / "empty").mkdir()
    numbered(tmp_path / "models", "odd", 1, config="max_batch_size: [")
    async with routing(tmp_path) as router:
        assert await asked(router, "good") == 1
        assert router.ready, "what nobody named may be broken"
        reasons = {line.name: line.reason for line in router.index() if line.state is State.UNAVAILABLE}
        assert reasons.keys() == {"damaged", "empty", "odd"}
        assert "no ONNX model" in reasons["damaged"]
        assert "no version" in reasons["empty"]


async def test_polling_sees_what_is_added_changed_and_removed(tmp_path: Path) -> None:
    root = tmp_path / "models"
    numbered(root, "m", 1)
    async with routing(tmp_path, Control.POLL) as router:
        assert await asked(router, "m") == 1
        numbered(root, "m", 2)
        numbered(root, "n", 5)
        await until(lambda: states(router) == {"m:2": "READY", "n:5": "READY"})
        assert [await asked(router, "m"), await asked(router, "n")] == [2, 5]
        before = router.predictor("m")
        numbered(root, "m", 2, answer=20)
        await until(lambda: router.predictor("m") is not before)
        assert await asked(router, "m") == 20
        shutil.rmtree(root / "m" / "2")
        await until(lambda: router.bundle("m").version == 1)
        shutil.rmtree(root / "n")
        await until(lambda: "n" not in {line.name for line in router.index()})
        with pytest.raises(NotFound):
            await asked(router, "n")


async def test_a_changed_model_that_is_broken_leaves_the_old_one_answering(tmp_path: Path) -> None:
    root = tmp_path / "models"
    numbered(root, "m", 1)
    async with routing(tmp_path, Control.POLL) as router:
        place(root, "m", 1, b"broken")
        await until(lambda: router.index()[0].reason != "")
        assert await asked(router, "m") == 1
        numbered(root, "m", 1, answer=3)
        await until(lambda: router.index()[0].reason == "")
        assert await asked(router, "m") == 3


def test_files_that_still_change_are_not_adopted(tmp_path: Path) -> None:
    numbered(tmp_path, "m", 1)
    with Repository(tmp_path, control=Control.POLL, poll_s=0.0) as repository:
        reference = repository.find("m")
        assert reference is not None
        before = repository.generation()
        for answer in (2, 3, 4):
            numbered(tmp_path, "m", 1, answer=answer)
            assert repository.generation() == before, "it was different a moment ago"
        assert repository.generation() == before + 1
        shutil.rmtree(tmp_path / "m")
        assert repository.generation() == before + 1, "it may be on its way to be replaced"
        assert "m" in repository.known()
        repository.generation()
        assert "m" not in repository.known()


async def test_requests_open_replace_and_close_models(tmp_path: Path) -> None:
    numbered(tmp_path / "models", "m", 1)
    async with routing(tmp_path, Control.EXPLICIT) as router:
        operations = Operations(router)
        assert operations.index(ready=True) == []
        assert operations.index(ready=False) == [{"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "not loaded"}]
        await operations.load("m", {})
        assert await asked(router, "m") == 1
        numbered(tmp_path / "models", "m", 2)
        numbered(tmp_path / "models", "late", 1)
        await operations.load("m", {})
        await operations.load("late", {})
        assert await asked(router, "m") == 2
        await operations.unload("m", unload_dependents=False)
        await operations.unload("unknown", unload_dependents=False)
        with pytest.raises(NotFound, match="unloaded"):
            await asked(router, "m")
        await until(lambda: states(router) == {"late:1": "READY", "m:2": "UNAVAILABLE"})
        with pytest.raises(NotFound):
            await operations.load("unknown", {})


async def test_a_request_may_bring_configuration_and_files(tmp_path: Path) -> None:
    numbered(tmp_path / "models", "m", 1)
    content = numbered(tmp_path / "elsewhere", "m", 5).read_bytes()
    async with routing(tmp_path, Control.EXPLICIT) as router:
        operations = Operations(router)
        await operations.load("m", {"config": '{"maxBatchSize": "3", "parameters": {"by": {"string_value": "me"}}}'})
        assert router.settings("m").parameters == {"by": "me"}
        await operations.load("m", {"config": "{}", "file:5/model.onnx": base64.b64encode(content).decode()})
        assert (await asked(router, "m"), router.bundle("m").version) == (5, 5)
        await operations.load("new", {"config": '{"backend": "onnxruntime"}', "file:1/model.onnx": content})
        assert await asked(router, "new") == 5
        assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["m"], "nothing is written there"
        await operations.unload("m", unload_dependents=False)
        await operations.load("m", {})
        assert await asked(router, "m") == 1, "what was brought is gone"


async def test_a_configuration_as_the_server_writes_it_is_read_back_the_same(tmp_path: Path) -> None:
    config = """max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 2 } version_policy { latest { num_versions: 2 } }
                dynamic_batching { max_queue_delay_microseconds: 300 priority_levels: 3 default_priority_level: 2
                                   default_queue_policy { default_timeout_microseconds: 5000 } }
                instance_group { count: 2 } response_cache { enable: true } parameters { key: "a" value { string_value: "b" } }"""
    for version in (1, 2, 3):
        numbered(tmp_path / "models", "m", version, config=config)
    async with routing(tmp_path, Control.EXPLICIT) as router:
        await router.load("m")
        before, written = router.settings("m"), ModelConfigs(Services(router)).config("m")
        await Operations(router).load("m", {"config": json.dumps(written)})
        assert router.settings("m") == before
        assert ModelConfigs(Services(router)).config("m") == written
        assert written["version_policy"] == {"latest": {"num_versions": 2}}


@pytest.mark.parametrize("path", ["../out.onnx", "/tmp/out.onnx", "1/../../out.onnx", "C:\\out.onnx", "", "1\\..\\..\\x"])
async def test_files_of_a_request_stay_in_their_place(tmp_path: Path, path: str) -> None:
    async with routing(tmp_path, Control.EXPLICIT) as router:
        with pytest.raises(InvalidInput, match="not allowed"):
            await router.load("m", override=Override("{}", {path: b"x"}))
        assert router.index() == []


@pytest.mark.parametrize("control", [Control.NONE, Control.POLL])
async def test_requests_change_nothing_where_they_do_not_decide(tmp_path: Path, control: Control) -> None:
    numbered(tmp_path / "models", "m", 1)
    async with routing(tmp_path, control) as router:
        for change in (router.load("m"), router.unload("m")):
            with pytest.raises(Unsupported, match=control):
                await change
        assert await asked(router, "m") == 1


@pytest.mark.parametrize("name", ["../models", "a/b", "..", ".hidden", "stats", "", "x\0y"])
async def test_a_request_cannot_name_a_place(tmp_path: Path, name: str) -> None:
    numbered(tmp_path, "models", 1)
    async with routing(tmp_path, Control.EXPLICIT) as router:
        with pytest.raises(InvalidInput):
            await router.load(name)


async def test_a_link_that_leads_out_is_not_followed_and_one_within_is(tmp_path: Path) -> None:
    root = tmp_path / "models"
    outside = numbered(tmp_path / "outside", "m", 1)
    inside = numbered(root, "plain", 1)
    for name, target in (("file", outside), ("fine", inside)):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.onnx").symlink_to(target)
    (root / "folder").symlink_to(outside.parent.parent)
    (root / "version").mkdir()
    (root / "version" / "1").symlink_to(outside.parent)
    async with routing(tmp_path) as router:
        assert [line.name for line in router.index() if line.state is State.READY] == ["fine", "plain"]
        assert all("leads out of" in line.reason for line in router.index() if line.state is not State.READY)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin", "missing.bin"])
async def test_weights_outside_of_the_directory_are_refused(tmp_path: Path, location: str) -> None:
    root = tmp_path / "models"
    (tmp_path / "secret.bin").write_bytes(np.ones(2, np.float32).tobytes())
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value=location)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weights])
    path = place(root, "m", 1, helper.make_model(graph, opset_imports=[onnx.OperatorSetIdProto(version=17)]).SerializeToString())
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    async with routing(tmp_path, Control.EXPLICIT) as router:
        with pytest.raises(InvalidBundle, match=r"outside of its directory|is not there"):
            await router.load("m")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('backend: "python"', "python"),
        ('platform: "tensorrt_plan"', "tensorrt_plan"),
        ('model_operations { op_library_filename: "evil.so" }', "libraries"),
        ('default_model_filename: "../../outside.onnx"', "not allowed"),
        ('input { name: "x" data_type: TYPE_FP32 dims: 2 reshape { shape: [] } }', "something else"),
        ('name: "other"', "of model 'other'"),
        ("max_batch_size: -1", "at least 0"),
        ("dynamic_batching { priority_levels: 2 default_priority_level: 3 }", "levels"),
    ],
)
async def test_a_configuration_that_must_not_be_passed_over_is_refused(tmp_path: Path, config: str, says: str) -> None:
    numbered(tmp_path / "models", "m", 1, config=config)
    async with routing(tmp_path, Control.EXPLICIT) as router:
        with pytest.raises(InferloopError, match=says):
            await router.load("m")


async def test_keys_that_mean_nothing_here_are_named_in_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbered(tmp_path / "models", "m", 1, config="optimization { graph { level: 1 } } metric_tags { } instance_group { gpus: 0 }")
    async with routing(tmp_path) as router:
        assert await asked(router, "m") == 1
    warnings = [record for record in caplog.records if record.message == "configuration keys not used"]
    assert [record.keys for record in warnings] == ["optimization, metric_tags, instance_group.gpus"]  # type: ignore[attr-defined]
