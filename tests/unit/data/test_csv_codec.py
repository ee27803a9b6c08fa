import json
from typing import Any

import pytest

from inferloop.core.errors import InvalidConfig, InvalidInput
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.csv import COLUMNS_HEADER, CsvCodec
from inferloop.data.config import validate


def decode(options: dict[str, Any], payload: bytes, columns: list[str] | None = None) -> Sample:
    headers = {} if columns is None else {COLUMNS_HEADER: json.dumps(columns)}
    return CsvCodec(CsvCodec.Config.model_validate(options)).decode(Message(payload, source="f", received=0.0, headers=headers))


def test_a_row_takes_its_columns_from_the_source():
    options = {
        "id": "id",
        "time": "at",
        "fields": {"text": "text", "total": {"column": "total", "type": "number"}, "vip": {"column": "vip", "type": "bool"}},
    }
    sample = decode(options, b'm1,2026-01-01T00:00:00Z,"two\nlines, one cell",3.5,yes\r\n', ["id", "at", "text", "total", "vip"])
    assert (sample.id, sample.time) == ("m1", 1767225600.0)
    assert sample.fields == {"text": "two\nlines, one cell", "total": 3.5, "vip": True}


def test_without_fields_every_column_that_is_not_empty_is_one():
    assert decode({}, b"1,,x", ["a", "b", "c"]).fields == {"a": "1", "c": "x"}


def test_an_empty_cell_is_missing():
    fields = {"a": {"column": "a", "default": "none"}, "b": {"column": "b", "type": "number"}}
    assert decode({"fields": fields}, b",", ["a", "b"]).fields == {"a": "none"}
    with pytest.raises(InvalidInput, match="field 'b' is empty in column 'b'"):
        decode({"fields": {"b": {"column": "b", "required": True}}}, b",", ["a", "b"])


@pytest.mark.parametrize(
    ("options", "payload", "says"),
    [
        ({"fields": {"x": "z"}}, b"1,2", "no column named 'z'"),
        ({"id": "z"}, b"1,2", "no column named 'z'"),
        ({"id": "a"}, b",2", "the id at column 'a' is empty"),
        ({}, b"1", "the payload has 1 cells, the file has 2 columns"),
        ({}, b"1;2", "the payload has 1 cells, the file has 2 columns"),
        ({}, b"1,2\n3,4", "the payload has 2 rows"),
        ({}, b"", "the payload has 0 rows"),
        ({}, b'"1,2', "no CSV row: unexpected end of data"),
        ({}, b"\xff,2", r"not utf-8 at byte 0 \(binary data that starts with ff 2c 32, 3 bytes\)"),
        ({"fields": {"x": {"column": "a", "type": "number"}}}, b"nan,2", "field 'x' must be a number, it is other text"),
        ({"fields": {"x": {"column": "a", "type": "bool"}}}, b"maybe,2", "field 'x' must be true or false"),
    ],
)
def test_a_row_that_does_not_fit_says_why(options, payload, says):
    with pytest.raises(InvalidInput, match=says):
        decode(options, payload, ["a", "b"])


def test_the_delimiter_and_the_encoding_are_options():
    assert decode({"delimiter": ";", "encoding": "latin-1"}, "ä;1,5".encode("latin-1"), ["a", "b"]).fields == {
        "a": "ä",
        "b": "1,5",
    }


def test_columns_may_stand_in_the_options_and_must_be_somewhere():
    assert decode({"columns": ["a", "b"]}, b"1,2").fields == {"a": "1", "b": "2"}
    with pytest.raises(InvalidInput, match="does not bring its columns"):
        decode({}, b"1,2")


def test_an_unknown_encoding_is_a_problem_of_the_config():
    with pytest.raises(InvalidConfig, match="encoding: no text encoding named 'utf-99'"):
        validate(CsvCodec.Config, {"encoding": "utf-99"}, "")
