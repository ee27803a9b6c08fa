"""Checking and splitting the rows of a training."""

import pytest

from inferloop.core.errors import InvalidInput
from inferloop.core.transform import FieldKind
from inferloop.data.datasets.dataset import Dataset
from inferloop.training.config import TrainConfig
from inferloop.training.corpus import build


def config(**changes):
    return TrainConfig.model_validate({"task": "text-classification", "name": "t", **changes})


def texts(labels, *, name="d", start=0, **more):
    values = [f"text {start + index}" for index in range(len(labels))]
    return Dataset.of(name, {"text": values}, labels, kinds={"text": FieldKind.TEXT}, **more)


def test_parts_share_no_row_and_every_label_is_in_each():
    corpus = build(config(), texts(["a", "b"] * 100))
    parts = [set(part.texts) for part in (corpus.train, corpus.validation, corpus.holdout)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200
    assert [len(part) for part in (corpus.holdout, corpus.validation)] == [30, 17]
    assert all(set(part.labels.tolist()) == {0, 1} for part in (corpus.train, corpus.validation, corpus.holdout))


def test_labels_take_their_new_names():
    corpus = build(config(labels={"negative": "dissatisfied"}), texts(["negative", "positive"] * 50))
    assert corpus.labels == ("dissatisfied", "positive")


def test_no_group_stands_on_two_sides():
    groups = [f"g{index // 5}" for index in range(200)]
    corpus = build(config(), texts(["a", "b"] * 100, groups=groups))
    sides = [{int(text.split()[1]) // 5 for text in part.texts} for part in (corpus.train, corpus.validation, corpus.holdout)]
    assert sum(map(len, sides)) == len(set.union(*sides))


def test_rows_of_the_test_are_never_trained_on_and_the_test_stays_whole():
    train, test = texts(["a", "b"] * 50), texts(["b", "a"] * 10, start=1)
    corpus = build(config(), train, test)
    assert len(corpus.holdout) == 20
    assert not set(corpus.holdout.texts) & {*corpus.train.texts, *corpus.validation.texts}
    assert corpus.dropped == 20


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 40, "all 40 rows .* have the label 'a'"),
        (["a"] * 40 + ["b"], "class 'b' .* has 1 rows, at least 3"),
        (["a", "b"] * 20 + [""] * 9, "have no label"),
        ([], "has no rows"),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(labels, message):
    with pytest.raises(InvalidInput, match=message):
        build(config(), texts(labels))


def test_a_class_that_only_the_test_has_is_refused():
    with pytest.raises(InvalidInput, match="'c'"):
        build(config(), texts(["a", "b"] * 30), texts(["a", "c"] * 5, start=1000))


def test_another_field_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match="no field 'image'") as error:
        build(TrainConfig(task="image-classification", name="t"), texts(["a", "b"] * 30))
    assert "text" in error.value.hint


def test_weights_must_be_finite():
    with pytest.raises(InvalidInput, match="weights"):
        build(config(), texts(["a", "b"] * 30, weights=[float("nan")] * 60))


def test_a_test_that_holds_every_row_leaves_nothing_to_learn_and_says_so():
    rows = texts(["a", "b"] * 30)
    with pytest.raises(InvalidInput, match="every row of data set 'd' is in the test too"):
        build(config(), rows, rows)


def test_a_new_name_for_a_label_that_no_row_has_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match="labels: no row has the label 'negativ'") as error:
        build(config(labels={"negativ": "dissatisfied"}), texts(["negative", "positive"] * 30))
    assert error.value.hint == "known: negative, positive"


def test_too_few_rows_to_hold_some_out_are_refused_with_their_number():
    with pytest.raises(InvalidInput, match="5 rows of data set 'd' are too few to hold out 10% of them"):
        build(config(), texts(["a", "b"] * 3))
