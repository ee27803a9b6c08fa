import io
import struct
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidBundle, InvalidInput, TooLarge
from inferloop.data.codecs.pcm import read_wav
from inferloop.data.transforms.signal import Clip, DecodeWav, Fill, Layout, Scale, Vector, Window, as_signal, resampled

TONE = np.sin(np.linspace(0, 40, 800)).astype(np.float32)


def recording(samples: np.ndarray, *, width: int = 2, rate: int = 8000, channels: int = 1) -> bytes:
    """PCM of `width` bytes; `samples` in -1..1, [time] or interleaved."""
    whole = np.round(samples * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        frames = (whole + 128).astype(np.uint8).tobytes()
    else:
        frames = b"".join(int(value).to_bytes(width, "little", signed=True) for value in whole)
    stream = io.BytesIO()
    with wave.open(stream, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(frames)
    return stream.getvalue()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_pcm_of_every_width_decodes_within_one_step(width):
    decoded = read_wav(recording(TONE, width=width))
    assert decoded.rate == 8000
    assert decoded.samples.shape == (800, 1)
    np.testing.assert_allclose(decoded.samples[:, 0], TONE, atol=2.1 / 2 ** (8 * min(width, 3) - 1))


def test_two_channels_are_mixed_to_one():
    both = np.stack([np.full(50, 0.5), np.full(50, -0.25)], axis=1).ravel()
    signal = DecodeWav(rate=8000)(recording(both, channels=2))
    np.testing.assert_allclose(signal, np.full((50, 1), 0.125), atol=1e-4)


def test_the_extensible_header_of_pcm_is_read():
    plain = recording(TONE)
    guid = b"\x01\x00\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 16, 0) + guid
    body = b"RIFF" + struct.pack("<I", 4 + 8 + 40 + len(plain) - 36) + b"WAVEfmt " + struct.pack("<I", 40) + form + plain[36:]
    np.testing.assert_array_equal(read_wav(body).samples, read_wav(plain).samples)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"OggS....", "is no WAV recording: an Ogg recording, 8 bytes"),
        (b"", "is no WAV recording: empty, 0 bytes"),
        (recording(TONE)[:-100], "is truncated: 750 of 800 samples"),
        (b"RIFF\x00\x00\x00\x00WAVE", "is damaged, truncated or not PCM"),
        (recording(TONE).replace(b"fmt \x10\x00\x00\x00\x01\x00", b"fmt \x10\x00\x00\x00\x03\x00"), "not PCM: unknown format: 3"),
    ],
    ids=["ogg", "nothing", "cut", "header-only", "float"],
)
def test_a_recording_that_cannot_be_read_says_why(body, says):
    with pytest.raises(InvalidInput, match=says):
        read_wav(body)


def test_a_recording_above_the_limit_is_too_large():
    with pytest.raises(TooLarge, match="lasts 0 s, at most 0 s"):
        read_wav(recording(TONE), max_seconds=0.05)


@given(st.binary(max_size=120), st.integers(0, 60))
def test_damaged_bytes_give_a_recording_or_invalid_input(noise, place):
    body = recording(TONE[:20])
    for candidate in (noise, body[:place] + noise + body[place + len(noise) :], b"RIFF\x00\x00\x00\x00WAVE" + noise):
        try:
            assert read_wav(candidate).samples.dtype == np.float32
        except InvalidInput:
            continue


def test_another_rate_is_resampled_without_changing_the_tone():
    fine = np.sin(np.arange(4800) * 2 * np.pi * 100 / 48_000)
    coarse = DecodeWav(rate=8000)(recording(fine, rate=48_000))[:, 0]
    np.testing.assert_allclose(coarse, np.sin(np.arange(800) * 2 * np.pi * 100 / 8000), atol=0.01)


def test_a_tone_above_the_new_limit_does_not_alias():
    high = np.sin(np.arange(4800) * 2 * np.pi * 10_000 / 48_000)
    assert np.abs(resampled(high, 48_000, 8000)).max() < 0.01


def test_another_rate_can_be_refused():
    with pytest.raises(InvalidInput, match="has 44100 samples a second, the model takes 8000"):
        DecodeWav(rate=8000, resample=False)(recording(TONE, rate=44_100))


def test_a_window_takes_exactly_its_size_unless_it_says_otherwise():
    signal = as_signal(np.arange(5.0))
    for size in (4, 6):
        with pytest.raises(InvalidInput, match=f"the signal has 5 samples, the model takes {size}"):
            Window(size=size)(signal)
    assert Window(size=3, longer="last")(signal)[:, 0].tolist() == [2, 3, 4]
    assert Window(size=3, longer="first")(signal)[:, 0].tolist() == [0, 1, 2]
    assert Window(size=3, longer="middle")(signal)[:, 0].tolist() == [1, 2, 3]
    assert Window(size=7, shorter="zeros")(signal)[:, 0].tolist() == [0, 1, 2, 3, 4, 0, 0]
    assert Window(size=7, shorter="edge")(signal)[:, 0].tolist() == [0, 1, 2, 3, 4, 4, 4]


def test_a_window_checks_its_channels():
    with pytest.raises(InvalidInput, match="the signal has 2 channels, the model takes 3"):
        Window(size=4, channels=3)(np.zeros((4, 2)))


@given(st.integers(0, 30), st.integers(1, 20), st.sampled_from(["first", "last", "middle"]), st.sampled_from(["zeros", "edge"]))
def test_a_lenient_window_always_has_its_size_except_for_nothing(length, size, longer, shorter):
    window = Window(size=size, longer=longer, shorter=shorter)
    if length == 0 and shorter == "edge":
        with pytest.raises(InvalidInput, match="has 0 samples"):
            window(np.zeros((0, 1)))
    else:
        assert window(np.zeros((length, 1))).shape == (size, 1)


def test_scale_keeps_a_small_spread_on_a_large_offset():
    run = Scale(mean=[1e9], std=[0.001]).bind(lambda name: None)
    np.testing.assert_allclose(run(np.array([[1e9 + 0.001]])), [[1.0]], rtol=1e-3)


def test_contradicting_options_are_an_invalid_bundle():
    with pytest.raises(InvalidBundle, match="mean has 2 values and std 1"):
        Scale(mean=[0.0, 1.0], std=[1.0]).bind(lambda name: None)
    with pytest.raises(InvalidBundle, match=r"low is 1.0, it must be below high, which is 0.0"):
        Clip(low=1.0, high=0.0).bind(lambda name: None)


def test_fill_clip_and_layout_do_what_they_say():
    assert Fill(value=7.0)(np.array([1.0, np.nan, np.inf])).tolist() == [1.0, 7.0, 7.0]
    assert Clip(low=-1.0, high=1.0)(np.array([-5.0, 0.5, 5.0])).tolist() == [-1.0, 0.5, 1.0]
    signal = np.arange(6.0).reshape(3, 2)
    assert Layout(order="CT")(signal).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert Layout(order="TC")(signal) is signal
    assert Layout(order="T")(signal[:, :1]).tolist() == [0, 2, 4]
    with pytest.raises(InvalidInput, match="layout T takes one channel, there are 2"):
        Layout(order="T")(signal)


def test_a_vector_checks_its_length():
    assert Vector(size=3)(np.arange(3.0)).tolist() == [0, 1, 2]
    with pytest.raises(InvalidInput, match="the field has 3 numbers, the model takes 2"):
        Vector(fields=["a", "b"])(np.arange(3.0))
