"""Outputs of an ensemble's steps that were skipped: left out of the answer, asked for or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import DataType
from inferloop.core.manifest import Manifest
from inferloop.core.signature import Signature, TensorSpec
from inferloop.prediction.settings import ModelSettings, Step
from support import bundles
from support.serving import Running, serving

GATE = ModelSettings(
    ensemble=(
        Step("one", {"x": "a"}, {"y": "same"}),
        Step("one", {"x": "a"}, {"y": "large"}, when="a > 10.0"),
    )
)


def copies(path: Path, name: str, taken: str, *given: str) -> Bundle:
    """Every output is the input, FP32[N, 1]."""
    specs = [TensorSpec(each, DataType.FP32, (None, 1)) for each in (taken, *given)]
    nodes = [onnx.helper.make_node("Identity", [taken], [output], name=output) for output in given]
    manifest = Manifest(name=name, signature=Signature((specs[0],), tuple(specs[1:])))
    return bundles.write(path, manifest, nodes=nodes, weights={}, rows={taken: np.ones((2, 1), np.float32)})


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Running]:
    models = copies(tmp_path / "one", "one", "x", "y"), copies(tmp_path / "gate", "gate", "a", "same", "large")
    async with serving(tmp_path, *models, settings=lambda name: GATE if name == "gate" else ModelSettings()) as running:
        yield running


@pytest.mark.parametrize(("value", "names"), [(11.0, ["same", "large"]), (1.0, ["same"])])
@pytest.mark.parametrize("asked", [{}, {"outputs": [{"name": "same"}, {"name": "large"}]}])
async def test_a_skipped_output_is_left_out(gate: Running, value: float, names: list[str], asked: dict) -> None:
    tensor = {"name": "a", "shape": [1, 1], "datatype": "FP32", "data": [value]}
    reply = await gate.infer("gate", {"inputs": [tensor], **asked})
    assert reply.status == 200, reply.body
    assert sorted(output["name"] for output in reply.json["outputs"]) == sorted(names)
