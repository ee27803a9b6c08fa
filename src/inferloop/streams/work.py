"""A message on its way through a run: read, decided, delivered, acknowledged."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from inferloop.core.errors import InferloopError
from inferloop.core.protocols import Delivery
from inferloop.core.sample import Message, Sample
from inferloop.data.journal import StoredDecision, StoredDelivery
from inferloop.streams.rules.scored import Scored


@dataclass(slots=True, eq=False)
class Arrival:
    """One message from one source; acknowledged once it is settled and everything read before it is."""

    message: Message
    source: int
    settled: bool = False


@dataclass(slots=True, eq=False)
class Work:
    """Everything about one message id while it is under way.

    Attributes:
        arrivals: the messages with this id that wait for its end; more than one when it came again meanwhile.
        sample: None if it could not be decoded.
        error: why it cannot be decided.
        scored: what the model said; None before, and for what needs no model.
        stale: too old for its model section.
        outstanding: required deliveries that were not confirmed yet.
        confirmed: keys of the deliveries that need not be sent again.
        settled: every required delivery was confirmed.
        origin: what stands for the message of a window, which no source sent.
        clears: the entry of the state that its decision removes.
    """

    id: str
    arrivals: list[Arrival] = field(default_factory=list)
    sample: Sample | None = None
    error: InferloopError | None = None
    error_kind: str = ""
    scored: Scored | None = None
    stale: bool = False
    decision: StoredDecision | None = None
    outstanding: int = 0
    confirmed: set[str] = field(default_factory=set)
    settled: bool = False
    origin: Message | None = None
    clears: str = ""

    @property
    def message(self) -> Message:
        """The message that came first; for a window, what stands for it."""
        if self.origin is not None:
            return self.origin
        return self.arrivals[0].message


class Parcel(msgspec.Struct, frozen=True, eq=False):
    """One delivery on its way to one sink, for one piece of work.

    Attributes:
        stands_for: the stored delivery that is done when this one is confirmed; not its own for a dead letter that reports
            a refusal.
    """

    work: Work
    sink: str
    delivery: Delivery
    required: bool
    stands_for: StoredDelivery
