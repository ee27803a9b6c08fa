from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput
from inferloop.core.transform import FieldKind
from inferloop.data.datasets.dataset import Dataset


def data(labels: str, *, groups: list[str] | None = None, times: list[float] | None = None) -> Dataset:
    texts = [f"text {index}" for index in range(len(labels))]
    return Dataset.of("d", {"text": texts}, list(labels), kinds={"text": FieldKind.TEXT}, groups=groups or [], times=times or [])


def texts(part: Dataset) -> list[str]:
    return part.values("text")


SHARES = st.sampled_from([(0.8, 0.2), (0.5, 0.25, 0.25), (0.6, 0.2), (1 / 3, 1 / 3, 1 / 3)])


@settings(max_examples=40)
@given(st.text(alphabet="abc", min_size=30, max_size=90), SHARES, st.integers(0, 5), st.sampled_from([None, "label-stratified"]))
def test_parts_share_no_row_and_have_their_size(labels, shares, seed, by):
    whole = data(labels)
    parts = whole.split(shares, by=by, seed=seed)
    every = [text for part in parts for text in texts(part)]
    assert len(set(every)) == len(every)
    for part, share in zip(parts, shares, strict=True):
        assert abs(len(part) - share * len(labels)) <= 3
    assert sum(shares) < 0.99 or len(every) == len(labels)


@given(st.integers(0, 20))
def test_the_same_seed_gives_the_same_parts(seed):
    whole = data("ab" * 30)
    assert [texts(part) for part in whole.split((0.7, 0.3), seed=seed)] == [
        texts(part) for part in whole.split((0.7, 0.3), seed=seed)
    ]
    assert texts(whole.split((0.7, 0.3), seed=seed)[0]) != texts(whole.split((0.7, 0.3), seed=seed + 1)[0])


def test_a_stratified_split_gives_every_label_its_share():
    first, second = data("a" * 100 + "b" * 20 + "c" * 10).split((0.8, 0.2), by="label-stratified")
    assert Counter(row.label for row in first.rows) == {"a": 80, "b": 16, "c": 8}
    assert Counter(row.label for row in second.rows) == {"a": 20, "b": 4, "c": 2}


def test_many_small_labels_do_not_empty_a_part():
    labels = "".join(chr(0x4E00 + index) * 3 for index in range(40))
    first, second = data(labels).split((0.9, 0.1), by="label-stratified")
    assert abs(len(second) - 12) <= 2
    assert len(first) + len(second) == 120


@settings(max_examples=25)
@given(st.lists(st.integers(0, 11), min_size=40, max_size=120), st.integers(0, 3))
def test_a_group_is_never_torn_apart(numbers, seed):
    numbers = [*numbers, *range(12)]
    whole = data("".join("abc"[number % 3] for number in numbers), groups=[str(number) for number in numbers])
    first, second = whole.split((0.75, 0.25), by="group", seed=seed)
    assert not {row.group for row in first.rows} & {row.group for row in second.rows}
    assert len(first) + len(second) == len(whole)
    assert {row.label for row in first.rows} == {row.label for row in second.rows} == set("abc")


@pytest.mark.parametrize("seed", range(5))
def test_a_giant_group_does_not_leave_a_label_out_of_a_part(seed):
    whole = data("a" * 53 + "b" * 20, groups=["giant"] * 50 + ["x", "y", "z"] + [str(index) for index in range(20)])
    for part in whole.split((0.75, 0.25), by="group", seed=seed):
        assert {row.label for row in part.rows} == {"a", "b"}


def test_groups_with_many_labels_are_shared_out_by_size():
    whole = data("abcdef" * 60, groups=[str(index // 60) for index in range(360)])
    first, second = whole.split((0.8, 0.2), by="group")
    assert (len(first), len(second)) == (300, 60)


@pytest.mark.parametrize("by", [None, "label-stratified"])
def test_a_random_split_is_refused_where_a_group_is_declared(by):
    with pytest.raises(InvalidInput, match="declares the group groups, a split that ignores it would leak") as caught:
        data("ab" * 5, groups=["g"] * 10).split((0.8, 0.2), by=by)
    assert caught.value.hint == "by='group'"


def test_a_split_by_time_puts_the_earliest_first_and_keeps_a_moment_together():
    first, second = data("a" * 10, times=[9, 8, 7, 6, 5, 5, 5, 2, 1, 0]).split((0.5, 0.5), by="time")
    assert [row.time for row in first.rows] == [0, 1, 2, 5, 5, 5]
    assert [row.time for row in second.rows] == [6, 7, 8, 9]


@pytest.mark.parametrize(
    ("shares", "by", "says"),
    [
        ((0.5, 0.6), None, "add up to at most 1"),
        ((1.0, 0.0), None, "must be above 0"),
        ((), None, "must be above 0"),
        ((0.5, 0.5), "group", "declares no group to split by"),
        ((0.5, 0.5), "time", "declares no time to split by"),
        ((0.5, 0.5), "luck", "a split by 'luck' is not known"),
        ((0.99, 0.01), None, "part 2 of 2 of data set 'd' would be empty"),
    ],
)
def test_a_split_that_cannot_be_says_why(shares, by, says):
    with pytest.raises(InvalidInput, match=says):
        data("ab" * 5).split(shares, by=by)


def test_the_rule_of_the_split_is_in_the_lineage():
    _, second = data("ab" * 10).split((0.5, 0.5), seed=3)
    assert second.lineage()["split"] == {"by": "random", "shares": [0.5, 0.5], "seed": 3, "part": 1}


def test_traffic_signs_split_by_their_physical_sign(shared: Path):
    whole = Dataset.load(shared / "data/gtsrb/train.csv", image="file", group=["label", "track"])
    train, validation = whole.split((0.9, 0.1), by="group")
    assert len(whole) == len(train) + len(validation) == 39_209
    assert len(train.labels) == len(validation.labels) == 43
    assert not {row.group for row in train.rows} & {row.group for row in validation.rows}


def test_cells_that_span_lines_are_one_row(shared: Path):
    train = Dataset.load(shared / "data/banking77/train.csv", label="category")
    test = Dataset.load(shared / "data/banking77/test.csv", label="category")
    assert (len(train), len(test), len(train.labels)) == (10_003, 1_540, 77)
    assert len(train) - len(train.without(test)) == 3
