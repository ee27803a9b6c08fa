"""Several workers are one server to whoever asks: settings, statistics and models, whichever worker answers."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inferloop.registry.registry import Registry
from support.bundles import linear
from support.group import ROW, WAIT_S, Group

ASKED = 12
"""Connections of their own: that one worker of two gets them all happens once in 2000 times, and makes no test fail."""


@pytest.fixture
def group(tmp_path: Path, inferloop_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Group]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with Registry() as registry:
        registry.register(linear(tmp_path / "linear"), alias="champion")
        registry.register(linear(tmp_path / "other", name="other"), alias="champion")
    found = Group(tmp_path, "--workers", "2", "--trace-dir", "traces", "--access-log", "access.jsonl")
    yield found
    found.close()


def everywhere(group: Group, path: str, body: object = None) -> Any:
    """What many connections, spread over all workers, say: it must be one thing."""
    answers = [group.ask(path, body) for _ in range(ASKED)]
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_settings_of_traces_and_log_hold_at_every_worker_at_once_and_at_those_to_come(group: Group) -> None:
    for rate in ("3", "5"):
        changed = group.ask("/v2/trace/setting", {"trace_rate": rate})
        assert changed["trace_rate"] == rate
        assert everywhere(group, "/v2/trace/setting") == changed
    group.ask("/v2/models/linear/trace/setting", {"trace_count": "7"})
    mine = everywhere(group, "/v2/models/linear/trace/setting")
    assert (mine["trace_rate"], mine["trace_count"]) == ("5", "7")
    assert everywhere(group, "/v2/models/other/trace/setting") == changed
    group.ask("/v2/logging", {"log_warning": False, "log_verbose_level": 2})
    log = everywhere(group, "/v2/logging")
    assert (log["log_warning"], log["log_verbose_level"]) == (False, 2)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        group.ask("/v2/trace/setting", {"trace_rate": "0"})
    for place, victim in enumerate(group.pids()):
        os.kill(victim, signal.SIGKILL)
        until(lambda place=place: len(group.pids()) == 3 + place)
        until(lambda place=place: group.ready() == 3 + place)
    assert everywhere(group, "/v2/logging") == log
    assert everywhere(group, "/v2/models/linear/trace/setting") == mine
    assert everywhere(group, "/v2/trace/setting") == changed


def test_a_log_level_that_is_switched_off_is_off_at_every_worker(group: Group) -> None:
    def said() -> int:
        """Lines of the log that come of loading a model once more."""
        before = group.errors.read_text().count("model loaded")
        group.ask("/v2/repository/models/other/unload", {})
        group.ask("/v2/repository/models/other/load", {})
        return group.errors.read_text().count("model loaded") - before

    until(lambda: group.errors.read_text().count("model loaded") == 4)  # both workers are there, with both models
    assert said() == 2
    group.ask("/v2/logging", {"log_info": False})
    assert said() == 0
    group.ask("/v2/logging", {"log_info": True})
    assert said() == 2


def test_a_count_of_traces_is_for_the_server_and_its_file_is_one_whole_list(group: Group, tmp_path: Path) -> None:
    group.ask("/v2/trace/setting", {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "30"})
    for _ in range(60):
        group.ask("/v2/models/linear/infer", ROW)
    group.process.send_signal(signal.SIGTERM)
    assert group.process.wait(WAIT_S) == 0
    items = json.loads((tmp_path / "traces" / "trace.json").read_text())
    heads = [item for item in items if "model_name" in item]
    assert sorted(head["id"] for head in heads) == list(range(1, 31))
    assert len(items) == 60
    lines = [json.loads(line) for line in (tmp_path / "access.jsonl").read_text().splitlines()]
    assert sum(line["path"].endswith("/infer") for line in lines) == 60, "one access log for all workers, no line lost or torn"


def test_statistics_are_those_of_all_workers_at_once(group: Group) -> None:
    for done in range(10, 41, 10):
        for _ in range(10):
            group.ask("/v2/models/linear/infer", ROW)
        stats = [group.ask("/v2/models/linear/stats")["model_stats"] for _ in range(ASKED)]
        assert [one["inference_count"] for (one,) in stats] == [done] * ASKED
        assert stats[0][0]["inference_stats"]["success"]["count"] == done
        assert sum(batch["compute_infer"]["count"] for batch in stats[0][0]["batch_stats"]) == done
    assert {line["name"]: line["inference_count"] for line in group.ask("/v2/models/stats")["model_stats"]} == {
        "linear": 40,
        "other": 0,
    }
    with pytest.raises(urllib.error.HTTPError, match="400"):
        group.ask("/v2/models/absent/stats")


def test_feedback_is_taken_by_any_worker_at_once(group: Group) -> None:
    for one_by_one in (True, False):
        truths = []
        for _ in range(ASKED):
            truths.append({"prediction_id": group.predict(), "label": "right"})
            if one_by_one:
                assert group.ask("/v2/models/linear/feedback", truths[-1])["stored"] == 1
        if not one_by_one:
            assert group.ask("/v2/feedback", truths) == {"stored": ASKED, "refused": []}


def test_a_model_answers_at_every_worker_when_the_request_to_load_it_is_answered(group: Group) -> None:
    for _ in range(4):
        group.ask("/v2/repository/models/other/unload", {})
        states = {line["state"] for line in everywhere(group, "/v2/repository/index", {"ready": True})}
        assert states == {"READY"}
        assert "other" not in {line["name"] for line in everywhere(group, "/v2/repository/index", {"ready": True})}
        group.ask("/v2/repository/models/other/load", {})
        assert [group.ask("/v2/models/other/infer", ROW)["model_name"] for _ in range(ASKED)] == ["other"] * ASKED


def test_a_worker_that_does_not_answer_the_others_holds_nobody_up_for_long(group: Group) -> None:
    stopped = group.pids()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        answered = 0
        until_s = time.monotonic() + WAIT_S
        while not answered:
            assert time.monotonic() < until_s
            try:  # what the kernel gives to the stopped one waits
                answered = group.ask("/v2/models/linear/stats", patience_s=12)["model_stats"][0]["inference_count"] + 1
            except TimeoutError:
                continue
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert answered == 1
