"""Answers beside the traffic: the ledger hears them, nobody else does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from inferloop.prediction.live import Loaded
from inferloop.prediction.servable import Servable

log = logging.getLogger(__name__)

_MOST = 64

Ask = Callable[[Servable, str], Awaitable[object]]
"""Asks a version the question of a request, under another prediction id."""


class Shadows:
    """The shadow answers that are under way, up to a bound. Event loop only."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def ask(self, loaded: Loaded, question: Ask, prediction_id: str) -> None:
        """Let a version answer under `ID.shadow`; at the bound it is counted as failed, at once."""
        if len(self._tasks) >= _MOST:
            loaded.predictor.meter.shadow_failed()
            return
        task = asyncio.create_task(_ask(loaded, question, f"{prediction_id}.shadow"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Wait for those under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def _ask(loaded: Loaded, question: Ask, prediction_id: str) -> None:
    try:
        with loaded as predictor:
            await question(predictor, prediction_id)
    except Exception as error:  # whatever a shadow does, the traffic does not notice
        loaded.predictor.meter.shadow_failed()
        log.debug("shadow failed", extra={"model": loaded.predictor.name, "error": str(error)})
