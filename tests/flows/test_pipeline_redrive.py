"""Dead letters once more: mended files and sinks decide and take what they could not, once, also after a kill in between."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inferloop.cli.main import run
from inferloop.data.journal import Journal
from support.pipelines import content, message, numbers_registry, save


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("INFERLOOP_HOME", str(home))
    numbers_registry(home).close()
    return home


@dataclass
class Done:
    exit_code: int
    output: str
    errors: str


def inferloop(*arguments: str) -> Done:
    """The command in this process, as a user types it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    return Done(code, out.getvalue(), err.getvalue())


def file(folder: Path, *, total: str = "$.total", check: str = "", **changes: Any) -> Path:
    """Messages must have a total; the table may refuse some rows."""
    fields = {
        "values": {"path": "$.values", "type": "array"},
        "total": {"path": total, "type": "number", "required": True},
    }
    with contextlib.closing(sqlite3.connect(folder / "acts.db")) as database:
        database.execute(f"CREATE TABLE IF NOT EXISTS acts (idempotency_key TEXT PRIMARY KEY, id TEXT, total REAL {check})")
    sections = content(
        sources={"feed": {"file": {"path": str(folder / "feed.jsonl")}}},
        message={"json": {"id": "$.id", "key": "$.device", "time": "$.at", "fields": fields}},
        sinks={"act": {"sqlite": {"path": str(folder / "acts.db"), "table": "acts", "row": {"id": "=id", "total": "=total"}}}},
        dead_letter={"file": {"path": str(folder / "dead.jsonl")}},
        **changes,
    )
    return save(folder / "demo.yaml", sections)


def feed(folder: Path, *messages: bytes) -> None:
    (folder / "feed.jsonl").write_bytes(b"".join(line + b"\n" for line in messages))


def acted(folder: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(folder / "acts.db")) as database:
        return sorted(id_ for (id_,) in database.execute("SELECT id FROM acts"))


def without_total(number: int) -> bytes:
    return json.dumps({**json.loads(message(number, total=None)), "sum": 40.0}).encode()


def test_messages_that_could_not_be_decided_are_decided_by_the_mended_file(tmp_path: Path, home: Path) -> None:
    path = file(tmp_path)
    feed(tmp_path, message(1), without_total(2), message(3), without_total(4))
    assert (inferloop("run", str(path))).exit_code == 0
    assert acted(tmp_path) == ["m1", "m3"]
    counted = inferloop("pipeline", "redrive", str(path), "--dry-run", "--json")
    assert sum(json.loads(counted.output).values()) == 2
    file(tmp_path, total="$.sum")
    done = inferloop("pipeline", "redrive", str(path), "--json")
    assert done.exit_code == 0, done.errors
    assert json.loads(done.output) == {"letters": 2, "delivered": {}, "decided": 2, "dead": 0, "kept": 0}
    assert acted(tmp_path) == ["m1", "m2", "m3", "m4"]
    assert not (tmp_path / "dead.jsonl").read_bytes()
    assert len(list(tmp_path.glob("dead.jsonl.redriven-*"))) == 1
    again = inferloop("pipeline", "redrive", str(path))
    assert (again.exit_code, "no dead letters" in again.errors) == (2, True)


def test_what_fails_again_is_a_dead_letter_again(tmp_path: Path, home: Path) -> None:
    path = file(tmp_path)
    feed(tmp_path, without_total(1))
    inferloop("run", str(path))
    done = inferloop("pipeline", "redrive", str(path), "--json")
    assert done.exit_code == 1
    assert json.loads(done.output)["dead"] == 1
    (line,) = (tmp_path / "dead.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"].endswith("field 'total' is missing at $.total")


def test_a_refused_delivery_is_sent_again_with_its_key_when_the_sink_takes_it(tmp_path: Path, home: Path) -> None:
    path = file(tmp_path, check="CHECK (total < 100)")
    feed(tmp_path, message(1), message(2, total=500.0))
    inferloop("run", str(path))
    assert acted(tmp_path) == ["m1"]
    (letter,) = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    refused = inferloop("pipeline", "redrive", str(path), "--json")
    assert (refused.exit_code, json.loads(refused.output)["kept"]) == (1, 1)
    for rest in tmp_path.glob("acts.db*"):
        rest.unlink()
    path = file(tmp_path)
    done = inferloop("pipeline", "redrive", str(path), "--json")
    assert not done.errors
    assert (done.exit_code, json.loads(done.output)["delivered"]) == (0, {"act": 1})
    with contextlib.closing(sqlite3.connect(tmp_path / "acts.db")) as database:
        assert database.execute("SELECT idempotency_key, id FROM acts").fetchall() == [(letter["key"], "m2")]


def test_only_letters_with_the_reason_are_taken_and_the_others_stay(tmp_path: Path, home: Path) -> None:
    path = file(tmp_path)
    feed(tmp_path, without_total(1), b"no json at all")
    inferloop("run", str(path))
    file(tmp_path, total="$.sum")
    done = inferloop("pipeline", "redrive", str(path), "--reason", "'total'", "--json")
    assert (done.exit_code, json.loads(done.output)["kept"]) == (0, 1)
    assert acted(tmp_path) == ["m1"]
    (line,) = (tmp_path / "dead.jsonl").read_text().splitlines()
    assert json.loads(line)["payload"] == "no json at all"


def test_a_redrive_that_was_killed_goes_on_and_does_nothing_twice(tmp_path: Path, home: Path) -> None:
    path = file(tmp_path)
    feed(tmp_path, without_total(1), without_total(2))
    inferloop("run", str(path))
    file(tmp_path, total="$.sum")
    (tmp_path / "dead.jsonl").rename(tmp_path / "dead.jsonl.redriving")  # the kill came right after it took the file
    first = inferloop("pipeline", "redrive", str(path), "--json")
    assert json.loads(first.output)["decided"] == 2
    (archive,) = tmp_path.glob("dead.jsonl.redriven-*")
    archive.rename(tmp_path / "dead.jsonl.redriving")  # and now right before it gave it back
    second = inferloop("pipeline", "redrive", str(path), "--json")
    assert (second.exit_code, json.loads(second.output)["dead"]) == (0, 0)
    assert acted(tmp_path) == ["m1", "m2"]
    with Journal(home / "journal.db") as journal:
        assert len(journal.find("demo", ["m1", "m2"])) == 2


@pytest.mark.parametrize("line", ["no json", "[1]", '{"reason": "x"}', '{"delivery": {}, "sink": "act"}'])
def test_a_file_that_holds_something_else_is_refused_with_the_line(line: str, tmp_path: Path, home: Path) -> None:
    path = file(tmp_path)
    (tmp_path / "other.jsonl").write_text(f"\n{line}\n")
    done = inferloop("pipeline", "redrive", str(path), "--from", str(tmp_path / "other.jsonl"))
    assert done.exit_code == 2
    assert "other.jsonl:2: is no" in done.errors


def test_dead_letters_in_a_table_need_a_file(tmp_path: Path, home: Path) -> None:
    sections = content(dead_letter={"sqlite": {"path": str(tmp_path / "d.db"), "table": "t"}})
    done = inferloop("pipeline", "redrive", str(save(tmp_path / "demo.yaml", sections)))
    assert done.exit_code == 2
    assert "dead_letter: goes to sqlite" in done.errors
