"""Labels of a whole batch are the labels of its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inferloop.core.bundle import Bundle
from inferloop.core.errors import InvalidBundle
from inferloop.data.transforms.scores import Scores
from inferloop.prediction.predictor import Predictor
from inferloop.prediction.verdicts import verdicts
from support import bundles

LABELS = ("a", "b", "c", "d")
values = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(4)), elements=st.floats(0, 1, width=32))


@settings(deadline=None)
@given(values=values, keep=st.integers(0, 5), favored=st.sampled_from(["", "c"]), above=st.floats(0, 1))
def test_a_batch_of_verdicts_is_row_by_row_what_the_scores_say(values: np.ndarray, keep: int, favored: str, above: float) -> None:
    scores = Scores(values, LABELS, keep=keep, favored=favored, above=above)
    expected = [(*scores.top(row), scores.by_label(row)) for row in range(len(values))]
    found = verdicts(scores)
    assert [tuple(verdict) for verdict in found] == expected
    assert [list(verdict.scores) for verdict in found] == [list(by_label) for _, _, by_label in expected]


def test_labels_that_do_not_fit_the_scores_are_found_at_load(tmp_path: Path) -> None:
    good = bundles.numbers(tmp_path / "good")
    bad: Bundle = good.copy(tmp_path / "bad", labels=("one", "two"))
    with pytest.raises(InvalidBundle, match="2 labels"):
        Predictor.load(bad)


def test_nobody_sees_the_verdicts_among_the_outputs(tmp_path: Path) -> None:
    with Predictor.load(bundles.numbers(tmp_path / "numbers")) as predictor:
        assert set(predictor.predict({"values": [1, 2, 3, 4]}).outputs) == {"embedding", "logits"}
        assert set(predictor.infer({"x": np.ones((2, 4), np.float32)})) == {"embedding", "logits"}
