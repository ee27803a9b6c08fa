"""The twin of a source: a broker that outlives the process, and what the process holds of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext
from inferloop.streams.simulation.world import World

_LATENCY_S = 0.001
_CHUNK = 8


class Broker:
    """The other side of one source.

    Attributes:
        kept: what was published, by position.
        acked: positions that need not come again.
        gone: positions that a broker without memory could not deliver.
        delivered: positions that some process has read.
    """

    def __init__(self, world: World, name: str, real: Source) -> None:
        self.name = name
        self.durable, self.replayable, self.ordered = real.durable, real.replayable, real.ordered
        self.kept: list[bytes] = []
        self.acked: set[int] = set()
        self.gone: set[int] = set()
        self.delivered: set[int] = set()
        self.arrived = asyncio.Event()
        self.session: SimulatedSource | None = None
        self._world = world

    @property
    def left(self) -> set[int]:
        """What must still be delivered or acknowledged."""
        return set(range(len(self.kept))) - self.acked - self.gone

    def publish(self, payload: bytes) -> None:
        """A message comes; without memory and listener it is gone."""
        self.kept.append(payload)
        if not self.durable and (self.session is None or not self._world.alive):
            self.gone.add(len(self.kept) - 1)
        self.arrived.set()

    def disconnect(self) -> None:
        """The connection breaks: what was not acknowledged comes again, in its order."""
        if self.session is not None:
            self.session.begin_again()
        self.arrived.set()

    def storm(self) -> None:
        """What waits for too long in the process is delivered again, and stays with the process, too."""
        if self.session is not None and self.durable and not self.replayable:
            self.session.repeat()
        self.arrived.set()


class SimulatedSource(Source):
    """A session of one process with a broker."""

    def __init__(
        self,
        broker: Broker,
        context: SourceContext,
        world: World,
        identity: Callable[[Message], str],
        settled: Callable[[str], str],
    ) -> None:
        """Set up.

        Args:
            broker: the other side.
            context: of the pipeline; a replayable source keeps its position with it.
            world: the truth.
            identity: the id under which a message is decided; empty where it has none.
            settled: what is missing to acknowledge a message of that id; empty if nothing is.
        """
        self.durable, self.replayable, self.ordered = broker.durable, broker.replayable, broker.ordered
        self._broker = broker
        self._context = context
        self._world = world
        self._identity = identity
        self._settled = settled
        self._generation = world.generation
        self._next = 0
        self._again: deque[int] = deque()
        self._held: deque[int] = deque()

    async def open(self) -> None:
        """See `Source.open`."""
        await self._pause()
        self._broker.session = self
        if self.replayable:
            self._next = int(self._context.resume or 0)
        elif self.durable:
            self._next = len(self._broker.kept)
            self._again.extend(self._unacknowledged())
        else:
            self._next = len(self._broker.kept)

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        await self._pause()
        while not (places := self._take()):
            self._broker.arrived.clear()
            await self._broker.arrived.wait()
        self._world.check(self._generation)
        self._held.extend(places)
        self._world.counts["redelivered"] += sum(place in self._broker.delivered for place in places)
        self._broker.delivered.update(places)
        return [self._message(place) for place in places]

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`."""
        self._world.step(self._generation, "before ack")
        for message in messages:
            place = message.token
            if not isinstance(place, int):
                raise TypeError("a token of another source")
            if self._held.popleft() != place:
                self._world.blame(f"acknowledged out of order: {self._broker.name} {place}")
            self._acknowledge(place, message)
        self._world.step(self._generation, "after ack")

    async def close(self) -> None:
        """See `Source.close`."""
        if self._broker.session is self:
            self._broker.session = None

    def begin_again(self) -> None:
        """The connection is new."""
        self._world.tell("disconnect", self._broker.name)
        if self.replayable:
            self._next = min([*self._held, self._next])
        elif self.durable:
            self._again = deque(self._unacknowledged())

    def repeat(self) -> None:
        """Deliver again what this process holds."""
        held = [place for place in dict.fromkeys(self._held) if place not in self._broker.acked]
        if not self.ordered:
            self._world.random.shuffle(held)
        self._world.tell("storm", self._broker.name, len(held))
        self._again.extend(held)

    def _unacknowledged(self) -> list[int]:
        places = [place for place in range(self._next) if place not in self._broker.acked]
        if not self.ordered:
            self._world.random.shuffle(places)
        return places

    def _take(self) -> list[int]:
        places: list[int] = []
        most = self._world.random.randint(1, _CHUNK)
        while self._again and len(places) < most:
            places.append(self._again.popleft())
        while self._next < len(self._broker.kept) and len(places) < most:
            if self._next not in self._broker.gone:
                places.append(self._next)
            self._next += 1
        return places

    def _message(self, place: int) -> Message:
        world = self._world
        position = str(place) if self.replayable else ""
        message = Message(self._broker.kept[place], self._context.name, world.time(), position=position, token=place)
        id_ = self._identity(message)
        if id_ and id_ not in world.committed:
            world.received.setdefault((self._generation, id_), message.received)
        world.tell("read", self._broker.name, place)
        return message

    def _acknowledge(self, place: int, message: Message) -> None:
        world = self._world
        missing = self._settled(self._identity(message))
        if missing:
            world.blame(f"acknowledged early: {missing}")
        if not self.replayable and not world.calm and world.random.randrange(100) < world.plan.deaf:
            world.tell("deaf", self._broker.name, place)
            return
        world.tell("acked", self._broker.name, place)
        self._broker.acked.add(place)
        if self.replayable:
            self._context.remember(str(place + 1))

    async def _pause(self) -> None:
        await asyncio.sleep(self._world.random.expovariate(1 / _LATENCY_S))
        self._world.check(self._generation)
