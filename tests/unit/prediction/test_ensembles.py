"""Models made of models: checked when they are loaded, run side by side, stopped at the step that failed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import EngineError, InvalidConfig, InvalidInput, NotFound, Overloaded, Unavailable
from inferloop.core.manifest import Manifest
from inferloop.core.protocols import Session
from inferloop.core.signature import Signature, TensorSpec
from inferloop.core.target import Target
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.ensemble.ensemble import Ensemble
from inferloop.prediction.limits import Limits
from inferloop.prediction.prediction import Inference
from inferloop.prediction.predictor import Predictor
from inferloop.prediction.servable import Servable
from inferloop.prediction.settings import ModelSettings, Step

Function = Callable[[Tensors], Mapping[str, Array]]


class FunctionSession(Session):
    """Runs a Python function."""

    def __init__(self, signature: Signature, function: Function) -> None:
        self.signature = signature
        self._function = function

    def run(self, inputs: Tensors) -> dict[str, Array]:
        return dict(self._function(inputs))

    def close(self) -> None:
        pass


class Shelf:
    """Models by name, asked as a Router is; keeps who was asked in `asked`."""

    def __init__(self) -> None:
        self.models: dict[str, Servable] = {}
        self.asked: list[str] = []

    def add(self, name: str, function: Function, *, shape: tuple[int | None, ...] = (None, 2), dtype: str = "FP32") -> None:
        spec = {"dtype": DataType(dtype), "shape": shape}
        signature = Signature((TensorSpec("x", **spec),), (TensorSpec("y", **spec),))  # type: ignore[arg-type]  # as declared above
        bundle = Bundle(Path(), Manifest(name=name, signature=signature))
        session = FunctionSession(signature, function)
        self.models[name] = Predictor(bundle, [session], target=Target(), limits=Limits(queue_rows=64))

    def predictor(self, ref: str, *, version: int | None = None) -> Servable:
        if ref not in self.models or version not in (None, 0):
            raise NotFound(f"no model named {ref!r} of version {version}")
        return self.models[ref]

    async def infer(self, ref: str, tensors: Tensors, *, version: int | None = None, **options: Any) -> Inference:
        self.asked.append(ref)
        return await self.predictor(ref, version=version).ainfer(tensors, **options)


def same(tensors: Tensors) -> dict[str, Array]:
    return {"y": tensors["x"]}


def step(model: str, taken: str, given: str, *, when: str = "", version: int | None = None) -> Step:
    return Step(model, {"x": taken}, {"y": given}, version, when)


def ensemble(shelf: Shelf, *steps: Step, bundle: Bundle | str = "ens", ledger: Ledger | None = None) -> Ensemble:
    return Ensemble.load(bundle, ModelSettings(ensemble=steps), shelf, ledger=ledger)


def x(*values: float) -> Tensors:
    return {"a": np.array([values], np.float32)}


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    made = Shelf()
    made.add("echo", same)
    made.add("double", lambda tensors: {"y": tensors["x"] * 2})
    made.add("wide", same, shape=(None, 3))
    made.add("whole", same, dtype="INT64")
    made.add("one", same, shape=(None, 1))
    yield made
    for model in made.models.values():
        await model.aclose()


async def test_two_steps_one_after_the_other(shelf: Shelf) -> None:
    answer = await ensemble(shelf, step("echo", "m", "b"), step("double", "a", "m")).ainfer(x(1, 2), id="asked")
    assert answer.outputs["b"].tolist() == [[2, 4]]
    assert list(answer.outputs) == ["b"], "what is between the steps stays there"
    assert (answer.model, answer.id, answer.rows) == ("ens", "asked", 1)


async def test_the_signature_is_that_of_the_ends(shelf: Shelf) -> None:
    signature = ensemble(shelf, step("echo", "a", "m"), step("double", "m", "b")).signature
    assert [str(spec) for spec in (*signature.inputs, *signature.outputs)] == ["a: FP32[N, 2]", "b: FP32[N, 2]"]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((step("nope", "a", "b"),), "step 1 (nope): no model named 'nope'"),
        ((step("echo", "a", "b", version=7),), "of version 7"),
        ((step("echo", "a", "m"), step("echo", "a", "m")), "tensor 'm' is made twice, by step 1 (echo) already"),
        ((step("echo", "b", "m"), step("echo", "m", "b")), "a cycle: step 1 (echo), step 2 (echo) wait for each other"),
        ((step("echo", "a", "a"),), "a cycle"),
        ((step("echo", "a", "m"), step("wide", "m", "b")), "tensor 'm' is FP32[N, 2], 'x' is FP32[N, 3]"),
        ((step("echo", "a", "m"), step("whole", "m", "b")), "'x' is INT64[N, 2]"),
        ((Step("echo", {}, {"y": "b"}),), "its input 'x' gets no tensor"),
        ((Step("echo", {"x": "a", "z": "a"}, {"y": "b"}),), "the model has no input 'z'; known: x"),
        ((Step("echo", {"x": "a"}, {"z": "b"}),), "the model has no output 'z'; known: y"),
        ((step("echo", "a", "b", when="a +"),), "is not CEL"),
        ((step("echo", "a", "b", when="zz > 1"),), "its condition reads tensor 'zz', which nothing makes"),
        ((), "it has no steps"),
    ],
)
async def test_what_cannot_work_is_refused_at_load(shelf: Shelf, steps: tuple[Step, ...], words: str) -> None:
    with pytest.raises(InvalidConfig) as raised:
        ensemble(shelf, *steps)
    assert words in raised.value.message


async def test_all_problems_are_told_at_once(shelf: Shelf) -> None:
    with pytest.raises(InvalidConfig) as raised:
        ensemble(shelf, step("nope", "a", "m"), step("gone", "m", "b"))
    assert len(raised.value.problems) == 2


async def test_a_declared_signature_must_be_kept(shelf: Shelf) -> None:
    spec = TensorSpec("a", DataType.FP32, (None, 2))
    signature = Signature((spec,), (TensorSpec("b", DataType.FP32, (None, 2)), TensorSpec("c", DataType.FP32, (None, 2))))
    bundle = Bundle(Path(), Manifest(name="ens", signature=signature))
    with pytest.raises(InvalidConfig, match="no step makes its output 'c'"):
        ensemble(shelf, step("echo", "a", "b"), bundle=bundle)
    with pytest.raises(InvalidConfig, match="tensor 'm' is made by no step"):
        ensemble(shelf, step("echo", "m", "b"), step("echo", "a", "c"), bundle=bundle)


async def test_independent_steps_run_side_by_side(shelf: Shelf) -> None:
    meeting = threading.Barrier(2, timeout=60)
    for name in ("left", "right"):
        shelf.add(name, lambda tensors: (meeting.wait(), same(tensors))[1])
    steps = (step("left", "a", "b"), step("right", "a", "c"))
    answer = await ensemble(shelf, *steps).ainfer(x(1, 2))
    assert sorted(answer.outputs) == ["b", "c"]


async def test_callers_of_an_ensemble_share_the_runs_of_its_models(shelf: Shelf) -> None:
    made = ensemble(shelf, step("echo", "a", "m"), step("double", "m", "b"))
    answers = await asyncio.gather(*[made.ainfer(x(value, value)) for value in range(40)])
    assert [answer.outputs["b"][0, 0] for answer in answers] == [2 * value for value in range(40)]
    snapshot = shelf.models["double"].meter.snapshot()
    assert snapshot.inference_count == 40
    assert snapshot.execution_count < 20


async def test_a_condition_leaves_a_step_out_and_what_needs_it(shelf: Shelf) -> None:
    steps = (
        step("one", "a", "same"),
        step("one", "a", "large", when="a > 10.0"),
        step("one", "large", "after"),
    )
    made = ensemble(shelf, *steps)
    assert sorted((await made.ainfer({"a": np.array([[11]], np.float32)})).outputs) == ["after", "same"]
    assert sorted((await made.ainfer({"a": np.array([[1]], np.float32)})).outputs) == ["same"]


async def test_a_condition_reads_tensors_of_one_element_only(shelf: Shelf) -> None:
    with pytest.raises(InvalidInput, match=r"step 1 \(echo\): a condition reads tensor 'a' of 2 elements"):
        await ensemble(shelf, step("echo", "a", "b", when="a > 1.0")).ainfer(x(1, 2))


async def test_an_error_names_its_step_and_keeps_its_kind(shelf: Shelf) -> None:
    def broken(_: Tensors) -> dict[str, Array]:
        raise EngineError("out of order")

    shelf.add("broken", broken)
    made = ensemble(shelf, step("echo", "a", "m"), step("broken", "m", "b"))
    with pytest.raises(EngineError, match=r"^step 2 \(broken\): out of order$"):
        await made.ainfer(x(1, 2))
    assert made.meter.snapshot().fail.count == 1


async def test_overload_of_a_step_says_when_to_try_again(shelf: Shelf) -> None:
    made = ensemble(shelf, step("echo", "a", "b"))
    answers = await asyncio.gather(*[made.ainfer(x(1, 2)) for _ in range(65)], return_exceptions=True)
    (refused,) = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert refused.retry_after_s > 0


async def test_an_ensemble_may_be_a_step_but_never_of_itself(shelf: Shelf) -> None:
    shelf.models["inner"] = ensemble(shelf, Step("double", {"x": "x"}, {"y": "y"}), bundle="inner")
    outer = ensemble(shelf, step("inner", "a", "m"), step("double", "m", "b"), bundle="outer")
    assert (await outer.ainfer(x(1, 2))).outputs["b"].tolist() == [[4, 8]]
    shelf.models["outer"] = outer
    with pytest.raises(InvalidConfig, match="it leads back to 'inner'"):
        ensemble(shelf, step("outer", "a", "b"), bundle="inner")
    assert outer.models == (("inner", None), ("double", None))


async def test_the_ledger_has_the_ensemble_and_its_id(shelf: Shelf, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        answer = await ensemble(shelf, step("echo", "a", "b"), ledger=ledger).ainfer(x(1, 2), key="k", source="rest")
        ledger.flush()
        (record,) = ledger.predictions()
    assert (record.id, record.model, record.key, record.source) == (answer.id, "ens", "k", "rest")


async def test_a_closed_ensemble_is_unavailable(shelf: Shelf) -> None:
    made = ensemble(shelf, step("echo", "a", "b"))
    await made.aclose()
    with pytest.raises(Unavailable):
        await made.ainfer(x(1, 2))
