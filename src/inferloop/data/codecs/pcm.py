"""WAV recordings by the standard library: PCM of 8, 16, 24 and 32 bits."""

from __future__ import annotations

import io
import wave
from typing import NamedTuple

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput, TooLarge
from inferloop.data.codecs.content import describe, is_wav

MAX_SECONDS = 3600


class Recording(NamedTuple):
    """A decoded recording.

    Attributes:
        samples: float32 [time, channels] in -1..1.
        rate: samples a second.
    """

    samples: Array
    rate: int


def read_wav(body: bytes, *, max_seconds: float = MAX_SECONDS) -> Recording:
    """Decode a WAV recording.

    Raises:
        InvalidInput: no WAV, a damaged or truncated one, or one that is not PCM; says what the bytes are and how many.
        TooLarge: longer than `max_seconds`.
    """
    if not is_wav(body):
        raise InvalidInput(f"the input is no WAV recording: {describe(body)}")
    try:
        with wave.open(io.BytesIO(_plain_header(body))) as reader:
            channels, width, rate, declared, *_ = reader.getparams()
            frames = reader.readframes(min(declared, len(body)))
    except (wave.Error, EOFError, ValueError, ArithmeticError, RuntimeError) as error:
        reason = str(error) or "it ends early"
        raise InvalidInput(f"the recording is damaged, truncated or not PCM: {reason} ({describe(body)})") from error
    if not 1 <= channels <= 64 or not 1 <= rate <= 1_000_000 or width not in (1, 2, 3, 4):
        raise InvalidInput(f"the recording has {channels} channels of {8 * width} bits at {rate} Hz, which is not read")
    got = len(frames) // (width * channels)
    if got < declared:
        raise InvalidInput(f"the recording is truncated: {got} of {declared} samples ({describe(body)})")
    if declared > max_seconds * rate:
        raise TooLarge(f"the recording lasts {declared / rate:.0f} s, at most {max_seconds:.0f} s are read")
    return Recording(_floats(frames, width).reshape(-1, channels), rate)


def _plain_header(body: bytes) -> bytes:
    """The recording with the extensible form of the PCM header, which Python 3.11 does not know, written as the plain one."""
    start = body.find(b"fmt ", 12, 512)
    if start < 0 or body[start + 8 : start + 10] != b"\xfe\xff" or body[start + 32 : start + 34] != b"\x01\x00":
        return body
    return body[: start + 8] + b"\x01\x00" + body[start + 10 :]


def _floats(frames: bytes, width: int) -> Array:
    if width == 1:
        return (np.frombuffer(frames, np.uint8).astype(np.float32) - 128) / np.float32(128)
    if width == 2:
        return np.frombuffer(frames, "<i2").astype(np.float32) / np.float32(2**15)
    if width == 3:
        # three bytes into the upper part of four keep the sign
        wide = np.zeros((len(frames) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(frames, np.uint8).reshape(-1, 3)
        return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    return (np.frombuffer(frames, "<i4") / 2.0**31).astype(np.float32)
