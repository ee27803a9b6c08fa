"""One of the sessions that a Batcher keeps busy."""

from __future__ import annotations

from collections.abc import Sequence

from inferloop.core.protocols import Session
from inferloop.prediction.jobs import Job
from inferloop.prediction.worker import Worker


class Instance:
    """A session, the thread that runs it, and the batch that it has. Event loop only.

    Attributes:
        worker: made with the first batch; None before it and where the session runs on the event loop.
        jobs: the batch that it has; empty while it is free.
    """

    __slots__ = ("jobs", "session", "worker")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.worker: Worker | None = None
        self.jobs: Sequence[Job] = ()

    def stop(self) -> None:
        """Let the thread end after the batch it has."""
        if self.worker is not None:
            self.worker.stop()
            self.worker = None
