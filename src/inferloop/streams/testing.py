"""`pipeline test`: the tests of a file, with given scores and a clock that the tests set. Opens nothing.

Each test starts with an empty memory. In `expect` a number is a count, a mapping is the one payload under the sink's key
(`json`, `row`); a sink that is not mentioned must get nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from inferloop.core import plugins
from inferloop.core.errors import InferloopError, InvalidConfig, InvalidInput
from inferloop.core.sample import Message, Sample
from inferloop.streams.compiling import fields_read, rulebook_of
from inferloop.streams.config import Moment, TestSection
from inferloop.streams.gathering import windows_of
from inferloop.streams.loading import DEAD_LETTER, PipelineSpec
from inferloop.streams.rules.memory import Memory
from inferloop.streams.rules.rulebook import STALE, Verdict
from inferloop.streams.rules.scored import Scored
from inferloop.streams.scope import event_time, scope_of
from inferloop.streams.windows import GATHERED

_DEFAULT_AT_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test of a file.

    Attributes:
        decisions: one line a message: the rule or reason, and where it went.
        problems: what was expected and did not come; empty when it passed.
    """

    __test__ = False
    name: str
    decisions: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything came as expected."""
        return not self.problems


def run_tests(spec: PipelineSpec) -> list[TestResult]:
    """Run every test of a file."""
    return [_run(spec, test, f"tests.{index}") for index, test in enumerate(spec.tests)]


def check_tests(spec: PipelineSpec) -> None:
    """Check the tests themselves.

    Raises:
        InvalidConfig: all sinks that do not exist, all messages that lack what a rule uses.
    """
    problems: list[str] = []
    sinks = {part.name for part in spec.sinks} | {DEAD_LETTER}
    for index, test in enumerate(spec.tests):
        unknown = [name for name in test.expect if name not in sinks]
        problems.extend(f"tests.{index}.expect: no sink named {name!r}; known: {', '.join(sorted(sinks))}" for name in unknown)
        if DEAD_LETTER in test.expect:
            continue
        for place, moment in enumerate(test.moments):
            path = f"tests.{index}.messages.{place}" if test.messages else f"tests.{index}.message"
            problems.extend(f"{path}: {problem}" for problem in _lacks(spec, moment))
    if problems:
        raise InvalidConfig(f"{spec.path}: {problem}" for problem in problems)


def _lacks(spec: PipelineSpec, moment: Moment) -> Iterator[str]:
    try:
        sample = spec.codec.decode(_message(spec, moment))
    except InferloopError as error:
        yield error.message
        return
    for rule in spec.rules:
        for name in sorted(fields_read([rule], spec.kinds)):
            if sample.fields.get(name) is None:
                yield f"lacks the field {name!r} that rule {rule.name!r} uses"


def _run(spec: PipelineSpec, test: TestSection, path: str) -> TestResult:
    rulebook, memory = rulebook_of(spec), Memory()
    sent: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    taken: set[tuple[str, object]] = set()
    decisions: list[str] = []

    def seen(sink: str, value: object) -> bool:
        before = (sink, value) in taken
        taken.add((sink, value))
        return before

    windows = windows_of(spec, None, {})
    for number, moment in enumerate(test.moments):
        try:
            message = _message(spec, moment)
            sample = spec.codec.decode(message)
        except InferloopError as error:
            sent[DEAD_LETTER].append({"reason": error.message})
            decisions.append(f"dead letter: {error.message}")
            continue
        if windows is not None:
            _, whole = windows.add(sample.id or f"{path}.{number}", sample, message, event_time(sample, message.received))
            if not whole:
                decisions.append(f"{GATHERED} -> nothing")
                continue
            sample = whole[-1].sample
        scored = Scored.of_scores(moment.scores, abstained=moment.abstain)
        if _stale(spec, sample, message):
            verdict = Verdict("", STALE, scored.label, scored.score)
        else:
            identity = sample.id or f"{path}.{number}"
            scope = scope_of(sample, scored, identity=identity, received=message.received, now=message.received)
            verdict = rulebook.decide(scope, scored, memory, skipped=lambda _: None, seen=seen)
        for effect in verdict.effects:
            sent[effect.sink].append(effect.payload)
        decisions.append(
            f"{verdict.reason or verdict.rule} -> {', '.join(effect.sink for effect in verdict.effects) or 'nothing'}"
        )
    return TestResult(test.name or path, tuple(decisions), tuple(_differences(spec, test.expect, sent)))


def _stale(spec: PipelineSpec, sample: Sample, message: Message) -> bool:
    limit_s = spec.model.max_age
    return limit_s is not None and message.received - event_time(sample, message.received) > limit_s


def _message(spec: PipelineSpec, moment: Moment) -> Message:
    received = _DEFAULT_AT_S if moment.at is None else moment.at.timestamp()
    return Message(_payload(spec, moment), spec.sources[0].name, received, topic=moment.topic, headers=moment.headers)


def _payload(spec: PipelineSpec, moment: Moment) -> bytes:
    if moment.payload_base64 is not None:
        return moment.payload_base64
    if moment.file is not None:
        path = Path(spec.path).parent / moment.file
        try:
            return path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    if isinstance(moment.message, str):
        return moment.message.encode()
    encode: Callable[[Any], bytes] = getattr(spec.codec, "encode", msgspec.json.encode)
    return encode(moment.message)


def _differences(
    spec: PipelineSpec, expect: Mapping[str, int | dict[str, Any]], sent: Mapping[str, list[Mapping[str, Any]]]
) -> Iterator[str]:
    keys = {part.name: plugins.load("sinks", part.plugin).payload_key for part in spec.sinks}
    for sink in [*expect, *(sink for sink in sent if sink not in expect)]:
        wanted, got = expect.get(sink, 0), sent.get(sink, [])
        if isinstance(wanted, int):
            if len(got) != wanted:
                yield f"{sink}: expected {_times(wanted)}, got {_times(len(got))}{_shown(got)}"
            continue
        payload = wanted.get(keys.get(sink, "json"), wanted)
        if len(got) != 1 or got[0] != payload:
            yield f"{sink}: expected {_text(payload)}, got {_text(got[0]) if len(got) == 1 else _times(len(got))}"


def _shown(got: list[Mapping[str, Any]]) -> str:
    return f": {_text(got[0])}" if got else ""


def _times(count: int) -> str:
    return "1 delivery" if count == 1 else f"{count} deliveries"


def _text(payload: object) -> str:
    return msgspec.json.encode(payload).decode()
