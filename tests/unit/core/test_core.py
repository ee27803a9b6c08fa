"""Targets, errors, plugins and reports."""

import inspect
import json

import pytest

from inferloop.core import errors, plugins
from inferloop.core.errors import InferloopError, InvalidInput, MissingDependency, NotFound
from inferloop.core.plugins import Plugin
from inferloop.core.report import Gate, Plot, Report, Table
from inferloop.core.target import Precision, Target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("onnxruntime", Target()),
        ("onnxruntime:cpu:int8@2", Target("onnxruntime", "cpu", Precision.INT8, 2)),
        ("numpy@3", Target("numpy", "cpu", Precision.F32, 3)),
        ("openvino:gpu.0:bf16", Target("openvino", "gpu.0", Precision.BF16, 1)),
    ],
)
def test_a_target_is_read_with_its_defaults_and_written_in_full(text, target):
    assert Target.parse(text) == target
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    "text", ["", ":cpu", "a:b:c:d", "onnxruntime:cpu:f33", "onnxruntime@0", "onnxruntime@99999999999", "onnxruntime@-1", "a b"]
)
def test_another_form_of_target_is_refused(text):
    with pytest.raises(InvalidInput, match="target"):
        Target.parse(text)


ALL_ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, InferloopError)]


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_every_error_stands_in_the_drawing_with_its_codes(kind):
    line = next(line for line in errors.__doc__.splitlines() if kind.__name__ in line.split())
    assert str(kind.status) in line
    assert kind.grpc_code in line
    assert f"exit {kind.exit_code}" in line


def test_an_unknown_plugin_names_the_known_ones():
    with pytest.raises(NotFound, match="no engine named 'zz'") as raised:
        plugins.load("engines", "zz")
    assert "onnxruntime" in raised.value.hint


def test_a_missing_package_reads_as_a_pip_line(monkeypatch):
    monkeypatch.setitem(plugins.TABLE["engines"], "odd", Plugin("package_that_is_absent:Odd", "", "odd"))
    plugins.plugins.cache_clear()
    with pytest.raises(MissingDependency, match="package_that_is_absent") as raised:
        plugins.load("engines", "odd")
    assert raised.value.hint == "pip install 'inferloop[odd]'"
    plugins.plugins.cache_clear()


def test_an_unknown_kind_is_refused():
    with pytest.raises(NotFound, match="no plugin kind"):
        plugins.names("gadgets")


@pytest.mark.parametrize(("text", "passed"), [("accuracy>=0.9", True), ("accuracy > 0.95", False), ("robust(hue)<0.6", True)])
def test_a_gate_compares_its_figure(text, passed):
    assert Gate.parse(text, {"accuracy": 0.95, "robust(hue)": 0.5}).passed is passed


def test_a_gate_on_nan_fails():
    assert not Gate("a", ">=", 0.0, float("nan")).passed


@pytest.mark.parametrize(("text", "message"), [("accuracy", "is not NAME OP NUMBER"), ("f1>=0.5", "no measured figure")])
def test_a_gate_that_cannot_be_read_is_refused(text, message):
    with pytest.raises(InvalidInput, match=message):
        Gate.parse(text, {"accuracy": 0.95})


def test_a_report_passes_when_its_gates_do_and_is_json():
    report = Report(
        "evaluate",
        "digits",
        figures={"accuracy": 0.9},
        tables=(Table("t", ("a",), ((1,),)),),
        plots=(Plot("p", "x", "y", {"s": [(0.0, 1.0)]}),),
        gates=(Gate("accuracy", ">=", 0.95, 0.9),),
    )
    assert not report.passed
    assert json.loads(report.to_json())["gates"][0]["passed"] is False
