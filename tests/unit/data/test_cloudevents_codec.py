import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidConfig, InvalidInput
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.cloudevents import CloudEventsCodec
from inferloop.data.config import validate

INNER = {"json": {"fields": {"text": "$.text"}}}
ATTRIBUTES = {
    "specversion": "1.0",
    "id": "A|1",
    "source": "/shop",
    "type": "ticket",
    "subject": "c7",
    "time": "2026-01-01T00:00:00Z",
}


def decode(payload: bytes, headers: dict[str, str] | None = None, **options: Any) -> Sample:
    codec = CloudEventsCodec(CloudEventsCodec.Config.model_validate({"data": INNER, **options}))
    return codec.decode(Message(payload, "s", 0.0, topic="a/b", headers=headers or {}))


def event(**members: Any) -> bytes:
    return json.dumps({**ATTRIBUTES, "data": {"text": "hi"}, **members}).encode()


def binary(prefix: str, **more: str) -> dict[str, str]:
    return {**{prefix + name: value for name, value in {**ATTRIBUTES, **more}.items()}, "Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("payload", "headers"),
    [
        (event(), {"content-type": "application/cloudevents+json; charset=utf-8"}),
        (event(), {"Content-Type": "application/cloudevents"}),
        (event(), {}),
        (b'{"text": "hi"}', binary("ce-")),
        (b'{"text": "hi"}', binary("Ce-")),
        (b'{"text": "hi"}', binary("ce_")),
        (b'{"text": "hi"}', binary("cloudEvents:")),
        (b'{"text": "hi"}', binary("cloudEvents_")),
        (b'{"text": "hi"}', binary("")),
    ],
)
def test_an_event_of_any_binding_gives_its_data_and_who_it_is(payload, headers):
    sample = decode(payload, headers, fields={"kind": "type"})
    assert sample.fields == {"text": "hi", "kind": "ticket"}
    assert (sample.id, sample.key, sample.time) == ("/shop|A\\|1", "c7", 1767225600.0)
    assert (sample.raw, sample.source, sample.topic) == (payload, "s", "a/b")


def test_values_of_http_headers_are_unescaped_those_of_kafka_are_not():
    assert decode(b'{"text": 1}', binary("ce-", subject="Euro%20%E2%82%AC")).key == "Euro €"
    assert decode(b'{"text": 1}', binary("ce-", subject='"a \\"b\\""')).key == 'a "b"'
    assert decode(b'{"text": 1}', binary("ce_", subject="50%25")).key == "50%25"


def test_id_and_key_may_be_other_attributes_or_stand_elsewhere():
    sample = decode(event(partitionkey=7), id="id", key="partitionkey")
    assert (sample.id, sample.key) == ("A|1", "7")
    assert decode(event(), key={"topic": 1}).key == "b"
    with pytest.raises(InvalidInput, match="the key is missing at the attribute 'partitionkey'"):
        decode(event(), key="partitionkey")


def test_what_the_inner_codec_says_goes_before_the_defaults():
    inner = {"json": {"id": "$.n", "key": "$.k", "time": "$.t", "fields": {"n": "$.n"}}}
    sample = decode(event(data={"n": 1, "k": "x", "t": 5}), data=inner)
    assert (sample.id, sample.key, sample.time) == ("1", "x", 5.0)
    assert decode(event(data={"n": 1, "k": "x", "t": 5}), data=inner, key="subject").key == "c7"


def test_an_event_without_subject_and_time_has_neither():
    sample = decode(event(subject=None, time=None))
    assert (sample.key, sample.time) == ("", None)


def test_data_may_be_base64_or_text_of_another_type():
    encoded = base64.b64encode(b"\x00\xff").decode()
    members = {name: value for name, value in ATTRIBUTES.items() if name != "data"}
    payload = json.dumps({**members, "data_base64": encoded}).encode()
    assert decode(payload, data={"bytes": {}}).fields == {"bytes": b"\x00\xff"}
    assert decode(event(datacontenttype="text/plain", data="a\n"), data={"text": {}}).fields == {"text": "a\n"}
    assert decode(event(datacontenttype="text/plain; charset=utf-8", data="ä"), data={"text": {}}).fields == {"text": "ä"}
    assert decode(event(data="a"), data={"text": None}).fields == {"text": '"a"'}  # JSON, as the event does not say otherwise


@pytest.mark.parametrize(
    ("payload", "headers", "says"),
    [
        (event(id=""), {}, "lacks the attributes: id"),
        (event(source=None, type=None), {}, "lacks the attributes: source, type"),
        (event(specversion="0.3"), {}, "another version of CloudEvents, 1.0 is read"),
        (event(subject={"a": 1}), {}, "attribute 'subject' must be text, .* it is an object"),
        (event(data=None), {}, "has no data"),
        (event(data_base64="aGk="), {}, "both data and data_base64"),
        (event(data=None, data_base64="%"), {}, "data_base64 must be text in base64"),
        (event(data=None, data_base64=5), {}, "data_base64 must be text in base64"),
        (event(time="noon"), {}, "the time at the attribute 'time'"),
        (b"[]", {}, "no event in JSON"),
        (b"hello", {}, r"no event in JSON: .* \(text, 5 bytes\)"),
        (b"", binary("ce-"), "has no data"),
        (b"[" * 100_000, {}, "no event in JSON"),
        (b'{"specversion":"1.0","id":' + b"[" * 100_000, {}, "no event in JSON"),
        (event(), {"content-type": "application/cloudevents+avro"}, "a format other than JSON"),
        (b"[]", {"content-type": "application/cloudevents-batch+json"}, "a batch of events"),
        (b"<a>", binary("ce-"), "the payload is no JSON"),
    ],
)
def test_what_is_no_event_says_why(payload, headers, says):
    with pytest.raises(InvalidInput, match=says):
        decode(payload, headers)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "data: must name exactly one codec, it names 0"),
        ({"json": {}, "text": {}}, "it names 2"),
        ({"jsn": {}}, "no codec named 'jsn'"),
        ({"json": {"fields": {"a": "b"}}}, "json: fields.a.*is not a JSONPath"),
    ],
)
def test_a_wrong_inner_codec_is_a_problem_of_the_config(data, says):
    with pytest.raises(InvalidConfig, match=says):
        validate(CloudEventsCodec.Config, {"data": data}, "")


NAMES = st.sampled_from([*ATTRIBUTES, "data", "data_base64", "datacontenttype"])
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)


@given(members=st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_members_give_a_sample_or_invalid_input(members):
    with contextlib.suppress(InvalidInput):
        assert isinstance(decode(event(**members), data={"text": {}}), Sample)


@given(
    payload=st.binary(max_size=40),
    prefix=st.sampled_from(["ce-", "ce_", "cloudEvents:", ""]),
    headers=st.dictionaries(NAMES, st.text(max_size=6), max_size=3),
)
def test_any_bytes_and_headers_give_a_sample_or_invalid_input(payload, prefix, headers):
    with contextlib.suppress(InvalidInput):
        assert isinstance(decode(payload, binary(prefix, **headers)), Sample)
