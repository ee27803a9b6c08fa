"""What a pipeline hands to its sources and sinks when it makes them: `Plugin(config, context)`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from inferloop.data.journal import Journal


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source knows of the pipeline around it.

    Attributes:
        name: its name in the pipeline.
        resume: the position that was acknowledged last, as `remember` got it; empty at the first start.
        remember: keep a position durably, some time soon; never blocks.
    """

    pipeline: str
    name: str
    resume: str = ""
    remember: Callable[[str], None] = field(default=lambda _: None)


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What a sink knows of the pipeline around it.

    Attributes:
        name: its name in the pipeline.
        journal: for the review queue; None in a check, where nothing is opened.
        executor: the one thread that uses the journal.
    """

    pipeline: str
    name: str
    journal: Journal | None = None
    executor: Executor | None = None
