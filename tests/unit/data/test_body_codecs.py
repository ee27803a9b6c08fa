import io
import json
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inferloop.core.errors import InvalidConfig, InvalidInput, NotFound
from inferloop.core.sample import Message
from inferloop.core.transform import FieldKind
from inferloop.data.codecs.content import describe, is_image, is_wav
from inferloop.data.codecs.image import ImageCodec
from inferloop.data.codecs.raw import sample_from_body, sample_from_file
from inferloop.data.codecs.text import TextCodec
from inferloop.data.codecs.wav import WavCodec
from inferloop.data.config import validate

TEXT = {"text": FieldKind.TEXT}
IMAGE = {"photo": FieldKind.IMAGE}
AUDIO = {"call": FieldKind.AUDIO}
SIGNAL = {"wave": FieldKind.SIGNAL}
ROW = {"a": FieldKind.NUMBER, "b": FieldKind.NUMBER}


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (2, 2)).save(stream, "PNG")
    return stream.getvalue()


def wav() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(bytes(8))
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def message(payload: bytes) -> Message:
    return Message(payload, source="s", received=0.0, topic="plant/cam3", headers={"id": "m1", "at": "5"})


@pytest.mark.parametrize(
    ("kind", "payload", "value"), [(TextCodec, b"hi", "hi"), (ImageCodec, png(), png()), (WavCodec, wav(), wav())]
)
def test_a_payload_is_one_field_and_the_rest_comes_from_beside_it(kind, payload, value):
    options = {"field": "x", "id": {"header": "id"}, "time": {"header": "at"}, "key": {"topic": -1}}
    sample = kind(kind.Config.model_validate(options)).decode(message(payload))
    assert sample.fields == {"x": value}
    assert (sample.id, sample.key, sample.time, sample.raw) == ("m1", "cam3", 5.0, payload)


@pytest.mark.parametrize(
    ("kind", "payload", "says"),
    [
        (ImageCodec, b'{"error": 1}', "the payload is no image: JSON text, 12 bytes"),
        (WavCodec, b"", "the payload is no WAV recording: empty, 0 bytes"),
        (
            TextCodec,
            "Ärger mit der Rechnung".encode("latin-1"),
            "is not utf-8 at byte 0 .text in another encoding than UTF-8, 22 bytes",
        ),
    ],
)
def test_a_payload_of_another_kind_says_what_it_is(kind, payload, says):
    with pytest.raises(InvalidInput, match=says):
        kind(kind.Config()).decode(message(payload))


def test_a_place_beside_the_payload_is_either_a_header_or_a_topic():
    for origin in ({}, {"header": "a", "topic": 1}):
        with pytest.raises(InvalidConfig, match="id: must have either header or topic"):
            validate(TextCodec.Config, {"id": origin}, "")


@pytest.mark.parametrize(
    ("body", "content_type", "fields", "value"),
    [
        (b"hello", "text/plain", TEXT, {"text": "hello"}),
        ("ä".encode("latin-1"), "text/plain; charset=latin-1", TEXT, {"text": "ä"}),
        (b'{"text": "hello"}', "application/json", TEXT, {"text": "hello"}),
        (b'"hello"', "application/json", TEXT, {"text": "hello"}),
        (b"hello", "", TEXT, {"text": "hello"}),
        (b"hello", "application/x-www-form-urlencoded", TEXT, {"text": "hello"}),
        (png(), "image/png", IMAGE, {"photo": png()}),
        (png(), "application/octet-stream", IMAGE, {"photo": png()}),
        (wav(), "", AUDIO, {"call": wav()}),
        (b"[1, 2, 3]", "application/json", SIGNAL, {"wave": [1, 2, 3]}),
        (b'{"a": 1, "b": 2}', "", ROW, {"a": 1, "b": 2}),
    ],
)
def test_a_body_becomes_the_fields_of_the_model(body, content_type, fields, value):
    sample = sample_from_body(body, content_type, fields)
    assert sample.fields == value
    assert sample.raw == body


@pytest.mark.parametrize(
    ("body", "content_type", "fields", "says"),
    [
        (png(), "image/png", TEXT, "the input is an image, the model does not take that"),
        (png(), "image/png", {**IMAGE, **TEXT}, "the model takes 2 fields, the input is an image alone"),
        (b"{", "application/json", TEXT, "the body is no JSON"),
        (b'{"txt": 1}', "application/json", TEXT, "no field named 'txt'"),
        (b'{"a": 1}', "application/json", ROW, "field 'b' is missing"),
        (b"[1]", "application/json", ROW, "the body must be a JSON object, it is a list"),
        (b"x", "text/plain; charset=klingon", TEXT, "no text encoding named 'klingon'"),
        (b"x", "text/plain; charset=hex", TEXT, "no text encoding named 'hex'"),
        (b"x", "text/plain; charset=undefined", TEXT, "the payload is not undefined"),
        (b"x", "text/plain; charset=utf-16", TEXT, "the payload is not utf-16"),
        (b"\xff", "text/plain", TEXT, "not utf-8 at byte 0"),
        (b"x", "video/mp4", TEXT, "content type 'video/mp4' is not read"),
        (npy(np.array([{}], dtype=object)), "application/x-npy", SIGNAL, "no array in the NumPy format"),
    ],
)
def test_a_body_that_does_not_fit_says_both_sides(body, content_type, fields, says):
    with pytest.raises(InvalidInput, match=says):
        sample_from_body(body, content_type, fields)


@given(st.binary(max_size=80), st.sampled_from(["", "application/json", "text/plain", "image/png", "application/x-npy"]))
def test_no_body_breaks_the_reader(body, content_type):
    for fields in (TEXT, IMAGE, SIGNAL, ROW):
        try:
            sample_from_body(body, content_type, fields)
        except InvalidInput as error:
            assert error.message  # noqa: PT017  # the loop needs all of them


def test_files_are_read_by_their_content(tmp_path: Path):
    (tmp_path / "photo.bin").write_bytes(png())
    (tmp_path / "signal.npy").write_bytes(npy(np.arange(3.0)))
    (tmp_path / "row.json").write_text(json.dumps({"a": 1, "b": 2}))
    assert sample_from_file(tmp_path / "photo.bin", IMAGE).fields == {"photo": png()}
    assert sample_from_file(tmp_path / "signal.npy", SIGNAL).fields["wave"].tolist() == [0, 1, 2]
    assert sample_from_file(tmp_path / "row.json", ROW).fields == {"a": 1, "b": 2}


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path):
    with pytest.raises(NotFound, match=r"no file .*gone"):
        sample_from_file(tmp_path / "gone.png", IMAGE)
    with pytest.raises(InvalidInput, match="is no file"):
        sample_from_file(tmp_path, IMAGE)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"x", "text, 1 byte"),
        (b"\x00\x01\x02\x03", "binary data that starts with 00 01 02 03, 4 bytes"),
        (b"PK\x03\x04", "a ZIP archive, 4 bytes"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "a WebP image, 16 bytes"),
        (b"<?xml version", "XML text, 13 bytes"),
        (b"x" + "ä".encode() * 300, "text, 601 bytes"),
    ],
)
def test_bytes_are_described_by_their_beginning(body, says):
    assert describe(body) == says


@given(st.binary(max_size=600))
def test_any_bytes_can_be_described(body):
    assert f"{len(body):,} byte" in describe(body)
    assert isinstance(is_image(body), bool)
    assert isinstance(is_wav(body), bool)
