import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from inferloop.core.errors import Conflict, InvalidInput, NewerSchema, NotFound
from inferloop.data import journal_tables
from inferloop.data.database import Database
from inferloop.data.journal import Journal, ReviewItem, StoredDecision, StoredDelivery


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as opened:
        yield opened


def decision(
    number: int, *, key: str = "c1", sinks: tuple[str, ...] = ("refund", "audit"), pipeline: str = "p"
) -> StoredDecision:
    return StoredDecision(
        pipeline=pipeline,
        message_id=f"m{number}",
        key=key,
        time=100.0 + number,
        rule="refund" if sinks else "",
        reason="" if sinks else "no_rule",
        label="dissatisfied",
        score=0.9,
        prediction_id=f"id{number}",
        deliveries=tuple(
            StoredDelivery(sink, f"{sink}-{number}", {"order": f"secret {number}", "n": [1, None]}) for sink in sinks
        ),
    )


def test_a_decision_is_found_as_it_was_written(journal: Journal) -> None:
    journal.write([decision(1), decision(2, sinks=())])
    assert journal.find("p", ["m2", "m1", "m3"]) == {"m1": decision(1), "m2": decision(2, sinks=())}
    assert journal.find("p", []) == {}


def test_pipelines_do_not_see_each_others_decisions(journal: Journal) -> None:
    journal.write([decision(1)], {"s": b"x"}, ["k"])
    assert journal.find("q", ["m1"]) == {}
    assert journal.pending("q") == []
    assert journal.state("q") == {}
    assert journal.seen_once("q", ["k"]) == set()


def test_a_message_is_decided_once_and_the_whole_second_write_is_undone(journal: Journal) -> None:
    journal.write([decision(1)])
    with pytest.raises(Conflict, match="decided already in pipeline 'p'"):
        journal.write([decision(2), replace(decision(1), rule="other")], {"s": b"x"}, ["k"])
    assert journal.find("p", ["m1", "m2"]) == {"m1": decision(1)}
    assert journal.state("p") == {}
    assert journal.seen_once("p", ["k"]) == set()


def test_one_write_is_for_one_pipeline(journal: Journal) -> None:
    with pytest.raises(InvalidInput, match="decisions of one pipeline, got 2"):
        journal.write([decision(1), decision(2, pipeline="q")])
    with pytest.raises(InvalidInput, match="got 0"):
        journal.write([])


def test_a_payload_that_is_no_json_is_refused_before_anything_is_written(journal: Journal) -> None:
    odd = replace(decision(2), deliveries=(StoredDelivery("s", "k", {"x": object()}),))
    with pytest.raises(InvalidInput, match="cannot be stored as JSON"):
        journal.write([decision(1), odd])
    assert journal.find("p", ["m1"]) == {}


def test_a_message_id_that_is_no_unicode_is_refused(journal: Journal) -> None:
    with pytest.raises(InvalidInput):
        journal.find("p", ["\ud800"])
    with pytest.raises(InvalidInput):
        journal.write([replace(decision(1), message_id="\ud800")])


def test_a_score_that_is_no_number_comes_back_as_nan(journal: Journal) -> None:
    journal.write([replace(decision(1), score=float("nan"))])
    assert math.isnan(journal.find("p", ["m1"])["m1"].score)


def test_pending_is_what_no_sink_confirmed_in_the_order_of_writing(journal: Journal) -> None:
    journal.write([decision(3), decision(1), decision(2, sinks=())])
    journal.delivered("p", "m3", "refund")
    assert [found.message_id for found in journal.pending("p")] == ["m3", "m1"]
    assert [delivery.delivered for delivery in journal.pending("p")[0].deliveries] == [True, False]
    journal.delivered("p", "m3", "audit")
    assert [found.message_id for found in journal.pending("p")] == ["m1"]
    assert journal.find("p", ["m3"])["m3"].finished


def test_finish_confirms_every_delivery_of_a_decision(journal: Journal) -> None:
    journal.write([decision(1), decision(2)])
    journal.finish("p", ["m1", "unknown"])
    assert [found.message_id for found in journal.pending("p")] == ["m2"]


def test_marks_travel_with_the_next_write(journal: Journal, tmp_path: Path) -> None:
    journal.write([decision(1, sinks=("refund",))])
    journal.delivered("p", "m1", "refund")
    journal.write([decision(2, sinks=())])
    with Journal(tmp_path / "journal.db") as other:
        assert other.find("p", ["m1"])["m1"].finished


def test_marks_of_a_write_that_failed_are_not_lost(journal: Journal) -> None:
    journal.write([decision(1, sinks=("refund",))])
    journal.delivered("p", "m1", "refund")
    with pytest.raises(Conflict):
        journal.write([decision(1)])
    journal.flush()
    assert journal.find("p", ["m1"])["m1"].finished


def test_state_is_replaced_and_removed_by_name(journal: Journal) -> None:
    journal.write([decision(1)], {"vote|c1": b"1", "vote|c2": b"2"})
    journal.write([decision(2)], {"vote|c1": b"3", "vote|c2": b""})
    assert journal.state("p") == {"vote|c1": b"3"}


def test_once_keys_are_seen_after_their_write(journal: Journal) -> None:
    journal.write([decision(1)], {}, ["o1", "o2"])
    journal.write([decision(2)], {}, ["o2"])
    assert journal.seen_once("p", ["o1", "o2", "o3"]) == {"o1", "o2"}


