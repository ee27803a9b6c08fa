"""A network camera that is killed in mid-stream and comes back: frames flow again; and one that is away is waited for."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from inferloop.core import plugins
from inferloop.core.protocols import Source
from inferloop.streams.config import SourceCommon
from inferloop.streams.contexts import SourceContext
from inferloop.streams.thinning import thinned
from support import mjpeg_camera, pictures
from support.own_server import OwnServer


class Camera(OwnServer):
    """One process that streams pictures that count up."""

    def command(self) -> Sequence[str]:
        """See `OwnServer`."""
        return [sys.executable, mjpeg_camera.__file__, str(self.port)]


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[Camera]:
    server = Camera(tmp_path)
    server.start()
    yield server
    server.stop()


def source(camera: Camera, **options: object) -> Source:
    plugin = plugins.load("sources", "camera")
    config = plugin.Config(url=f"http://user:geheim@127.0.0.1:{camera.port}/live.mjpg", **options)
    made: Source = plugin(config, SourceContext("p", "front"))
    return made


async def frames(of: Source, count: int) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            messages = await of.read()
            found += [pictures.number(message.payload) for message in messages]
            await of.ack(messages)
    return found


async def test_frames_flow_again_after_the_camera_was_killed(camera: Camera, caplog: pytest.LogCaptureFixture) -> None:
    front = source(camera)
    await front.open()
    first = await frames(front, 30)
    assert first == list(range(first[0], first[0] + len(first))), "frames are missing or out of order"
    camera.kill()
    reading = asyncio.create_task(frames(front, 20))
    async with asyncio.timeout(30):
        while "gives no more frames" not in caplog.text and "cannot open" not in str([r.__dict__ for r in caplog.records]):
            await asyncio.sleep(0.02)
    camera.start()
    second = await reading
    await front.close()
    assert any(after < before for before, after in zip([*first, *second], [*first, *second][1:], strict=False)), (
        "the counter did not begin again: the kill did not hit"
    )
    assert "geheim" not in str([record.__dict__ for record in caplog.records if record.name.startswith("inferloop")])


async def test_whoever_is_slow_sees_new_frames_when_old_ones_may_be_left_out(camera: Camera) -> None:
    left_out: list[int] = []
    common = SourceCommon(buffer=1, when_full="drop_oldest")
    front = thinned(source(camera), common, lambda _, count: left_out.append(count))
    await front.open()
    first = (await frames(front, 1))[-1]
    await asyncio.sleep(1.0)  # a slow model
    second = (await frames(front, 1))[-1]
    await front.close()
    assert second - first > mjpeg_camera.PER_S / 4, "the frame waited in the meantime"
    assert sum(left_out) > mjpeg_camera.PER_S / 4


async def test_opening_a_camera_that_is_away_can_be_cancelled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    front = source(Camera(tmp_path))
    opening = asyncio.create_task(front.open())
    async with asyncio.timeout(20):
        while not any("not there" in record.message for record in caplog.records):
            await asyncio.sleep(0.02)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await front.close()
    assert opening.cancelled()
