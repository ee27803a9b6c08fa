"""What a pipeline file promises: computed from its sources and sinks, for each pair, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from inferloop.core import plugins
from inferloop.core.protocols import Sink, Source
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.loading import DEAD_LETTER, Part, PipelineSpec
from inferloop.streams.thinning import BUFFER


class Promise(StrEnum):
    """How often a message takes effect."""

    EFFECT_ONCE = "effect exactly once"
    AT_LEAST_ONCE = "at least once"
    AT_MOST_ONCE = "at most once"
    BEST_EFFORT = "best effort"


@dataclass(frozen=True, slots=True)
class Guarantee:
    """The promise for one source and one sink."""

    source: str
    sink: str
    promise: Promise
    why: str


@dataclass(frozen=True, slots=True)
class Guarantees:
    """All promises of one file, and what is worth knowing beside them."""

    pipeline: str
    pairs: tuple[Guarantee, ...]
    notes: tuple[str, ...]


def guarantees(spec: PipelineSpec) -> Guarantees:
    """Compute what this file yields. Makes its sources and sinks, and opens none."""
    sources = [(part, make_source(part, SourceContext(spec.name, part.name))) for part in spec.sources]
    sinks = [(part, make_sink(part, SinkContext(spec.name, part.name))) for part in spec.sinks]
    pairs = [
        _pair(spec, source_part, source, sink_part, sink)
        for source_part, source in sources
        for sink_part, sink in sinks
        if any(sink_part.name in rule.send for rule in spec.rules)
    ]
    return Guarantees(spec.name, tuple(pairs), tuple(_notes(spec, sources, sinks)))


def make_source(part: Part, context: SourceContext) -> Source:
    """The source of a part, not opened."""
    source: Source = plugins.load("sources", part.plugin)(part.config, context)
    return source


def make_sink(part: Part, context: SinkContext) -> Sink:
    """The sink of a part, not opened."""
    sink: Sink = plugins.load("sinks", part.plugin)(part.config, context)
    return sink


def _pair(spec: PipelineSpec, source_part: Part, source: Source, sink_part: Part, sink: Sink) -> Guarantee:
    promise, why = _promise(spec, source, sink)
    if not sink_part.common.required:
        promise = Promise.BEST_EFFORT
        why = "required: false, a failing delivery is counted and never holds up a message"
    return Guarantee(source_part.name, sink_part.name, promise, why)


def _promise(spec: PipelineSpec, source: Source, sink: Sink) -> tuple[Promise, str]:
    if not source.durable:
        return Promise.AT_MOST_ONCE, "the source does not send again what was not acknowledged"
    if not has_ids(spec) and not source.replayable:
        return Promise.AT_LEAST_ONCE, "messages have no id and the source has no durable position: a redelivery is decided anew"
    if not sink.idempotent:
        return Promise.AT_LEAST_ONCE, "the sink takes no key: after a crash the last deliveries may come twice"
    if spec.outbox is not None and spec.outbox.when_full == "drop_oldest":
        return Promise.AT_MOST_ONCE, "a full outbox drops what waits longest"
    identity = "message id" if has_ids(spec) else "position"
    when = "the sink confirmed" if spec.outbox is None else "the outbox has it on disk"
    return Promise.EFFECT_ONCE, f"acknowledged after {when}; decided once by {identity}; the sink drops a key it has"


def has_ids(spec: PipelineSpec) -> bool:
    """Whether the message section says where the id is."""
    return getattr(spec.message.config, "id", None) is not None


def _notes(spec: PipelineSpec, sources: list[tuple[Part, Source]], sinks: list[tuple[Part, Sink]]) -> Iterator[str]:
    for part, source in sources:
        caveat = getattr(source, "caveat", "")
        if caveat:
            yield f"source {part.name}: {caveat}"
        yield from _left_out(part)
        in_flight = getattr(source, "in_flight", None)
        if in_flight is not None and spec.model.batch.max > in_flight:
            yield f"source {part.name}: batch.max {spec.model.batch.max} never fills, in_flight is {in_flight}"
    for part, sink in sinks:
        if getattr(sink, "caveat", ""):
            yield f"sink {part.name}: {getattr(sink, 'caveat', '')}"
    if getattr(spec.message.config, "key", None) is None and any("key" in rule.counts_by for rule in spec.rules):
        yield "message.key is not declared: stateful rules count over all messages together"
    if spec.outbox is not None and spec.outbox.max_age is not None:
        yield f"outbox: what waited for more than {spec.outbox.max_age:g} s becomes a dead letter"
    if spec.dead_letter is None:
        yield f"no {DEAD_LETTER}: messages that cannot be decided go to a file under INFERLOOP_HOME"


def _left_out(part: Part) -> Iterator[str]:
    common = part.common
    if common.rate is not None:
        yield f"source {part.name}: leaves out what is beyond {common.rate.count} in {common.rate.per_s:g} s"
    if common.when_full == "drop_oldest":
        yield f"source {part.name}: leaves out the oldest when more than {common.buffer or BUFFER} wait"
