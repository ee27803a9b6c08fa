"""What every codec promises: a Sample or InvalidInput for any bytes, the fields it said, no state between messages."""

import contextlib
import io
import json
import struct
import wave

import cbor2
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inferloop.core import plugins
from inferloop.core.errors import InvalidInput, MissingDependency
from inferloop.core.protocols import Codec
from inferloop.core.sample import Message, Sample


def image() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (3, 3)).save(stream, "PNG")
    return stream.getvalue()


def recording() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(20))
    return stream.getvalue()


FIELDS = {
    "json": {"a": "$.a", "b": {"path": "$.b", "type": "number"}, "c": {"path": "$.c", "type": "array"}, "d": "$..d"},
    "csv": {"a": "a", "b": {"column": "b", "type": "number"}},
}
DOCUMENT = {"id": "m1", "t": 1.5, "a": "x", "b": 2, "c": [1, None], "d": True}
OPTIONS = {
    "cbor": {"id": "$.id", "time": "$.t", "fields": FIELDS["json"]},
    "msgpack": {"id": "$.id", "time": "$.t", "fields": FIELDS["json"]},
    "json": {"id": "$.id", "time": "$.t", "fields": FIELDS["json"]},
    "csv": {"fields": FIELDS["csv"], "columns": ["a", "b"]},
    "senml": {"id": ["name", "time"], "key": "name", "time": "time", "fields": {"a": "x", "b": "temp"}},
    "cloudevents": {"data": {"json": {"fields": FIELDS["json"]}}, "fields": {"kind": "type"}},
    "sparkplug": {"fields": {"a": "x", "b": {"metric": "temp", "type": "number"}}},
}
GOOD = {
    "json": json.dumps(DOCUMENT).encode(),
    "cbor": cbor2.dumps(DOCUMENT),
    "msgpack": msgpack.packb(DOCUMENT),
    "senml": b'[{"bn":"dev1:","bt":1.5e9,"n":"x","v":1},{"n":"x","t":1,"v":2},{"n":"temp","v":20.5}]',
    "cloudevents": json.dumps(
        {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2026-01-01T00:00:00Z", "data": DOCUMENT}
    ).encode(),
    "sparkplug": b"\x08\xe8\x07\x12\x11\x0a\x04temp\x20\x0a\x69" + struct.pack("<d", 20.5) + b"\x18\x05",
    "bytes": b"\x00\xff",
    "csv": b'"x\ny",2\n',
    "text": "Ärger".encode(),
    "image": image(),
    "wav": recording(),
}
TYPES = {"string": str, "number": float, "bool": bool, "bytes": bytes, "array": np.ndarray, "any": object}


TOPIC = "spBv1.0/shop/DDATA/chat"  # any codec takes it; sparkplug takes no other


def message(payload: bytes) -> Message:
    return Message(payload, source="chat", received=0.0, topic=TOPIC)


@pytest.fixture(scope="module", params=plugins.names("codecs"))
def name(request: pytest.FixtureRequest) -> str:
    try:
        plugins.load("codecs", request.param)
    except MissingDependency as error:
        pytest.skip(f"{error}: {error.hint}")
    return request.param


@pytest.fixture(scope="module")
def codec(name: str) -> Codec:
    kind = plugins.load("codecs", name)
    return kind(kind.Config.model_validate(OPTIONS.get(name, {})))


def test_a_good_message_becomes_a_sample_that_keeps_its_origin(name: str, codec: Codec):
    if name not in GOOD:
        pytest.skip(f"no example message for the codec {name}: add one to GOOD")
    sample = codec.decode(message(GOOD[name]))
    assert (sample.raw, sample.source, sample.topic) == (GOOD[name], "chat", TOPIC)
    assert sample.fields


def test_every_field_has_the_type_that_the_codec_declares(name: str, codec: Codec):
    sample = codec.decode(message(GOOD[name]))
    declared = codec.fields()
    assert set(sample.fields) <= set(declared)
    assert all(isinstance(value, TYPES[declared[field]]) for field, value in sample.fields.items())


@settings(max_examples=60)
@given(payload=st.one_of(st.binary(max_size=100), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))))
def test_any_bytes_give_a_sample_or_invalid_input(codec: Codec, payload: bytes):
    with contextlib.suppress(InvalidInput):
        assert isinstance(codec.decode(message(payload)), Sample)


@settings(max_examples=60)
@given(noise=st.binary(max_size=20), place=st.integers(0, 120))
def test_a_damaged_message_gives_a_sample_or_invalid_input(name: str, codec: Codec, noise: bytes, place: int):
    good = GOOD[name]
    with contextlib.suppress(InvalidInput):
        codec.decode(message(good[:place] + noise + good[place + len(noise) :]))


def test_a_bad_message_leaves_no_trace_in_the_next(name: str, codec: Codec):
    before = codec.decode(message(GOOD[name]))
    with contextlib.suppress(InvalidInput):
        codec.decode(message(b"\xff\x00"))
    after = codec.decode(message(GOOD[name]))
    assert repr(before) == repr(after)


def test_options_that_are_not_known_are_refused(name: str):
    with pytest.raises(ValueError, match="no_such_option"):
        plugins.load("codecs", name).Config.model_validate({**OPTIONS.get(name, {}), "no_such_option": 1})
