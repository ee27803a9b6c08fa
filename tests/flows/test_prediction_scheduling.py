"""Settings of a model through the Router: several answers, sequences that stay with their version, ensembles."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import DataType
from inferloop.core.errors import NotFound, Unsupported
from inferloop.core.manifest import Manifest
from inferloop.core.signature import Signature, TensorSpec
from inferloop.prediction.options import Options, SequenceStep
from inferloop.prediction.router import Router
from inferloop.prediction.settings import PLAIN, ModelSettings, SequenceSettings, Step
from inferloop.registry.registry import Registry
from support.served import adder, echo, rep

SETTINGS = {
    "rep": ModelSettings(decoupled=True),
    "adder": ModelSettings(sequence=SequenceSettings()),
    "ens": ModelSettings(ensemble=(Step("echo", {"x": "a"}, {"y": "m"}), Step("echo", {"x": "m"}, {"y": "b"}))),
}


def router(registry: Registry) -> Router:
    return Router(registry, settings=lambda name: SETTINGS.get(name, PLAIN))


def declared(path: Path) -> Bundle:
    """An ensemble as it stands in a registry: a name and a Signature."""
    sides = [TensorSpec(name, DataType.FP32, (None, 2)) for name in ("a", "b")]
    return Bundle.write(path, Manifest(name="ens", signature=Signature((sides[0],), (sides[1],))), {"model.onnx": b""})


async def test_every_answer_of_a_decoupled_model_comes_through_the_router(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        registry.register(rep(tmp_path / "rep"))
        async with router(registry) as running:
            await running.open(["rep"])
            tensors = {"x": np.array([3, 4], np.float32)}
            answers = [answer async for answer in running.stream("rep", tensors)]
            assert [answer.outputs["y"].tolist() for answer in answers] == [[3, 4], [4, 5]]
            with pytest.raises(Unsupported, match="decoupled transaction policy"):
                await running.infer("rep", tensors)
            with pytest.raises(NotFound):
                await anext(running.stream("nope", tensors))


async def test_a_version_is_not_closed_under_a_stream(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        registry.register(rep(tmp_path / "rep"))
        async with router(registry) as running:
            await running.open(["rep"])
            async with aclosing(running.stream("rep", {"x": np.array([3], np.float32)})) as answers:
                await anext(answers)
                await running.unload("rep")
                assert (await anext(answers)).outputs["y"].tolist() == [4]
                assert [answer async for answer in answers] == []


async def test_a_sequence_stays_with_its_version_though_a_canary_takes_half_of_the_traffic(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        for _ in range(2):
            registry.register(adder(tmp_path / "adder") if not (tmp_path / "adder").exists() else Bundle.load(tmp_path / "adder"))
        registry.promote("adder", 1, by="test")
        registry.set_canary("adder", 2, share=0.5, by="test")
        async with router(registry) as running:
            await running.open(["adder"])
            versions = set()
            for id_ in range(1, 21):
                for place in range(3):
                    options = Options(sequence=SequenceStep(id_, place == 0, place == 2))
                    answer = await running.infer("adder", {"x": np.ones((1, 1), np.float32)}, options=options)
                    assert answer.outputs["y"].tolist() == [[place + 1]]
                    versions.add(answer.version)
            assert versions == {1, 2}


async def test_an_ensemble_answers_under_its_name_and_shares_its_models_batches(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        for bundle in (echo(tmp_path / "echo"), declared(tmp_path / "ens")):
            registry.register(bundle)
        async with router(registry) as running:
            await running.open(["ens"])
            given = [np.array([[value, -value]], np.float32) for value in range(20)]
            answers = await asyncio.gather(*[running.infer("ens", {"a": a}) for a in given])
            assert [answer.outputs["b"].tolist() for answer in answers] == [a.tolist() for a in given]
            echoed = running.predictor("echo").meter.snapshot()
    assert echoed.inference_count == 40
    assert echoed.execution_count < 20
