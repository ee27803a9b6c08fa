"""Pictures that say a number: sixteen blocks, each black or white, which survive JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from inferloop.core.datatypes import Array

_SIDE = 16


def picture(number: int) -> Array:
    """64 x 64 x 3, uint8."""
    bits = np.array([(number >> bit) & 1 for bit in range(16)], np.uint8).reshape(4, 4) * 255
    gray = np.kron(bits, np.ones((_SIDE, _SIDE), np.uint8))
    return np.repeat(gray[:, :, None], 3, axis=2)


def number(payload: bytes) -> int:
    """What an encoded picture says."""
    gray = np.asarray(Image.open(io.BytesIO(payload)).convert("L"))
    assert gray.shape == (4 * _SIDE, 4 * _SIDE)
    middles = gray[_SIDE // 2 :: _SIDE, _SIDE // 2 :: _SIDE].reshape(-1) > 127
    return sum(int(bit) << place for place, bit in enumerate(middles))


def video(path: Path, numbers: Sequence[int], *, per_s: float = 25.0) -> Path:
    """An AVI of Motion JPEG."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), per_s, (4 * _SIDE, 4 * _SIDE))
    assert writer.isOpened()
    for each in numbers:
        writer.write(picture(each))
    writer.release()
    return path
