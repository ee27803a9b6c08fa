"""`inferloop run` as a child process that a test kills, and what its journal says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Run:
    """`inferloop run` as a child process."""

    def __init__(self, file: Path) -> None:
        self.errors = file.with_suffix(".log")
        self._log = self.errors.open("ab")
        command = [sys.executable, "-m", "inferloop.cli.main", "run", str(file), "--json", "--drain", "60s"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, env=os.environ.copy())

    def kill(self) -> None:
        assert self.process.poll() is None, "it ended before it was killed"
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.wait(60) == -signal.SIGKILL
        self._close()

    def terminate(self) -> None:
        """SIGTERM; returns when it has heard it."""
        heard = self.errors.read_text().count("SIGTERM: ")
        self.process.terminate()
        wait_until(lambda: self.errors.read_text().count("SIGTERM: ") > heard)

    def end(self) -> dict[str, Any]:
        """Wait until it has ended after SIGTERM; returns its summary."""
        output, _ = self.process.communicate(timeout=120)
        self._close()
        assert self.process.returncode == 0
        summary: dict[str, Any] = json.loads(output)
        return summary

    def _close(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


def wait_until(reached: Callable[[], bool], run: Run | None = None, *, limit_s: float = 200.0) -> None:
    deadline = time.monotonic() + limit_s
    while not reached():
        assert run is None or run.process.poll() is None, "inferloop run ended by itself"
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.02)


def decided(home: Path) -> list[tuple[str, str, str]]:
    """Message id, rule and reason of every decision in the journal."""
    if not (home / "journal.db").exists():
        return []
    with contextlib.closing(sqlite3.connect(home / "journal.db", timeout=30)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'decisions'").fetchall():
            return []  # the process is making it
        return database.execute("SELECT message_id, rule, reason FROM decisions").fetchall()
