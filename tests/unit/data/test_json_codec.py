import json
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidConfig, InvalidInput
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.json import JsonCodec
from inferloop.data.codecs.json_path import compile_path
from inferloop.data.config import validate


def decode(options: dict[str, Any], document: Any, **extra: Any) -> Sample:
    codec = JsonCodec(JsonCodec.Config.model_validate({"fields": {"text": "$.text"}, **options}))
    payload = document if isinstance(document, bytes) else json.dumps(document).encode()
    return codec.decode(Message(payload, source="s", received=0.0, **extra))


def test_the_grammar_of_a_pipeline_gives_id_key_time_and_typed_fields():
    options = {
        "id": "$.message_id",
        "key": "$.customer_id",
        "time": "$.sent_at",
        "fields": {
            "text": "$.message",
            "order": "$.order_id",
            "total": {"path": "$.order.total", "type": "number", "required": True},
        },
    }
    document = {"message_id": "m1", "customer_id": 7, "sent_at": "2026-01-01T09:59:58Z", "message": "hi", "order": {"total": 40}}
    sample = decode(options, document)
    assert (sample.id, sample.key, sample.time) == ("m1", "7", 1767261598.0)
    assert sample.fields == {"text": "hi", "total": 40.0}
    assert isinstance(sample.fields["total"], float)


def test_an_id_of_several_values_never_confuses_two_messages():
    options = {"id": ["$.a", "$.b"]}
    ids = {decode(options, {"a": a, "b": b}).id for a, b in (("x|y", "z"), ("x", "y|z"), ("x\\|y", "z"), ("x", "z"))}
    assert len(ids) == 4
    assert decode(options, {"a": 1, "b": "z"}).id == "1|z"


def test_id_and_key_may_come_from_a_header_or_a_level_of_the_topic():
    options = {"id": {"header": "message-id"}, "key": {"topic": 1}}
    sample = decode(options, {"text": "x"}, topic="sensors/dev7/temp", headers={"message-id": "h1"})
    assert (sample.id, sample.key) == ("h1", "dev7")
    with pytest.raises(InvalidInput, match="the id is missing at header 'message-id'"):
        decode(options, {"text": "x"}, topic="sensors/dev7/temp")
    with pytest.raises(InvalidInput, match="the key is missing at level 1 of the topic"):
        decode(options, {"text": "x"}, topic="sensors", headers={"message-id": "h1"})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2026-01-01T00:00:00Z", 1767225600.0),
        ("2026-01-01T01:00:00+01:00", 1767225600.0),
        ("2026-01-01 00:00:00", 1767225600.0),
        ("2026-01-01", 1767225600.0),
        (1767225600, 1767225600.0),
        (1767225600.5, 1767225600.5),
        (1767225600000, 1767225600.0),
        (1767225600000000, 1767225600.0),
        ("1767225600", 1767225600.0),
        (0, 0.0),
    ],
)
def test_times_are_iso_or_numbers_since_the_epoch(value, seconds):
    assert decode({"time": "$.t"}, {"t": value}).time == seconds


@pytest.mark.parametrize("value", ["yesterday", True, -5, [1], {}, "", "nan", 10**40, "0000-00-00"])
def test_other_times_are_refused(value):
    with pytest.raises(InvalidInput, match=r"the time at \$\.t"):
        decode({"time": "$.t"}, {"t": value})


@pytest.mark.parametrize(
    ("field", "document", "says"),
    [
        ({"path": "$.x", "type": "number"}, {"x": "40"}, "field 'x' must be a number, it is text"),
        ({"path": "$.x", "type": "number"}, {"x": True}, "field 'x' must be a number, it is true or false"),
        ({"path": "$.x", "type": "string"}, {"x": 4}, "field 'x' must be text, it is a number"),
        ({"path": "$.x", "type": "bool"}, {"x": 1}, "field 'x' must be true or false, it is a number"),
        ({"path": "$.x", "type": "array"}, {"x": [[1], [2, 3]]}, "field 'x' must be a list of numbers of one shape"),
        ({"path": "$.x", "type": "array"}, {"x": ["1"]}, "field 'x' must be a list of numbers"),
        ({"path": "$.x", "type": "array"}, {"x": {}}, "field 'x' must be a list of numbers, it is an object"),
        ({"path": "$.x", "required": True}, {}, r"field 'x' is missing at \$\.x"),
        ({"path": "$.x", "required": True}, {"x": None}, r"field 'x' is missing at \$\.x"),
    ],
)
def test_a_value_of_another_type_is_refused_without_showing_it(field, document, says):
    with pytest.raises(InvalidInput, match=says):
        decode({"fields": {"x": field}}, document)


def test_a_missing_value_takes_its_default_or_stays_away():
    fields = {"a": "$.a", "b": {"path": "$.b", "type": "number", "default": 3}, "c": {"path": "$.c", "type": "bool"}}
    assert decode({"fields": fields}, {"a": None}).fields == {"b": 3.0}


def test_an_array_of_numbers_is_a_numpy_array_and_null_in_it_is_not_a_number():
    sample = decode({"fields": {"x": {"path": "$.x", "type": "array"}}}, {"x": [[1, 2.5], [None, 4]]})
    assert sample.fields["x"].dtype == np.float64
    np.testing.assert_array_equal(sample.fields["x"], [[1, 2.5], [np.nan, 4]])


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", r"no JSON: .* \(empty, 0 bytes\)"),
        (b"<html>", r"no JSON: .* \(HTML text, 6 bytes\)"),
        (b'{"a": 1', "no JSON: input data was truncated"),
        (b"3", "must be a JSON object or list, it is a number"),
        (b"\xff\xfe{}", "no JSON"),
        (b'{"a": NaN}', "no JSON"),
        (b"[" * 100_000, "no JSON: nested too deep"),
    ],
)
def test_what_is_no_json_says_what_it_is(payload, says):
    with pytest.raises(InvalidInput, match=says):
        decode({}, payload)


def test_a_byte_order_mark_is_skipped():
    assert decode({}, b'\xef\xbb\xbf{"text": "x"}').fields == {"text": "x"}


@pytest.mark.parametrize("bad", ["text", "$.[", "$.a[", ""])
def test_a_wrong_path_is_a_problem_of_the_config_with_its_key(bad):
    with pytest.raises(InvalidConfig, match=r"message\.yaml: fields\.text.*is not a JSONPath"):
        validate(JsonCodec.Config, {"fields": {"text": bad}}, "message.yaml")


def test_a_codec_without_fields_is_refused():
    with pytest.raises(pydantic.ValidationError):
        JsonCodec.Config.model_validate({"fields": {}})


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=10,
)


@given(JSON)
def test_the_fast_way_finds_what_jsonpath_finds(document):
    for plain, general in (("$.a", "$['a']"), ("$.a.b", "$['a']['b']"), ("$.a.b.c", "$.a['b'].c")):
        assert compile_path(plain)(document) == compile_path(general)(document)


def test_a_path_with_many_matches_gives_them_all():
    document = {"items": [{"x": 1}, {"x": 2}]}
    assert compile_path("$.items[*].x")(document) == [1, 2]
    assert compile_path("$.items[0].x")(document) == 1
    assert compile_path("$..nope")(document) is None
