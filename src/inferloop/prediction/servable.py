"""What a Router needs of whatever answers under a name: one model version, or an ensemble of models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Tensors
from inferloop.core.errors import InferloopError
from inferloop.core.sample import Sample
from inferloop.core.signature import Signature
from inferloop.core.work import Work
from inferloop.prediction.inputs import Given
from inferloop.prediction.meter import Meter
from inferloop.prediction.options import NO_OPTIONS, Options
from inferloop.prediction.prediction import Inference, Prediction


class Servable(Protocol):
    """Answers under a name. All methods belong to one event loop; they work in a coroutine without a Task of its own.

    Attributes:
        bundle: what it says of itself. Its Signature is the callers'; an ensemble's has no files.
        meter: its metrics.
    """

    bundle: Bundle
    meter: Meter

    @property
    def name(self) -> str:
        """The name that it answers under."""
        ...

    @property
    def version(self) -> int:
        """Its number; 0 where there are no versions."""
        ...

    @property
    def signature(self) -> Signature:
        """What a request brings and an answer holds; state that is kept between requests is not in it."""
        ...

    @property
    def problem(self) -> str:
        """Why it cannot answer now although it is loaded; empty if all is well."""
        ...

    @property
    def decoupled(self) -> bool:
        """Whether a request may get no, one or many answers; then `astream` is the only way in."""
        ...

    def ask(
        self,
        tensors: Tensors,
        *,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
        options: Options = NO_OPTIONS,
    ) -> Work[Inference]:
        """The one answer to a request of tensors, to be started or awaited at once.

        Errors come with the answer, see `Predictor.ask`.
        """
        ...

    async def ainfer(
        self,
        tensors: Tensors,
        *,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
        options: Options = NO_OPTIONS,
    ) -> Inference:
        """The same as a coroutine."""
        return await self.ask(tensors, key=key, id=id, deadline=deadline, source=source, options=options)

    def astream(
        self,
        tensors: Tensors,
        *,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
        options: Options = NO_OPTIONS,
    ) -> AsyncGenerator[Inference, None]:
        """Every answer to a request of tensors, as they come; see `Predictor.astream`."""
        ...

    async def apredict(
        self,
        sample: Given,
        *,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
    ) -> Prediction:
        """The answer to one Sample; see `Predictor.apredict`."""
        ...

    async def apredict_many(
        self, samples: Sequence[Sample], *, ids: Sequence[str], source: str = ""
    ) -> list[Prediction | InferloopError]:
        """An answer or an error for each Sample, in their order.

        Args:
            samples: each with its key.
            ids: the prediction id of each.
            source: who asks, in the ledger.
        """

        async def one(sample: Sample, name: str) -> Prediction | InferloopError:
            try:
                return await self.apredict(sample, id=name, source=source)
            except InferloopError as error:
                return error

        return await asyncio.gather(*map(one, samples, ids))

    async def aclose(self) -> None:
        """Take nothing more, answer what was accepted, free everything. A second call does nothing."""
        ...
