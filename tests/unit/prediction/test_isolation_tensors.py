"""Tensors between two processes: nothing is lost, whatever its type, shape or size."""

from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.prediction.isolation.region import Region
from inferloop.prediction.isolation.tensors import INSIDE_BELOW, pack, unpack


def same(left: Array, right: Array) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tolist() == right.tolist()


def array_of(datatype: DataType, *shape: int) -> Array:
    if datatype is DataType.BYTES:
        return np.array([b"", b"\x00\xff", "é".encode()] * 4, dtype=object).reshape(*shape)
    return np.arange(12).reshape(*shape).astype(datatype.numpy)


@pytest.mark.parametrize("datatype", list(DataType))
def test_every_datatype_comes_back_as_it_went(datatype: DataType) -> None:
    region = Region.new()
    tensors = {"a": array_of(datatype, 3, 4), "b": array_of(DataType.INT64, 12)}
    found = unpack(pack(tensors, region), region, own=True)
    assert list(found) == ["a", "b"]
    assert all(same(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("elements", [0, 1, INSIDE_BELOW // 4, INSIDE_BELOW // 4 + 1, 1_000_000])
def test_small_and_large_tensors_take_different_ways_and_arrive(elements: int) -> None:
    region = Region.new()
    sent: Tensors = {"x": np.arange(elements, dtype=np.float32), "mark": np.array([7], np.int8)}
    message = pack(sent, region)
    assert (len(message) < 200) == (elements == 0 or elements == 1 or elements * 4 + 64 > INSIDE_BELOW)
    assert all(same(array, sent[name]) for name, array in unpack(message, region, own=True).items())


def test_views_scalars_and_strange_shapes_arrive() -> None:
    region = Region.new()
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    sent = {"slice": base[::2, 1:4], "transposed": base.T, "scalar": np.float32(3).reshape(()), "none": base[:0]}
    sent["bf16"] = base.astype(ml_dtypes.bfloat16)
    found = unpack(pack(sent, region), region, own=False)
    assert all(same(found[name], sent[name]) for name in sent)


def test_an_answer_that_is_owned_survives_the_next_message() -> None:
    region = Region.new()
    first: Tensors = {"x": np.full(100_000, 1, np.float32)}
    kept = unpack(pack(first, region), region, own=True)["x"]
    pack({"x": np.full(300_000, 2, np.float32)}, region)
    assert (kept == 1).all()


def test_the_other_side_sees_a_region_that_grew() -> None:
    writer = Region.new()
    reader = Region(os.dup(writer.fd))
    for elements in (20_000, 200_000, 2_000_000):
        sent: Tensors = {"x": np.arange(elements, dtype=np.float32)}
        assert same(unpack(pack(sent, writer), reader, own=True)["x"], sent["x"])


def test_a_message_that_is_cut_off_is_no_tensor() -> None:
    region = Region.new()
    message = pack({"x": np.ones(100, np.float32)}, region)
    with pytest.raises((ValueError, TypeError)):
        unpack(message[: len(message) // 2], region, own=True)


def test_shared_memory_has_no_name_that_could_be_left_behind() -> None:
    named = Path("/dev/shm")
    before = sorted(named.iterdir()) if named.is_dir() else []
    region = Region.new()
    pack({"x": np.ones(1_000_000, np.float32)}, region)
    assert (sorted(named.iterdir()) if named.is_dir() else []) == before
