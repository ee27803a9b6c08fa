from __future__ import annotations

import contextlib
import datetime as dt
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput
from inferloop.streams.expressions import BUILTINS, MAX_LENGTH, Missing, compile_expression, plain

KINDS = {**BUILTINS, "total": "number", "text": "string", "vip": "bool", "tags": "array", "other": "any"}


def holds(source: str, **scope: object) -> bool:
    return compile_expression(source, KINDS, boolean=True).holds(scope)


def test_a_comparison_of_a_declared_number_is_evaluated() -> None:
    assert holds("total < 100.0", total=40.0)
    assert not holds("total < 100.0", total=140.0)


def test_labels_scores_and_text_can_be_combined() -> None:
    assert holds(
        "label == 'hot' && scores['hot'] > 0.5 && text.startsWith('I am')", label="hot", scores={"hot": 0.9}, text="I am"
    )


@pytest.mark.parametrize("source", ["total < 1.0", "scores['cold'] > 0.1", "total < 1.0 && label == 'hot'"])
def test_touching_a_missing_value_is_told_apart_from_false(source: str) -> None:
    with pytest.raises(Missing):
        holds(source, label="hot", scores={})


def test_a_missing_value_that_cannot_change_the_answer_is_not_touched() -> None:
    assert holds("label == 'hot' || total < 1.0", label="hot")
    assert not holds("label == 'cold' && total < 1.0", label="hot")


def test_a_plain_name_is_looked_up_without_the_engine() -> None:
    assert compile_expression("total", KINDS).value({"total": 3.0}) == 3.0
    with pytest.raises(Missing):
        compile_expression("total", KINDS).value({})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("totl < 1.0", "unknown variable 'totl'"),
        ("totl", "unknown variable 'totl'"),
        ("total <", "is not CEL"),
        ("delete(total) == 1", "unknown function 'delete'"),
        ("label == 'x' && launch(total)", "unknown function 'launch'"),
        ("total + text", "float . string"),
        ("0/0 == 1", "division by zero"),
        ("total", "must be true or false"),
        ("text.size() + 1", "must be true or false"),
        ("[1].all(x, [2].all(y, x < y))", "2 loops"),
        ("total < 1.0 || " * MAX_LENGTH + "true", "characters"),
    ],
)
def test_what_is_wrong_with_an_expression_is_said_before_it_runs(source: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compile_expression(source, KINDS, boolean=True)


def test_a_loop_variable_is_no_unknown_name() -> None:
    assert holds("tags.exists(tag, tag > total)", tags=[1.0, 5.0], total=3.0)


def test_values_become_plain_json() -> None:
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert plain({"a": np.array([1.0, 2.0]), "b": b"x", "c": moment, "d": math.nan, "e": (dt.timedelta(seconds=2),)}) == {
        "a": [1.0, 2.0],
        "b": "x",
        "c": "2026-01-01T00:00:00+00:00",
        "d": None,
        "e": [2.0],
    }
    assert plain(b"\xff") == "/w=="


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_comparisons_agree_with_python(total: float, limit: float) -> None:
    assert holds(f"total < {limit:.6f}", total=total) is (total < float(f"{limit:.6f}"))


@given(st.text(max_size=40))
def test_no_text_breaks_the_compiler(source: str) -> None:
    with contextlib.suppress(InvalidInput):
        compile_expression(source, KINDS)


def test_an_array_is_read_as_a_list() -> None:
    assert holds("tags[1] > 1.0 && size(tags) == 2", tags=np.array([1.0, 2.0]))
    assert holds("tags.exists(x, x > 1.0)", tags=np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("source", "text"), [("int(text) > 5", "7"), ("timestamp(text) > timestamp('2025-01-01T00:00:00Z')", "2026-01-01T00:00:00Z")]
)
def test_a_text_may_be_read_as_what_its_messages_say_it_is(source: str, text: str) -> None:
    assert holds(source, text=text)
