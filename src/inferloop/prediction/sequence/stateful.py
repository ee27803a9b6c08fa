"""A request of a sequence, with the state that the server kept for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import InvalidInput, Overloaded
from inferloop.core.signature import Signature
from inferloop.prediction.options import Options
from inferloop.prediction.sequence.contract import Contract
from inferloop.prediction.sequence.sequences import Sequences
from inferloop.prediction.settings import SequenceSettings

Submit = Callable[[Tensors, Options, float | None], asyncio.Future[Tensors]]
"""Hands a request to the batcher: inputs, options, deadline."""


class Stateful:
    """Keeps the state of a model between requests. Event loop only.

    Requests of one sequence run one after another in the order in which they came; those of different sequences share runs
    like all others. A request that fails or whose caller leaves changes nothing: the next one finds the state as it was.

    Args:
        signature: what callers send and get.
        max_waiting: requests that may wait for earlier ones of their sequence.
    """

    def __init__(
        self, contract: Contract, settings: SequenceSettings, signature: Signature, *, model: str, max_waiting: int
    ) -> None:
        self._contract = contract
        self._signature = signature
        self._max_waiting = max_waiting
        self._waiting = 0
        self.sequences = Sequences(settings, contract.initial, model=model)

    async def run(self, submit: Submit, tensors: Tensors, options: Options, *, deadline: float | None) -> Tensors:
        """The outputs of one request, without the state.

        Raises:
            InvalidInput: the tensors do not fit, are more than one row, or their sequence is not open.
            Overloaded: too many sequences are open, or too many requests wait for earlier ones.
        """
        if self._signature.check(tensors) != 1:
            raise InvalidInput("a request of a sequence is one row", hint="send the rows one after another")
        if self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._waiting} requests wait for earlier ones of their sequence, which is the limit")
        sequence = self.sequences.enter(options.sequence)
        self._waiting += 1
        try:
            await sequence.turn(deadline)
        finally:
            self._waiting -= 1
        try:
            asked = self._contract.asked(options.sequence) if options.sequence is not None else {}
            outputs = dict(await submit({**tensors, **sequence.state, **asked}, options, deadline))
            sequence.state = self._contract.kept(outputs)
            return outputs
        finally:
            sequence.end_turn()
