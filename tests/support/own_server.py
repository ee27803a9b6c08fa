"""A server of the test's own on a free loopback port: started, killed and started again by the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.broker import free_port

_FOLDERS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin:/opt/homebrew/sbin"


def binary(name: str, *, install: str) -> str:
    """The path of an installed program; without it the test is skipped, with the way out."""
    found = shutil.which(name) or shutil.which(name, path=_FOLDERS)
    if found is None:
        pytest.skip(f"{name} is not installed: {install}")
    return found


class OwnServer:
    """One process that listens on `port`, and keeps its state in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """What starts it in the foreground."""
        raise NotImplementedError

    def start(self) -> None:
        """Start and wait until it listens."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError(f"{self.command()[0]} does not listen on {self.port}")

    def kill(self) -> None:
        """SIGKILL, in the midst of whatever it does."""
        assert self._process is not None
        assert self._process.poll() is None, "it ended before it was killed"
        os.kill(self._process.pid, signal.SIGKILL)
        assert self._process.wait(60) == -signal.SIGKILL
        self._process = None

    def stop(self) -> None:
        """SIGTERM; waits for the end."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(20)
            self._process = None
