import contextlib
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import cbor2
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core import plugins
from inferloop.core.errors import InvalidInput, MissingDependency
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.bytes import BytesCodec
from inferloop.data.codecs.cbor import CborCodec, parse_cbor
from inferloop.data.codecs.document import DocumentCodec
from inferloop.data.codecs.json import JsonCodec
from inferloop.data.codecs.msgpack import MsgpackCodec

FORMS = [(CborCodec, cbor2.dumps), (MsgpackCodec, msgpack.packb)]
DEVICE = {"device": "d7", "at": 1767225600, "signal": [1, 2.5, -3], "image": b"\xff\xd8", "ok": True, "note": "ä"}


def decode(kind: type[DocumentCodec], payload: bytes, options: dict[str, Any] | None = None, **extra: Any) -> Sample:
    config = kind.Config.model_validate({"fields": {"all": "$"}, **(options or {})})
    return kind(config).decode(Message(payload, source="s", received=0.0, **extra))


@pytest.mark.parametrize(("kind", "encode"), FORMS)
def test_a_binary_document_is_read_with_the_grammar_of_json(kind, encode):
    options = {
        "id": ["$.device", "$.at"],
        "key": {"topic": 1},
        "time": "$.at",
        "fields": {
            "signal": {"path": "$.signal", "type": "array", "required": True},
            "image": {"path": "$.image", "type": "bytes"},
            "ok": {"path": "$.ok", "type": "bool"},
            "note": "$.note",
            "size": {"path": "$.size", "type": "number", "default": 3},
        },
    }
    sample = decode(kind, encode(DEVICE), options, topic="plant/d7")
    assert (sample.id, sample.key, sample.time) == ("d7|1767225600", "d7", 1767225600.0)
    np.testing.assert_array_equal(sample.fields["signal"], [1.0, 2.5, -3.0])
    assert {name: value for name, value in sample.fields.items() if name != "signal"} == {
        "image": b"\xff\xd8",
        "ok": True,
        "note": "ä",
        "size": 3.0,
    }


@pytest.mark.parametrize(("kind", "encode"), [*FORMS, (JsonCodec, lambda value: b'{"a": 1}')])
def test_a_field_may_stand_in_a_header_or_a_level_of_the_topic(kind, encode):
    fields = {
        "site": {"topic": 1, "type": "string"},
        "line": {"topic": -1, "type": "number"},
        "unit": {"header": "unit", "default": "g"},
        "live": {"header": "live", "type": "bool", "required": True},
    }
    sample = decode(kind, encode({"a": 1}), {"fields": fields}, topic="plant/north/4", headers={"live": "true"})
    assert sample.fields == {"site": "north", "line": 4.0, "unit": "g", "live": True}
    with pytest.raises(InvalidInput, match="field 'live' is missing at header 'live'"):
        decode(kind, encode({"a": 1}), {"fields": fields}, topic="plant/north/4")
    with pytest.raises(InvalidInput, match="field 'line' must be a number, level -1 of the topic is other text"):
        decode(kind, encode({"a": 1}), {"fields": fields}, topic="plant/north/x", headers={"live": "true"})


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ({"path": "$.a", "topic": 1}, "exactly one of path, header and topic"),
        ({"type": "string"}, "exactly one of path, header and topic"),
        ({"topic": 1, "type": "array"}, "headers and topics are text"),
    ],
)
def test_a_field_has_one_place_and_a_type_that_fits_it(field, says):
    with pytest.raises(ValueError, match=says):
        JsonCodec.Config.model_validate({"fields": {"a": field}})


def test_bytes_in_json_are_base64():
    options = {"fields": {"image": {"path": "$.image", "type": "bytes"}}}
    assert decode(JsonCodec, b'{"image": "/9g="}', options).fields == {"image": b"\xff\xd8"}
    with pytest.raises(InvalidInput, match="field 'image' must be bytes, or text in base64, it is other text"):
        decode(JsonCodec, b'{"image": "a dog"}', options)


@pytest.mark.parametrize(("kind", "encode"), FORMS)
@pytest.mark.parametrize(
    ("document", "value"),
    [
        ({1: "a", -2: [{3: 4}]}, {"1": "a", "-2": [{"3": 4}]}),
        ({"a": float("nan"), "b": [1.0, float("nan")]}, {"a": None, "b": [1.0, None]}),
        ([1, 2], [1, 2]),
    ],
)
def test_whole_numbers_as_keys_are_text_and_nan_counts_as_missing(kind, encode, document, value):
    assert decode(kind, encode(document)).fields["all"] == value


@pytest.mark.parametrize(("kind", "encode"), FORMS)
@pytest.mark.parametrize(
    ("document", "says"),
    [
        (3, "must be a (CBOR|MessagePack) object or list, it is a number"),
        ("text", "object or list, it is text"),
        ({b"a": 1}, "a key of the payload must be text or a whole number, it is bytes"),
        ({"1": 1, 1: 2}, "has a key twice"),
        ({"a": float("inf")}, "is not finite"),
        ([1.0, float("-inf")], "is not finite"),
    ],
)
def test_what_no_document_holds_is_refused(kind, encode, document, says):
    with pytest.raises(InvalidInput, match=says):
        decode(kind, encode(document))


