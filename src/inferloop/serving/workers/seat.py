"""What a worker knows of the whole: its number, the ports, the folder that all share, and the line to its supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

VARIABLE = "INFERLOOP_WORKER"


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of one worker.

    Attributes:
        index: from 0 on; a worker that is started in place of another has the same.
        count: how many workers there are.
        ports: what to listen on together with the others: `http`, and `grpc` and `metrics` where they are served.
        folder: seen by all workers and the supervisor; gone when the server ends.
        line: the descriptor of the line to the supervisor.
    """

    index: int
    count: int
    ports: Mapping[str, int]
    folder: str
    line: int

    @classmethod
    def take(cls) -> Self | None:
        """The seat that the supervisor gave this process; None in a process that is no worker.

        From then on the process ends as on SIGTERM when its supervisor is gone.
        """
        given = os.environ.pop(VARIABLE, "")
        if not given:
            return None
        seat = cls(**json.loads(given))
        os.set_inheritable(seat.line, False)
        threading.Thread(target=_end_with_supervisor, args=(seat.line,), name="inferloop-supervisor", daemon=True).start()
        return seat

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to take the seat; it inherits `line`."""
        return {VARIABLE: json.dumps(asdict(self))}

    @property
    def shared(self) -> Path:
        """`folder` as a path."""
        return Path(self.folder)

    def ready(self, text: str) -> None:
        """Tell the supervisor that this worker answers, and what a user should read when all do."""
        os.write(self.line, json.dumps({"ready": text}).encode() + b"\n")


def _end_with_supervisor(line: int) -> None:
    with socket.socket(fileno=os.dup(line)) as connection:
        try:
            while connection.recv(64):
                continue
        except OSError:
            pass
    os.kill(os.getpid(), signal.SIGTERM)
