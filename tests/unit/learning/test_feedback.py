"""Feedback from a CSV file."""

import time

import pytest

from inferloop.core.errors import InvalidInput, NotFound, Unavailable
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.records import PredictionRecord
from inferloop.learning.feedback import feedback_record, import_csv, read_csv, send_rows


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        for index in range(3):
            opened.append(PredictionRecord(id=f"p{index}", time=time.time(), model="mood", version=1))
        opened.flush()
        yield opened


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_every_line_becomes_feedback(ledger, tmp_path):
    path = written(tmp_path / "f.csv", "prediction_id,label,by,time\np0,glad,anna,1000\np1,cross,,2026-01-02T03:04:05Z\n")
    assert import_csv(path, ledger, by="me").written == 2
    rows = {row.prediction.id: row for row in ledger.labeled("mood")}
    assert rows["p0"].truth == "glad"
    assert rows["p0"].time == 1000


def test_a_line_that_cannot_be_kept_is_named_and_the_others_are_kept(ledger, tmp_path):
    path = written(tmp_path / "f.csv", 'prediction_id,label\np0,glad\nnobody,"two\nlines"\np1,\np2,calm\n')
    imported = import_csv(path, ledger)
    assert imported.written == 2
    assert [(one.line, one.prediction_id) for one in imported.refused] == [(3, "nobody"), (5, "p1")]


def test_importing_a_file_twice_changes_nothing(ledger, tmp_path):
    path = written(tmp_path / "f.csv", "prediction_id,label\np0,glad\n")
    import_csv(path, ledger)
    import_csv(path, ledger)
    assert len(list(ledger.labeled("mood"))) == 1


def test_a_wrong_column_is_named_with_the_known_ones(tmp_path):
    path = written(tmp_path / "f.csv", "id,label\np0,glad\n")
    with pytest.raises(InvalidInput, match="no column 'prediction_id', it has: id, label"):
        list(read_csv(path))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b""])
def test_what_is_no_csv_is_refused(tmp_path, content):
    (tmp_path / "f.csv").write_bytes(content)
    with pytest.raises(InvalidInput):
        list(read_csv(tmp_path / "f.csv"))


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no file"):
        list(read_csv(tmp_path / "missing.csv"))


def test_a_time_that_is_none_is_refused():
    with pytest.raises(InvalidInput, match="neither ISO 8601"):
        feedback_record({"prediction_id": "p", "label": "glad", "time": "yesterday"})


def test_without_a_server_nothing_is_sent():
    with pytest.raises(Unavailable, match="no server"):
        send_rows([(2, {"prediction_id": "p", "label": "glad"})], "http://127.0.0.1:9")


@pytest.mark.parametrize("time", ["nan", "inf", "-inf", "1_000"])
def test_a_time_that_is_no_moment_is_refused(time):
    with pytest.raises(InvalidInput, match="neither ISO 8601"):
        feedback_record({"prediction_id": "p", "label": "glad", "time": time})


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read"):
        list(read_csv(tmp_path))
