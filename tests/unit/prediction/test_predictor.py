"""One bundle, ready to answer: samples, fields, tensors, lists, and what the ledger gets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferloop.core.bundle import MODEL, Bundle
from inferloop.core.errors import EngineError, InferloopError, InvalidInput, NotFound, Unavailable, Unsupported
from inferloop.core.sample import Sample
from inferloop.core.target import Target
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.policy import LedgerPolicy
from inferloop.prediction.limits import Limits
from inferloop.prediction.prediction import new_id
from inferloop.prediction.predictor import Predictor
from support import bundles

VALUES = [0.5, -1.0, 2.0, 0.25]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundles.numbers(tmp_path_factory.mktemp("numbers") / "bundle")


@pytest.fixture(scope="module")
def predictor(numbers: Bundle) -> Iterator[Predictor]:
    with Predictor.load(numbers) as loaded:
        yield loaded


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", policy=LedgerPolicy.parse("full")) as opened:
        yield opened


def test_a_prediction_names_the_best_label_and_all_scores(predictor: Predictor) -> None:
    answer = predictor.predict({"values": VALUES})
    assert set(answer.scores) == set(bundles.LABELS)
    assert sum(answer.scores.values()) == pytest.approx(1, abs=1e-6)
    assert answer.score == max(answer.scores.values()) == answer.scores[answer.label]
    assert (answer.model, answer.version) == ("numbers", 0)
    assert {name: array.shape for name, array in answer.outputs.items()} == {"embedding": (1, 8), "logits": (1, 3)}


def test_the_numpy_engine_gives_the_same_answer(numbers: Bundle, predictor: Predictor) -> None:
    with Predictor.load(numbers, target=Target("numpy")) as other:
        assert other.predict({"values": VALUES}).scores == pytest.approx(predictor.predict({"values": VALUES}).scores, abs=1e-6)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(-5, 5), min_size=1, max_size=40))
def test_a_list_is_answered_in_order_and_as_each_alone(predictor: Predictor, sizes: list[int]) -> None:
    samples = [{"values": [float(size), 1.0, 0.0, -1.0]} for size in sizes]
    together = predictor.predict(samples)
    for sample, answer in zip(samples, together, strict=True):
        assert answer.scores == pytest.approx(predictor.predict(sample).scores, abs=1e-6)


async def test_waiting_and_blocking_calls_agree(predictor: Predictor) -> None:
    samples = [Sample(fields={"values": [float(index), 1.0, 2.0, 3.0]}) for index in range(10)]
    answers = await asyncio.gather(*[predictor.apredict(sample) for sample in samples])
    assert [answer.label for answer in answers] == [predictor.predict(sample).label for sample in samples]
    assert len({answer.id for answer in answers}) == 10


async def test_tensors_come_back_as_tensors(predictor: Predictor) -> None:
    x = np.array([VALUES, VALUES[::-1]], dtype=np.float32)
    answer = await predictor.ainfer({"x": x})
    np.testing.assert_allclose(answer.outputs["logits"], predictor.infer({"x": x})["logits"], atol=1e-6)
    assert answer.row_ids == (f"{answer.id}.0", f"{answer.id}.1")


def test_more_rows_than_a_batch_run_in_parts_when_asked_in_process(predictor: Predictor) -> None:
    x = np.linspace(-1, 1, 4 * 200, dtype=np.float32).reshape(200, 4)
    logits = predictor.infer({"x": x})["logits"]
    assert logits.shape == (200, 3)
    np.testing.assert_allclose(logits[150:190], predictor.infer({"x": x[150:190]})["logits"], atol=1e-5)


async def test_an_id_that_is_given_is_kept(predictor: Predictor) -> None:
    wanted = new_id()
    assert (await predictor.apredict({"values": VALUES}, id=wanted)).id == wanted


def test_ids_sort_by_time_and_never_repeat() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert [name[:16] for name in ids] == sorted(name[:16] for name in ids)


@pytest.mark.parametrize(
    ("given_sample", "words"),
    [
        ({}, "values"),
        ({"values": ["a", "b", "c", "d"]}, "values"),
        ({"values": [1.0]}, "values"),
        ("just text", "values"),
        (7, "int"),
    ],
    ids=["missing", "no numbers", "too few", "a text", "no sample"],
)
def test_a_bad_sample_is_refused_with_the_name_of_its_field(predictor: Predictor, given_sample: object, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        predictor.predict([given_sample])  # type: ignore[list-item]  # wrong on purpose
    assert words in f"{caught.value} {caught.value.hint}"


def test_a_model_without_fields_takes_its_inputs_by_name(tmp_path: Path) -> None:
    with Predictor.load(bundles.linear(tmp_path / "linear")) as linear:
        answer = linear.predict({"x": VALUES})
        np.testing.assert_array_equal(answer.outputs["scores"], linear.infer({"x": np.array([VALUES], np.float32)})["scores"])
        assert (answer.label, answer.scores) == ("", {})
        with pytest.raises(InvalidInput, match="'x' is missing"):
            linear.predict({"y": 1})


def test_every_prediction_is_in_the_ledger_with_input_and_embedding(numbers: Bundle, ledger: Ledger) -> None:
    with Predictor.load(numbers, ledger=ledger, source="test") as predictor:
        answer = predictor.predict(Sample(fields={"values": VALUES, "secret": "not the model's business"}, key="customer 1"))
    ledger.flush()
    record = ledger.prediction(answer.id)
    assert (record.model, record.version, record.key, record.source) == ("numbers", 0, "customer 1", "test")
    assert (record.label, record.score) == (answer.label, pytest.approx(answer.score))
    assert (record.input, record.input_kind) == (b'{"values":[0.5,-1.0,2.0,0.25]}', "json")
    np.testing.assert_array_equal(np.frombuffer(record.embedding or b"", "<f4"), answer.outputs["embedding"][0])
    assert record.latency_s > 0


async def test_each_row_of_a_tensor_request_is_in_the_ledger(numbers: Bundle, ledger: Ledger) -> None:
    async with Predictor.load(numbers, ledger=ledger) as predictor:
        answer = await predictor.ainfer({"x": np.array([VALUES, VALUES[::-1]], dtype=np.float32)}, key="k", source="rest")
    ledger.flush()
    records = [ledger.prediction(row_id) for row_id in answer.row_ids]
    assert [record.input for record in records] == [None, None]
    assert [record.key for record in records] == ["k", "k"]
    np.testing.assert_array_equal(np.frombuffer(records[1].embedding or b"", "<f4"), answer.outputs["embedding"][1])


def test_an_image_is_kept_as_it_came(tmp_path: Path, ledger: Ledger) -> None:
    with Predictor.load(bundles.image(tmp_path / "image"), ledger=ledger) as predictor:
        answer = predictor.predict(bundles.png(90))
    ledger.flush()
    record = ledger.prediction(answer.id)
    assert (record.input, record.input_kind) == (bundles.png(90), "image")


def test_blocking_calls_from_many_threads_do_not_mix_up_answers(predictor: Predictor) -> None:
    wrong: list[object] = []

    def ask(number: int) -> None:
        sample = {"values": [float(number), 0.0, 0.0, 0.0]}
        expected = predictor.infer({"x": np.array([sample["values"]], np.float32)})["logits"]
        for _ in range(50):
            if not np.allclose(predictor.predict(sample).outputs["logits"], expected, atol=1e-6):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_model_that_computes_something_else_than_its_golden_rows_is_refused(tmp_path: Path) -> None:
    bundle = bundles.numbers(tmp_path / "numbers", seed=1)
    other = bundles.numbers(tmp_path / "other", seed=2)
    wrong = Bundle.write(
        tmp_path / "wrong",
        bundle.manifest,
        {name: (other if name == MODEL else bundle).path / name for name in bundle.manifest.files},
    )
    with pytest.raises(EngineError, match="golden"):
        Predictor.load(wrong)


def test_what_cannot_be_loaded_says_so(tmp_path: Path, numbers: Bundle) -> None:
    with pytest.raises(NotFound, match="no bundle"):
        Predictor.load(tmp_path / "nothing")
    with pytest.raises(NotFound) as caught:
        Predictor.load(numbers, target=Target("abacus"))
    assert "onnxruntime" in caught.value.hint


def test_a_closed_predictor_is_unavailable(numbers: Bundle) -> None:
    closed = Predictor.load(numbers)
    closed.close()
    closed.close()
    with pytest.raises(Unavailable):
        closed.predict({"values": VALUES})


def test_one_event_loop_after_another_is_fine(numbers: Bundle) -> None:
    with Predictor.load(numbers) as predictor:
        labels = {asyncio.run(predictor.apredict({"values": VALUES})).label for _ in range(3)}
    assert len(labels) == 1


async def test_two_event_loops_at_once_are_refused(numbers: Bundle) -> None:
    async with Predictor.load(numbers) as predictor:
        await predictor.apredict({"values": VALUES})
        with pytest.raises(Unsupported):
            await asyncio.to_thread(asyncio.run, predictor.apredict({"values": VALUES}))


@pytest.mark.parametrize(
    "values", [{"max_batch": 0}, {"queue_rows": 3}, {"max_delay_s": -1.0}, {"transform_threads": 0}], ids=str
)
def test_limits_that_cannot_work_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(InferloopError):
        Limits(**values)  # type: ignore[arg-type]  # wrong on purpose
