"""Samples become windows across kills: each window is decided and acts once, none is lost."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from inferloop.cli.pipeline import command
from support.pipelines import content, save
from support.runs import Run, decided, wait_until
from support.stream_worlds.redis import Redis

SAMPLES, KEYS, LENGTH, HOP = 4000, 7, 4, 3


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Redis]:
    feed = Redis(tmp_path / "feed")
    yield feed
    feed.stop()


def plant(folder: Path, source: dict[str, object], **changes: object) -> Path:
    """Single values of `KEYS` sensors; the model takes four."""
    sections = content(
        sources={"feed": source},
        message={"json": {"id": "$.id", "key": "$.sensor", "fields": {"level": {"path": "$.level", "type": "number"}}}},
        window={"by": "key", "hop": HOP},
        model={"ref": "numbers@champion", "inputs": {"values": "level"}, "batch": {"max": 32}},
        sinks={"act": {"sqlite": {"path": str(folder / "acts.db"), "table": "acts", "row": {"id": "=id", "sensor": "=key"}}}},
        dead_letter={"file": {"path": str(folder / "dead.jsonl")}},
        **changes,
    )
    return save(folder / "plant.yaml", sections)


def samples() -> list[bytes]:
    made = [{"id": f"m{number}", "sensor": f"s{number % KEYS}", "level": number % 5 / 10} for number in range(SAMPLES)]
    made[500]["level"] = "broken"
    return [json.dumps(content).encode() for content in made]


def expected() -> set[str]:
    """The id of every window: brute force over each sensor's samples, the broken one left out."""
    by_sensor: dict[str, list[str]] = defaultdict(list)
    for number in range(SAMPLES):
        if number != 500:
            by_sensor[f"s{number % KEYS}"].append(f"m{number}")
    return {
        hashlib.sha256(f"{sensor}|{ids[start]}|{ids[start + LENGTH - 1]}|0".encode()).hexdigest()
        for sensor, ids in by_sensor.items()
        for start in range(0, len(ids) - LENGTH + 1, HOP)
    }


def acted(folder: Path) -> list[str]:
    if not (folder / "acts.db").exists():
        return []
    with sqlite3.connect(folder / "acts.db", timeout=30) as database:
        tables = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'acts'").fetchall()
        rows = [id_ for (id_,) in database.execute("SELECT id FROM acts")] if tables else []
    database.close()
    return rows


def test_kills_lose_no_window_and_make_none_twice(tmp_path: Path, home: Path, feed: Redis) -> None:
    file = plant(tmp_path, feed.source(in_flight=256))
    feed.put(samples())
    wanted = expected()
    before = 0
    for _ in range(3):
        run = Run(file)
        wait_until(lambda seen=before: len(acted(tmp_path)) > seen + 150, run)
        run.kill()
        before = len(acted(tmp_path))
        assert 0 < before < len(wanted), "the kill came too late"
    run = Run(file)
    wait_until(lambda: len(acted(tmp_path)) == len(wanted), run)
    wait_until(lambda: len(decided(home)) == SAMPLES + len(wanted), run)
    run.terminate()
    summary = run.end()
    assert sorted(acted(tmp_path)) == sorted(wanted)
    reasons = [reason for _, _, reason in decided(home)]
    assert reasons.count("gathered") == SAMPLES - 1
    letters = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert {json.loads(letter["payload"])["id"] for letter in letters} == {"m500"}, "a file may have it twice after a kill"
    assert summary["messages"] + summary["windows"] == summary["decisions"] + summary["dead_letters"] + summary["redelivered"]
    with sqlite3.connect(home / "journal.db", timeout=30) as database:
        ((left,),) = database.execute("SELECT count(*) FROM state WHERE name LIKE 'window/due/%'").fetchall()
    database.close()
    assert left == 0, "decided windows are forgotten"


def test_a_file_s_tests_gather_samples(tmp_path: Path) -> None:
    messages = [{"message": {"id": f"t{number}", "sensor": "s", "level": number}, "scores": {"hot": 0.9}} for number in range(7)]
    test = {"name": "two windows", "messages": messages, "expect": {"act": 2}}
    file = plant(tmp_path, {"file": {"path": "x.jsonl"}}, tests=[test])
    text = file.read_text().replace("hop: 3", "hop: 3\n  length: 4")
    file.write_text(text)
    result = CliRunner().invoke(command, ["test", str(file), "--json"])
    (found,) = json.loads(result.output)["tests"]
    assert found["problems"] == []
    reasons = [decision.split(" ->")[0] for decision in found["decisions"]]
    assert reasons == ["gathered", "gathered", "gathered", "act", "gathered", "gathered", "act"]
