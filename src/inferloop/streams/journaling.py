"""The journal from the event loop: one thread of its own, and patience with a disk that is full or locked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.errors import Conflict, StorageError
from inferloop.data.journal import Journal, StoredDecision
from inferloop.streams.work import Work

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 5.0
_LOG_EVERY = 10
Result = TypeVar("Result")


class JournalThread:
    """Runs journal calls in order on one thread."""

    def __init__(self, journal: Journal, pipeline: str, *, clock: Clock = SYSTEM) -> None:
        self._random = clock.random
        self.journal = journal
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=f"journal-{pipeline}")
        self._pipeline = pipeline

    async def call(self, work: Callable[[], Result], *, on: Executor | None = None) -> Result:
        """The result of `work`; tried again for ever while the disk does not take it, so that nothing goes on without it.

        Args:
            work: uses the journal, and may block.
            on: another executor, for a reading call that need not wait for the write under way.
        """
        attempt = 0
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(on or self.executor, work)
            except StorageError as error:
                attempt += 1
                delay_s = min(_LONGEST_WAIT_S, 0.05 * 2 ** min(attempt, 16)) * self._random.uniform(0.5, 1.0)
                if attempt == 1 or attempt % _LOG_EVERY == 0:
                    facts = {"pipeline": self._pipeline, "reason": error.message, "retry_s": delay_s}
                    log.error("journal does not take decisions, the pipeline waits", extra=facts)
                await asyncio.sleep(delay_s)

    def close(self) -> None:
        """Wait for the call under way; what was noted and not written yet is written when the journal is closed."""
        self.executor.shutdown(wait=True, cancel_futures=True)


def write_decided(
    journal: Journal, pipeline: str, works: Sequence[Work], state: Mapping[str, bytes], once_keys: Sequence[str] = ()
) -> None:
    """Put the decisions of some work on disk, with state; may be tried again, also where the disk took what it said it did not.

    Work that was decided meanwhile keeps that decision; work without one is left out.

    Raises:
        StorageError: nothing was written.
    """
    decisions = [work.decision for work in works if work.decision is not None]
    try:
        _write(journal, pipeline, decisions, state, once_keys)
    except Conflict:
        found = journal.find(pipeline, [decision.message_id for decision in decisions])
        for work in works:
            work.decision = found.get(work.id, work.decision)
        rest = [decision for decision in decisions if decision.message_id not in found]
        _write(journal, pipeline, rest, state, once_keys)


def _write(
    journal: Journal,
    pipeline: str,
    decisions: Sequence[StoredDecision],
    state: Mapping[str, bytes],
    once_keys: Sequence[str],
) -> None:
    if decisions:
        journal.write(decisions, state, once_keys)
    elif state:
        journal.save_state(pipeline, state)
