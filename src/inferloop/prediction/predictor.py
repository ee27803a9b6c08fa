"""One Bundle on one Target, ready to answer: checks, transforms, batches, scores, writes the ledger."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, overload

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import Cancelled, InferloopError, Unsupported
from inferloop.core.protocols import Session
from inferloop.core.sample import Sample
from inferloop.core.signature import Signature
from inferloop.core.target import Target
from inferloop.core.transform import FieldKind
from inferloop.core.work import Drive, Work
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.transforms.executor import TransformExecutor
from inferloop.prediction.answers import Answers, Origin
from inferloop.prediction.asking import Asking
from inferloop.prediction.blocking import BlockingRuns
from inferloop.prediction.inputs import Given, as_sample, row_tensors
from inferloop.prediction.limits import Limits
from inferloop.prediction.looped import LoopedRuns
from inferloop.prediction.meter import Meter
from inferloop.prediction.options import NO_OPTIONS, Options
from inferloop.prediction.prediction import Inference, Prediction, new_id
from inferloop.prediction.preparation import Preparation
from inferloop.prediction.public import public_bundle
from inferloop.prediction.sequence.contract import Contract
from inferloop.prediction.servable import Servable
from inferloop.prediction.session import close_all, is_tiny, open_sessions, problem, warm_up
from inferloop.prediction.settings import PLAIN, Isolation, ModelSettings
from inferloop.prediction.together import Together
from inferloop.prediction.verdicts import JudgedSession


class Predictor(Servable):
    """Answers for one model version.

    `predict` and `infer` block and may be called from any thread; `apredict`, `ainfer` and `astream` belong to one event loop
    and batch what comes in together. Made by `Predictor.load`.

    Attributes:
        bundle: what callers see of the model: without the state that the server keeps for them.
        settings: how it is held and scheduled.
        fields: the fields of a Sample that the model reads, with their kinds; empty for one that takes tensors only.
        meter: its metrics.
    """

    def __init__(
        self,
        bundle: Bundle,
        sessions: Sequence[Session],
        *,
        target: Target,
        limits: Limits,
        settings: ModelSettings = PLAIN,
        ledger: Ledger | None = None,
        source: str = "",
    ) -> None:
        self.target = target
        self.limits = limits
        self.settings = settings
        self.contract = None if settings.sequence is None else Contract.of(bundle.signature, settings.sequence)
        self.bundle = public_bundle(bundle, sessions[0], settings, self.contract)
        self._source = source
        self._executor = TransformExecutor(self.bundle)
        self.fields: dict[str, FieldKind] = self._executor.signature_fields
        self._bare = sessions
        self._plain = sessions[0]
        self._sessions = [self._judged(session) for session in sessions]
        self._session = self._sessions[0]
        tiny = is_tiny(self._session, bundle, limits.max_batch) and len(sessions) == 1
        apart = settings.isolation is Isolation.PROCESS  # the event loop must not wait for another process
        inline = not apart and (tiny if limits.inline is None else limits.inline)
        warm_up(self._sessions, bundle, [min(rows, limits.max_batch) for rows in settings.warmup_rows])
        self._preparation = Preparation(
            self._transform, set(self.fields.values()), threads=limits.transform_threads, max_waiting=limits.queue_rows
        )
        self._answers = Answers(self.bundle, self.fields, self._executor, ledger)
        self.meter = Meter(bundle.name, bundle.version)
        self._blocking = BlockingRuns(self._plain, self._session, max_batch=limits.max_batch, meter=self.meter, name=bundle.name)
        self._looped = looped = LoopedRuns(
            self._sessions,
            self._bare,
            name=bundle.name,
            signature=self.signature,
            limits=limits,
            settings=settings,
            contract=self.contract,
            inline=inline,
            meter=self.meter,
        )
        self.meter.pending = lambda: looped.waiting
        self._together = Together(looped.batcher, self._answers, self.meter, most=limits.max_batch)

    @classmethod
    def load(
        cls,
        bundle: Bundle | Path | str,
        *,
        target: Target | None = None,
        limits: Limits | None = None,
        ledger: Ledger | None = None,
        source: str = "",
        settings: ModelSettings = PLAIN,
    ) -> Predictor:
        """Load a Bundle, hold it against its golden rows and warm it up. Blocks; from any thread.

        Args:
            bundle: a Bundle, or the path of one.
            target: where it runs; `onnxruntime:cpu:f32@1` by default.
            limits: how much it takes on at once.
            ledger: gets every prediction; None for none.
            source: who asks, in the ledger, where a call does not say.
            settings: instances, priorities, state and more; its `target` and `limits` go before the others.

        Raises:
            NotFound, InvalidBundle, NewerSchema: there is no such bundle, or it cannot be read.
            MissingDependency, Unsupported: no such engine, device or precision here.
            EngineError: the engine cannot read the model, or computes something else than its golden outputs.
        """
        target, limits = settings.target or target or Target(), settings.limits or limits or Limits()
        found = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        sessions = open_sessions(found, target, settings)
        try:
            return cls(found, sessions, target=target, limits=limits, ledger=ledger, source=source, settings=settings)
        except Exception:
            close_all(sessions)
            raise

    @property
    def name(self) -> str:
        """The model's name."""
        return self.bundle.name

    @property
    def version(self) -> int:
        """The version in a registry; 0 outside of one."""
        return self.bundle.version

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self.bundle.signature

    @property
    def problem(self) -> str:
        """Why it cannot answer any more: its engine crashed too often; empty as long as it can."""
        return problem(self._bare)

    @property
    def decoupled(self) -> bool:
        """Whether a request may get no, one or many answers."""
        return self.settings.decoupled

    @overload
    def predict(self, given: Given, *, key: str = "", source: str = "") -> Prediction: ...

    @overload
    def predict(self, given: list[Given], *, key: str = "", source: str = "") -> list[Prediction]: ...

    def predict(self, given: Given | list[Given], *, key: str = "", source: str = "") -> Prediction | list[Prediction]:
        """Answer one Sample, its fields or its only value; or a list of them, in batches, in order.

        Raises:
            InvalidInput: a field is missing or cannot be read, or the tensors do not fit the Signature.
            EngineError: the engine failed.
            Unavailable: the predictor is closed.
        """
        if isinstance(given, Sample | Mapping | str | bytes):
            return self._predict_all([as_sample(given, self.fields)], key, source)[0]
        return self._predict_all([as_sample(item, self.fields) for item in given], key, source)

    def infer(self, tensors: Tensors, *, key: str = "", source: str = "") -> dict[str, Array]:
        """Run tensors of any number of rows; see `predict` for the errors.

        Raises:
            Unsupported: the model keeps state or gives several answers: `ainfer` and `astream` are for those.
        """
        started = time.perf_counter()
        try:
            self._check_one_answer("infer")
            rows = self.signature.check(tensors)
            outputs = self._blocking.tensors(tensors, rows)
            answer = self._answers.inference(outputs, rows, self._origin("", key, source, started))
        except Exception as error:
            self.meter.refused(error, time.perf_counter() - started)
            raise
        self.meter.answered(time.perf_counter() - started)
        return answer.outputs

    async def apredict(
        self,
        sample: Given,
        *,
        key: str = "",
        id: str = "",  # noqa: A002  # the field's word
        deadline: float | None = None,
        source: str = "",
    ) -> Prediction:
        """Answer one Sample in the next batch.

        Args:
            sample: a Sample, its fields, or its only value.
            key: what it belongs to; the Sample's own if left out.
            id: the prediction id to use; a new one if left out.
            deadline: `time.monotonic()` seconds.
            source: who asks, in the ledger; the Sample's own if left out.

        Raises:
            InvalidInput, EngineError: as `predict`.
            Overloaded, DeadlineExceeded, Unavailable: as `Batcher.submit`.
        """
        started = time.perf_counter()
        try:
            if self.contract is not None or self.decoupled:
                raise Unsupported(f"model {self.name!r} keeps state or gives several answers, it takes tensors only")
            sample = as_sample(sample, self.fields)
            tensors = await self._preparation.tensors(sample)
            outputs = await self._looped.batcher().submit(tensors, deadline=deadline, judged=True)
            origin = self._origin_of(sample, id, key, source=source, started=started)
            answer = self._answers.prediction(sample, outputs, origin)
        except BaseException as error:
            self.meter.refused(error, time.perf_counter() - started)
            raise
        self.meter.answered(time.perf_counter() - started)
        return answer

    async def apredict_many(
        self, samples: Sequence[Sample], *, ids: Sequence[str], source: str = ""
    ) -> list[Prediction | InferloopError]:
        """See `Servable.apredict_many`; in as few runs as can be, and a bad Sample fails alone."""
        if self._looped.special or not self.fields or not self.signature.batched:
            return await super().apredict_many(samples, ids=ids, source=source)
        started = time.perf_counter()
        rows = await self._preparation.many(samples, self._executor.apply_many)
        origins = [self._origin_of(s, id_, "", source=source, started=started) for s, id_ in zip(samples, ids, strict=True)]
        return await self._together.answer(samples, rows, origins)

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
        """Run the tensors of one request in the next batch; arguments and errors as `apredict`.

        `options` says its priority, and its place in a sequence where the model keeps state. The arrays of the answer are
        read-only where the model remembers answers.

        Raises:
            Unsupported: the model is decoupled.
        """
        origin = self._origin(id, key, source, time.perf_counter())
        if self._looped.special:
            return Drive(self._specially(tensors, origin, deadline, options))
        return Asking(self._looped, self._answers, self.meter, origin, tensors, deadline, options)

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
        """Every answer to the tensors of one request, as they are made; exactly one for a model that is not decoupled.

        The answers of a decoupled model have the prediction ids `ID.0`, `ID.1`, ... Close the iterator (`aclosing`) to leave
        early: the model then ends at its next answer. It waits with that one while the last few are not taken.

        Raises:
            InvalidInput, Overloaded, DeadlineExceeded, EngineError, Unavailable: as `ainfer`, at the first answer or a later one.
        """
        if not self.decoupled:
            yield await self.ask(tensors, key=key, id=id, deadline=deadline, source=source, options=options)
            return
        started = time.perf_counter()
        origin = self._origin(id, key, source, started)
        place = 0
        try:
            rows = self.signature.check(tensors)
            async with aclosing(self._looped.stream(tensors, rows, deadline=deadline)) as answers:
                async for outputs in answers:
                    name = f"{origin.id}.{place}"
                    self.meter.responded(place, time.perf_counter() - started)
                    yield self._answers.inference(outputs, rows, origin._replace(id=name))
                    place += 1
        except GeneratorExit:
            self.meter.refused(Cancelled("the caller left"), time.perf_counter() - started)
            raise
        except BaseException as error:
            self.meter.responded(place, time.perf_counter() - started, ok=False)
            self.meter.refused(error, time.perf_counter() - started)
            raise
        self.meter.answered(time.perf_counter() - started)

    def close(self) -> None:
        """Free the engine. A second call does nothing. Where `apredict` was used, `aclose` is the one to call."""
        self._blocking.closed = True
        self._looped.close()
        self._release()
        close_all(self._sessions)

    async def aclose(self) -> None:
        """Take nothing more, answer what was accepted, then free the engine. A second call does nothing."""
        self._blocking.closed = True
        is_free = await self._looped.aclose(grace_s=self.limits.drain_s)
        self._release()
        if is_free:  # else its thread is still inside: what it holds is freed when it comes back
            close_all(self._sessions)

    def _release(self) -> None:
        self._preparation.close()
        self.meter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def _predict_all(self, samples: list[Sample], key: str, source: str) -> list[Prediction]:
        started = time.perf_counter()
        try:
            self._check_one_answer("predict")
            outputs = self._blocking.rows([self._transform(sample) for sample in samples])
            answers = []
            for sample, row in zip(samples, outputs, strict=True):
                origin = self._origin_of(sample, "", key, source=source, started=started)
                answers.append(self._answers.prediction(sample, row, origin))
                self.meter.answered(time.perf_counter() - started)
        except Exception as error:
            self.meter.refused(error, time.perf_counter() - started)
            raise
        return answers

    def _judged(self, session: Session) -> Session:
        return JudgedSession(session, self._executor) if self.bundle.manifest.transforms.outputs else session

    def _check_one_answer(self, method: str) -> None:
        if self.contract is not None or self.decoupled:
            raise Unsupported(
                f"model {self.name!r} keeps state or gives several answers, which {method} does not", hint="use ainfer or astream"
            )

    async def _specially(self, tensors: Tensors, origin: Origin, deadline: float | None, options: Options) -> Inference:
        """A request that needs more than a batch."""
        try:
            outputs = await self._looped.run(tensors, options, deadline=deadline)
            answer = self._answers.inference(outputs, self._looped.rows(outputs), origin)
        except BaseException as error:
            self.meter.refused(error, time.perf_counter() - origin.started)
            raise
        self.meter.answered(time.perf_counter() - origin.started)
        return answer

    def _transform(self, sample: Sample) -> Tensors:
        return self._executor.apply(sample) if self.fields else row_tensors(sample, self.signature)

    def _origin(self, prediction_id: str, key: str, source: str, started: float) -> Origin:
        return Origin(prediction_id or new_id(), key, source or self._source, started)

    def _origin_of(self, sample: Sample, prediction_id: str, key: str, *, source: str, started: float) -> Origin:
        return Origin(prediction_id or new_id(), key or sample.key, source or sample.source or self._source, started)
