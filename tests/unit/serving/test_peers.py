"""Workers that ask each other, and the settings and counts that they keep together."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from inferloop.serving.workers.peers import Peers
from inferloop.serving.workers.shared_settings import ASK, SharedSettings
from inferloop.serving.workers.shared_tally import SharedTally


class Other(Peers):
    """As in another process: with a socket of another name."""

    def __init__(self, folder: Path, name: str, answers: dict[str, Any]) -> None:
        super().__init__(folder, answers)
        self._own = f"{name}.sock"


async def double(number: int) -> int:
    return 2 * number


async def broken(**_: Any) -> None:
    raise RuntimeError("a defect")


@pytest.mark.parametrize("folder", ["short", "long" * 40])
async def test_all_others_answer_wherever_their_folder_is(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    workers = [Other(tmp_path / folder, str(number), {"double": double}) for number in range(3)]
    for worker in workers:
        await worker.start()
    assert await workers[0].ask("double", number=21) == [42, 42]
    await workers[1].aclose()
    await workers[1].aclose()
    assert await workers[0].ask("double", number=4) == [8]
    for worker in workers:
        await worker.aclose()
    assert list((tmp_path / folder).iterdir()) == []


async def test_those_that_fail_are_gone_or_late_are_left_out(tmp_path: Path) -> None:
    async def late() -> None:
        await asyncio.Event().wait()

    one = Other(tmp_path, "1", {})
    two = Other(tmp_path, "2", {"ask": broken, "wait": late})
    three = Other(tmp_path, "3", {"ask": lambda: double(1), "wait": lambda: double(2)})
    for worker in (one, two, three):
        await worker.start()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(tmp_path / "4.sock"))
    assert await one.ask("ask") == [2]
    assert await one.ask("wait", patience_s=5) == [4]
    assert await one.ask("unknown") == []
    assert not (tmp_path / "4.sock").exists(), "nobody asks the dead again"
    for worker in (one, two, three):
        await worker.aclose()


async def test_settings_reach_the_others_before_the_change_is_answered_and_those_that_come_later(tmp_path: Path) -> None:
    held: list[dict[str, Any]] = [{}, {}, {}]

    def worker(number: int) -> tuple[Other, SharedSettings]:
        peers = Other(tmp_path, str(number), {ASK: lambda: look(settings)})
        settings = SharedSettings(tmp_path, peers, {"log": held[number].update, "trace": held[number].update}, poll_s=60)
        return peers, settings

    async def look(settings: SharedSettings) -> None:
        settings.look()

    def refuse(_: dict[str, Any] | None) -> dict[str, Any]:
        raise ValueError("no such setting")

    pairs = [worker(number) for number in range(3)]
    for peers, settings in pairs[:2]:
        await peers.start()
        await settings.start()
    pairs[0][1].change("log", lambda before: {**(before or {}), "a": 1})
    await pairs[0][1].spread()
    assert held == [{"a": 1}, {"a": 1}, {}]
    pairs[1][1].change("log", lambda before: {**(before or {}), "b": 2})
    pairs[1][1].change("trace", lambda before: {"t": before})
    with pytest.raises(ValueError, match="no such setting"):
        pairs[1][1].change("log", refuse)
    await pairs[1][1].spread()
    await pairs[2][0].start()
    await pairs[2][1].start()
    assert held == [{"a": 1, "b": 2, "t": None}] * 3
    for peers, settings in pairs:
        await settings.aclose()
        await peers.aclose()


def test_what_several_count_is_one_number_without_gaps(tmp_path: Path) -> None:
    found: list[int] = []
    tallies = [SharedTally(tmp_path) for _ in range(4)]

    def count(tally: SharedTally) -> None:
        for _ in range(50):
            with tally.alone():
                found.append(tally.add("a"))

    threads = [threading.Thread(target=count, args=(tally,)) for tally in tallies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == list(range(1, 201))
    assert SharedTally(tmp_path).add("b", 5) == 5
    assert (tmp_path / "tally.json").stat().st_size < 100
