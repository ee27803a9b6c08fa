import base64
import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import DataType
from inferloop.core.errors import InvalidBundle, InvalidInput, Unsupported
from inferloop.core.manifest import Manifest
from inferloop.core.sample import Sample
from inferloop.core.signature import Signature, TensorSpec
from inferloop.core.transform import FieldKind, FieldTransform, OutputTransform, Step, Transforms
from inferloop.data.transforms.executor import TransformExecutor

SCORES = TensorSpec("scores", DataType.FP32, (None, 2))
IMAGE = FieldTransform(
    "photo",
    FieldKind.IMAGE,
    (Step("decode"), Step("resize", {"width": 8, "height": 6}), Step("to_float"), Step("layout", {"order": "CHW"})),
    ("pixels",),
)
IMAGE_SPEC = TensorSpec("pixels", DataType.FP32, (None, 3, 6, 8))
TEXT = FieldTransform("text", FieldKind.TEXT, (Step("ngrams", {"buckets": 512, "pad_multiple": 8}),), ("ids", "counts"))
TEXT_SPECS = (TensorSpec("ids", DataType.INT64, (None, None)), TensorSpec("counts", DataType.FP32, (None, None)))
SIGNAL = FieldTransform("wave", FieldKind.SIGNAL, (Step("window", {"size": 4, "channels": 2}),), ("x",))
SIGNAL_SPEC = TensorSpec("x", DataType.FP32, (None, 4, 2))
NUMBERS = FieldTransform("row", FieldKind.NUMBER, (Step("vector", {"fields": ["a", "b"]}),), ("x",))
NUMBERS_SPEC = TensorSpec("x", DataType.FP32, (None, 2))


def executor(
    fields: tuple[FieldTransform, ...], inputs: tuple[TensorSpec, ...], outputs: tuple[OutputTransform, ...] = ()
) -> TransformExecutor:
    manifest = Manifest("m", Signature(inputs, (SCORES,)), labels=("no", "yes"), transforms=Transforms(fields, outputs))
    return TransformExecutor(Bundle(Path("nowhere"), manifest))


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), (255, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def test_an_image_becomes_one_row_of_the_signature():
    tensors = executor((IMAGE,), (IMAGE_SPEC,)).apply(Sample({"photo": png()}))
    assert tensors["pixels"].shape == (1, 3, 6, 8)
    assert tensors["pixels"].dtype == np.float32
    assert tensors["pixels"][0, 0].min() == 1.0


def test_an_image_may_come_as_base64_or_as_a_data_url():
    run = executor((IMAGE,), (IMAGE_SPEC,))
    text = base64.b64encode(png()).decode()
    for value in (text, f"data:image/png;base64,{text}", bytearray(png())):
        np.testing.assert_array_equal(
            run.apply(Sample({"photo": value}))["pixels"], run.apply(Sample({"photo": png()}))["pixels"]
        )


def test_several_fields_fill_several_inputs():
    run = executor((IMAGE, TEXT), (IMAGE_SPEC, *TEXT_SPECS))
    assert set(run.apply(Sample({"photo": png(), "text": "hello there"}))) == {"pixels", "ids", "counts"}
    assert run.signature_fields == {"photo": FieldKind.IMAGE, "text": FieldKind.TEXT}


def test_numbers_come_from_several_fields_or_as_one_array():
    run = executor((NUMBERS,), (NUMBERS_SPEC,))
    assert run.signature_fields == {"a": FieldKind.NUMBER, "b": FieldKind.NUMBER}
    assert run.apply(Sample({"a": 1, "b": True}))["x"].tolist() == [[1.0, 1.0]]
    assert run.apply(Sample({"row": np.array([3, 4])}))["x"].tolist() == [[3.0, 4.0]]
    with pytest.raises(InvalidInput, match="field 'b' is missing"):
        run.apply(Sample({"a": 1}))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "field 'wave' is missing"),
        ({"wave": None}, "field 'wave' is missing"),
        ({"wave": "1,2"}, "field 'wave': must be numbers, it is text"),
        ({"wave": [[1, 2], [3]]}, "field 'wave': must be numbers, it is a list with something else in it"),
        ({"wave": [1, 2, 3, 4]}, "field 'wave': the signal has 1 channels, the model takes 2"),
        ({"wave": [[1, 2]] * 3}, "field 'wave': the signal has 3 samples, the model takes 4"),
        ({"wave": [[1, 2], [3, None], [5, 6], [7, float("inf")]]}, "field 'wave' has 2 values missing or not finite"),
        ({"wave": [[1e300, 2]] * 4}, "field 'wave' has 4 values missing or not finite"),
        ({"wave": [[10**400, 2]] * 4}, "field 'wave': must be numbers"),
        ({"wave": np.zeros((2, 2, 2))}, r"a signal must be numbers \[time\] or \[time, channels\]"),
    ],
)
def test_a_field_that_is_not_what_its_kind_says_is_named(fields, says):
    with pytest.raises(InvalidInput, match=says):
        executor((SIGNAL,), (SIGNAL_SPEC,)).apply(Sample(fields))


