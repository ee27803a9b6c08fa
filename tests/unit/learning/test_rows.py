"""Ledger rows as arrays: what is used, what is left out, and which side a row stands on."""

import json
from dataclasses import replace

import numpy as np
import pytest

from inferloop.core.errors import InvalidInput
from inferloop.core.transform import FieldKind
from inferloop.data.ledger.records import LabeledRow, PredictionRecord
from inferloop.learning.rows import collect
from inferloop.prediction.inputs import stored_sample
from support import world


@pytest.fixture(scope="module")
def champion(tmp_path_factory):
    return world.bundle(tmp_path_factory.mktemp("rows") / "champion")


def rows(champion, count=300, **changes):
    x, y = world.draw("abroad", count, seed=1)
    vectors = world.embed(champion, x)
    found = []
    for index in range(count):
        record = {
            "id": f"p{index:05d}",
            "time": float(index),
            "model": "mood",
            "version": 0,
            "key": f"k{index % 7}",
            "input": json.dumps({"values": x[index].tolist()}).encode(),
            "input_kind": "json",
            "embedding": vectors[index].astype("<f4").tobytes(),
            **changes,
        }
        found.append(LabeledRow(PredictionRecord(**record), world.LABELS[y[index]], 1000.0))
    return found


def always(version):
    return True


def test_every_row_is_on_exactly_one_side(champion):
    found = collect(champion, rows(champion), shares_backbone=always)
    assert not set(found.fit.ids) & set(found.judge.ids)
    assert len(found.fit) + len(found.judge) == 300
    assert 0.3 < len(found.judge) / 300 < 0.5


def test_a_row_keeps_its_side_when_more_feedback_comes(champion):
    all_rows = rows(champion)
    early, late = (collect(champion, part, shares_backbone=always) for part in (all_rows[:100], all_rows))
    assert set(early.judge.ids) <= set(late.judge.ids)
    assert set(early.fit.ids) <= set(late.fit.ids)


def test_the_same_input_never_stands_on_both_sides(champion):
    twice = rows(champion, 60, input=b'{"values": [1, 2, 3, 4]}')
    found = collect(champion, twice, shares_backbone=always)
    assert 0 in (len(found.fit), len(found.judge))


def test_split_by_key_keeps_a_customer_on_one_side(champion):
    all_rows = rows(champion)
    key = {row.prediction.id: row.prediction.key for row in all_rows}
    found = collect(champion, all_rows, shares_backbone=always, split_by="key")
    assert not {key[i] for i in found.fit.ids} & {key[i] for i in found.judge.ids}


def test_split_by_time_judges_the_newest_rows(champion):
    found = collect(champion, rows(champion), shares_backbone=always, split_by="time", judge_share=0.25)
    assert len(found.judge) == 75
    assert found.judge.time.min() > found.fit.time.max()


def test_only_the_newest_judge_rows_are_read(champion):
    found = collect(champion, rows(champion), shares_backbone=always)
    fewer = collect(champion, rows(champion), shares_backbone=always, judge_rows=10)
    assert fewer.judge.ids == found.judge.ids[-10:]
    assert fewer.fit.ids == found.fit.ids


def test_embeddings_of_another_backbone_are_computed_again_from_the_input(champion):
    stored = rows(champion, 40)
    foreign = rows(champion, 40, embedding=np.ones(world.WIDTH, "<f4").tobytes())
    expected = collect(champion, stored, shares_backbone=always)
    found = collect(champion, foreign, shares_backbone=lambda version: False)
    np.testing.assert_allclose(found.fit.embedding, expected.fit.embedding, rtol=1e-5)


def test_what_cannot_be_used_is_counted_by_reason(champion):
    unknown = [LabeledRow(row.prediction, "furious", 1.0) for row in rows(champion, 5)]
    bare = rows(champion, 4, embedding=None, input=None)
    broken = rows(champion, 3, embedding=None, input=b'{"values": [1, 2]}')
    found = collect(champion, [*unknown, *bare, *broken], shares_backbone=always)
    assert len(found.fit) + len(found.judge) == 0
    assert sorted(found.skipped.values()) == [3, 4, 5]
    assert "label 'furious' is not one of the model's" in found.skipped


def test_no_rows_at_all_are_fine(champion):
    found = collect(champion, [], shares_backbone=always)
    assert found.fit.embedding.shape == (0, world.WIDTH)
    assert len(found.judge) == 0


@pytest.mark.parametrize("change", [{"judge_share": 0.0}, {"judge_share": 1.0}, {"judge_rows": 0}, {"split_by": "moon"}])
def test_a_senseless_split_is_refused(champion, change):
    with pytest.raises(InvalidInput, match="judge share"):
        collect(champion, [], shares_backbone=always, **change)


@pytest.mark.parametrize(
    ("kind", "body", "field", "value"),
    [
        ("text", "größer".encode(), FieldKind.TEXT, "größer"),
        ("image", b"\x89PNG", FieldKind.IMAGE, b"\x89PNG"),
        ("json", b'{"f": [1, 2]}', FieldKind.NUMBER, [1, 2]),
        ("json", b'{"f": "iVBORw=="}', FieldKind.IMAGE, b"\x89PNG"),
    ],
)
def test_a_stored_input_becomes_the_sample_that_it_was(kind, body, field, value):
    assert stored_sample(body, kind, {"f": field}).fields["f"] == value


@pytest.mark.parametrize(("kind", "body"), [("sha256", b"x" * 32), ("tensor", None), ("json", b"{broken"), ("text", None)])
def test_an_input_that_was_not_kept_gives_no_sample(kind, body):
    assert stored_sample(body, kind, {"f": FieldKind.NUMBER}) is None


@pytest.mark.parametrize("split_by", ["input", "key", "time"])
def test_an_input_that_was_sent_often_judges_once_with_its_newest_truth(champion, split_by):
    once, often = rows(champion, 40), rows(champion, 60, input=b'{"values": [1, 2, 3, 4]}')
    again = [
        LabeledRow(replace(row.prediction, id=f"q{index:05d}", time=1000.0 + index), "glad", 1.0)
        for index, row in enumerate(often)
    ]
    found = collect(champion, [*once, *again], shares_backbone=always, split_by=split_by)
    repeated = [id_ for id_ in found.judge.ids if id_.startswith("q")]
    assert len(repeated) <= 1
    fitted = sum(id_.startswith("q") for id_ in found.fit.ids)
    assert fitted + len(repeated) + found.skipped.get("another row with the same input judges", 0) == 60
