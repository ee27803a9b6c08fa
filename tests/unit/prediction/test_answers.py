"""What the ledger's thread writes of answers is what would be written of each row alone."""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Tensors
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.records import PredictionRecord
from inferloop.data.transforms.executor import TransformExecutor
from inferloop.prediction.answers import Answers, Origin
from inferloop.prediction.prediction import Inference
from support import bundles

Asked = tuple[int, str, str, int]
ASKED = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from(["", "a", "ü"]), st.sampled_from(["rest", "shadow"]), st.integers(0, 99))
)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundles.numbers(tmp_path_factory.mktemp("numbers") / "bundle")


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundles.linear(tmp_path_factory.mktemp("linear") / "bundle")


def outputs_of(rows: int, seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    return {
        "logits": rng.integers(-2, 3, (rows, 3)).astype(np.float32),  # whole numbers, so that some are equal
        "embedding": rng.standard_normal((rows, 8)).astype(np.float32),
        "scores": rng.standard_normal((rows, 3)).astype(np.float32),
    }


def ask(answers: Answers, number: int, asked: Asked) -> Inference:
    rows, key, source, seed = asked
    return answers.inference(outputs_of(rows, seed), rows, Origin(f"{number:032x}", key, source, time.perf_counter()))


def alone(bundle: Bundle, executor: TransformExecutor | None, answer: Inference, asked: Asked) -> list[PredictionRecord]:
    """The records of one answer, row by row; time and latency are left out."""
    _, key, source, _ = asked
    records = []
    for row, id_ in enumerate(answer.row_ids):
        record = PredictionRecord(id_, 0.0, bundle.name, bundle.version, key, source=source)
        if executor is not None:
            scores = executor.scores({"logits": answer.outputs["logits"][row : row + 1]})
            record.label, record.score = scores.top(0)
            record.scores = scores.by_label(0)
            record.embedding = answer.outputs["embedding"][row].tobytes()
            record.input_kind = "tensor"
        records.append(record)
    return records


def same(written: PredictionRecord, expected: PredictionRecord) -> bool:
    """Whether they agree but for time and latency; scores may differ by rounding, as they are judged in other batches."""
    plain = {"time": 0.0, "latency_s": 0.0, "score": 0.0, "scores": {}}
    return (
        replace(written, **plain) == replace(expected, **plain)  # type: ignore[arg-type]  # the names are known
        and written.score == pytest.approx(expected.score)
        and list(written.scores) == list(expected.scores)
        and dict(written.scores) == pytest.approx(dict(expected.scores))
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=ASKED)
def test_answers_of_two_models_are_written_in_order_as_each_row_alone(
    numbers: Bundle, linear: Bundle, asked: list[Asked]
) -> None:
    executor = TransformExecutor(numbers)
    started = time.time()
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.db") as ledger:
        models = [(numbers, executor, Answers(numbers, {}, executor, ledger)), (linear, None, Answers(linear, {}, None, ledger))]
        expected = []
        for number, (one, (bundle, judge, answers)) in enumerate(zip(asked, itertools.cycle(models), strict=False)):
            expected += alone(bundle, judge, ask(answers, number, one), one)
        ledger.flush()
        written = list(ledger.predictions())
        assert ledger.stats().lost == 0
    assert [record.id for record in written] == [record.id for record in expected]
    assert all(map(same, written, expected))
    assert all(started <= record.time <= time.time() for record in written)
    assert all(0 <= record.latency_s < 60 for record in written)


def test_rows_of_one_answer_share_its_time_and_latency(numbers: Bundle, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        ask(Answers(numbers, {}, TransformExecutor(numbers), ledger), 1, (3, "k", "rest", 0))
        ledger.flush()
        written = list(ledger.predictions())
    assert [record.id for record in written] == [f"{1:032x}.{row}" for row in range(3)]
    assert len({(record.time, record.latency_s) for record in written}) == 1


def test_an_array_that_the_caller_overwrites_is_written_as_it_was_answered(numbers: Bundle, tmp_path: Path) -> None:
    executor = TransformExecutor(numbers)
    with Ledger(tmp_path / "ledger.db") as ledger:
        answer = ask(Answers(numbers, {}, executor, ledger), 1, (1, "", "rest", 7))
        (expected,) = alone(numbers, executor, answer, (1, "", "rest", 7))
        for array in answer.outputs.values():
            array.fill(0)
        ledger.flush()
        record = ledger.prediction(answer.id)
    assert (record.label, record.embedding) == (expected.label, expected.embedding)


def test_scores_that_fit_no_labels_are_written_without_any(numbers: Bundle, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        answers = Answers(numbers, {}, TransformExecutor(numbers), ledger)
        outputs = outputs_of(1, 0) | {"logits": np.zeros((1, 5), np.float32)}
        answers.inference(outputs, 1, Origin("odd", "", "rest", time.perf_counter()))
        record = ledger.prediction("odd")
    assert (record.label, record.score, record.scores) == ("", 0.0, {})


def test_an_answer_with_too_few_embeddings_is_lost_alone(numbers: Bundle, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        answers = Answers(numbers, {}, TransformExecutor(numbers), ledger)
        ask(answers, 1, (2, "", "rest", 1))
        odd = outputs_of(2, 2) | {"embedding": np.zeros((1, 8), np.float32)}
        answers.inference(odd, 2, Origin("odd", "", "rest", time.perf_counter()))
        ask(answers, 3, (1, "", "rest", 3))
        ledger.flush()
        assert [record.id for record in ledger.predictions()] == [f"{1:032x}.0", f"{1:032x}.1", f"{3:032x}"]
        assert ledger.stats().lost == 2
