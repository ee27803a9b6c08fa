from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput
from inferloop.streams.delivery.pausing import retry_after_s
from inferloop.streams.line_protocol import as_kind, is_name, line, timestamp
from support.line_parser import Point, parse_lines

names = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(' ,=\\"#_'), min_size=1, max_size=8).filter(is_name)
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(' ,=\\"\n'), max_size=12)
tag_values = texts.filter(lambda text: text and not text.endswith("\\") and text.isprintable())
field_values = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts.filter(lambda text: "\x00" not in text)
)
moments = st.integers(-(2**63) + 1, 2**63 - 1)


@given(
    names, st.dictionaries(names, tag_values, max_size=4), st.dictionaries(names, field_values, min_size=1, max_size=4), moments
)
def test_another_reader_finds_what_was_written(measurement: str, tags: dict[str, str], fields: dict[str, Any], at: int) -> None:
    (point,) = parse_lines(line(measurement, tags, fields, at))
    assert point == Point(measurement, tags, fields, at)
    assert {name: type(value) for name, value in point.fields.items()} == {name: type(value) for name, value in fields.items()}


@given(st.lists(st.tuples(names, field_values), min_size=2, max_size=5))
def test_lines_side_by_side_stay_apart(points: list[tuple[str, Any]]) -> None:
    body = "\n".join(line(name, {}, {"f": value}, index) for index, (name, value) in enumerate(points))
    assert [(point.measurement, point.fields["f"]) for point in parse_lines(body)] == points


def test_a_line_as_the_documentation_of_the_format_has_it() -> None:
    written = line(
        "my Measurement", {"tag,Key 1": "tag=Value1", "a": "b"}, {"fieldKey": 'string "value"', "n": 1, "x": 1.5}, 1556813561098
    )
    assert written == r'my\ Measurement,a=b,tag\,Key\ 1=tag\=Value1 fieldKey="string \"value\"",n=1i,x=1.5 1556813561098'


def test_what_is_missing_is_left_out_and_a_point_without_fields_is_refused() -> None:
    assert line("m", {"a": None, "b": "", "c": True, "d": 2}, {"x": None, "y": math.nan, "z": 1.0}, 5) == "m,c=true,d=2 z=1.0 5"
    with pytest.raises(InvalidInput, match="none of the fields x, y has a value"):
        line("m", {}, {"x": None, "y": math.inf}, 5)


@pytest.mark.parametrize("value", ["a\nb", "a\\", "a\rb", ["a"], {"a": 1}])
def test_a_tag_that_cannot_be_written_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        line("m", {"t": value}, {"x": 1}, 5)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, [1], {"a": 1}, b"x", "a\x00"])
def test_a_field_that_cannot_be_written_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        line("m", {}, {"x": value}, 5)


@pytest.mark.parametrize(
    ("value", "precision", "expected"),
    [
        (1764000000, "s", 1764000000),
        (1764000000.123456, "ns", 1764000000123456000),
        (1764000000.123456, "us", 1764000000123456),
        (0.0009, "ms", 0),
        ("2026-01-01T10:00:00Z", "s", 1767261600),
        ("2026-01-01T11:00:00.000001+01:00", "ns", 1767261600000001000),
        ("1969-12-31T23:59:59Z", "ms", -1000),
    ],
)
def test_a_time_in_whole_units(value: Any, precision: Any, expected: int) -> None:
    assert timestamp(value, precision) == expected


@pytest.mark.parametrize(
    "value", [None, True, "yesterday", "2026-01-01T10:00:00", math.nan, math.inf, 1e300, [1], "9999-12-31T23:59:59Z"]
)
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="time"):
        timestamp(value, "ns")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1, "float", 1.0),
        (2.0, "integer", 2),
        (1.5, "string", "1.5"),
        ("a", "string", "a"),
        (True, "boolean", True),
        (None, "float", None),
    ],
)
def test_a_field_takes_the_type_of_its_column(value: Any, kind: Any, expected: Any) -> None:
    found = as_kind("f", value, kind)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "kind"),
    [("a", "float"), (True, "integer"), (1.5, "integer"), (math.inf, "integer"), (1, "boolean"), ([1], "string")],
)
def test_a_field_of_another_type_is_refused(value: Any, kind: Any) -> None:
    with pytest.raises(InvalidInput):
        as_kind("f", value, kind)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0),
        ("Thu, 01 Jan 1970 00:01:10 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-1", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_time(value: str, expected: float) -> None:
    assert retry_after_s(value, 60.0) == expected
