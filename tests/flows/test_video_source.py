"""Frames of a recording through a model that looks at images, with the gaps of the recording, and after a kill."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from inferloop.core import plugins
from inferloop.core.errors import InvalidInput, NotFound
from inferloop.core.protocols import Source
from inferloop.registry.registry import Registry
from inferloop.streams.contexts import SourceContext
from support import bundles, pictures
from support.pipelines import HOT, save
from support.runs import Run, decided, wait_until

FRAMES = 300


def source(path: Path, resume: str = "", **options: object) -> Source:
    plugin = plugins.load("sources", "video")
    made: Source = plugin(plugin.Config(path=path, **options), SourceContext("p", "feed", resume))
    return made


async def numbers(of: Source) -> list[int]:
    """What every frame says, to the end."""
    await of.open()
    found: list[int] = []
    async with asyncio.timeout(60):
        while messages := await of.read():
            found += [pictures.number(message.payload) for message in messages]
            await of.ack(messages)
    await of.close()
    return found


@pytest.mark.parametrize("encoding", ["bmp", "jpeg"])
async def test_every_so_many_frames_come_in_order(tmp_path: Path, encoding: str) -> None:
    path = pictures.video(tmp_path / "v.avi", range(100))
    assert await numbers(source(path, every=7, encoding=encoding)) == list(range(0, 100, 7))


async def test_speed_keeps_the_gaps_of_the_recording(tmp_path: Path) -> None:
    path = pictures.video(tmp_path / "v.avi", range(50), per_s=25)
    started = time.monotonic()
    assert await numbers(source(path, speed=4)) == list(range(50))
    assert time.monotonic() - started >= 49 / 25 / 4


async def test_another_file_under_its_name_is_read_from_its_start(tmp_path: Path) -> None:
    path = pictures.video(tmp_path / "v.avi", range(10))
    first = source(path)
    await first.open()
    position = (await first.read())[4].position
    await first.close()
    assert await numbers(source(path, position)) == list(range(5, 10))
    pictures.video(path, range(20, 26))
    assert await numbers(source(path, position)) == list(range(20, 26))


async def test_a_file_that_is_not_there_or_no_video_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no file .*v\.avi"):
        await source(tmp_path / "v.avi").open()
    (tmp_path / "v.avi").write_bytes(b"not a video" * 1000)
    with pytest.raises(InvalidInput, match=r"cannot read .* as a video"):
        await source(tmp_path / "v.avi").open()


def test_a_kill_in_the_middle_loses_no_frame_and_decides_none_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("INFERLOOP_HOME", str(home))
    with Registry() as registry:
        registry.register(bundles.image(tmp_path / "bundle", bias=HOT), alias="champion")
    file = save(
        tmp_path / "watch.yaml",
        {
            "pipeline": "watch",
            "sources": {"front": {"video": {"path": str(pictures.video(tmp_path / "v.avi", range(FRAMES))), "speed": 5}}},
            "message": {"image": {"id": {"header": "frame"}}},
            "model": {"ref": "image@champion"},
            "rules": [{"name": "stop", "label": "hot", "vote": {"of": 5, "need": 4}, "send": ["brake"]}],
            "sinks": {"brake": {"sqlite": {"path": str(tmp_path / "brake.db"), "table": "brake", "row": {"frame": "=id"}}}},
        },
    )
    first = Run(file)
    wait_until(lambda: len(decided(home)) >= 50, first)
    first.kill()
    before = len(decided(home))
    assert 50 <= before < FRAMES, "the kill did not hit"
    second = Run(file)
    summary = second.end()
    found = decided(home)
    assert sorted(int(id_) for id_, *_ in found) == list(range(FRAMES))
    assert summary["decisions"] + before == FRAMES
    assert sum(rule == "stop" for _, rule, _ in found) == FRAMES - 3
