"""`inferloop serve --workers N` as a user runs it: a supervisor and its workers, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

WAIT_S = 90
ROW = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


class Group:
    """A supervisor and its workers."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.errors = folder / "serve.err"
        command = [sys.executable, "-m", "inferloop.cli.main", "serve", "--http-port", "0", "--no-grpc", *arguments]
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(os.environ))
        watchdog = threading.Timer(WAIT_S, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        watchdog.cancel()
        if not ready.startswith("ready: "):
            self.close()
            raise AssertionError(self.errors.read_text())
        self.url = ready.split()[1]
        self.port = int(self.url.rpartition(":")[2])

    def pids(self) -> list[int]:
        """Of all workers that were ever started, in order."""
        return [int(pid) for pid in re.findall(r"worker started pid=(\d+)", self.errors.read_text())]

    def ready(self) -> int:
        """How often a worker was ready."""
        return len(re.findall(r"serving url=", self.errors.read_text()))

    def ask(self, path: str, body: object = None, *, patience_s: float = 30) -> Any:
        """One request on a connection of its own, so that any worker may get it."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=patience_s) as response:
            content = response.read()
        return json.loads(content) if content[:1] in (b"{", b"[") else content.decode()

    def infer(self) -> Any:
        return self.ask("/v2/models/linear/infer", ROW)

    def predict(self) -> str:
        """Ask for a prediction; returns its id."""
        request = urllib.request.Request(self.url + "/v2/models/linear/infer", json.dumps(ROW).encode())
        with urllib.request.urlopen(request, timeout=60) as response:
            return str(response.headers["Inferloop-Prediction-Id"])

    def counted(self) -> int:
        """Good answers, as /metrics says."""
        found = re.findall(r'^inferloop_requests_total\{.*outcome="ok".*\} (\S+)$', self.ask("/metrics"), re.MULTILINE)
        return int(sum(map(float, found)))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
