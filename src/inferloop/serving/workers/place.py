"""One place for a worker: the process that has it now, when the next one may start, what it has said."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence

from inferloop.serving.workers.seat import Seat

log = logging.getLogger(__name__)

STEADY_S = 10.0
"""A worker that lived so long did not die at once: the next one starts without a pause."""
_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Place:
    """One of the workers, and those that come after it. Used by one thread.

    Attributes:
        text: what its process said when it was ready; None before that.
        was_ready: whether a process of this place was ready once.
        starts: how many processes it has had.
    """

    def __init__(self, command: Sequence[str], seat: Callable[[int], Seat]) -> None:
        """Set up; nothing is started.

        Args:
            command: starts a worker, with `seat` in its environment.
            seat: makes the seat, given the descriptor of the line.
        """
        self._command = list(command)
        self._seat = seat
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._said = b""
        self._since = 0.0
        self._failures = 0
        self.start_at = 0.0
        self.text: str | None = None
        self.was_ready = False
        self.starts = 0

    @property
    def is_up(self) -> bool:
        """Whether it has a process, ready or not."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of its process; 0 without one."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> socket.socket:
        """Start a process; returns the line to listen to, which is closed with it."""
        ours, theirs = socket.socketpair()
        with theirs:
            environment = {**os.environ, **self._seat(theirs.fileno()).environment()}
            self._process = subprocess.Popen(self._command, env=environment, pass_fds=[theirs.fileno()])  # noqa: S603
        self._line, self._said, self.text, self._since = ours, b"", None, time.monotonic()
        self.starts += 1
        return ours

    def hear(self) -> bool:
        """Read what it says; false when it is gone."""
        if self._line is None:
            return False
        try:
            said = self._line.recv(65536)
        except OSError:
            said = b""
        self._said += said
        line, end, _ = self._said.partition(b"\n")
        if end and self.text is None:
            self.text = json.loads(line)["ready"]
            self.was_ready = True
        return bool(said)

    def gone(self) -> int:
        """Take leave of a process that has ended; says when the next one may start.

        Returns:
            Its exit code, negative for a signal.
        """
        if self._process is None or self._line is None:
            return 0
        code = self._process.wait()
        self._line.close()
        self._process = self._line = self.text = None
        if time.monotonic() - self._since >= STEADY_S:
            self._failures = 0
        self.postpone()
        return code

    def postpone(self) -> None:
        """Count a failure: the first one costs no pause, those that follow at once longer and longer ones."""
        pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._failures += 1
        self.start_at = time.monotonic() + pause_s

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its process, if there is one."""
        if self._process is not None:
            self._process.send_signal(number)
