"""The twin of a sink: another system with a memory of its own."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.streams.loading import DEAD_LETTER
from inferloop.streams.simulation.world import World

_LATENCY_S = 0.002
_HANG_S = 20.0


class Shop:
    """The other side of one sink.

    Attributes:
        effects: what took effect, by key, in that order.
        taken: keys that another pipeline has used.
        refused: keys that it does not want.
    """

    def __init__(self, name: str, real: Sink) -> None:
        self.name = name
        self.idempotent, self.batched = real.idempotent, real.batched
        self.keeps_input = bool(getattr(real, "keeps_input", False))
        self.effects: dict[str, Delivery] = {}
        self.taken: set[str] = set()
        self.refused: set[str] = set()

    def apply(self, delivery: Delivery, world: World) -> None:
        """Let a delivery take effect; a known key does nothing where the sink is idempotent."""
        before = self.effects.get(delivery.key)
        if before is not None:
            if before.payload != delivery.payload and self.name != DEAD_LETTER:  # a refusal may lack the message by then
                world.blame(f"one key, two payloads: {self.name} {delivery.message_id}")
            world.tell("repeated" if self.idempotent else "twice", self.name, delivery.message_id)
        elif self.idempotent and delivery.key in self.taken:
            world.tell("taken", self.name, delivery.message_id)
        else:
            self.effects[delivery.key] = delivery
            world.tell("effect", self.name, delivery.message_id)


class SimulatedSink(Sink):
    """A connection of one process to a shop."""

    def __init__(self, shop: Shop, world: World, stored: Callable[[str, Delivery], str]) -> None:
        """Set up.

        Args:
            shop: the other side.
            world: the truth.
            stored: what is wrong with a delivery to a sink, compared with the journal; empty if nothing is.
        """
        self.idempotent, self.batched, self.keeps_input = shop.idempotent, shop.batched, shop.keeps_input
        self._shop = shop
        self._world = world
        self._stored = stored
        self._generation = world.generation

    async def open(self) -> None:
        """See `Sink.open`."""
        await self._pause()

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        await self._pause()
        how = self._world.trouble("sink", self._shop.name)
        if how == "hangs":
            await asyncio.sleep(_HANG_S)
        if how in ("down", "hangs"):
            self._world.counts["down"] += 1
            raise Unavailable(f"{self._shop.name} is {how}")
        for place, delivery in enumerate(deliveries):
            if how == "halting" and 2 * place >= len(deliveries):
                raise Unavailable(f"{self._shop.name} took {place} of {len(deliveries)}")
            self._send(delivery)
        await self._pause()
        if how == "deaf":
            raise Unavailable(f"the confirmation of {self._shop.name} is lost")

    async def close(self) -> None:
        """See `Sink.close`."""

    def _send(self, delivery: Delivery) -> None:
        world = self._world
        world.step(self._generation, "before effect")
        wrong = self._stored(self._shop.name, delivery)
        if wrong:
            world.blame(f"{wrong}: {self._shop.name} {delivery.message_id}")
        if self._shop.name != DEAD_LETTER and zlib.crc32(delivery.key.encode()) % 100 < world.plan.refusing:
            world.tell("refused", self._shop.name, delivery.message_id)
            self._shop.refused.add(delivery.key)
            raise InvalidInput(f"{self._shop.name} does not want it")
        self._shop.apply(delivery, world)
        world.step(self._generation, "after effect")

    async def _pause(self) -> None:
        await asyncio.sleep(self._world.random.expovariate(1 / _LATENCY_S))
        self._world.check(self._generation)


def reported(letters: Mapping[str, Delivery]) -> set[str]:
    """The keys whose refusal a dead letter reports."""
    found: set[Any] = {letter.payload.get("key") for letter in letters.values()}
    return found
