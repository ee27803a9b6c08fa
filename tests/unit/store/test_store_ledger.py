import base64
import csv
import hashlib
import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferloop.core.errors import InvalidInput, NewerSchema, NotFound, StorageError
from inferloop.data.database import Database
from inferloop.data.ledger import tables
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.policy import LedgerPolicy, StoreInputs
from inferloop.data.ledger.records import DecisionRecord, Erased, FeedbackRecord, PredictionRecord
from inferloop.data.ledger.retention import prune

EMBEDDING = np.arange(4, dtype="<f4").tobytes()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def prediction(number: int, *, model: str = "refunds", key: str = "c1", age_s: float = 0.0) -> PredictionRecord:
    return PredictionRecord(
        id=f"{number:032x}",
        time=time.time() - age_s,
        model=model,
        version=1,
        key=key,
        label="yes",
        score=0.75,
        scores={"yes": 0.75, "no": 0.25},
        input=f"message {number}".encode(),
        input_kind="text",
        embedding=EMBEDDING,
        source="rest",
        latency_s=0.001,
    )


def truth(number: int, label: str = "no", at: float | None = None) -> FeedbackRecord:
    return FeedbackRecord(f"{number:032x}", label, "ann", time.time() if at is None else at)


def inputs_of(ledger: Ledger, numbers: range) -> list[int]:
    return [number for number in numbers if ledger.prediction(f"{number:032x}").input is not None]


def test_a_prediction_comes_back_as_it_was_appended(ledger: Ledger) -> None:
    record = prediction(1)
    ledger.append(record)
    assert ledger.prediction(record.id) == record


