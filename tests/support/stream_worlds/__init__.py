"""The other side of every source and sink, real and of our own: one module a kind of broker, service or file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferloop.core.protocols import Sink, Source

Payloads = list[bytes]


@dataclass
class SourceWorld:
    """The other side of a source: how to make one, and how to put messages there.

    Attributes:
        grows: messages may be put after a source was opened.
    """

    make: Callable[[], Source]
    put: Callable[[Payloads], None]
    grows: bool = True


@dataclass
class SinkWorld:
    """The other side of a sink: how to make one, and what arrived there."""

    make: Callable[[], Sink]
    effects: Callable[[], Sequence[str]]
    fail: Callable[[int], None] | None = None
