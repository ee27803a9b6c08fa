"""One request on its way through the steps of an ensemble."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import InferloopError
from inferloop.prediction.ensemble.graph import Graph, Node

Ask = Callable[[Node, Tensors], Awaitable[Tensors]]
"""Runs the model of a step: its inputs to its outputs, by the model's names."""


class Run:
    """Starts each step when its tensors are there. Event loop only; steps that do not wait for each other run side by side.

    A step whose condition is false is left out, and so is every step that needs one of its tensors.

    Attributes:
        tensors: the ensemble's tensors that are there.
    """

    def __init__(self, graph: Graph, inputs: Tensors, ask: Ask) -> None:
        self.tensors: Tensors = dict(inputs)
        self._ask = ask
        self._waiting = list(graph.nodes)
        self._tasks: set[asyncio.Task[None]] = set()

    async def finish(self) -> None:
        """Run all steps that are to run.

        Raises:
            InferloopError: that of the first step that failed, which it names; the others are cancelled.
        """
        try:
            while (ready := self._ready()) or self._tasks:
                if len(ready) == 1 and not self._tasks:  # the usual chain costs no Task
                    await self._step(ready[0])
                    continue
                self._tasks.update(asyncio.ensure_future(self._step(node)) for node in ready)
                await self._next()
        finally:
            if self._tasks:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ready(self) -> list[Node]:
        """Take out the steps that can begin now."""
        ready = [node for node in self._waiting if node.needs <= self.tensors.keys()]
        if ready:
            self._waiting = [node for node in self._waiting if not node.needs <= self.tensors.keys()]
        return ready

    async def _next(self) -> None:
        """Wait until a step has ended; raise the error of one that failed."""
        done, self._tasks = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        errors = [error for task in done if (error := task.exception()) is not None]
        if errors:
            raise errors[0]

    async def _step(self, node: Node) -> None:
        try:
            if node.when is not None and not node.when.holds(self.tensors):
                return
            inputs = {name: self.tensors[tensor] for name, tensor in node.step.inputs.items()}
            outputs = await self._ask(node, inputs)
        except InferloopError as error:
            error.message = f"{node.label}: {error.message}"
            error.args = (error.message,)
            raise
        for name, tensor in node.step.outputs.items():
            if name in outputs:  # a step that is an ensemble may have left it out
                self.tensors[tensor] = outputs[name]
