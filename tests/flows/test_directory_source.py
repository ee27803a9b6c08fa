"""Files that arrive in a directory: whole, in order, once, and put away; also when the process is killed in the middle."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from inferloop.core import plugins
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.registry.registry import Registry
from inferloop.streams.contexts import SourceContext
from support import bundles
from support.pipelines import HOT, content, message, save
from support.runs import Run, decided, wait_until

FILES = 600


def source(path: Path, resume: str = "", **options: object) -> Source:
    plugin = plugins.load("sources", "directory")
    config = plugin.Config(path=path, **{"settle": "50ms", "every": "20ms", **options})
    made: Source = plugin(config, SourceContext("p", "feed", resume))
    return made


async def read(of: Source, count: int) -> list[Message]:
    messages: list[Message] = []
    async with asyncio.timeout(30):
        while len(messages) < count:
            messages += await of.read()
    return messages


async def nothing(of: Source) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await of.read()


async def test_a_file_is_taken_when_it_is_whole_and_again_when_it_changed(tmp_path: Path) -> None:
    watched = source(tmp_path, settle="200ms")
    await watched.open()
    with (tmp_path / "a.txt").open("wb") as file:
        for _ in range(8):
            file.write(b"part ")
            file.flush()
            await asyncio.sleep(0.05)
    (first,) = await read(watched, 1)
    assert (first.payload, first.topic) == (b"part " * 8, "a.txt")
    await watched.ack([first])
    (tmp_path / "a.txt").write_bytes(b"other")
    (second,) = await read(watched, 1)
    assert second.payload == b"other"
    assert second.position != first.position
    await watched.close()


async def test_patterns_hidden_files_folders_below_and_large_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.wav", ".hidden.wav", "b.txt", "deep/c.wav"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "large.wav").write_bytes(b"x" * 100)
    watched = source(tmp_path, pattern="*.wav", recursive=True, max_size="50B")
    await watched.open()
    assert sorted(found.topic for found in await read(watched, 2)) == ["a.wav", "deep/c.wav"]
    await nothing(watched)
    await watched.close()
    assert [record.file for record in caplog.records if "too large" in record.message] == ["large.wav"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("then", ["delete", "move"])
async def test_what_is_done_is_put_away_and_nothing_else(tmp_path: Path, then: str) -> None:
    inbox, done = tmp_path / "inbox", tmp_path / "inbox" / "done"
    inbox.mkdir()
    for name in "abc":
        (inbox / name).write_bytes(name.encode())
    watched = source(inbox, then=then, recursive=True, **({"done": done} if then == "move" else {}))
    await watched.open()
    messages = await read(watched, 3)
    await watched.ack(messages[:2])
    await watched.close()
    assert sorted(path.name for path in inbox.iterdir() if path.is_file()) == ["c"]
    assert sorted(path.name for path in done.iterdir()) == ["a", "b"] if then == "move" else not done.exists()


async def test_a_file_that_was_moved_in_with_an_old_date_comes_after_a_restart_too(tmp_path: Path) -> None:
    remembered: list[str] = [""]
    plugin = plugins.load("sources", "directory")
    config = plugin.Config(path=tmp_path, settle="20ms", every="20ms")
    (tmp_path / "new").write_bytes(b"new")
    first = plugin(config, SourceContext("p", "feed", "", lambda position: remembered.__setitem__(0, position)))
    await first.open()
    await first.ack(await read(first, 1))
    await first.close()
    (tmp_path / "old").write_bytes(b"old")
    os.utime(tmp_path / "old", (1_000_000_000, 1_000_000_000))
    second = plugin(config, SourceContext("p", "feed", remembered[0]))
    await second.open()
    assert [found.payload for found in await read(second, 1)] == [b"old"]
    await nothing(second)
    await second.close()


async def test_a_directory_that_is_not_there_yet_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = source(tmp_path / "later")
    opening = asyncio.create_task(watched.open())
    async with asyncio.timeout(20):
        while "not there" not in caplog.text:
            await asyncio.sleep(0.02)
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a").write_bytes(b"a")
    async with asyncio.timeout(20):
        await opening
    assert len(await read(watched, 1)) == 1
    await watched.close()


def test_a_kill_in_the_middle_loses_no_file_and_decides_none_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, inbox = tmp_path / "home", tmp_path / "inbox"
    home.mkdir()
    inbox.mkdir()
    monkeypatch.setenv("INFERLOOP_HOME", str(home))
    with Registry() as registry:
        registry.register(bundles.numbers(tmp_path / "bundle", bias=HOT), alias="champion")
    for number in range(FILES):
        (inbox / f"{number:04}.json").write_bytes(message(number))
    watched = {"directory": {"path": str(inbox), "settle": "20ms", "every": "20ms", "in_flight": 8, "then": "delete"}}
    act = {"sqlite": {"path": str(tmp_path / "act.db"), "table": "acts", "row": {"id": "=id"}}}
    file = save(tmp_path / "watch.yaml", content(sources={"feed": watched}, sinks={"act": act}))
    first = Run(file)
    wait_until(lambda: len(decided(home)) >= 50, first)
    first.kill()
    before = len(decided(home))
    assert 50 <= before < FILES, "the kill did not hit"
    second = Run(file)
    wait_until(lambda: not list(inbox.iterdir()), second)
    second.terminate()
    summary = second.end()
    assert summary["decisions"] + before == FILES
    assert sorted(id_ for id_, *_ in decided(home)) == sorted(f"m{number}" for number in range(FILES))
