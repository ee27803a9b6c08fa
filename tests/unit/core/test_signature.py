import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.datatypes import DataType
from inferloop.core.errors import InvalidInput
from inferloop.core.signature import Role, Signature, TensorSpec

X = TensorSpec("x", DataType.FP32, (None, 4))
MASK = TensorSpec("mask", DataType.INT64, (None, None))
SCORES = TensorSpec("scores", DataType.FP32, (None, 3))
EMBEDDING = TensorSpec("embedding", DataType.FP32, (None, 8), Role.EMBEDDING)


def test_a_matching_batch_gives_its_number_of_rows():
    signature = Signature((X, MASK), (SCORES,))
    assert signature.check({"x": np.zeros((5, 4), "float32"), "mask": np.ones((5, 9), "int64")}) == 5


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": np.zeros((1, 3), "float32")}, r"input 'x' is FP32\[1, 3\], the model takes FP32\[N, 4\]"),
        ({"x": np.zeros((1, 4), "float64")}, r"input 'x' is FP64\[1, 4\], the model takes FP32\[N, 4\]"),
        ({"x": np.zeros(4, "float32")}, r"input 'x' is FP32\[4\]"),
        ({"x": np.zeros((0, 4), "float32")}, "the batch is empty"),
        ({}, "input 'x' is missing"),
        ({"x": np.zeros((1, 4), "float32"), "zzz": np.zeros(1)}, "unexpected input .zzz."),
        ({"x": np.zeros((1, 4), "complex64")}, "complex64"),
    ],
)
def test_what_does_not_fit_is_named_with_both_shapes(inputs, message):
    with pytest.raises(InvalidInput, match=message):
        Signature((X,), (SCORES,)).check(inputs)


def test_inputs_that_differ_in_rows_are_refused():
    with pytest.raises(InvalidInput, match=r"x: 2, mask: 3"):
        Signature((X, MASK), (SCORES,)).check({"x": np.zeros((2, 4), "float32"), "mask": np.zeros((3, 1), "int64")})


@pytest.mark.parametrize("counts", [(2, 3), (0, 3), (3, 0), (0, 0)])
def test_rows_of_one_size_each_must_agree_and_be_some(counts):
    other = TensorSpec("other", DataType.INT64, (None, 2))
    inputs = {"x": np.zeros((counts[0], 4), "float32"), "other": np.zeros((counts[1], 2), "int64")}
    with pytest.raises(InvalidInput, match="number of rows" if counts[0] != counts[1] else "the batch is empty"):
        Signature((X, other), (SCORES,)).check(inputs)


def test_an_array_of_an_equal_dtype_fits_whoever_made_the_dtype():
    assert Signature((X,), (SCORES,)).check({"x": np.zeros((2, 4), np.dtype("float32", metadata={"unit": "m"}))}) == 2


def test_a_fixed_first_axis_makes_a_model_without_batching():
    whole = TensorSpec("x", DataType.FP32, (1, 4))
    signature = Signature((whole,), (SCORES,))
    assert not signature.batched
    assert signature.check({"x": np.zeros((1, 4), "float32")}) == 1


def test_the_embedding_is_found_by_its_role():
    assert Signature((X,), (SCORES, EMBEDDING)).embedding == EMBEDDING
    assert Signature((X,), (SCORES,)).embedding is None


def test_an_unknown_output_names_the_known_ones():
    with pytest.raises(InvalidInput, match="'zz'") as raised:
        Signature((X,), (SCORES,)).output("zz")
    assert "scores" in raised.value.hint


@given(st.lists(st.integers(0, 4), min_size=0, max_size=4), st.sampled_from(["float32", "float64", "int64", "bool"]))
def test_a_tensor_fits_exactly_when_check_is_silent(shape, dtype):
    array = np.zeros(shape, dtype)
    try:
        X.check(array)
    except InvalidInput:
        assert not X.fits(array)
    else:
        assert X.fits(array)


@pytest.mark.parametrize("datatype", list(DataType))
def test_every_datatype_survives_the_way_through_numpy(datatype):
    assert DataType.of(np.zeros(1, datatype.numpy)) is datatype


def test_an_array_without_a_datatype_is_refused():
    with pytest.raises(InvalidInput, match="complex128"):
        DataType.of(np.zeros(1, "complex128"))
