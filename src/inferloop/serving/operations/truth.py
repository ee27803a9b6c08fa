"""Truth for predictions: that of another worker, too, which may have answered before it wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from inferloop.core.errors import NotFound, Unsupported
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.records import FeedbackRecord
from inferloop.serving.services import Services

ASK = "flush"


class Truth:
    """The ledger as those see it who give feedback. Event loop only; the disk is waited for in a thread.

    Its methods raise `Unsupported` where the server keeps no ledger, and `StorageError` where the disk takes nothing.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def model_of(self, prediction_id: str) -> str:
        """Who made a prediction.

        Raises:
            NotFound: nobody.
        """
        ledger = self._ledger()
        try:
            return (await asyncio.to_thread(ledger.prediction, prediction_id)).model
        except NotFound:
            if not await self._others_wrote():
                raise
            return (await asyncio.to_thread(ledger.prediction, prediction_id)).model

    async def add(self, records: Sequence[FeedbackRecord]) -> list[str]:
        """Attach truths, on disk when it returns; returns the prediction ids that are not known, whose truth is left out."""
        ledger = self._ledger()
        unknown = await asyncio.to_thread(ledger.feedback_many, records)
        if unknown and await self._others_wrote():
            left_out = set(unknown)
            again = [record for record in records if record.prediction_id in left_out]
            unknown = await asyncio.to_thread(ledger.feedback_many, again)
        return unknown

    async def share(self) -> None:
        """Answers another worker: what this one has predicted is on disk."""
        if self._services.ledger is not None:
            await asyncio.to_thread(self._services.ledger.flush)

    async def _others_wrote(self) -> bool:
        """Let the other workers write what they have answered; False if there are none."""
        if self._services.peers is None:
            return False
        await self._services.peers.ask(ASK)
        return True

    def _ledger(self) -> Ledger:
        if self._services.ledger is None:
            raise Unsupported("this server keeps no ledger, so it takes no feedback")
        return self._services.ledger
