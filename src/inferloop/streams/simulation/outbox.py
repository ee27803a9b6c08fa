"""The twin of an outbox: the real one on a file of its own, which fails when told to and dies with its process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from inferloop.core.errors import StorageError
from inferloop.core.protocols import Delivery
from inferloop.streams.delivery.outbox import Outbox, StoredParcel, StoredRow
from inferloop.streams.simulation.world import World

_BYTES = 4000
"""So little that the deliveries of a run fill it."""


class SimulatedOutbox(Outbox):
    """The outbox of one process. It holds up what comes when it is full; what it would drop is not simulated."""

    def __init__(self, path: Path, pipeline: str, world: World) -> None:
        super().__init__(path, pipeline, max_bytes=_BYTES, drop_oldest=False, clock=world.clock)
        self._world = world
        self._generation = world.generation

    async def put(self, sink: str, deliveries: Sequence[Delivery]) -> Counter[str]:
        """See `Outbox.put`."""
        self._world.step(self._generation, "before store")
        how = self._fail_if_full()
        dropped = await super().put(sink, deliveries)
        self._world.check(self._generation)
        self._world.stored.update((sink, delivery.key) for delivery in deliveries)
        self._world.tell("stored", sink, len(deliveries))
        if how == "unsure":
            raise StorageError("the disk says that it did not write")
        self._world.step(self._generation, "after store")
        return dropped

    async def page(self, sink: str, most: int) -> list[StoredParcel]:
        """See `Outbox.page`."""
        self._world.check(self._generation)
        self._fail_if_full()
        return await super().page(sink, most)

    async def remove(self, parcels: Sequence[StoredParcel]) -> None:
        """See `Outbox.remove`."""
        self._world.step(self._generation, "before removal")
        how = self._fail_if_full()
        await super().remove(parcels)
        if how == "unsure":
            raise StorageError("the disk says that it did not write")
        self._world.step(self._generation, "after removal")

    def end(self) -> None:
        """Close the file as the system does when a process is gone."""
        database, self._database = self._database, None
        if database is not None:
            database.close()
        self._thread.shutdown()

    def _insert(self, rows: Sequence[StoredRow], needed: int) -> Counter[str] | None:
        inserted = super()._insert(rows, needed)
        self._world.counts["held_up"] += inserted is None
        return inserted

    def _fail_if_full(self) -> str:
        how = self._world.trouble("disk")
        if how == "full":
            self._world.counts["outbox_full"] += 1
            raise StorageError("the disk is full")
        return how
