import io
import json
import shutil

import numpy as np
import pytest

from inferloop.core import manifest as manifests
from inferloop.core.bundle import GOLDEN, MANIFEST, MODEL, Bundle, golden_arrays
from inferloop.core.datatypes import DataType
from inferloop.core.errors import InferloopError, InvalidBundle, NewerSchema, NotFound, StorageError
from inferloop.core.manifest import Head, Manifest
from inferloop.core.signature import Signature, TensorSpec
from inferloop.core.transform import FieldKind, FieldTransform, OutputTransform, Step, Transforms

SIGNATURE = Signature((TensorSpec("x", DataType.FP32, (None, 2)),), (TensorSpec("y", DataType.FP32, (None, 2)),))
MANIFEST_ = Manifest(
    name="doubler",
    signature=SIGNATURE,
    labels=("a", "b"),
    head=Head("e", "y", "w", "b"),
    transforms=Transforms(
        (FieldTransform("x", FieldKind.NUMBER, (Step("vector", {"size": 2}),), ("x",)),),
        (OutputTransform("y", (Step("softmax"),)),),
    ),
)


class Doubler:
    """A session that multiplies by a factor."""

    signature = SIGNATURE

    def __init__(self, factor=2.0):
        self.factor = factor

    def run(self, inputs):
        return {"y": (inputs["x"] * self.factor).astype("float32")}

    def close(self):
        pass


def golden():
    x = np.arange(6, dtype="float32").reshape(3, 2)
    buffer = io.BytesIO()
    np.savez(buffer, **golden_arrays({"x": x}, {"y": x * 2}))
    return buffer.getvalue()


@pytest.fixture
def bundle(tmp_path):
    return Bundle.write(tmp_path / "doubler", MANIFEST_, {MODEL: b"not read here", GOLDEN: golden(), "assets/a.txt": b"a"})


def test_what_is_written_is_read_back(bundle):
    assert Bundle.load(bundle.path) == bundle
    assert bundle.manifest.transforms == MANIFEST_.transforms
    assert bundle.asset("assets/a.txt").read_bytes() == b"a"


def test_a_copy_under_another_name_has_the_same_digest(bundle, tmp_path):
    copy = bundle.copy(tmp_path / "other", name="other", version=3)
    assert Bundle.load(copy.path).version == 3
    assert copy.manifest.digest == bundle.manifest.digest


def test_other_labels_give_another_digest(bundle, tmp_path):
    assert bundle.copy(tmp_path / "other", labels=("b", "a")).manifest.digest != bundle.manifest.digest


def test_golden_outputs_accept_the_same_function_and_refuse_another(bundle):
    assert bundle.verify(Doubler()).passed
    assert bundle.verify(Doubler()).rows == 3
    assert not bundle.verify(Doubler(2.001)).passed
    assert not bundle.verify(Doubler(float("nan"))).passed


def damage_missing(path):
    (path / MODEL).unlink()


def damage_changed(path):
    (path / MODEL).write_bytes(b"other bytes")


