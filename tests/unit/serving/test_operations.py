"""Parameters, classes, and the words for tensors that do not fit."""

from __future__ import annotations

import time

import numpy as np
import pytest

from inferloop.core.datatypes import DataType
from inferloop.core.errors import InvalidInput
from inferloop.core.signature import Signature, TensorSpec
from inferloop.prediction.options import NO_OPTIONS, Options, SequenceStep
from inferloop.serving.operations.classification import classify
from inferloop.serving.operations.parameters import deadline_of, flag, options_of
from inferloop.serving.operations.refusals import misfit

SIGNATURE = Signature((TensorSpec("x", DataType.FP32, (None, 2)),), (TensorSpec("y", DataType.FP32, (None, 2)),))


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({}, NO_OPTIONS),
        ({"mine": "x", "n": 1.5}, NO_OPTIONS),
        ({"priority": 0, "sequence_id": 0}, NO_OPTIONS),
        ({"priority": 2}, Options(2)),
        ({"sequence_id": 7, "sequence_start": True}, Options(0, SequenceStep(7, start=True))),
        ({"sequence_id": "a", "sequence_end": True, "priority": 1}, Options(1, SequenceStep("a", end=True))),
        ({"sequence_id": 2**64 - 1}, Options(0, SequenceStep(2**64 - 1))),
    ],
)
def test_priority_and_sequence_are_read(parameters: dict[str, object], options: Options) -> None:
    assert options_of(parameters) == options


@pytest.mark.parametrize(
    "parameters",
    [
        {"priority": -1},
        {"priority": "high"},
        {"priority": True},
        {"sequence_id": -1},
        {"sequence_id": 2**64},
        {"sequence_id": 1.5},
        {"sequence_id": True},
        {"sequence_id": 1, "sequence_start": "yes"},
        {"sequence_start": True},
    ],
)
def test_a_parameter_of_the_wrong_type_or_range_is_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=r"sequence|priority"):
        options_of(parameters)


def test_of_two_deadlines_the_earlier_one_counts() -> None:
    now = time.monotonic()
    assert deadline_of({}, None) is None
    assert deadline_of({"timeout": 0}, now) == now
    assert deadline_of({"timeout": 5_000_000}, now + 1) == now + 1
    assert now + 5 <= deadline_of({"timeout": 5_000_000}, now + 100) < now + 50
    with pytest.raises(InvalidInput, match="'timeout'"):
        deadline_of({"timeout": "soon"}, None)


def test_a_flag_is_true_or_false() -> None:
    assert [flag({"a": True}, "a"), flag({"a": False}, "a"), flag({}, "a")] == [True, False, False]
    with pytest.raises(InvalidInput, match="'a' must be true or false"):
        flag({"a": 1}, "a")


def test_the_best_classes_of_each_row_come_first() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, np.nan]], np.float32)
    assert classify("y", scores, 2, batched=True).tolist() == [[b"0.700000:1", b"0.200000:2"], [b"0.500000:0", b"0.500000:1"]]
    named = classify("y", scores, 9, batched=True, labels=("a", "b", "c"))
    assert named.tolist()[0] == [b"0.700000:1:b", b"0.200000:2:c", b"0.100000:0:a"]
    assert named[1, 2] == b"nan:2:c"


def test_an_output_without_a_batch_axis_is_ranked_as_a_whole() -> None:
    numbers = np.array([[3, -(2**63)], [2**63 - 1, 3]], np.int64)
    assert classify("y", numbers, 3, batched=False).tolist() == [b"9223372036854775807:2", b"3:0", b"3:3"]
    assert classify("y", np.array([1, 255], np.uint8), 1, batched=False).tolist() == [b"255:1"]


@pytest.mark.parametrize(("array", "count"), [(np.array([True]), 1), (np.array([b"a"], object), 1), (np.ones(2), 0)])
def test_only_numbers_have_classes(array: np.ndarray, count: int) -> None:
    with pytest.raises(InvalidInput, match="output 'y'"):
        classify("y", array, count, batched=False)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"x": np.ones((1, 2), np.float32)}, ""),
        ({}, "expected 1 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing required input(s) ['x']."),
        ({"x": np.ones((1, 2), np.float32), "z": np.ones(1)}, "unexpected inference input 'z' for model 'm'"),
        ({"x": np.ones((1, 2), np.int32)}, "inference input 'x' data-type is 'INT32', but model 'm' expects 'FP32'"),
        ({"x": np.ones((1, 3), np.float32)}, "unexpected shape for input 'x' for model 'm'. Expected [-1,2], got [1,3]."),
        ({"x": np.ones(2, np.float32)}, "Expected [-1,2], got [2]. Axis 0 is the batch."),
        ({"x": np.ones((9, 2), np.float32)}, "inference request batch-size must be <= 8 for 'm'"),
    ],
)
def test_what_does_not_fit_is_told_in_the_words_of_the_protocols_clients(tensors: dict[str, np.ndarray], words: str) -> None:
    found = misfit(SIGNATURE, tensors, "m", 8)
    assert words in found
    assert bool(found) == bool(words)
