import contextlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.sparkplug import SparkplugCodec
from inferloop.data.codecs.sparkplug_payload import DataType

TOPIC = "spBv1.0/plant/DDATA/node1/pump2"
NAME, ALIAS, DATATYPE, NULL, INT, LONG, FLOAT, DOUBLE, BOOL, STRING, BYTES, DATASET = 1, 2, 4, 7, 10, 11, 12, 13, 14, 15, 16, 17
AT_MS = 1_767_225_600_500


def varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, value: Any) -> bytes:
    """One field of the wire format: bytes and text with a length, floats in 4 or 8 bytes, whole numbers as varint."""
    if isinstance(value, float):
        form, size = ("<f", 5) if number == FLOAT else ("<d", 1)
        return varint(number << 3 | size) + struct.pack(form, value)
    if isinstance(value, str | bytes):
        content = value.encode() if isinstance(value, str) else value
        return varint(number << 3 | 2) + varint(len(content)) + content
    return varint(number << 3) + varint(int(value))


def metric(*fields: tuple[int, Any]) -> bytes:
    return field(2, b"".join(field(number, value) for number, value in fields))


def payload(*metrics: bytes, seq: int | None = 5, timestamp: int | None = AT_MS) -> bytes:
    head = b"" if timestamp is None else field(1, timestamp)
    return head + b"".join(metrics) + (b"" if seq is None else field(3, seq))


def decode(content: bytes, topic: str = TOPIC, **options: Any) -> Sample:
    codec = SparkplugCodec(SparkplugCodec.Config.model_validate({"fields": {"x": "x"}, **options}))
    return codec.decode(Message(content, "s", 0.0, topic=topic, headers={"h": "7"}))


def test_metrics_become_fields_and_the_topic_says_who_sent_them():
    metrics = [
        metric((NAME, "Inputs/Temp"), (DATATYPE, DataType.Double), (DOUBLE, 20.5)),
        metric((NAME, "Running"), (DATATYPE, DataType.Boolean), (BOOL, True)),
        metric((NAME, "Mode"), (DATATYPE, DataType.String), (STRING, "ä")),
    ]
    fields = {"temp": {"metric": "Inputs/Temp", "type": "number"}, "on": "Running", "mode": "Mode", "node": {"topic": 3}}
    sample = decode(payload(*metrics), fields=fields)
    assert sample.fields == {"temp": 20.5, "on": True, "mode": "ä", "node": "node1"}
    assert (sample.id, sample.key, sample.time) == (f"plant/node1/pump2|5|{AT_MS}", "plant/node1/pump2", AT_MS / 1000)


def test_a_message_of_a_node_has_no_device_and_one_without_timestamp_no_identity():
    sample = decode(payload(), "spBv1.0/plant/NDATA/node1")
    assert (sample.id, sample.key) == (f"plant/node1|5|{AT_MS}", "plant/node1")
    assert decode(payload(seq=None), "spBv1.0/plant/NDEATH/node1").id == f"plant/node1|NDEATH|{AT_MS}"
    sample = decode(payload(timestamp=None))
    assert (sample.id, sample.time) == ("", None)
    assert decode(payload(), id={"header": "h"}, key={"topic": 1}).id == "7"


@pytest.mark.parametrize(
    ("datatype", "number", "wire", "value"),
    [
        (DataType.Int8, INT, 0xFFFFFFFB, -5.0),
        (DataType.Int8, INT, 0xFB, -5.0),
        (DataType.Int16, INT, 0xFFFB, -5.0),
        (DataType.Int32, INT, 0xFFFFFFFB, -5.0),
        (DataType.Int64, LONG, 2**64 - 5, -5.0),
        (DataType.UInt32, INT, 0xFFFFFFFB, 4294967291.0),
        (DataType.UInt64, LONG, 2**63, 2.0**63),
        (DataType.DateTime, LONG, AT_MS, float(AT_MS)),
        (DataType.Float, FLOAT, 1.5, 1.5),
        (DataType.Text, STRING, "a", "a"),
        (DataType.Bytes, BYTES, b"\xff", b"\xff"),
        (DataType.File, BYTES, b"\xff", b"\xff"),
        (None, INT, 0xFFFFFFFB, -5.0),
        (None, LONG, 7, 7.0),
    ],
)
def test_values_are_read_as_their_datatype(datatype, number, wire, value):
    said = [] if datatype is None else [(DATATYPE, datatype)]
    assert decode(payload(metric((NAME, "x"), *said, (number, wire)))).fields["x"] == value


