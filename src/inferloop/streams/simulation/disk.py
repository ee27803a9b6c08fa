"""The twin of the disk: the real journal on a file of its own, which fails when told to and dies with its process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from inferloop.core.errors import StorageError
from inferloop.data.journal import Journal, StoredDecision
from inferloop.streams.simulation.world import World

_NOTHING: Mapping[str, bytes] = {}


class SimulatedJournal(Journal):
    """The journal of one process. What is committed survives; a power cut is not simulated, only the end of the process."""

    def __init__(self, path: Path, world: World) -> None:
        super().__init__(path, clock=world.clock)
        self._world = world
        self._generation = world.generation

    def write(
        self, decisions: Sequence[StoredDecision], state: Mapping[str, bytes] = _NOTHING, once_keys: Sequence[str] = ()
    ) -> None:
        """See `Journal.write`."""
        self._world.step(self._generation, "before write")
        how = self._fail_if_full()
        super().write(decisions, state, once_keys)
        self._world.commit(self._generation, decisions)
        if how == "unsure":
            raise StorageError("the disk says that it did not write")
        self._world.step(self._generation, "after write")

    def flush(self) -> None:
        """See `Journal.flush`."""
        self._world.check(self._generation)
        self._fail_if_full()
        super().flush()

    def find(self, pipeline: str, message_ids: Iterable[str]) -> dict[str, StoredDecision]:
        """See `Journal.find`."""
        self._world.check(self._generation)
        self._fail_if_full()
        return super().find(pipeline, message_ids)

    def seen_once(self, pipeline: str, keys: Iterable[str]) -> set[str]:
        """See `Journal.seen_once`."""
        self._world.check(self._generation)
        self._fail_if_full()
        return super().seen_once(pipeline, keys)

    def save_state(self, pipeline: str, state: Mapping[str, bytes]) -> None:
        """See `Journal.save_state`."""
        self._world.check(self._generation)
        self._fail_if_full()
        super().save_state(pipeline, state)

    def end(self) -> None:
        """Close the file as the system does when a process is gone: what was only noted is lost."""
        self._store.close()
        self._reader.close()

    def _fail_if_full(self) -> str:
        how = self._world.trouble("disk")
        if how == "full":
            self._world.counts["disk_full"] += 1
            raise StorageError("the disk is full")
        return how
