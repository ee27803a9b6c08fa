"""What a server does as one of several: it counts with the others, opens what they open, and has the settings that they have."""

from __future__ import annotations

import asyncio
from functools import partial

from inferloop.core import telemetry
from inferloop.serving.operations import logging, statistics, trace, truth
from inferloop.serving.services import Services
from inferloop.serving.workers import shared_settings, wishes
from inferloop.serving.workers.board import Board
from inferloop.serving.workers.peers import Answer, Peers
from inferloop.serving.workers.seat import Seat
from inferloop.serving.workers.shared_settings import SharedSettings
from inferloop.serving.workers.shared_tally import SharedTally
from inferloop.serving.workers.wishes import Wishes


class Worker:
    """Ties the services of one process to those of the others. Event loop only."""

    def __init__(self, seat: Seat, services: Services) -> None:
        """Take over what of the services is for all; before a front end is made of them."""
        folder = seat.shared
        answers: dict[str, Answer] = {
            statistics.ASK: statistics.Statistics(services).share,
            truth.ASK: truth.Truth(services).share,
            shared_settings.ASK: self._look,
            wishes.ASK: self._catch_up,
        }
        self._board = Board(folder, telemetry.exposition)
        self._peers = Peers(folder, answers)
        self._wishes = Wishes(services.router, folder, peers=self._peers)
        self._settings = SharedSettings(
            folder, self._peers, {trace.PART: partial(trace.adopt, services), logging.PART: logging.adopt}
        )
        services.changes = self._wishes
        services.exposition = self._board.text
        services.tally = SharedTally(folder)
        services.settings = self._settings
        services.peers = self._peers

    async def join(self) -> None:
        """Do and take what requests to other workers did, then follow them; when the router is open."""
        await self._peers.start()
        await self._settings.start()
        await self._wishes.start()

    async def leave(self) -> None:
        """Follow no longer, and count for the last time; when the last answer is given."""
        await self._peers.aclose()
        await self._settings.aclose()
        await self._wishes.aclose()
        await asyncio.to_thread(self._board.close)

    async def _look(self) -> None:
        self._settings.look()

    async def _catch_up(self) -> None:
        await self._wishes.catch_up()
