"""`inferloop pipeline` and `inferloop run` as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.broker import free_port
from support.pipelines import content, message, numbers_registry, save


def inferloop(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferloop.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ.copy(), check=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("INFERLOOP_HOME", str(home))
    numbers_registry(home).close()
    return home


def test_check_prints_each_guarantee_and_why(tmp_path: Path) -> None:
    done = inferloop("pipeline", "check", str(save(tmp_path / "p.yaml", content())))
    assert done.returncode == 0, done.stderr
    assert "feed -> act: at least once" in done.stdout
    assert "the sink takes no key" in done.stdout


def test_five_mistakes_are_five_error_lines_and_exit_code_2(tmp_path: Path) -> None:
    bad = content(
        model={"ref": "m", "max_age": 10},
        rules=[{"name": "a", "when": "nope > 1", "send": ["act", "nowhere"]}],
        sources={"feed": {"fil": {}}},
        sinks={"act": {"webhook": {"url": "x"}}},
    )
    done = inferloop("pipeline", "check", str(save(tmp_path / "p.yaml", bad)))
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert sum(line.startswith("error: ") for line in lines) == 5
    assert lines[-1].startswith("hint: ")
    assert "Traceback" not in done.stderr


def test_a_failing_pipeline_test_is_exit_code_1(tmp_path: Path) -> None:
    test = {"message": json.loads(message(1)), "scores": {"hot": 0.9}, "expect": {"act": 2}}
    done = inferloop("pipeline", "test", str(save(tmp_path / "p.yaml", content(tests=[test]))), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["tests"][0]["problems"]


def test_the_schema_is_a_json_schema_that_names_every_plugin() -> None:
    done = inferloop("pipeline", "schema")
    text = json.dumps(json.loads(done.stdout))
    assert all(f'"{name}"' in text for name in ("mqtt", "file", "webhook", "sqlite", "stdout", "queue", "json", "csv"))


def test_a_file_runs_to_its_end_and_the_summary_is_printed(tmp_path: Path, home: Path) -> None:
    feed = tmp_path / "feed.jsonl"
    feed.write_bytes(b"".join(message(number) + b"\n" for number in range(50)) + b"{poison\n")
    sections = content(
        sources={"feed": {"file": {"path": str(feed)}}},
        sinks={"act": {"sqlite": {"path": str(tmp_path / "act.db"), "table": "act", "row": {"id": "=id"}}}},
    )
    done = inferloop("run", str(save(tmp_path / "p.yaml", sections)), "--json")
    summary = json.loads(done.stdout)
    assert done.returncode == 0
    assert (summary["messages"], summary["decisions"], summary["dead_letters"]) == (51, 50, 1)
    assert summary["delivered"] == {"act": 50, "dead_letter": 1}
    assert "{poison" in (home / "dead-letters" / "demo.jsonl").read_text()


def test_an_unknown_model_is_one_error_with_the_known_ones(tmp_path: Path, home: Path) -> None:
    done = inferloop("run", str(save(tmp_path / "p.yaml", content(model={"ref": "nobody@champion"}))))
    assert done.returncode == 2
    assert "nobody" in done.stderr
    assert "numbers" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_broker_that_is_not_there_is_told_and_a_signal_stops_it_cleanly(
    tmp_path: Path, home: Path, number: signal.Signals
) -> None:
    mqtt = {"url": f"mqtt://127.0.0.1:{free_port()}", "topics": ["t"]}
    file = save(tmp_path / "p.yaml", content(sources={"feed": {"mqtt": mqtt}}))
    log = tmp_path / "log"
    command = [sys.executable, "-m", "inferloop.cli.main", "run", str(file)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=os.environ.copy())
        deadline = time.monotonic() + 60
        while log.read_text().count("broker not there") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert log.read_text().count("broker not there") >= 2
    assert process.returncode == 0
    assert b"demo: 0 messages" in output
    assert "Traceback" not in log.read_text()
