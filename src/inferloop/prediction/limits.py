"""The bounds of one Predictor."""

from __future__ import annotations

from dataclasses import dataclass

from inferloop.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a Predictor takes on before it says `Overloaded`.

    Attributes:
        max_batch: rows of one run of the engine, and of one request.
        max_delay_s: how long a request may wait for company; 0 takes what queued while the engine was busy and never waits.
        queue_rows: rows that may wait for the engine.
        inline: run the engine on the event loop; None decides by measuring at load (tiny models only).
        transform_threads: threads for transforms that are too slow for the event loop.
        drain_s: how long closing waits for what was accepted.
    """

    max_batch: int = 64
    max_delay_s: float = 0.0
    queue_rows: int = 1024
    inline: bool | None = None
    transform_threads: int = 2
    drain_s: float = 10.0

    def __post_init__(self) -> None:
        if self.max_batch < 1 or self.queue_rows < self.max_batch:
            raise InvalidInput(
                f"max_batch {self.max_batch} and queue_rows {self.queue_rows} do not fit", hint="1 <= max_batch <= queue_rows"
            )
        if self.max_delay_s < 0 or self.drain_s < 0 or self.transform_threads < 1:
            raise InvalidInput(
                f"max_delay_s {self.max_delay_s}, drain_s {self.drain_s}, transform_threads {self.transform_threads} do not fit",
                hint="times are at least 0, threads at least 1",
            )
