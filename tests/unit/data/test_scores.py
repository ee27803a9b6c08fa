import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inferloop.core.errors import InvalidBundle
from inferloop.data.transforms.scores import Identity, Sigmoid, Softmax, Threshold, TopK, scorer

LOGITS = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(3)), elements=st.floats(-1e4, 1e4, width=32))
LABELS = ("negative", "neutral", "positive")


@given(LOGITS)
def test_softmax_gives_probabilities_that_keep_the_order(logits):
    scores = scorer((Softmax(),), LABELS, "logits")(logits)
    assert scores.values.dtype == np.float32
    np.testing.assert_allclose(scores.values.sum(axis=1), 1, atol=1e-5)
    chosen = scores.best()
    assert all(scores.values[row, chosen[row]] == scores.values[row, np.argmax(logits[row])] for row in range(len(logits)))


@given(LOGITS)
def test_the_scores_of_a_row_do_not_depend_on_the_batch(logits):
    score = scorer((Softmax(),), LABELS, "logits")
    whole = score(logits).values
    for row in range(len(logits)):
        np.testing.assert_array_equal(score(logits[row : row + 1]).values[0], whole[row])


@given(arrays.arrays(np.float32, (4, 1), elements=st.floats(-200, 200, width=32)))
def test_one_logit_with_two_labels_becomes_both_probabilities(logits):
    scores = scorer((Sigmoid(),), ("no", "yes"), "logit")(logits)
    assert scores.values.shape == (4, 2)
    np.testing.assert_allclose(scores.values.sum(axis=1), 1, atol=1e-6)
    assert (scores.values >= 0).all()


def test_the_top_label_and_all_scores_are_named_best_first():
    scores = scorer((Identity(),), LABELS, "scores")(np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], np.float32))
    assert scores.top(0) == ("neutral", pytest.approx(0.7))
    assert list(scores.by_label(1)) == ["negative", "positive", "neutral"]
    assert len(scores) == 2


def test_top_k_names_only_the_best():
    scores = scorer((TopK(k=2),), LABELS, "scores")(np.array([[0.1, 0.7, 0.2]], np.float32))
    assert list(scores.by_label(0)) == ["neutral", "positive"]


@pytest.mark.parametrize(("value", "label"), [(0.4, "positive"), (0.2, "neutral")])
def test_a_threshold_decides_for_its_label(value, label):
    scores = scorer((Threshold(label="positive", above=0.3),), LABELS, "scores")(np.array([[0.1, 0.5, value]], np.float32))
    assert scores.top(0)[0] == label


def test_a_single_output_without_labels_is_named_after_itself():
    scores = scorer((), (), "remaining_life")(np.array([12.5, 80.0], np.float32))
    assert scores.top(1) == ("remaining_life", 80.0)
    assert scores.by_label(0) == {"remaining_life": 12.5}


def test_columns_without_labels_are_numbered():
    assert scorer((), (), "x")(np.array([[0.0, 1.0]], np.float32)).top(0) == ("1", 1.0)


def test_labels_that_do_not_match_the_output_are_an_invalid_bundle():
    with pytest.raises(InvalidBundle, match="output 'x' has 2 values a row, the bundle has 3 labels"):
        scorer((), LABELS, "x")(np.zeros((1, 2), np.float32))