def damage_truncated(path):
    text = (path / MANIFEST).read_bytes()
    (path / MANIFEST).write_bytes(text[: len(text) // 2])


def damage_foreign(path):
    (path / MANIFEST).write_text('{"hello": "world"}')


def damage_type(path):
    content = json.loads((path / MANIFEST).read_text())
    content["labels"] = 7
    (path / MANIFEST).write_text(json.dumps(content))


def damage_edited(path):
    content = json.loads((path / MANIFEST).read_text())
    content["labels"] = ["b", "a"]
    (path / MANIFEST).write_text(json.dumps(content))


def damage_escape(path):
    content = json.loads((path / MANIFEST).read_text())
    content["files"]["../../outside"] = "0" * 64
    (path / MANIFEST).write_text(json.dumps(content))


def damage_no_path(path):
    content = json.loads((path / MANIFEST).read_text())
    content["files"]["a\0b"] = "0" * 64
    (path / MANIFEST).write_text(json.dumps(content))


def damage_surrogate(path):
    content = json.loads((path / MANIFEST).read_text())
    content["name"] = "\ud800"
    (path / MANIFEST).write_text(json.dumps(content))


def damage_deep(path):
    (path / MANIFEST).write_text("[" * 200_000)


def damage_deep_lineage(path):
    text = (path / MANIFEST).read_text()
    assert '"lineage": {}' in text
    (path / MANIFEST).write_text(text.replace('"lineage": {}', '"lineage": ' + '{"a":' * 600 + "1" + "}" * 600))


def damage_empty(path):
    shutil.rmtree(path)
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing, "model.onnx is missing"),
        (damage_changed, "model.onnx does not match"),
        (damage_truncated, "is not JSON"),
        (damage_foreign, "not a bundle manifest"),
        (damage_type, r"Expected `array`.*labels"),
        (damage_edited, "bundle.json does not match"),
        (damage_escape, "outside"),
        (damage_no_path, "outside"),
        (damage_surrogate, "surrogates not allowed"),
        (damage_deep, "nested too deep"),
        (damage_deep_lineage, "nested too deep"),
        (damage_empty, "has no bundle.json"),
    ],
)
def test_a_damaged_directory_gives_one_clear_line(bundle, damage, message):
    damage(bundle.path)
    with pytest.raises(InvalidBundle, match=message) as raised:
        Bundle.load(bundle.path)
    assert "\n" not in raised.value.message
    assert raised.value.exit_code == 2


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"no arrays", b"PK\x03\x04 cut", golden()[:100], npy(np.zeros(2)), npz(a=np.array([{}], dtype=object))],
    ids=["empty", "text", "no archive", "truncated", "one array", "pickled"],
)
def test_arrays_that_are_none_are_an_invalid_bundle(tmp_path, content):
    bundle = Bundle.write(tmp_path / "foreign", MANIFEST_, {MODEL: b"", GOLDEN: content})
    with pytest.raises(InvalidBundle, match="something else than plain arrays"):
        bundle.arrays(GOLDEN)


@pytest.mark.parametrize(
    "arrays",
    [{"a": 0}, {"inputs/x": 0}, {"inputs/z": 0, "outputs/y": 0}, {"inputs/x": 0, "outputs/other": 0}],
    ids=["nothing", "no output", "another input", "another output"],
)
def test_golden_rows_of_another_signature_are_an_invalid_bundle(tmp_path, arrays):
    content = npz(**{name: np.zeros((1, 2), "float32") for name in arrays})
    bundle = Bundle.write(tmp_path / "foreign", MANIFEST_, {MODEL: b"", GOLDEN: content})
    with pytest.raises(InvalidBundle, match="other tensors than the signature"):
        bundle.verify(Doubler())


def test_a_path_that_the_system_refuses_is_told(tmp_path):
    with pytest.raises(StorageError, match="File name too long"):
        Bundle.load(tmp_path / ("a" * 300))


def test_a_directory_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no bundle at"):
        Bundle.load(tmp_path / "nowhere")


def test_a_newer_schema_is_refused_with_both_numbers(bundle):
    content = json.loads((bundle.path / MANIFEST).read_text())
    content["schema"] = manifests.SCHEMA + 1
    (bundle.path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(NewerSchema, match=rf"schema {manifests.SCHEMA + 1}.*up to {manifests.SCHEMA}"):
        Bundle.load(bundle.path)


def test_an_older_schema_is_migrated_step_by_step(monkeypatch):
    monkeypatch.setattr(manifests, "SCHEMA", 3)
    monkeypatch.setattr(
        manifests, "MIGRATIONS", {1: lambda c: {**c, "schema": 2, "a": 1}, 2: lambda c: {**c, "schema": 3, "b": c["a"] + 1}}
    )
    assert manifests.migrate({"schema": 1}, "here") == {"schema": 3, "a": 1, "b": 2}
    with pytest.raises(InvalidBundle, match="no release wrote"):
        manifests.migrate({"schema": 0}, "here")


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(InferloopError):
        Bundle.write(tmp_path / "b", MANIFEST_, {MODEL: tmp_path / "absent.onnx"})
    assert list(tmp_path.iterdir()) == []


def test_writing_over_an_existing_bundle_is_refused(bundle):
    with pytest.raises(StorageError):
        Bundle.write(bundle.path, MANIFEST_, {MODEL: b"x"})
    assert Bundle.load(bundle.path) == bundle


def test_an_asset_outside_the_bundle_is_refused(bundle):
    with pytest.raises(InvalidBundle, match="has no file"):
        bundle.asset("../secret")
