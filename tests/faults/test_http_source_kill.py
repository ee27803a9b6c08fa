"""`inferloop run` is killed while clients post to it: they try again, nothing is lost and everything acts once."""

from __future__ import annotations

import contextlib
import http.client
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from support.broker import free_port
from support.pipelines import HOT, content, message, numbers_registry, save
from support.runs import Run, decided, wait_until

MESSAGES = 1500
CLIENTS = 16


def post_until_done(port: int, numbers: list[int], answered: Counter[int], tries: Counter[int]) -> None:
    for number in numbers:
        body = message(number)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            tries[number] += 1
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
                connection.request("POST", "/", body)
                if connection.getresponse().status == 200:
                    answered[number] += 1
                    break
            time.sleep(0.05)


def acted(path: Path) -> list[str]:
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as database, contextlib.suppress(sqlite3.OperationalError):
        return [id_ for (id_,) in database.execute("SELECT id FROM acts")]
    return []


def test_kills_lose_nothing_that_a_client_sends_until_it_hears_200(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("INFERLOOP_HOME", str(home))
    numbers_registry(home, HOT).close()
    port, table = free_port(), tmp_path / "acts.db"
    sinks = {"act": {"sqlite": {"path": str(table), "table": "acts", "row": {"id": "=id"}}}}
    file = save(tmp_path / "demo.yaml", content(sources={"feed": {"http": {"port": port}}}, sinks=sinks))
    answered: Counter[int] = Counter()
    tries: Counter[int] = Counter()
    clients = [
        threading.Thread(target=post_until_done, args=(port, list(range(first, MESSAGES, CLIENTS)), answered, tries))
        for first in range(CLIENTS)
    ]
    run = Run(file)
    for client in clients:
        client.start()
    before = 0
    for _ in range(2):
        wait_until(lambda seen=before: len(acted(table)) > seen + 150, run)
        run.kill()
        before = len(acted(table))
        assert 0 < before < MESSAGES, "the kill came too late"
        assert set(answered) <= {int(id_[1:]) for id_ in acted(table)}, "200 before the effect"
        run = Run(file)
    for client in clients:
        client.join(200)
    run.terminate()
    run.end()
    assert set(answered) == set(range(MESSAGES))
    assert sum(tries.values()) > MESSAGES, "no client had to try again"
    assert Counter(acted(table)) == Counter(f"m{number}" for number in range(MESSAGES))
    assert len(decided(home)) == MESSAGES
