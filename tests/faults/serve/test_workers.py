"""Several workers behind one port, as a user runs them: one is killed, and the others go on; what they count and open is one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from inferloop.data.ledger.ledger import Ledger
from inferloop.registry.registry import Registry
from support.bundles import linear
from support.group import ROW, WAIT_S, Group

CALLERS = 4


class Load(threading.Thread):
    """Asks again and again on connections that it keeps; a connection that breaks is counted, and opened anew."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.answered = 0
        self.broken = 0
        self.wrong: list[Any] = []
        self.ending = threading.Event()
        self.start()

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.ending.is_set():
            try:
                connection.request("POST", "/v2/models/linear/infer", json.dumps(ROW))
                response = connection.getresponse()
                body = response.read()
            except (OSError, HTTPException):
                self.broken += 1
                connection.close()
                self.ending.wait(0.2)  # the kernel may still be taking the dead one's socket away
                continue
            if response.status == 200 and json.loads(body)["model_name"] == "linear":
                self.answered += 1
            else:
                self.wrong.append((response.status, body))
        connection.close()


@pytest.fixture
def home(tmp_path: Path, inferloop_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with Registry() as registry:
        registry.register(linear(tmp_path / "linear"), alias="champion")
        registry.register(linear(tmp_path / "other", name="other"), alias="champion")
    return inferloop_home


@pytest.fixture
def group(tmp_path: Path, home: Path) -> Iterator[Group]:
    found = Group(tmp_path, "--workers", "2")
    yield found
    found.close()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or " Z " not in Path(f"/proc/{pid}/stat").read_text()


def test_workers_that_are_killed_under_load_cost_only_what_they_had_in_hand_and_are_replaced(group: Group) -> None:
    load = [Load(group.port) for _ in range(CALLERS)]
    try:
        for place, victim in enumerate(group.pids()):  # one after the other: each caller is hit, by the one or the other
            before = [one.answered for one in load]
            until(lambda before=before: all(one.answered > count + 20 for one, count in zip(load, before, strict=True)))
            os.kill(victim, signal.SIGKILL)
            until(lambda place=place: len(group.pids()) == 3 + place)
            until(lambda place=place: group.ready() == 3 + place)
        before = [one.answered for one in load]
        until(lambda: all(one.answered > count + 20 for one, count in zip(load, before, strict=True)))
    finally:
        for one in load:
            one.ending.set()
        for one in load:
            one.join(60)
    assert [one.wrong for one in load] == [[]] * CALLERS
    assert min(one.broken for one in load) >= 1, "the kill hit a connection of every caller"
    assert max(one.broken for one in load) <= 6, "only the kills break connections"
    group.process.send_signal(signal.SIGTERM)
    assert group.process.wait(WAIT_S) == 0
    assert not any(is_alive(pid) for pid in group.pids())


def test_what_all_workers_count_is_one_number_also_after_one_has_died(group: Group) -> None:
    for _ in range(40):
        group.infer()
    until(lambda: group.counted() == 40)
    os.kill(group.pids()[0], signal.SIGKILL)
    until(lambda: group.ready() == 3)
    assert group.counted() == 40
    os.kill(group.pids()[1], signal.SIGKILL)
    until(lambda: group.ready() == 4)
    for _ in range(10):
        group.infer()
    until(lambda: group.counted() == 50)


def test_a_model_that_one_worker_unloads_is_unloaded_in_all_and_in_those_to_come(group: Group) -> None:
    def states() -> set[str]:
        """What many connections, spread over all workers, say."""
        lists = [group.ask("/v2/repository/index", {}) for _ in range(16)]
        return {line["state"] for lines in lists for line in lines if line["name"] == "other"}

    assert states() == {"READY"}
    group.ask("/v2/repository/models/other/unload", {})
    until(lambda: states() == {"UNAVAILABLE"})
    os.kill(group.pids()[0], signal.SIGKILL)
    until(lambda: group.ready() == 3)
    assert states() == {"UNAVAILABLE"}
    group.ask("/v2/repository/models/other/load", {})
    until(lambda: states() == {"READY"})


def test_a_version_that_is_promoted_answers_at_every_worker(group: Group, tmp_path: Path) -> None:
    with Registry() as registry:
        registry.register(linear(tmp_path / "second", seed=1), alias="champion")
    until(lambda: {group.infer()["model_version"] for _ in range(16)} == {"2"})


def test_the_ledger_has_every_answer_of_every_worker(group: Group, home: Path) -> None:
    load = [Load(group.port) for _ in range(CALLERS)]
    until(lambda: all(one.answered > 100 for one in load))
    for one in load:
        one.ending.set()
    for one in load:
        one.join(60)
    group.process.send_signal(signal.SIGTERM)
    assert group.process.wait(WAIT_S) == 0
    assert [(one.broken, one.wrong) for one in load] == [(0, [])] * CALLERS
    with Ledger(home / "ledger.db") as ledger:
        assert sum(1 for _ in ledger.predictions()) == sum(one.answered for one in load)


def test_workers_end_when_their_supervisor_is_killed(group: Group) -> None:
    group.process.kill()
    group.process.wait(WAIT_S)
    until(lambda: not any(is_alive(pid) for pid in group.pids()))


def test_what_is_wrong_with_the_command_is_said_once_with_its_exit_code(home: Path) -> None:
    command = [sys.executable, "-m", "inferloop.cli.main", "serve", "--http-port", "0", "--workers", "3", "absent"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line for line in done.stderr.splitlines() if line.startswith("error:")] == ["error: no model named 'absent'"]
