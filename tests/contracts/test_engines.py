"""What every engine promises, checked for all that are installed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferloop.core import plugins
from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import DataType, Tensors
from inferloop.core.errors import EngineError, InferloopError, MissingDependency, Unsupported
from inferloop.core.manifest import Manifest
from inferloop.core.protocols import Engine, Session
from inferloop.core.signature import Signature, TensorSpec
from inferloop.core.target import Precision, Target
from support import bundles

BUILDERS: list[Callable[[Path], Bundle]] = [bundles.linear, bundles.mlp, bundles.text, bundles.image]


@pytest.fixture(scope="module", params=plugins.names("engines"))
def engine(request: pytest.FixtureRequest) -> Engine:
    try:
        loaded: Engine = plugins.load("engines", request.param)()
    except MissingDependency as error:
        pytest.skip(f"{error}; {error.hint}")
    return loaded


@pytest.fixture(scope="module")
def whole_numbers(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A linear model whose sums are exact in float32, so that a row's answer must not differ by a bit."""
    path = tmp_path_factory.mktemp("whole") / "bundle"
    plain = bundles.linear(path.with_name("plain"))
    weights = {"weight": np.arange(12, dtype=np.float32).reshape(4, 3) - 5, "bias": np.array([1, -2, 3], np.float32)}
    nodes = [bundles.helper.make_node("Gemm", ["x", "weight", "bias"], ["scores"])]
    manifest = Manifest(name="whole", signature=plain.signature)
    return bundles.write(path, manifest, nodes=nodes, weights=weights, rows={"x": np.ones((2, 4), np.float32)})


@pytest.fixture(scope="module")
def session(engine: Engine, whole_numbers: Bundle) -> Iterator[Session]:
    loaded = engine.load(whole_numbers, Target())
    yield loaded
    loaded.close()


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_an_engine_computes_the_golden_outputs(engine: Engine, build: Callable[[Path], Bundle], tmp_path: Path) -> None:
    bundle = build(tmp_path / "bundle")
    loaded = engine.load(bundle, Target())
    parity = bundle.verify(loaded, tolerance=1e-5)
    assert parity.passed, parity
    loaded.close()


@pytest.mark.parametrize("datatype", [datatype for datatype in DataType if datatype is not DataType.BYTES])
def test_every_datatype_passes_through_an_engine(engine: Engine, datatype: DataType, tmp_path: Path) -> None:
    values = np.array([[0, 1, 1, 0], [1, 0, 0, 1]]).astype(datatype.numpy)
    spec = TensorSpec("x", datatype, (None, 4))
    manifest = Manifest(name="same", signature=Signature((spec,), (replace(spec, name="y"),)))
    nodes = [bundles.helper.make_node("Identity", ["x"], ["y"])]
    bundle = bundles.write(tmp_path / "bundle", manifest, nodes=nodes, weights={}, rows={"x": values})
    loaded = engine.load(bundle, Target())
    assert bundle.verify(loaded).passed
    (given_back,) = loaded.run({"x": values}).values()
    assert (given_back.dtype, given_back.tolist()) == (datatype.numpy, values.tolist())
    loaded.close()


@settings(deadline=None)
@given(values=st.lists(st.integers(-50, 50), min_size=4, max_size=48), data=st.data())
def test_batching_never_changes_an_answer(session: Session, values: list[int], data: st.DataObject) -> None:
    x = np.array(values[: len(values) // 4 * 4], dtype=np.float32).reshape(-1, 4)
    cut = data.draw(st.integers(0, len(x)))
    whole = session.run({"x": x})["scores"]
    parts = [session.run({"x": part})["scores"] for part in (x[:cut], x[cut:]) if len(part)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_every_output_has_the_dtype_and_shape_of_the_signature(session: Session) -> None:
    outputs = session.run(_ones(3))
    assert set(outputs) == {spec.name for spec in session.signature.outputs}
    assert all(spec.fits(outputs[spec.name]) for spec in session.signature.outputs)


def test_outputs_belong_to_the_caller_and_inputs_stay_as_they_were(session: Session) -> None:
    given_inputs = _ones(2)
    first = session.run(given_inputs)["scores"]
    expected = first.copy()
    first[:] = np.nan
    np.testing.assert_array_equal(session.run(given_inputs)["scores"], expected)
    np.testing.assert_array_equal(given_inputs["x"], _ones(2)["x"])


def test_read_only_and_unaligned_inputs_are_fine(session: Session) -> None:
    raw = b"\0" + _ones(2)["x"].tobytes()
    view = np.frombuffer(raw, dtype=np.float32, offset=1).reshape(2, 4)
    assert not view.flags.writeable
    np.testing.assert_array_equal(session.run({"x": view})["scores"], session.run(_ones(2))["scores"])


def test_a_failed_run_is_an_engine_error_and_leaves_the_session_usable(session: Session) -> None:
    with pytest.raises(EngineError):
        session.run({"x": np.ones((2, 5), np.float32)})
    assert session.run(_ones(1))["scores"].shape == (1, 3)


def test_a_session_runs_in_another_thread_than_it_was_loaded_in(session: Session) -> None:
    found: list[Tensors] = []
    thread = threading.Thread(target=lambda: found.append(session.run(_ones(1))))
    thread.start()
    thread.join(10)
    np.testing.assert_array_equal(found[0]["scores"], session.run(_ones(1))["scores"])


def test_an_engine_finds_the_cpu(engine: Engine) -> None:
    assert "cpu" in engine.devices()


def test_an_unknown_device_is_unsupported(engine: Engine, whole_numbers: Bundle) -> None:
    with pytest.raises(Unsupported, match="abacus"):
        engine.load(whole_numbers, Target(device="abacus"))


def test_a_precision_that_the_bundle_lacks_is_unsupported(engine: Engine, whole_numbers: Bundle) -> None:
    with pytest.raises(Unsupported, match="int8"):
        engine.load(whole_numbers, Target(precision=Precision.INT8))


def test_a_damaged_model_file_is_an_error_of_ours(engine: Engine, tmp_path: Path) -> None:
    bundle = bundles.linear(tmp_path / "bundle")
    bundle.model_path.write_bytes(bundle.model_path.read_bytes()[:40])
    with pytest.raises(InferloopError):
        engine.load(bundle, Target()).run(_ones(1))


def test_a_model_that_differs_from_its_manifest_is_refused_at_load(engine: Engine, tmp_path: Path) -> None:
    other = bundles.mlp(tmp_path / "mlp")
    bundle = bundles.linear(tmp_path / "linear")
    bundle.model_path.write_bytes(other.model_path.read_bytes())
    with pytest.raises(EngineError, match="declares"):
        engine.load(bundle, Target())


def test_closing_twice_does_nothing(engine: Engine, whole_numbers: Bundle) -> None:
    loaded = engine.load(whole_numbers, Target())
    loaded.close()
    loaded.close()


def _ones(count: int) -> Tensors:
    return {"x": np.ones((count, 4), dtype=np.float32)}