def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        journal.write([decision(1)], {"s": b"x"}, ["k"])
    with Journal(tmp_path / "j.db") as journal:
        assert journal.pending("p") == [decision(1)]
        assert (journal.state("p"), journal.seen_once("p", ["k"])) == ({"s": b"x"}, {"k"})


def test_delivered_decisions_are_forgotten_after_their_time_and_pending_ones_are_not(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db", keep_s=0.0) as journal:
        journal.write([decision(1), decision(2), decision(3, sinks=())], {}, ["k"])
        journal.finish("p", ["m1"])
        time.sleep(0.01)
        journal.write([decision(4)])
        assert journal.find("p", ["m1", "m2", "m3", "m4"]).keys() == {"m2", "m4"}
        assert journal.seen_once("p", ["k"]) == set()


def test_within_their_time_nothing_is_forgotten(journal: Journal) -> None:
    for number in range(20):
        journal.write([decision(number, sinks=())], {}, [f"k{number}"])
    assert len(journal.find("p", [f"m{number}" for number in range(20)])) == 20


def test_erasing_a_key_leaves_only_the_message_id(journal: Journal) -> None:
    journal.write([decision(1, key="gone"), decision(2, key="stays")], {"vote|gone": b"1", "gone": b"2", "vote|stays": b"3"})
    journal.review_add([ReviewItem("r1", "p", "m1", {"text": "secret 1"}, 1.0)])
    journal.finish("p", ["m1", "m2"])
    erased = journal.erase("gone")
    found = journal.find("p", ["m1"])["m1"]
    assert (erased.decisions, erased.deliveries, erased.reviews, erased.state, erased.left) == (1, 2, 1, 2, 0)
    assert (found.key, found.deliveries, found.reason, found.prediction_id) == ("", (), "erased", "")
    assert journal.state("p") == {"vote|stays": b"3"}
    files = b"".join(path.read_bytes() for path in journal.path.parent.glob("journal.db*"))
    assert b"secret 1" not in files
    assert b"secret 2" in files


def test_erasing_leaves_a_decision_under_way_until_it_is_delivered(journal: Journal) -> None:
    journal.write([decision(1, key="gone")])
    assert (journal.erase("gone").decisions, journal.erase("gone").left) == (0, 1)
    assert journal.pending("p") == [decision(1, key="gone")]
    journal.finish("p", ["m1"])
    assert journal.erase("gone").decisions == 1


def test_erasing_an_empty_key_is_refused_as_it_would_reach_everybody_without_one(journal: Journal) -> None:
    journal.write([decision(1, key="", sinks=())])
    with pytest.raises(InvalidInput, match="the key is empty"):
        journal.erase("")
    assert journal.find("p", ["m1"])["m1"].reason != "erased"


def test_a_case_for_review_is_queued_once_with_its_prediction(journal: Journal) -> None:
    journal.write([decision(1)])
    item = ReviewItem("r1", "p", "m1", {"text": "hm"}, 5.0)
    assert journal.review_add([item]) == 1
    assert journal.review_add([item, dataclasses.replace(item, key="r2", message_id="unknown")]) == 1
    assert journal.review_list("p") == [
        dataclasses.replace(item, prediction_id="id1"),
        dataclasses.replace(item, key="r2", message_id="unknown"),
    ]
    assert journal.review_list("q") == []


def test_an_answered_case_leaves_the_queue(journal: Journal) -> None:
    journal.review_add([ReviewItem(f"r{n}", "p", f"m{n}", {}, float(n)) for n in range(3)])
    answered = journal.review_done("r1", label="yes", by="ann")
    assert (answered.label, answered.by) == ("yes", "ann")
    assert [item.key for item in journal.review_list()] == ["r0", "r2"]
    assert journal.review_list(done=True) == [answered]
    assert [item.key for item in journal.review_list(limit=1)] == ["r0"]


def test_a_case_has_one_answer(journal: Journal) -> None:
    journal.review_add([ReviewItem("r1", "p", "m1", {}, 1.0)])
    first = journal.review_done("r1", label="yes", by="ann")
    assert journal.review_done("r1", label="yes", by="bob") == first
    with pytest.raises(Conflict, match="answered 'yes' by 'ann'"):
        journal.review_done("r1", label="no", by="bob")
    with pytest.raises(NotFound, match="no review item 'r9'"):
        journal.review_done("r9", label="no", by="bob")


def test_finding_a_batch_takes_milliseconds_at_most(journal: Journal) -> None:
    for start in range(0, 640, 64):
        journal.write([decision(number) for number in range(start, start + 64)])
    unknown, known = [f"x{n}" for n in range(64)], [f"m{n}" for n in range(64)]
    best = {name: min(_timed(journal, ids) for _ in range(20)) for name, ids in (("unknown", unknown), ("known", known))}
    assert best["unknown"] < 5e-3  # 0.2 ms on an idle machine
    assert best["known"] < 10e-3  # 0.6 ms on an idle machine: redelivered messages only


def _timed(journal: Journal, ids: list[str]) -> float:
    started = time.process_time()  # what others take of the machine does not count
    journal.find("p", ids)
    return time.process_time() - started


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = Database(tmp_path / "j.db", journal_tables.SCHEMA)
    with database.write() as connection:
        connection.execute("PRAGMA user_version=7")
    database.close()
    with pytest.raises(NewerSchema, match="has schema 7"):
        Journal(tmp_path / "j.db")
