"""When one traced request was where, on its way through the queue and the engine."""

from __future__ import annotations


class Timeline:
    """The stations of one request; each is written once, by whoever has the request then. 0 for one that was not reached.

    Attributes:
        queue_start_ns: it joined the queue; nanoseconds since the epoch, as all.
        compute_start_ns: the engine took its batch.
        compute_end_ns: the engine was done.
        batch_rows: the rows of its batch.
    """

    __slots__ = ("batch_rows", "compute_end_ns", "compute_start_ns", "queue_start_ns")

    def __init__(self) -> None:
        self.queue_start_ns = 0
        self.compute_start_ns = 0
        self.compute_end_ns = 0
        self.batch_rows = 0
