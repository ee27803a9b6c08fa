"""Which requests are traced, and where their traces go.

infer ─ begin ─ every rate-th, up to count ─ Timeline through queue and engine ─ end ─┬─ mode triton         a JSON file
                                                                                     └─ mode opentelemetry  spans
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from inferloop.core.errors import InferloopError
from inferloop.prediction.options import NO_OPTIONS
from inferloop.prediction.prediction import Inference, Prediction
from inferloop.prediction.timeline import Timeline
from inferloop.serving.spans import Spans
from inferloop.serving.tally import Tally
from inferloop.serving.trace_file import Trace, TraceFiles

OFF = "OFF"
TIMESTAMPS = "TIMESTAMPS"
TRITON, OPENTELEMETRY = "triton", "opentelemetry"
DEFAULT_FILE = "trace.json"

Answer = TypeVar("Answer", Inference, Prediction)


@dataclass(frozen=True, slots=True)
class TraceSetting:
    """How the requests of a model are traced.

    Attributes:
        level: `TIMESTAMPS`, or `OFF` for not at all.
        rate: one of so many requests is traced.
        count: how many more are traced; -1 for no end.
        log_frequency: traces of one file, `FILE.0`, `FILE.1`, ...; 0 for all in one.
        file: its name in the server's folder for traces.
        mode: `triton` or `opentelemetry`.
    """

    level: str = OFF
    rate: int = 1000
    count: int = -1
    log_frequency: int = 0
    file: str = ""
    mode: str = TRITON


Own = Mapping[str, Mapping[str, str | int]]
"""Changed settings by model and field; the global ones are under the empty name."""


class _Scope:
    """The settings of one model, or of all that have none of their own; and how far their counting is.

    Attributes:
        since: the number of the change that made them.
    """

    __slots__ = ("_name", "_seen", "_spent", "_tally", "setting", "since")

    def __init__(self, name: str, since: int, setting: TraceSetting, tally: Tally) -> None:
        self.setting = setting
        self.since = since
        self._name = f"traced {since} {name}"
        self._tally = tally
        self._seen = 0
        self._spent = False

    def take(self) -> int:
        """The how-manieth traced request the next one is; 0 if it is not traced."""
        setting = self.setting
        if setting.level == OFF or self._spent:
            return 0
        self._seen += 1
        if self._seen % setting.rate:
            return 0
        taken = self._tally.add(self._name)
        self._spent = 0 <= setting.count <= taken
        return taken if setting.count < 0 or taken <= setting.count else 0


class Tracing:
    """Traces requests as the settings say. Event loop only.

    Args:
        folder: where files of traces may lie; None for no files.
        spans: where spans go; None without OpenTelemetry.
        setting: for every model that has none of its own.
        tally: counts what is traced; with several workers, one for all.

    Attributes:
        own: what was changed since it was made.
        since: the number of the last change, by model.
    """

    def __init__(
        self,
        folder: Path | None = None,
        spans: Spans | None = None,
        setting: TraceSetting | None = None,
        *,
        tally: Tally | None = None,
    ) -> None:
        self.folder = folder
        self.spans = spans
        self._tally = tally or Tally()
        self._files = TraceFiles(folder, self._tally) if folder is not None else None
        self._start = setting or TraceSetting()
        self._scopes: dict[str, _Scope] = {"": _Scope("", 0, self._start, self._tally)}
        self.own: Own = {}
        self.since: Mapping[str, int] = {}

    @property
    def active(self) -> bool:
        """Whether any request may be traced."""
        return any(scope.setting.level != OFF for scope in self._scopes.values())

    def setting(self, model: str = "") -> TraceSetting:
        """What holds for a model; without a name, for those without settings of their own."""
        return (self._scopes.get(model) or self._scopes[""]).setting

    def merged(self, own: Own, model: str) -> TraceSetting:
        """What would hold for a model if `own` were what was changed."""
        return TraceSetting(**{**asdict(self._start), **own.get("", {}), **own.get(model, {})})

    def adopt(self, own: Own, since: Mapping[str, int]) -> None:
        """Put other settings into force; where the number of the last change is another one, counting starts anew."""
        before, self._scopes = self._scopes, {}
        for model in ("", *own):
            if own.get(model) or not model:
                number, found = since.get(model, 0), before.get(model)
                if found is None or found.since != number:
                    found = _Scope(model, number, self.merged(own, model), self._tally)
                self._scopes[model] = found
        self.own, self.since = own, since

    def around(
        self, ask: Callable[..., Awaitable[Answer]], model: str, parent: str = "", request_id: str = ""
    ) -> Callable[..., Awaitable[Answer]]:
        """A way to ask that traces the request if it is its turn; `ask` itself if it is not.

        Args:
            ask: `Router.infer` or `Router.predict`.
            model: as it is asked for.
            parent: the caller's `traceparent`.
            request_id: the client's.
        """
        request = self._begin(model, parent, request_id)
        if request is None:
            return ask

        async def traced(model: str, given: Any, **asked: Any) -> Answer:
            with request:
                answer = await ask(model, given, **request.timed(asked))
                request.answered(answer.model, answer.version)
                return answer

        return traced

    def around_stream(
        self, ask: Callable[..., AsyncGenerator[Inference, None]], model: str, parent: str = "", request_id: str = ""
    ) -> Callable[..., AsyncGenerator[Inference, None]]:
        """As `around`, for `Router.stream`: a trace ends with the last answer, or when the caller leaves."""
        request = self._begin(model, parent, request_id)
        if request is None:
            return ask

        async def traced(model: str, given: Any, **asked: Any) -> AsyncGenerator[Inference, None]:
            with request:
                async with aclosing(ask(model, given, **request.timed(asked))) as answers:
                    async for answer in answers:
                        request.answered(answer.model, answer.version)
                        yield answer

        return traced

    def flush(self) -> None:
        """Write and send what waits. Blocks."""
        if self._files is not None:
            self._files.flush()
        if self.spans is not None:
            self.spans.flush()

    def close(self) -> None:
        """Write and send what waits, and end. Blocks."""
        if self._files is not None:
            self._files.close()
        if self.spans is not None:
            self.spans.close()

    def _begin(self, model: str, parent: str, request_id: str) -> _Request | None:
        """The request, if it is its turn to be traced."""
        scope = self._scopes.get(model) or self._scopes.get(bare(model)) or self._scopes[""]
        place = scope.take()
        return _Request(self._end, scope.setting, place, model, parent=parent, request_id=request_id) if place else None

    def _end(self, request: _Request, end_ns: int, error: str) -> None:
        setting, timeline = request.setting, request.timeline
        if setting.mode == OPENTELEMETRY and self.spans is not None:
            facts = {"start_ns": request.start_ns, "end_ns": end_ns}
            version = str(request.version)
            self.spans.record(request.model, version, **facts, parent=request.parent, timeline=timeline, error=error)
        elif self._files is not None:
            name = setting.file or DEFAULT_FILE
            if setting.log_frequency:
                name = f"{name}.{(request.place - 1) // setting.log_frequency}"
            stations = _stations(request.start_ns, timeline, end_ns)
            self._files.append(name, Trace(0, request.model, request.version, request.request_id, stations))


class _Request:
    """One traced request; while it is open, it is being answered.

    Attributes:
        place: counts the traced requests of its setting from 1.
        model: its name as it was asked for, until it is known who answers.
        version: 0 until it is known.
    """

    def __init__(
        self,
        end: Callable[[_Request, int, str], None],
        setting: TraceSetting,
        place: int,
        model: str,
        *,
        parent: str,
        request_id: str,
    ) -> None:
        self.setting = setting
        self.place = place
        self.model = model
        self.version = 0
        self.parent = parent
        self.request_id = request_id
        self.timeline = Timeline()
        self.start_ns = time.time_ns()
        self._end = end

    def timed(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What is asked for, with a timeline where there is a place for one."""
        if "options" not in asked:
            return asked
        return {**asked, "options": (asked["options"] or NO_OPTIONS)._replace(timeline=self.timeline)}

    def answered(self, model: str, version: int) -> None:
        """Write down who answered."""
        self.model, self.version = model, version

    def __enter__(self) -> None:
        self.start_ns = time.time_ns()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        failed = (
            error.grpc_code if isinstance(error, InferloopError) else "INTERNAL" if isinstance(error, Exception) else "CANCELLED"
        )
        self._end(self, time.time_ns(), "" if error is None else failed)


def bare(model: str) -> str:
    """The name in a reference, `name@alias` or `name:version`."""
    return model.partition("@")[0].partition(":")[0]


def _stations(start_ns: int, timeline: Timeline, end_ns: int) -> tuple[tuple[str, int], ...]:
    """By the names of Triton; those that were not reached are left out."""
    between = (
        ("QUEUE_START", timeline.queue_start_ns),
        ("COMPUTE_START", timeline.compute_start_ns),
        ("COMPUTE_END", timeline.compute_end_ns),
    )
    return ("REQUEST_START", start_ns), *((name, ns) for name, ns in between if ns), ("REQUEST_END", end_ns)
