"""An ensemble: other models of the same Router, asked step by step, behind one name."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Tensors
from inferloop.core.errors import DeadlineExceeded, InvalidInput, Unavailable, Unsupported
from inferloop.core.manifest import Manifest
from inferloop.core.signature import Signature
from inferloop.core.work import Drive, Work
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.answers import Answers, Origin
from inferloop.prediction.ensemble.graph import Graph, Node
from inferloop.prediction.ensemble.run import Run
from inferloop.prediction.inputs import Given, as_sample, row_tensors
from inferloop.prediction.meter import Meter
from inferloop.prediction.options import NO_OPTIONS, Options
from inferloop.prediction.prediction import Inference, Prediction, new_id
from inferloop.prediction.servable import Servable
from inferloop.prediction.settings import ModelSettings, Step


class Models(Protocol):
    """What an ensemble asks: the models of a Router."""

    def predictor(self, ref: str, *, version: int | None = None) -> Servable:
        """What answers for a reference. Raises `NotFound` or `Unavailable` if nothing does."""
        ...

    async def infer(
        self,
        ref: str,
        tensors: Tensors,
        *,
        version: int | None = None,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
        options: Options = NO_OPTIONS,
    ) -> Inference:
        """See `Router.infer`."""
        ...


class Ensemble(Servable):
    """Answers by asking its steps' models, each in the batches of all its callers. One event loop; made by `Ensemble.load`.

    The answer holds the outputs whose steps ran: a condition may leave some out.

    Attributes:
        steps: the checked steps, each after those that it needs.
    """

    def __init__(self, bundle: Bundle, graph: Graph, models: Models, *, ledger: Ledger | None, source: str) -> None:
        self.bundle = replace(bundle, manifest=replace(bundle.manifest, signature=graph.signature))
        self.meter = Meter(bundle.name, bundle.version)
        self.steps = tuple(node.step for node in graph.nodes)
        self._graph = graph
        self._models = models
        self._source = source
        self._answers = Answers(self.bundle, {}, None, ledger)
        self._closed = False

    @classmethod
    def load(
        cls, bundle: Bundle | str, settings: ModelSettings, models: Models, *, ledger: Ledger | None = None, source: str = ""
    ) -> Ensemble:
        """Check the steps against the models that are open.

        Args:
            bundle: says the name, version and Signature; it needs no files. A name alone takes the Signature from the steps.
            settings: with the steps.
            models: what the steps are asked from, usually a Router.
            ledger: gets one record for each row of each answer, beside those of the steps' models.
            source: who asks, in the ledger, where a call does not say.

        Raises:
            InvalidConfig: see `Graph.check`; a step that is decoupled, or that leads back to this ensemble.
        """
        declared = None if isinstance(bundle, str) else bundle.signature
        name = bundle if isinstance(bundle, str) else bundle.name
        graph = Graph.check(name, settings.ensemble, lambda step: _signature(models, step, name), signature=declared)
        found = Bundle(Path(), Manifest(name=name, signature=graph.signature)) if isinstance(bundle, str) else bundle
        return cls(found, graph, models, ledger=ledger, source=source)

    @property
    def name(self) -> str:
        """See `Servable.name`."""
        return self.bundle.name

    @property
    def version(self) -> int:
        """See `Servable.version`."""
        return self.bundle.version

    @property
    def signature(self) -> Signature:
        """See `Servable.signature`."""
        return self.bundle.signature

    @property
    def problem(self) -> str:
        """See `Servable.problem`; those of its models are told by them."""
        return ""

    @property
    def decoupled(self) -> bool:
        """See `Servable.decoupled`; an ensemble gives one answer."""
        return False

    @property
    def models(self) -> tuple[tuple[str, int | None], ...]:
        """The models that it is made of with the version where one is pinned, each once."""
        return tuple(dict.fromkeys((step.model, step.version) for step in self.steps))

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
        """Run all steps; every step gets the key, the deadline and the options. An error names its step."""
        origin = Origin(id or new_id(), key, source or self._source, time.perf_counter())
        return Drive(self._answer(tensors, origin, deadline, options))

    async def astream(
        self,
        tensors: Tensors,
        *,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
        options: Options = NO_OPTIONS,
    ) -> AsyncGenerator[Inference, None]:
        """See `Servable.astream`; exactly one answer."""
        yield await self.ask(tensors, key=key, id=id, deadline=deadline, source=source, options=options)

    async def apredict(
        self,
        sample: Given,
        *,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
    ) -> Prediction:
        """Answer a Sample whose fields are the ensemble's inputs; there is no label."""
        started = time.perf_counter()
        sample = as_sample(sample, {spec.name: "tensor" for spec in self.signature.inputs})  # type: ignore[misc]  # names count
        origin = Origin(id or new_id(), key or sample.key, source or sample.source or self._source, started)
        try:
            outputs, _ = await self._outputs(row_tensors(sample, self.signature), origin, deadline, NO_OPTIONS)
            answer = self._answers.prediction(sample, outputs, origin)
        except BaseException as error:
            self.meter.refused(error, time.perf_counter() - started)
            raise
        self.meter.answered(time.perf_counter() - started)
        return answer

    async def aclose(self) -> None:
        """Take nothing more; the models of the steps are others' to close."""
        self._closed = True
        self.meter.close()

    async def _answer(self, tensors: Tensors, origin: Origin, deadline: float | None, options: Options) -> Inference:
        try:
            outputs, rows = await self._outputs(tensors, origin, deadline, options)
            answer = self._answers.inference(outputs, rows, origin)
        except BaseException as error:
            self.meter.refused(error, time.perf_counter() - origin.started)
            raise
        self.meter.answered(time.perf_counter() - origin.started)
        return answer

    async def _outputs(self, tensors: Tensors, origin: Origin, deadline: float | None, options: Options) -> tuple[Tensors, int]:
        if self._closed:
            raise Unavailable("the model is being unloaded", hint="try again")
        if deadline is not None and deadline <= time.monotonic():
            raise DeadlineExceeded("the deadline was over on arrival")
        rows = self.signature.check(tensors)
        run = Run(self._graph, tensors, lambda node, inputs: self._ask(node, inputs, origin, deadline, options))
        started = time.perf_counter()
        await run.finish()
        self.meter.waited((0.0,))
        self.meter.ran(time.perf_counter() - started, rows=rows)
        found = {spec.name: run.tensors[spec.name] for spec in self.signature.outputs if spec.name in run.tensors}
        return found, rows

    async def _ask(self, node: Node, inputs: Tensors, origin: Origin, deadline: float | None, options: Options) -> Tensors:
        place = self._graph.nodes.index(node)
        answer = await self._models.infer(
            node.step.model,
            inputs,
            version=node.step.version,
            key=origin.key or origin.id,
            id=f"{origin.id}.step{place}",
            deadline=deadline,
            source=f"ensemble:{self.name}",
            options=options,
        )
        return answer.outputs


def _signature(models: Models, step: Step, name: str) -> Signature:
    """What a step's model takes and gives."""
    found = models.predictor(step.model, version=step.version)
    if found.decoupled:
        raise Unsupported(f"model {step.model!r} is decoupled, which no step can be")
    _check_way_back(models, found, name, seen=frozenset())
    return found.signature


def _check_way_back(models: Models, found: Servable, name: str, *, seen: frozenset[str]) -> None:
    """An ensemble inside must not ask this one again."""
    if found.name == name:
        raise InvalidInput(f"it leads back to {name!r}")
    if not isinstance(found, Ensemble) or found.name in seen:
        return
    for model, version in found.models:
        _check_way_back(models, models.predictor(model, version=version), name, seen=seen | {found.name})
