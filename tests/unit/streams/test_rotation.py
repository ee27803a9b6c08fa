"""Files that are rotated hold every line once, in order, within their bounds."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferloop.core import plugins
from inferloop.core.errors import Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.streams.contexts import SinkContext


def sink(path: Path, **rotate: Any) -> Sink:
    plugin = plugins.load("sinks", "file")
    made: Sink = plugin(plugin.Config(path=path, rotate=rotate, fsync=False), SinkContext("p", "out"))
    return made


def delivery(number: int, width: int = 0) -> Delivery:
    return Delivery(f"k{number}", {"number": number, "text": "x" * width}, f"m{number}")


def files(path: Path) -> list[Path]:
    """The renamed ones, oldest first, then the file itself."""
    return [*sorted((each for each in path.parent.iterdir() if each != path), key=lambda each: each.stem), path]


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_bytes().splitlines()]


@settings(max_examples=50, deadline=None)
@given(
    widths=st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=5), min_size=1, max_size=20), size=st.integers(50, 1000)
)
def test_every_line_is_in_one_file_in_order_and_no_file_is_larger_than_it_must_be(widths: list[list[int]], size: int) -> None:
    async def written(path: Path) -> list[int]:
        out = sink(path, size=f"{size}B")
        await out.open()
        count, batches = 0, []
        for batch in widths:
            deliveries = [delivery(count + place, width) for place, width in enumerate(batch)]
            await out.send(deliveries)
            count += len(batch)
            batches.append(sum(len(json.dumps(each.payload, separators=(",", ":"))) + 1 for each in deliveries))
        await out.close()
        return batches

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.jsonl"
        batches = asyncio.run(written(path))
        assert [number for each in files(path) for number in numbers(each)] == list(range(sum(map(len, widths))))
        for each in files(path):
            assert each.stat().st_size <= size or each.stat().st_size in batches


async def test_a_file_has_the_lines_of_one_span_of_time(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    out = sink(path, every="1d")
    await out.open()
    await out.send([delivery(1)])
    os.utime(path, (1_767_225_599, 1_767_225_599))  # 2025-12-31T23:59:59Z
    await out.send([delivery(2)])
    await out.send([delivery(3)])
    await out.close()
    assert [each.name for each in files(path)] == ["out-20251231T235959Z.jsonl", "out.jsonl"]
    assert [numbers(each) for each in files(path)] == [[1], [2, 3]]


async def test_the_oldest_go_and_files_of_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    (tmp_path / "out-of-my-life.jsonl").write_text("{}\n")
    out = sink(path, size="10B", keep=2)
    await out.open()
    for number in range(6):
        await out.send([delivery(number)])
    await out.close()
    (tmp_path / "out-of-my-life.jsonl").unlink()
    assert [numbers(each) for each in files(path)] == [[3], [4], [5]]


async def test_a_restart_goes_on_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for number in range(2):
        out = sink(path, size="1MB")
        await out.open()
        await out.send([delivery(number)])
        await out.close()
    assert [numbers(each) for each in files(path)] == [[0, 1]]


async def test_a_directory_that_takes_no_new_name_keeps_the_lines_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    path = tmp_path / "out.jsonl"
    out = sink(path, size="10B")
    await out.open()
    await out.send([delivery(1)])
    with monkeypatch.context() as patch:

        def refused(*_: Any) -> None:
            raise PermissionError(13, "Permission denied")

        patch.setattr(Path, "rename", refused)
        with pytest.raises(Unavailable, match="Permission denied"):
            await out.send([delivery(2)])
    await out.send([delivery(2)])
    await out.close()
    assert [numbers(each) for each in files(path)] == [[1], [2]]