@given(
    st.dictionaries(
        st.sampled_from(["photo", "text"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers())),
    )
)
def test_no_value_breaks_the_executor(fields):
    run = executor((IMAGE, TEXT), (IMAGE_SPEC, *TEXT_SPECS))
    with contextlib.suppress(InvalidInput):
        run.apply(Sample(fields))


@given(st.lists(st.text(max_size=80), min_size=1, max_size=5))
def test_the_tensors_of_a_sample_do_not_depend_on_what_came_before(texts):
    run = executor((TEXT,), TEXT_SPECS)
    for text in texts:
        run.apply(Sample({"text": text}))
    fresh = executor((TEXT,), TEXT_SPECS)
    for name, tensor in run.apply(Sample({"text": texts[0]})).items():
        np.testing.assert_array_equal(tensor, fresh.apply(Sample({"text": texts[0]}))[name])


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ((Step("decod"),), "no operation named 'decod'"),
        ((Step("decode", {"mode": "CMYK"}),), "decode: invalid enum value 'CMYK'"),
        ((Step("decode", {"modus": "L"}),), "decode: object contains unknown field `modus`"),
        ((Step("decode"), Step("resize", {"width": 0, "height": 1})), r"resize: expected `int` >= 1 - at `\$.width`"),
        ((Step("decode"), Step("resize", {"width": 3})), "resize: object missing required field `height`"),
        ((Step("resize", {"width": 3, "height": 3}),), "step 1, resize, takes picture, it would get bytes"),
        (
            (Step("decode"), Step("layout", {"order": "CHW"}), Step("to_float")),
            "step 3, to_float, takes picture or pixels, it would get array",
        ),
        ((Step("decode"), Step("normalize", {"mean": [0.5], "std": []})), "normalize: mean has 1 values and std 0"),
        ((), "its steps end with bytes, not with a tensor"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_when_loaded(steps, says):
    with pytest.raises(InvalidBundle, match=says) as caught:
        executor((FieldTransform("photo", FieldKind.IMAGE, steps, ("pixels",)),), (IMAGE_SPEC,))
    assert "field 'photo'" in str(caught.value)


def test_transforms_and_signature_must_agree():
    with pytest.raises(InvalidBundle, match="yields 'ids', which the model does not take"):
        executor((TEXT,), (IMAGE_SPEC,))
    with pytest.raises(InvalidBundle, match="no transform yields the input 'ids'"):
        executor((IMAGE,), (IMAGE_SPEC, *TEXT_SPECS))
    with pytest.raises(InvalidBundle, match="it names 2 tensors, its steps yield 1"):
        executor((FieldTransform("photo", FieldKind.IMAGE, IMAGE.steps, ("pixels", "more")),), (IMAGE_SPEC,))


def test_a_tensor_of_another_kind_than_the_signature_is_refused():
    with pytest.raises(InvalidBundle, match="field 'photo' yields float32, input 'pixels' is UINT8"):
        executor((IMAGE,), (TensorSpec("pixels", DataType.UINT8, (None, 3, 6, 8)),)).apply(Sample({"photo": png()}))


def test_a_model_of_tensors_only_says_so():
    with pytest.raises(Unsupported, match="takes tensors only"):
        executor((), (IMAGE_SPEC,)).apply(Sample({"photo": png()}))
    with pytest.raises(Unsupported, match="does not declare which output"):
        executor((), (IMAGE_SPEC,)).scores({"scores": np.zeros((1, 2))})


def test_outputs_become_labels():
    run = executor(
        (IMAGE,),
        (IMAGE_SPEC,),
        (OutputTransform("scores", (Step("softmax"), Step("threshold", {"label": "yes", "above": 0.2}))),),
    )
    assert run.scores({"scores": np.array([[1.0, 0.0]], np.float32)}).top(0)[0] == "yes"


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (OutputTransform("score", ()), "output 'score': the model has no such output"),
        (OutputTransform("scores", (Step("hardmax"),)), "no operation named 'hardmax'"),
        (OutputTransform("scores", (Step("threshold", {"label": "maybe", "above": 0.5}),)), "threshold: no label 'maybe'"),
        (OutputTransform("scores", (Step("top_k", {"k": 0}),)), "top_k: expected `int` >= 1"),
    ],
)
def test_an_output_declaration_that_cannot_work_is_refused(output, says):
    with pytest.raises(InvalidBundle, match=says):
        executor((IMAGE,), (IMAGE_SPEC,), (output,))


def test_the_libraries_that_decide_the_numbers_are_known_with_their_versions():
    assert set(executor((IMAGE,), (IMAGE_SPEC,)).libraries()) == {"numpy", "pillow"}
    assert set(executor((TEXT,), TEXT_SPECS).libraries()) == {"numpy"}