@pytest.mark.parametrize(
    ("datatype", "wire", "value"),
    [
        (DataType.Int8Array, b"\xfb\x01", [-5, 1]),
        (DataType.UInt16Array, b"\x01\x00\x02\x00", [1, 2]),
        (DataType.FloatArray, struct.pack("<2f", 1.5, -2), [1.5, -2]),
        (DataType.DoubleArray, b"", []),
        (DataType.BooleanArray, b"\x0a\x00\x00\x00\xa0\x40", [1, 0, 1, 0, 0, 0, 0, 0, 0, 1]),
    ],
)
def test_arrays_are_signals_also_where_only_the_options_say_their_datatype(datatype, wire, value):
    told = decode(payload(metric((NAME, "x"), (DATATYPE, datatype), (BYTES, wire)))).fields["x"]
    options = {"x": {"metric": "x", "datatype": datatype.name, "type": "array"}}
    configured = decode(payload(metric((NAME, "x"), (BYTES, wire))), fields=options).fields["x"]
    np.testing.assert_array_equal(told, value)
    np.testing.assert_array_equal(configured, value)
    assert told.dtype == np.float64


def test_an_alias_is_known_from_the_options_and_ignored_otherwise():
    content = payload(metric((ALIAS, 3), (DOUBLE, 1.5)), metric((ALIAS, 0), (DOUBLE, 2.5)), metric((ALIAS, 9), (DOUBLE, 3.5)))
    assert decode(content, alias={"x": 3, "y": 0}, fields={"a": "x", "b": "y", "c": "z"}).fields == {"a": 1.5, "b": 2.5}
    says = r"field 'c' is missing at metric 'z' \(2 metrics have an alias that the option alias does not know\)"
    with pytest.raises(InvalidInput, match=says):
        decode(content, alias={"x": 3}, fields={"c": {"metric": "z", "required": True}})
    with pytest.raises(ValueError, match="must not give one number to two metrics"):
        decode(content, alias={"x": 3, "y": 3})


def test_null_and_nan_count_as_missing_and_of_two_metrics_the_last_counts():
    assert decode(payload(metric((NAME, "x"), (NULL, True), (DATATYPE, DataType.Int32)))).fields == {}
    assert decode(payload(metric((NAME, "x"), (DOUBLE, float("nan"))))).fields == {}
    assert decode(payload(metric((NAME, "x"), (DATATYPE, DataType.Int32)))).fields == {}
    assert decode(payload(metric((NAME, "x"), (INT, 1)), metric((NAME, "x"), (INT, 2)))).fields == {"x": 2.0}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x0a", "no protobuf message of Sparkplug B"),
        (b'{"a": 1}', "no protobuf message of Sparkplug B .JSON text"),
        (payload(metric((NAME, b"\xff"))), "the name of a metric is not utf-8 at byte 0"),
        (payload(metric((NAME, "x"), (STRING, b"\xff"))), "field 'x' is not utf-8 at byte 0"),
        (payload(metric((NAME, "x"), (DATATYPE, DataType.DataSet), (DATASET, b""))), "the datatype DataSet, which is not read"),
        (payload(metric((NAME, "x"), (DATATYPE, DataType.StringArray), (BYTES, b"a\0"))), "StringArray, which is not read"),
        (payload(metric((NAME, "x"), (DATATYPE, 99), (INT, 1))), "datatype 99, which Sparkplug B does not know"),
        (payload(metric((NAME, "x"), (DATATYPE, DataType.Int16Array), (BYTES, b"a"))), "1 bytes, Int16Array takes 2"),
        (payload(metric((NAME, "x"), (DATATYPE, DataType.BooleanArray), (BYTES, b"\xff\xff\xff\xff"))), "no BooleanArray"),
        (payload(metric((NAME, "x"), (DATATYPE, DataType.BooleanArray), (BYTES, b"\0"))), "no BooleanArray"),
        (payload(metric((NAME, "x"), (FLOAT, float("inf")))), "infinite"),
        (payload(timestamp=2**60), "timestamp of the payload is out of range"),
        (payload() + field(4, "SPBV1.0_COMPRESSED") + field(5, b"x"), "is compressed"),
    ],
)
def test_what_is_not_read_says_so(content, says):
    with pytest.raises(InvalidInput, match=says):
        decode(content)


@pytest.mark.parametrize(
    "topic", ["", "a/b", "spBv1.0/STATE/host", "spBv1.0/g/DDATA", "spBv1.0/g/DDATA//d", "spAv1.0/g/DDATA/n", "spBv1.0/g/X/n"]
)
def test_another_topic_is_refused(topic):
    with pytest.raises(InvalidInput, match="the topic is none of Sparkplug B"):
        decode(payload(), topic)


FIELD = st.tuples(st.integers(1, 20), st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=9), st.floats()))


@given(fields=st.lists(FIELD, max_size=5), tail=st.binary(max_size=4))
def test_any_metric_gives_a_sample_or_invalid_input(fields, tail):
    with contextlib.suppress(InvalidInput):
        assert isinstance(decode(payload(metric((NAME, "x"), *fields)) + tail), Sample)


@given(content=st.binary(max_size=60))
def test_any_bytes_give_a_sample_or_invalid_input(content):
    with contextlib.suppress(InvalidInput):
        assert isinstance(decode(content), Sample)