@pytest.mark.parametrize("ask", ["prediction", "feedback", "keep"])
def test_a_prediction_that_is_written_while_it_is_looked_for_is_found(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    looks = []

    def looked(*arguments: object) -> list[str]:
        missing = found(*arguments)  # type: ignore[arg-type]
        looks.append(missing)
        ledger.flush()
        return missing

    found = tables.unknown_ids
    monkeypatch.setattr(tables, "unknown_ids", looked)
    ledger._writer._commit_s = 60  # the row waits until somebody is in a hurry
    ledger.append(prediction(1))
    getattr(ledger, ask)(truth(1) if ask == "feedback" else prediction(1).id)
    assert looks == [[prediction(1).id], []], "the first look came too early"


def test_an_append_costs_a_few_microseconds(ledger: Ledger) -> None:
    records = [prediction(number) for number in range(3000)]
    started = time.thread_time()
    for record in records:
        ledger.append(record)
    assert (time.thread_time() - started) / len(records) < 80e-6  # 5 us is the goal; the rest is room for a busy machine


def test_appending_an_odd_record_raises_nothing_and_is_counted(ledger: Ledger) -> None:
    ledger.append(None)  # type: ignore[arg-type]
    ledger.append(prediction(1))
    ledger.append(PredictionRecord(id="a", time=0.0, model="m", version=1, scores={"x": object()}))  # type: ignore[dict-item]
    ledger.append(prediction(1))
    ledger.flush()
    assert ledger.stats().lost == 3
    assert ledger.prediction(f"{1:032x}").label == "yes"


def test_numpy_scores_and_nan_are_stored(ledger: Ledger) -> None:
    ledger.append(PredictionRecord("n", 1.0, "m", 1, score=float("nan"), scores={"a": np.float32(0.5), "b": float("nan")}))
    stored = ledger.prediction("n")
    assert stored.scores["a"] == 0.5
    assert math.isnan(stored.scores["b"])
    assert math.isnan(stored.score)


def test_feedback_finds_a_prediction_that_is_still_queued(ledger: Ledger) -> None:
    ledger.append(prediction(1))
    ledger.feedback(truth(1))
    assert [row.truth for row in ledger.labeled("refunds")] == ["no"]


def test_feedback_for_an_unknown_prediction_is_refused(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="no prediction 'nobody'"):
        ledger.feedback(FeedbackRecord("nobody", "no", "ann", 1.0))


def test_of_much_feedback_the_unknown_ids_are_told_and_the_rest_is_kept(ledger: Ledger) -> None:
    ledger.append(prediction(1))
    assert ledger.feedback_many([truth(1), truth(2)]) == [f"{2:032x}"]
    assert len(list(ledger.labeled("refunds"))) == 1


def test_the_last_truth_counts(ledger: Ledger) -> None:
    ledger.append(prediction(1))
    ledger.feedback(truth(1, "no"))
    ledger.feedback(truth(1, "yes"))
    (row,) = ledger.labeled("refunds")
    assert (row.truth, row.prediction.embedding) == ("yes", EMBEDDING)


def test_labeled_rows_are_the_newest_oldest_first_of_one_model(ledger: Ledger) -> None:
    for number in range(10):
        ledger.append(prediction(number, model="refunds" if number % 2 else "other"))
    for number in range(10):
        ledger.feedback(truth(number, at=100.0 + number))
    assert [row.time for row in ledger.labeled("refunds", since=103.0)] == [103.0, 105.0, 107.0, 109.0]
    assert [row.time for row in ledger.labeled("refunds", limit=2)] == [107.0, 109.0]


def test_the_default_policy_keeps_inputs_in_a_window_and_for_good_after_feedback(tmp_path: Path) -> None:
    policy = LedgerPolicy(window_rows=3)
    with Ledger(tmp_path / "l.db", policy=policy) as ledger:
        for number in range(10):
            ledger.append(prediction(number))
        ledger.feedback(truth(2))
        ledger.keep(f"{3:032x}")
        prune(ledger._back, policy, lambda _: policy, now=time.time())
        assert inputs_of(ledger, range(10)) == [2, 3, 7, 8, 9]


def test_the_window_is_bounded_in_bytes(tmp_path: Path) -> None:
    policy = LedgerPolicy(window_bytes=60)
    with Ledger(tmp_path / "l.db", policy=policy) as ledger:
        for number in range(10):
            ledger.append(prediction(number))
        ledger.flush()
        prune(ledger._back, policy, lambda _: policy, now=time.time())
        assert inputs_of(ledger, range(10)) == [8, 9]


def test_the_sample_policy_keeps_its_share_for_good(tmp_path: Path) -> None:
    policy = LedgerPolicy.parse("sample:20%")
    kept = [number for number in range(200) if policy.keeps(f"{number:032x}")]
    bounded = LedgerPolicy(store=StoreInputs.SAMPLE, share=0.2, window_rows=0)
    with Ledger(tmp_path / "l.db", policy=bounded) as ledger:
        for number in range(200):
            ledger.append(prediction(number))
        ledger.flush()
        prune(ledger._back, bounded, lambda _: bounded, now=time.time())
        assert inputs_of(ledger, range(200)) == kept
    assert 20 < len(kept) < 60


def test_the_hash_policy_stores_a_digest_and_nothing_of_the_content(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db", policies={"refunds": LedgerPolicy.parse("hash")}) as ledger:
        ledger.append(prediction(1))
        stored = ledger.prediction(f"{1:032x}")
    assert (stored.input, stored.input_kind, stored.embedding) == (hashlib.sha256(b"message 1").digest(), "sha256", None)
    assert b"message 1" not in (tmp_path / "l.db").read_bytes()


def test_the_full_policy_keeps_every_input(tmp_path: Path) -> None:
    policy = LedgerPolicy(store=StoreInputs.FULL, window_rows=0)
    with Ledger(tmp_path / "l.db", policy=policy) as ledger:
        for number in range(10):
            ledger.append(prediction(number))
        ledger.flush()
        prune(ledger._back, policy, lambda _: policy, now=time.time())
        assert inputs_of(ledger, range(10)) == list(range(10))


@pytest.mark.parametrize("text", ["", "all", "sample:5", "sample:101%", "sample:-1%"])
def test_an_unknown_policy_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not known") as caught:
        LedgerPolicy.parse(text)
    assert "labeled" in caught.value.hint


def test_old_predictions_go_and_labeled_ones_stay(tmp_path: Path) -> None:
    policy = LedgerPolicy(max_age_s=1000.0)
    with Ledger(tmp_path / "l.db", policy=policy) as ledger:
        for number in range(4):
            ledger.append(prediction(number, age_s=2000.0 if number < 3 else 0.0))
            ledger.append(DecisionRecord(f"m{number}", f"{number:032x}", "p", "r", ("s",), time.time() - 2000.0))
        ledger.feedback(truth(1))
        ledger.flush()
        prune(ledger._back, policy, lambda _: policy, now=time.time())
        assert [record.id for record in ledger.predictions()] == [f"{1:032x}", f"{3:032x}"]
        assert ledger.stats().decisions == 0


def test_labeled_predictions_have_an_age_of_their_own(tmp_path: Path) -> None:
    policy = LedgerPolicy(labeled_max_age_s=1000.0)
    with Ledger(tmp_path / "l.db", policy=policy) as ledger:
        ledger.append(prediction(1, age_s=2000.0))
        ledger.append(prediction(2, age_s=2000.0))
        ledger.feedback(truth(1))
        prune(ledger._back, policy, lambda _: policy, now=time.time())
        assert [record.id for record in ledger.predictions()] == [f"{2:032x}"]


def test_above_its_size_the_oldest_unlabeled_go_first(tmp_path: Path) -> None:
    policy = LedgerPolicy(max_bytes=400_000)
    with Ledger(tmp_path / "l.db", policy=policy) as ledger:
        for number in range(3000):
            ledger.append(prediction(number))
        ledger.feedback(truth(0))
        ledger.flush()
        before = ledger.stats().size_bytes
        prune(ledger._back, policy, lambda _: policy, now=time.time())
        left = [record.id for record in ledger.predictions()]
        assert before > 400_000 >= ledger.stats().size_bytes
    assert left[0] == f"{0:032x}"
    assert left[-1] == f"{2999:032x}"
    assert 1 < len(left) < 3000


def test_erasing_a_key_reaches_everything_and_the_bytes_of_the_file(ledger: Ledger) -> None:
    for number in range(6):
        ledger.append(prediction(number, key="gone" if number < 4 else "stays"))
        ledger.append(DecisionRecord(f"m{number}", f"{number:032x}", "p", "r", ("s",), 1.0))
    ledger.feedback(truth(0))
    assert ledger.erase("gone") == Erased(predictions=4, inputs=4, feedback=1, decisions=4)
    files = b"".join(path.read_bytes() for path in ledger.path.parent.glob("ledger.db*"))
    assert b"message 0" not in files
    assert b"message 5" in files
    assert ledger.stats().decisions == 2


def test_erasing_a_key_that_nobody_has_removes_nothing(ledger: Ledger) -> None:
    ledger.append(prediction(1))
    assert ledger.erase("nobody") == Erased(0, 0, 0, 0)


def test_erasing_an_empty_key_is_refused_as_it_would_reach_everybody_without_one(ledger: Ledger) -> None:
    ledger.append(prediction(1, key=""))
    with pytest.raises(InvalidInput, match="the key is empty"):
        ledger.erase("")
    ledger.flush()
    assert len(list(ledger.predictions())) == 1


def test_stats_count_by_model(ledger: Ledger) -> None:
    for number in range(3):
        ledger.append(prediction(number, model="a" if number else "b"))
    ledger.feedback(truth(1))
    found = ledger.stats()
    assert [(model.model, model.predictions, model.labeled, model.inputs) for model in found.models] == [
        ("a", 2, 1, 2),
        ("b", 1, 0, 1),
    ]
    assert (found.queued, found.lost) == (0, 0)


def test_an_export_as_jsonl_has_inputs_and_truth(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(600):
        ledger.append(prediction(number))
    ledger.feedback(truth(599))
    assert ledger.export(tmp_path / "out.jsonl", model="refunds") == 600
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (rows[0]["input"], rows[0]["truth"], rows[599]["truth"]) == ("message 0", None, "no")
    assert base64.b64decode(rows[0]["embedding_base64"]) == EMBEDDING


def test_an_export_as_csv_has_a_row_a_prediction(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append(prediction(1))
    assert ledger.export(tmp_path / "out.csv") == 1
    with (tmp_path / "out.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["label"], row["truth"]) == ("yes", "")


def test_an_export_to_another_format_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"out\.xlsx"):
        ledger.export(tmp_path / "out.xlsx")
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        ledger.export(tmp_path / "out.csv")


def test_a_ledger_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = Database(tmp_path / "l.db", tables.SCHEMA)
    with database.write() as connection:
        connection.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(NewerSchema, match="has schema 99"):
        Ledger(tmp_path / "l.db")


def test_appending_after_close_raises_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.db")
    ledger.close()
    ledger.close()
    ledger.append(prediction(1))


def test_two_ledgers_may_share_a_file(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as one, Ledger(tmp_path / "l.db") as two:
        threads = [
            threading.Thread(target=lambda ledger=ledger, base=base: [ledger.append(prediction(base + i)) for i in range(500)])
            for ledger, base in ((one, 0), (two, 1000))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        one.flush()
        two.flush()
        assert sum(1 for _ in one.predictions()) == 1000
        two.feedback(truth(0))
        assert one.stats().lost == two.stats().lost == 0


def test_an_id_that_is_no_unicode_is_the_callers_mistake(ledger: Ledger) -> None:
    for ask in (lambda: ledger.prediction("\udcff"), lambda: ledger.feedback(FeedbackRecord("\udcff", "yes", "ann", 1.0))):
        with pytest.raises(InvalidInput, match="no valid Unicode"):
            ask()


def test_an_export_to_a_directory_that_is_not_there_is_the_callers_mistake(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(NotFound, match="no directory"):
            ledger.export(folder / "out.csv")


def test_a_row_number_that_was_given_again_is_not_erased_with_its_first_owner(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.append(prediction(1, key="c1"))
    ledger.flush()
    looked = tables.decisions_of

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.undo()
        found = looked(*arguments)
        assert ledger.erase("c1").predictions == 1, "another process was faster"
        ledger.append(prediction(2, key="c2"))
        ledger.flush()
        return found

    monkeypatch.setattr(tables, "decisions_of", meanwhile)
    assert ledger.erase("c1").predictions == 0
    assert [record.id for record in ledger.predictions()] == [prediction(2).id]


def test_feedback_for_what_is_erased_meanwhile_is_told(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        ledger.append(prediction(number, key=f"c{number}"))
    ledger.flush()
    asked = Ledger._unknown

    def meanwhile(self: Ledger, ids: Any) -> list[str]:
        monkeypatch.undo()
        unknown = asked(self, ids)
        ledger.erase("c1")
        return unknown

    monkeypatch.setattr(Ledger, "_unknown", meanwhile)
    assert ledger.feedback_many([truth(1), truth(2)]) == [prediction(1).id]
    assert [row.prediction.id for row in ledger.labeled("refunds")] == [prediction(2).id]


def test_pruning_stops_when_it_is_told_to_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    policy = LedgerPolicy(max_age_s=10.0)
    with Ledger(tmp_path / "ledger.db") as ledger:
        for number in range(1000):
            ledger.append(prediction(number, age_s=3600))
        ledger.flush()
        removed = []
        while not removed or removed[-1]:
            turns = iter([True, True])
            now = time.time()
            removed.append(prune(ledger._back, policy, lambda _: policy, now=now, go_on=lambda turns=turns: next(turns, False)))
        assert max(removed) == 400
        assert sum(removed) == 1000
