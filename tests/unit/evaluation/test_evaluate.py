"""Models on data sets: figures, comparisons, gates."""

import json

import numpy as np
import pytest

from inferloop.core.bundle import HOLDOUT
from inferloop.core.errors import InvalidInput, NotFound, Unsupported
from inferloop.core.transform import FieldKind
from inferloop.data.datasets.dataset import Dataset
from inferloop.evaluation.evaluate import evaluate
from inferloop.evaluation.latency import measure
from inferloop.evaluation.parity import parity
from inferloop.evaluation.scoring import score
from inferloop.evaluation.sessions import opened, run_padded, run_rows
from inferloop.registry.registry import Registry
from support import bundles, world


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return world.bundle(tmp_path_factory.mktemp("evaluate") / "mood")


def data(rows=300, *, domain="home", seed=5, labels=world.LABELS, field="values"):
    x, y = world.draw(domain, rows, seed=seed)
    return Dataset.of("points", {field: list(x)}, [labels[index] for index in y], kinds={field: FieldKind.NUMBER})


def test_the_figures_are_those_of_the_predictions(model):
    report = evaluate([model], data())
    x, y = world.draw("home", 300, seed=5)
    with opened(model) as session:
        right = session.run({"x": x})["logits"].argmax(axis=1) == y
    assert report.figures["accuracy"] == pytest.approx(right.mean())
    assert report.figures["accuracy_low"] < report.figures["accuracy"] < report.figures["accuracy_high"]
    assert {"macro_f1", "ece", "latency_p50_ms", "latency_p99_ms", "majority_accuracy"} <= set(report.figures)


def test_gates_pass_and_fail_by_the_named_figures(model):
    report = evaluate([model], data(), ["accuracy>=0.9", "latency_p99_ms<=0.0001"])
    assert [gate.passed for gate in report.gates] == [True, False]
    assert not report.passed


def test_a_gate_on_a_figure_that_was_not_measured_names_the_measured_ones(model):
    with pytest.raises(InvalidInput, match="names no measured figure") as caught:
        evaluate([model], data(), ["beauty>=1"])
    assert "macro_f1" in caught.value.hint


def test_several_models_are_compared_row_by_row_and_each_is_asked_the_gate(model, tmp_path):
    other = world.bundle(tmp_path / "other", name="other", seed=3)
    report = evaluate([model, other], data(), ["accuracy>=0.5", "accuracy(other)>=0.1"])
    assert [gate.name for gate in report.gates] == ["accuracy(mood)", "accuracy(other)", "accuracy(other)"]
    table = report.tables[0]
    assert table.title == "against mood, row by row"
    wins, losses = table.rows[0][1:3]
    difference = report.figures["accuracy(other)"] - report.figures["accuracy(mood)"]
    assert (wins - losses) / 300 == pytest.approx(difference)


def test_a_label_that_the_model_does_not_know_counts_as_wrong_and_is_said(model):
    x, y = world.draw("home", 100, seed=5)
    labels = ["furious" if index < 10 else world.LABELS[label] for index, label in enumerate(y)]
    report = evaluate([model], Dataset.of("points", {"values": list(x)}, labels, kinds={"values": FieldKind.NUMBER}))
    assert report.figures["accuracy"] <= 0.9
    assert report.notes[0].startswith("10 rows have labels")


def test_data_of_another_world_are_refused(model):
    with pytest.raises(InvalidInput, match="no label in common"):
        evaluate([model], data(labels=("a", "b", "c")))


def test_one_field_of_another_name_is_taken_for_the_one_that_the_model_reads(model):
    assert evaluate([model], data(field="point")).figures["accuracy"] > 0.9


def test_a_sample_that_cannot_be_read_is_named_by_its_row(model):
    broken = Dataset.of("points", {"values": [np.ones(4), np.ones(3)]}, ["calm", "glad"], kinds={"values": FieldKind.NUMBER})
    with pytest.raises(InvalidInput, match="row 2 of the data set"):
        score(model, broken)


def test_a_model_that_takes_tensors_only_is_refused(tmp_path):
    with pytest.raises(Unsupported):
        evaluate([bundles.linear(tmp_path / "linear")], data())


def test_references_of_the_registry_are_resolved(model):
    with Registry() as registry:
        registry.register(model, alias="champion")
    report = evaluate(["mood@champion", "mood:1"], data(50))
    assert "accuracy(mood.1)" in report.figures
    assert "accuracy(mood.1-2)" in report.figures
    with pytest.raises(NotFound):
        evaluate(["nobody"], data(50))


def test_the_report_is_plain_json(model):
    assert json.loads(evaluate([model], data(50)).to_json())["kind"] == "evaluate"


def test_rows_of_different_length_come_back_in_their_order(tmp_path):
    text = bundles.text(tmp_path / "text")
    random = np.random.default_rng(0)
    rows = [
        {"ids": random.integers(1, 200, (1, length)), "counts": np.ones((1, length), np.float32)}
        for length in random.integers(1, 5, 40)
    ]
    with opened(text) as session:
        together = run_rows(session, rows, ["logits"], batch=7)["logits"]
        alone = np.concatenate([session.run(row)["logits"] for row in rows])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_padded_rows_are_cut_back_without_changing_an_answer(tmp_path):
    text = bundles.text(tmp_path / "text")
    random = np.random.default_rng(0)
    ids, counts = np.zeros((20, 30), np.int64), np.zeros((20, 30), np.float32)
    for row, length in enumerate(random.integers(1, 30, 20)):
        ids[row, :length], counts[row, :length] = random.integers(1, 200, length), 1.0
    with opened(text) as session:
        cut = run_padded(session, {"ids": ids, "counts": counts}, ["logits"], batch=6)["logits"]
        whole = session.run({"ids": ids, "counts": counts})["logits"]
    np.testing.assert_allclose(cut, whole, rtol=1e-4, atol=1e-5)


def test_the_hold_out_of_a_bundle_is_run_whole(model):
    stored = model.arrays(HOLDOUT)
    with opened(model) as session:
        outputs = run_padded(session, {"x": stored["inputs/x"]}, ["logits"])
    assert len(outputs["logits"]) == len(stored["label"])


def test_parity_with_the_golden_outputs_is_a_gate(model):
    report = parity(model)
    assert report.passed
    assert report.figures["rows"] == 16


def test_latency_is_measured_in_milliseconds():
    import time

    found = measure(lambda _: time.sleep(0.002), [None], calls=20, warm_up=1)
    assert found.calls == 20
    assert 1.9 < found.p50_ms <= found.p99_ms
