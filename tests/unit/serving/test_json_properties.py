"""JSON tensors by hypothesis: the same array or the same refusal, however the data is nested, and however much there is."""

from __future__ import annotations

import json
import math
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferloop.core.datatypes import DataType
from inferloop.core.errors import InvalidInput
from inferloop.serving.rest import messages
from inferloop.serving.rest.long_arrays import LONG_BYTES

INTEGERS = {name: np.iinfo(DataType(name).numpy) for name in DataType if name.startswith(("INT", "UINT"))}
FLOATS = ("FP32", "FP64")
LENGTHS = (0, LONG_BYTES)
"""Blanks in the data, so that it is read the common way and as a long array."""

shapes = st.lists(st.integers(0, 4), min_size=1, max_size=4)


def nested(values: list[Any], shape: list[int]) -> Any:
    if len(shape) == 1:
        return values
    size = prod(shape[1:])
    return [nested(values[row * size : (row + 1) * size], shape[1:]) for row in range(shape[0])]


def read(datatype: str, shape: list[int], data: Any, *, blanks: int = 0) -> np.ndarray:
    """The array of one input, whose data begins with so many blanks."""
    body = {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]}
    request = messages.parse(json.dumps(body).replace('"data": [', f'"data": [{" " * blanks}').encode())
    assert request is not None
    return messages.tensors(request, memoryview(b""))["x"]


def elements(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(max_size=4)
    if datatype in FLOATS:
        return st.floats(width=32 if datatype == "FP32" else 64)
    return st.integers(int(INTEGERS[datatype].min), int(INTEGERS[datatype].max))


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, list[int], list[Any]]:
    datatype = draw(st.sampled_from(["BOOL", "BYTES", *FLOATS, *INTEGERS]))
    shape = draw(shapes)
    count = prod(shape)
    return datatype, shape, draw(st.lists(elements(datatype), min_size=count, max_size=count))


@settings(max_examples=150, deadline=None)
@given(tensors())
@pytest.mark.parametrize("blanks", LENGTHS)
def test_flat_and_nested_data_are_the_same_array(blanks: int, tensor: tuple[str, list[int], list[Any]]) -> None:
    datatype, shape, values = tensor
    flat = read(datatype, shape, values, blanks=blanks)
    assert flat.shape == tuple(shape)
    expected = [value.encode() for value in values] if datatype == "BYTES" else values
    assert all(got == want or (got != got and want != want) for got, want in zip(flat.ravel().tolist(), expected, strict=True))
    if 0 not in shape[:-1]:
        deep = read(datatype, shape, nested(values, shape), blanks=blanks)
        assert (deep.dtype, deep.shape) == (flat.dtype, flat.shape)
        assert deep.tolist() == flat.tolist() or any(isinstance(value, float) and math.isnan(value) for value in values)


@settings(max_examples=100, deadline=None)
@given(tensors(), st.data())
@pytest.mark.parametrize("blanks", LENGTHS)
def test_one_wrong_element_is_refused_wherever_it_stands(
    blanks: int, tensor: tuple[str, list[int], list[Any]], data: st.DataObject
) -> None:
    datatype, shape, values = tensor
    if not values:
        return
    wrong: list[Any] = [None, {"a": 1}, []]
    wrong += [1] if datatype in ("BOOL", "BYTES") else ["1", True]
    if datatype in INTEGERS:
        wrong += [0.5, int(INTEGERS[datatype].max) + 1, int(INTEGERS[datatype].min) - 1]
    if datatype == "FP32":
        wrong += [1e39, -1e39]
    place = data.draw(st.integers(0, len(values) - 1))
    spoiled = [*values[:place], data.draw(st.sampled_from(wrong)), *values[place + 1 :]]
    for form in (spoiled, nested(spoiled, shape)):
        with pytest.raises(InvalidInput, match="'x'"):
            read(datatype, shape, form, blanks=blanks)


@settings(max_examples=60, deadline=None)
@given(tensors(), st.integers(-2, 2).filter(bool))
@pytest.mark.parametrize("blanks", LENGTHS)
def test_another_count_than_the_shape_says_is_refused(blanks: int, tensor: tuple[str, list[int], list[Any]], more: int) -> None:
    datatype, shape, values = tensor
    changed = [*values, *([values[0] if values else _any(datatype)] * more)] if more > 0 else values[:more]
    if len(changed) == len(values):
        return
    with pytest.raises(InvalidInput, match="'x'"):
        read(datatype, shape, changed, blanks=blanks)


@pytest.mark.parametrize(
    "data", [[[1, 2], [3]], [[1, 2], 3], [[1], [2], [3], [4]], [[[1, 2], [3, 4]]], [[1, 2, 3, 4]], 5, "a", None, {}]
)
@pytest.mark.parametrize("blanks", LENGTHS)
def test_ragged_or_foreign_data_is_refused(data: Any, blanks: int) -> None:
    with pytest.raises(InvalidInput):
        read("FP32", [2, 2], data, blanks=blanks)


@pytest.mark.parametrize("spoil", [None, "1", True, [], 1e39])
def test_much_data_is_read_as_strictly_as_little(spoil: Any) -> None:
    values: list[Any] = np.random.default_rng(0).normal(size=40_000).astype(np.float32).tolist()
    np.testing.assert_array_equal(read("FP32", [200, 200], values), np.array(values, np.float32).reshape(200, 200))
    np.testing.assert_array_equal(read("FP32", [200, 200], nested(values, [200, 200])), read("FP32", [200, 200], values))
    values[39_999] = spoil
    for form in (values, nested(values, [200, 200])):
        with pytest.raises(InvalidInput, match="'x'"):
            read("FP32", [200, 200], form)


def _any(datatype: str) -> Any:
    return {"BOOL": True, "BYTES": "a"}.get(datatype, 1)