@pytest.mark.parametrize(
    ("kind", "payload", "says"),
    [
        (CborCodec, b"", r"no CBOR: .* \(empty, 0 bytes\)"),
        (CborCodec, b"<html>", "no CBOR"),
        (CborCodec, b"\x81" * 5000, "nest"),
        (CborCodec, b"\x81" * 150 + b"\x01", "nested deeper than 100 levels"),
        (CborCodec, b"\x9b" + b"\x7f" * 8, "no CBOR"),
        (CborCodec, b"\x5b" + b"\x7f" * 8, "no CBOR"),
        (CborCodec, b"\x80\x80", "1 bytes after its end"),
        (CborCodec, b"\xd8\x1c\x81\xd8\x1d\x00", "nested deeper|more values than bytes"),  # a list that holds itself
        (CborCodec, b"\xd8\x1c\x84" + b"\xd8\x1d\x00" * 4, "nested deeper|more values than bytes"),
        (CborCodec, b"\x81\xd8\x23\x61(", "no CBOR"),  # a regular expression
        (CborCodec, b"\x81\xd8\x23\x61a", "of the type Pattern, which is not read"),
        (CborCodec, b"\x81\xc4\x82\x1a\x7f\xff\xff\xff\x01", "no CBOR|out of range|not finite"),  # 1e2147483647
        (CborCodec, b"\x81\xc5\x82\x1a\x7f\xff\xff\xff\x01", "no CBOR|out of range|not finite"),
        (CborCodec, b"\x81\xc2\x59\x01\x00" + b"\xff" * 256, "not finite or above"),
        (CborCodec, b"\x81\xd8\x41\x43abc", "typed array .tag 65. must be bytes, 2 for each"),
        (MsgpackCodec, b"", r"no MessagePack: .* \(empty, 0 bytes\)"),
        (MsgpackCodec, b"\x91" * 5000, "nested"),
        (MsgpackCodec, b"\xdd\x7f\xff\xff\xff", "no MessagePack: input data was truncated"),
        (MsgpackCodec, b"\xc6\x7f\xff\xff\xff", "no MessagePack: input data was truncated"),
        (MsgpackCodec, b"\x90\x90", "no MessagePack"),
        (MsgpackCodec, b"\x91\xd4\x05\x01", "the extension type 5, which is not read"),
        (MsgpackCodec, b"\x81\x90\x01", "no MessagePack|a key of the payload"),
        (MsgpackCodec, b"\x91\xa1\xff", "no MessagePack"),
        (MsgpackCodec, b"\x91\xc7\x0c\xff" + b"\xff" * 12, "no MessagePack"),  # a timestamp of the year 2^63
    ],
)
def test_hostile_bytes_are_refused(kind, payload, says):
    with pytest.raises(InvalidInput, match=says):
        decode(kind, payload)


def test_what_only_cbor_has_becomes_what_a_pipeline_reads():
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    document = {
        "at": noon,
        "day": date(2026, 1, 1),
        "price": Decimal("1.5"),
        "none": cbor2.undefined,
        "link": cbor2.CBORTag(32, "http://a"),
        "signal": cbor2.CBORTag(85, np.array([1, 2], "<f4").tobytes()),
        "big": 2**70,
    }
    sample = decode(CborCodec, cbor2.dumps(document), {"time": "$.at"})
    assert sample.time == noon.timestamp()
    assert sample.fields["all"] == {
        "at": noon.timestamp(),
        "day": sample.fields["all"]["day"],
        "price": 1.5,
        "none": None,
        "link": "http://a",
        "signal": [1.0, 2.0],
        "big": 2.0**70,
    }


def test_a_timestamp_of_messagepack_is_a_time():
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert decode(MsgpackCodec, msgpack.packb({"at": noon}, datetime=True), {"time": "$.at"}).time == noon.timestamp()


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_infinity=False), st.binary(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=10,
)


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if value != value else value


@pytest.mark.parametrize(("kind", "encode"), FORMS)
@given(document=st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_every_document_comes_back(kind, encode, document):
    assert decode(kind, encode(document)).fields["all"] == without_nan(document)


@pytest.mark.parametrize(("kind", "encode"), FORMS)
@given(noise=st.binary(max_size=40), start=st.sampled_from([b"", b"\x81", b"\x91", b"\xa1\x61a", b"\x81\xa1a", b"\xd8", b"\xc7"]))
def test_any_bytes_give_a_document_or_invalid_input(kind, encode, noise, start):
    with contextlib.suppress(InvalidInput):
        assert isinstance(decode(kind, start + noise), Sample)


def tagged(tag: int, content: bytes) -> bytes:
    return bytes([0x81, 0xD9, tag >> 8, tag & 255]) + content


@given(
    tag=st.sampled_from([*range(6), 21, 25, 28, 29, 30, 35, 36, 37, 52, 54, 64, 79, 100, 256, 258, 260, 261, 1004, 43000]),
    value=VALUES,
)
def test_no_tag_of_cbor_gives_another_error(tag, value):
    with contextlib.suppress(InvalidInput):
        assert isinstance(parse_cbor(tagged(tag, cbor2.dumps(value))), list)


def test_a_package_that_is_not_there_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cbor2", None)
    monkeypatch.delitem(sys.modules, "inferloop.data.codecs.cbor")
    with pytest.raises(MissingDependency) as caught:
        plugins.load("codecs", "cbor")
    assert caught.value.hint == "pip install 'inferloop[codecs]'"


def test_bytes_are_taken_as_they_are():
    config = BytesCodec.Config.model_validate(
        {"field": "scan", "id": {"header": "id"}, "key": {"topic": 0}, "time": {"header": "at"}}
    )
    sample = BytesCodec(config).decode(Message(b"\x00\xff", "s", 0.0, topic="a/b", headers={"id": "m1", "at": "5"}))
    assert (sample.fields, sample.id, sample.key, sample.time) == ({"scan": b"\x00\xff"}, "m1", "a", 5.0)
    assert BytesCodec(config).fields() == {"scan": "bytes"}
