"""From output tensors to answers, and each of them to the ledger."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import InferloopError
from inferloop.core.sample import Sample
from inferloop.core.transform import FieldKind
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.records import PredictionRecord
from inferloop.data.ledger.stored import StoredPrediction, scores_json
from inferloop.data.transforms.executor import TransformExecutor
from inferloop.prediction.inputs import embedding_bytes, stored_form
from inferloop.prediction.prediction import Inference, Prediction, row_ids
from inferloop.prediction.verdicts import VERDICTS, Verdict, take_verdicts, verdicts


class Origin(NamedTuple):
    """Whom an answer belongs to.

    Attributes:
        id: the prediction id.
        source: who asked: `rest`, a pipeline's name, `shadow`, ...
        started: when the request came in, `time.perf_counter()` seconds.
    """

    id: str
    key: str
    source: str
    started: float


_Late = tuple[Origin, float, float, int, Array | None, Array | None]
"""Of one answer: its origin, when it was given, its latency in seconds, its rows; their scores and embeddings, if any."""


class Answers:
    """Makes the answers of one model version and writes them to the ledger. Any thread."""

    def __init__(
        self, bundle: Bundle, fields: Mapping[str, FieldKind], executor: TransformExecutor | None, ledger: Ledger | None
    ) -> None:
        self._model = bundle.name
        self._version = bundle.version
        self._fields = fields
        self._batched = bundle.signature.batched
        embedding = bundle.signature.embedding
        self._embedding = embedding.name if embedding is not None and self._batched else ""
        judged = bundle.manifest.transforms.outputs
        self._scores = judged[0].output if judged and executor is not None else ""
        self._executor = executor
        self._ledger = ledger

    def prediction(self, sample: Sample, outputs: Tensors, origin: Origin) -> Prediction:
        """The answer to one Sample; `outputs` is one judged row of every output."""
        verdict = take_verdicts(outputs, 1)[0]
        if self._ledger is not None:
            stored, kind = stored_form(sample, self._fields)
            self._ledger.append(
                self._record(origin.id, origin, verdict, embedding=self._row(outputs, 0), stored=stored, kind=kind)
            )
        label, score, scores = verdict
        return Prediction(origin.id, self._model, self._version, label, score, scores, outputs)

    def inference(self, outputs: Tensors, rows: int, origin: Origin) -> Inference:
        """The answer to a request of tensors; the ledger gets one record for each of its rows, without inputs."""
        outputs.pop(VERDICTS, None)
        if self._ledger is not None:
            self._note(self._ledger, outputs, rows, origin)
        return Inference(origin.id, self._model, self._version, outputs, rows)

    def _note(self, ledger: Ledger, outputs: Tensors, rows: int, origin: Origin) -> None:
        """Leave the predictions to the ledger's thread; what they are made of is copied, for the arrays are the caller's."""
        now, latency_s = time.time(), time.perf_counter() - origin.started
        scores = outputs[self._scores].copy() if self._scores in outputs else None
        embeddings = outputs[self._embedding].copy() if self._embedding else None
        size = (0 if scores is None else scores.nbytes) + (0 if embeddings is None else embeddings.nbytes)
        ledger.append_late(self._stored, (origin, now, latency_s, rows, scores, embeddings), rows=rows, size_bytes=size)

    def _stored(self, answers: Sequence[_Late]) -> Iterable[StoredPrediction]:
        """The predictions of many answers, made column by column; the scores of all are judged together."""
        origins, times, latencies, rows, scores, embeddings = zip(*answers, strict=True)
        ids, keys, sources, _ = zip(*origins, strict=True)
        if set(rows) != {1}:
            ids = tuple(chain.from_iterable(map(row_ids, ids, rows)))
            times, keys, sources, latencies = (
                tuple(chain.from_iterable(map(repeat, values, rows))) for values in (times, keys, sources, latencies)
            )
        labels, best, by_label = self._judged(scores, sum(rows))
        about = repeat(self._model), repeat(self._version)
        content = repeat("tensor"), repeat(None), _embeddings(embeddings, rows)
        return zip(ids, times, *about, keys, labels, best, by_label, sources, latencies, *content, strict=False)

    def _judged(self, scores: Sequence[Array | None], rows: int) -> tuple[Iterable[str], Iterable[float], Iterable[str]]:
        """Label, score and all scores as JSON of every row."""
        given = [part for part in scores if part is not None]
        if self._executor is not None and given and len(given) == len(scores):
            try:
                found = verdicts(self._executor.scores({self._scores: np.concatenate(given)}))
                if len(found) == rows:
                    labels, best, by_label = zip(*found, strict=True)
                    return labels, best, scores_json(by_label)
            except (InferloopError, ValueError, IndexError):  # scores that fit no labels: the answer was given
                pass
        return repeat("", rows), repeat(0.0, rows), repeat("{}", rows)

    def _row(self, outputs: Tensors, row: int) -> bytes | None:
        return embedding_bytes(outputs[self._embedding][row]) if self._embedding else None

    def _record(
        self, row_id: str, origin: Origin, verdict: Verdict, *, embedding: bytes | None, stored: bytes | None, kind: str
    ) -> PredictionRecord:
        return PredictionRecord(
            id=row_id,
            time=time.time(),
            model=self._model,
            version=self._version,
            key=origin.key,
            label=verdict.label,
            score=verdict.score,
            scores=verdict.scores,
            input=stored,
            input_kind=kind,
            embedding=embedding,
            source=origin.source,
            latency_s=time.perf_counter() - origin.started,
        )


def _embeddings(arrays: Sequence[Array | None], rows: Sequence[int]) -> Iterable[bytes | None]:
    """One for each row of each answer."""
    each = zip(arrays, rows, strict=True)
    return chain.from_iterable(
        repeat(None, count) if array is None else map(embedding_bytes, array[:count]) for array, count in each
    )
