"""Frames of a camera or a video file through OpenCV, whose calls may block for seconds: they have a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import cv2
import msgspec

from inferloop.core.errors import EngineError

T = TypeVar("T")
Encoding = Literal["bmp", "jpeg"]

_TIMEOUT_MS = 5000
_GOODBYE_S = 2.0
_QUALITY = 95


class Frame(msgspec.Struct, frozen=True):
    """One picture.

    Attributes:
        number: counted from 0 at the beginning of the recording, or of the connection.
        at_s: its place in the recording, seconds.
        payload: the encoded image.
    """

    number: int
    at_s: float
    payload: bytes


class Capture:
    """One open capture. Used by one task at a time."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"frames-{name}")
        self._video: cv2.VideoCapture | None = None
        self._next = 0

    async def open(self, address: str | int) -> bool:
        """Open a file, an address or the device with that number; false if OpenCV cannot."""
        return await self._on_thread(lambda: self._open(address))

    async def skip(self, count: int) -> None:
        """Go on behind so many frames. They are counted one by one: a seek is inexact in many formats."""
        await self._on_thread(lambda: [self._grab() for _ in range(count)])

    async def take(self, most: int, *, every: int, encoding: Encoding) -> list[Frame]:
        """The next frames whose number is a multiple of `every`; fewer than `most` if there are no more.

        Raises:
            EngineError: OpenCV cannot encode a frame.
        """
        return await self._on_thread(lambda: self._take(most, every, encoding))

    async def close(self) -> None:
        """Let go of it; a call that hangs is left to its time limit."""
        releasing = asyncio.get_running_loop().run_in_executor(self._thread, self._release)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await asyncio.shield(releasing)
        self._thread.shutdown(wait=False)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self, address: str | int) -> bool:
        self._release()
        if isinstance(address, int):
            video = cv2.VideoCapture(address)
        else:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
            video = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
        self._video, self._next = video, 0
        return video.isOpened()

    def _grab(self) -> bool:
        self._next += 1
        return self._video is not None and self._video.grab()

    def _take(self, most: int, every: int, encoding: Encoding) -> list[Frame]:
        frames: list[Frame] = []
        while len(frames) < most:
            number = self._next
            if not self._grab() or self._video is None:
                break
            if number % every:
                continue
            whole, picture = self._video.retrieve()
            if not whole:
                break
            frames.append(Frame(number, self._video.get(cv2.CAP_PROP_POS_MSEC) / 1000, encoded(picture, encoding)))
        return frames

    def _release(self) -> None:
        video, self._video = self._video, None
        if video is not None:
            video.release()


def encoded(picture: cv2.typing.MatLike, encoding: Encoding) -> bytes:
    """The picture as a file: BMP keeps every pixel and is fastest, JPEG is small.

    Raises:
        EngineError: OpenCV cannot.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if encoding == "jpeg" else []
    done, content = cv2.imencode(f".{encoding}", picture, options)
    if not done:
        raise EngineError(f"OpenCV cannot encode a frame of {picture.shape} as {encoding}")
    return content.tobytes()
