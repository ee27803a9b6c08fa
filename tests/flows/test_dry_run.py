"""A dry run shows what would happen, and changes nothing: no acknowledgment, no effect, no journal; and the live view."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferloop.streams.ownership import owned
from support.pipelines import content, message, numbers_registry, save
from support.stream_worlds.redis import Redis


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("INFERLOOP_HOME", str(home))
    numbers_registry(home).close()
    return home


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path / "redis")
    yield server
    server.stop()


def inferloop(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferloop.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def sections(folder: Path, **changes: object) -> dict[str, object]:
    act = {"file": {"path": str(folder / "act.jsonl"), "json": {"id": "=id", "label": "=label"}}}
    dead = {"file": {"path": str(folder / "dead.jsonl")}}
    outbox = {"sqlite": {"path": str(folder / "outbox.db")}}
    return content(sinks={"act": act}, dead_letter=dead, outbox=outbox, **changes)


def feed(folder: Path, *payloads: bytes) -> dict[str, object]:
    (folder / "feed.jsonl").write_bytes(b"".join(payload + b"\n" for payload in payloads))
    return {"feed": {"file": {"path": str(folder / "feed.jsonl")}}}


def test_it_prints_what_sinks_would_get_and_changes_nothing(tmp_path: Path, home: Path) -> None:
    sources = feed(tmp_path, message(1), b"no json", message(2), message(3))
    file = save(tmp_path / "demo.yaml", sections(tmp_path, sources=sources))
    before = sorted(path.name for path in home.iterdir())
    done = inferloop("run", file, "--dry-run", "--limit", "3")
    assert done.returncode == 0, done.stderr
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted((line["sink"], line["id"]) for line in shown if line["sink"] == "act") == [("act", "m1"), ("act", "m2")]
    assert [line["payload"]["reason"][:6] for line in shown if line["sink"] == "dead_letter"] == ["decode"]
    assert "3 messages, 2 decisions, nothing was changed" in done.stderr
    assert not list(tmp_path.glob("*.db*"))
    assert not (tmp_path / "act.jsonl").exists()
    assert not (tmp_path / "dead.jsonl").exists()
    assert not {path.name for path in home.iterdir()} - set(before) - {"journal.db.demo.lock"}
    assert json.loads(inferloop("run", file, "--json").stdout)["delivered"] == {"act": 3, "dead_letter": 1}


def test_it_goes_on_where_the_pipeline_is_and_leaves_it_there(tmp_path: Path, home: Path) -> None:
    file = save(tmp_path / "demo.yaml", sections(tmp_path, sources=feed(tmp_path, message(1))))
    inferloop("run", file)
    with (tmp_path / "feed.jsonl").open("ab") as stream:
        stream.write(message(2) + b"\n")
    for _ in range(2):
        shown = inferloop("run", file, "--dry-run").stdout.splitlines()
        assert [json.loads(line)["id"] for line in shown] == ["m2"]
    assert json.loads(inferloop("run", file, "--json").stdout)["decisions"] == 1


def test_what_was_decided_before_is_not_shown_again(tmp_path: Path, home: Path) -> None:
    file = save(tmp_path / "demo.yaml", sections(tmp_path, sources=feed(tmp_path, message(1))))
    inferloop("run", file)
    feed(tmp_path, message(1, total=41.0), message(2))  # another file: it is read from its beginning
    assert [json.loads(line)["id"] for line in inferloop("run", file, "--dry-run").stdout.splitlines()] == ["m2"]


def test_an_order_that_was_refunded_before_is_not_shown_again(tmp_path: Path, home: Path) -> None:
    rules = [{"name": "act", "label": "hot", "once_per": "order", "send": ["act"]}]
    file = save(tmp_path / "demo.yaml", sections(tmp_path, sources=feed(tmp_path, message(1, order="o1")), rules=rules))
    inferloop("run", file)
    feed(tmp_path, message(2, order="o1"), message(3, order="o2"))
    assert [json.loads(line)["id"] for line in inferloop("run", file, "--dry-run").stdout.splitlines()] == ["m3"]


def test_what_a_broker_gave_comes_again_to_the_run(tmp_path: Path, home: Path, redis: Redis) -> None:
    redis.put([message(number) for number in range(50)])
    file = save(tmp_path / "demo.yaml", sections(tmp_path, sources={"feed": redis.source()}))
    shown = inferloop("run", file, "--dry-run", "--limit", "20").stdout.splitlines()
    assert len(shown) == 20
    with redis.client() as client:
        assert client.xpending("feed", "demo-feed")["pending"] >= 20, "nothing is acknowledged"
    running = subprocess.Popen([sys.executable, "-m", "inferloop.cli.main", "run", str(file)], stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "act.jsonl").exists() or len((tmp_path / "act.jsonl").read_bytes().splitlines()) < 50:
            assert running.poll() is None
    finally:
        running.terminate()
        assert running.wait(60) == 0
    ids = [json.loads(line)["id"] for line in (tmp_path / "act.jsonl").read_text().splitlines()]
    assert sorted(ids) == sorted(f"m{number}" for number in range(50))


def test_it_does_not_share_the_messages_of_a_run_that_is_under_way(tmp_path: Path, home: Path) -> None:
    file = save(tmp_path / "demo.yaml", sections(tmp_path, sources=feed(tmp_path, message(1))))
    with owned(home / "journal.db", "demo"):
        done = inferloop("run", file, "--dry-run")
    assert done.returncode != 0
    assert "is running already" in done.stderr


def test_a_limit_without_a_dry_run_is_refused(tmp_path: Path, home: Path) -> None:
    file = save(tmp_path / "demo.yaml", sections(tmp_path, sources=feed(tmp_path, message(1))))
    done = inferloop("run", file, "--limit", "3")
    assert (done.returncode, "--limit goes with --dry-run" in done.stderr) == (2, True)


def test_the_live_view_draws_counts_in_a_terminal(tmp_path: Path, home: Path) -> None:
    file = save(tmp_path / "demo.yaml", sections(tmp_path, sources=feed(tmp_path, *map(message, range(300)), b"no json")))
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    command = [sys.executable, "-m", "inferloop.cli.main", "run", str(file), "--live", "--json"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            drawn += os.read(ours, 65_536)
        except OSError:  # the other end was closed
            break
    summary = json.loads(running.communicate(timeout=60)[0])
    os.close(ours)
    assert (running.returncode, summary["messages"]) == (0, 301)
    last = drawn.decode().rpartition("demo")[2]
    assert [line.split("│")[2].strip() for line in last.splitlines() if "│ messages " in line] == ["301"]
    for row in ("dead letters", "rule: act", "delivered: act", "no action: decode", "under way; p50"):
        assert row in last
    assert drawn.decode().count("messages") >= 2, "it is drawn more than once"
