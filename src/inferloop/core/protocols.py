"""What a plugin promises: who calls it, with what, from which thread, and what comes back.

Third parties keep these contracts without a base class; `tests/contracts/` checks every plugin that is installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from inferloop.core.datatypes import Array, Tensors
from inferloop.core.sample import Message, Sample
from inferloop.core.signature import Signature
from inferloop.core.target import Target

if TYPE_CHECKING:
    from inferloop.core.bundle import Bundle


class Session(Protocol):
    """One loaded model.

    `run` is called from one thread at a time and may block; whoever needs it off the event loop moves it there. A session that
    has an attribute `concurrent` that is true is called from several threads at once; its `close` may meet a run.
    """

    signature: Signature

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """Run one batch.

        Args:
            inputs: every input of `signature`, already checked against it; where the signature is batched, axis 0 has
                the same length N >= 1 in all.

        Returns:
            Every output of `signature`, axis 0 of length N, rows in input order. The arrays belong to the caller.

        Raises:
            EngineError: the engine failed; the session stays usable.
        """
        ...

    def close(self) -> None:
        """Free threads and memory. A second call does nothing."""
        ...


class StreamingSession(Session, Protocol):
    """A session that can give several answers to one request, or none."""

    def stream(self, inputs: Tensors) -> Iterator[dict[str, Array]]:
        """Run one request; threads as `run`. The iterator is closed early when the caller leaves.

        Args:
            inputs: as those of `run`.

        Returns:
            The answers as they are made, each with every output of `signature`.

        Raises:
            EngineError: the engine failed, at once or between two answers; the session stays usable.
        """
        ...


class Engine(Protocol):
    """Loads Bundles for a Target. Stateless; `load` may be called from any thread."""

    def load(self, bundle: Bundle, target: Target) -> Session:
        """Load the variant of `bundle` for `target`.

        Raises:
            Unsupported: the engine offers no such device or precision.
            EngineError: the engine cannot read the model.
        """
        ...

    def devices(self) -> tuple[str, ...]:
        """The devices found on this machine; never assumed."""
        ...


class Codec(Protocol):
    """Makes a Sample of a Message. Called from any thread; keeps no state.

    One whose payloads are documents in another form than JSON has a method `encode(document) -> bytes`, for tests of pipelines.
    """

    def decode(self, message: Message) -> Sample:
        """Decode one message.

        Raises:
            InvalidInput: the bytes are not what the codec reads, or a required field is missing; the message says which.
        """
        ...

    def fields(self) -> Mapping[str, str]:
        """The fields it yields, by name, with their type: `string`, `number`, `bool`, `bytes`, `array` or `any`."""
        ...


class Source(Protocol):
    """Where messages come from. All methods are called on the event loop, by one task.

    Attributes:
        durable: what was not acknowledged comes again after a crash.
        replayable: every message has a `position` that stays valid, so that it has an identity even without an id.
        ordered: messages come in the order in which they were sent.

    A source with an attribute `live` that is true shows what happens now, and is acknowledged in any order; a pipeline file may
    leave some of its messages out (`rate`, `when_full`).
    """

    durable: bool
    replayable: bool
    ordered: bool

    async def open(self) -> None:
        """Connect. Retries with a message in the log while the other side is not there; cancelling it stops cleanly."""
        ...

    async def read(self) -> Sequence[Message]:
        """Wait for messages and return those at hand, at least one; an empty sequence means the source has ended."""
        ...

    async def ack(self, messages: Sequence[Message]) -> None:
        """Tell the other side that these need not come again. Called in the order in which they were read."""
        ...

    async def close(self) -> None:
        """Disconnect; what was not acknowledged stays with the other side. A second call does nothing."""
        ...


class Delivery(msgspec.Struct, frozen=True):
    """One rendered effect of a decision.

    Attributes:
        key: the idempotency key; the same for every repetition of the same effect.
        payload: what the sink's config rendered (a JSON body, a row), plain values only.
        message_id: the id of the message that was decided.
    """

    key: str
    payload: Mapping[str, Any]
    message_id: str


class Sink(Protocol):
    """Where a decision acts. All methods are called on the event loop; `send` is called by one task at a time.

    Attributes:
        idempotent: the other side applies an effect once however often its key comes.
        batched: `send` may get several deliveries; otherwise it always gets one.

    A batched sink that has the attributes `batch_max` and `batch_wait_s` says how many deliveries it gets at most, and for how
    many seconds the first of them waits for others.
    """

    idempotent: bool
    batched: bool

    async def open(self) -> None:
        """Connect, as `Source.open`."""
        ...

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """Deliver all, in order; return only when the other side confirmed.

        Raises:
            Unavailable: try all of them again later; the key makes a repetition harmless at an idempotent sink.
            InvalidInput: the first delivery of `deliveries` that is not delivered yet is refused for good; a sink that can
                fail one of several sets `batched` to False and gets one delivery a call.
        """
        ...

    async def close(self) -> None:
        """Flush and disconnect. A second call does nothing."""
        ...
