"""What one request may ask beside its tensors: its place in the queue, its place in a sequence."""

from __future__ import annotations

from typing import NamedTuple

from inferloop.prediction.timeline import Timeline


class SequenceStep(NamedTuple):
    """One request of a sequence, whose state the model keeps between requests.

    Attributes:
        id: names the sequence: a number or a text, never 0 or empty.
        start: whether it begins the sequence, with fresh state.
        end: whether it is the last one; its state is dropped after the answer.
    """

    id: int | str
    start: bool = False
    end: bool = False


class Options(NamedTuple):
    """How one request wants to be treated.

    Attributes:
        priority: 1 is served first; 0 takes the model's default.
        sequence: its place in a sequence; None for a request that stands alone.
        timeline: where its stations are written down; None for a request that is not traced.
    """

    priority: int = 0
    sequence: SequenceStep | None = None

    @property
    def sequence_key(self) -> str:
        """Decides about the canary where no key does: all requests of a sequence go to one version."""
        return "" if self.sequence is None else str(self.sequence.id)

    timeline: Timeline | None = None


NO_OPTIONS = Options()
