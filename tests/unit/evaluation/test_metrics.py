"""Accuracy, macro-F1 and the tables by class."""

import numpy as np
import pytest

from inferloop.core.errors import InvalidInput
from inferloop.evaluation.metrics import accuracy, class_scores, class_table, confusion, confusion_table, macro_f1

TRUTH = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 0, 1])


def test_macro_f1_is_the_one_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with pip install 'inferloop[sklearn]'")
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 5, 300), random.integers(0, 4, 300)
    assert macro_f1(truth, predicted, 7) == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))


def test_a_class_without_rows_has_no_recall_and_does_not_enter_the_macro_f1():
    scores = class_scores(TRUTH, PREDICTED, ["a", "b", "c", "unseen"])
    assert scores[0].recall == pytest.approx(2 / 3)
    assert scores[2].f1 == 0.0
    assert np.isnan(scores[3].f1)
    assert macro_f1(TRUTH, PREDICTED, 4) == macro_f1(TRUTH, PREDICTED, 3)


def test_the_confusion_matrix_counts_every_row_once():
    counts = confusion(TRUTH, PREDICTED, 3)
    assert counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert accuracy(TRUTH, PREDICTED) == 0.5


def test_tables_name_the_classes_and_their_confusions():
    assert [row[0] for row in class_table(TRUTH, PREDICTED, ["a", "b", "c"]).rows] == ["a", "b", "c"]
    assert confusion_table(TRUTH, PREDICTED, ["a", "b", "c"]).rows == (("a", "b", 1), ("b", "a", 1), ("c", "b", 1))


def test_a_class_outside_of_the_labels_is_refused():
    with pytest.raises(InvalidInput, match="there are 2 classes"):
        confusion(TRUTH, PREDICTED, 2)
    with pytest.raises(InvalidInput, match="same N"):
        accuracy(TRUTH, PREDICTED[:2])
