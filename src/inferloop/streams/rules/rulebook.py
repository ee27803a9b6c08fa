"""Decide: from the names of one message to the rules that match and the effects they ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from inferloop.streams.config import RuleSection
from inferloop.streams.expressions import Expression, Missing, compile_expression
from inferloop.streams.rendering import Template
from inferloop.streams.rules.memory import Memory
from inferloop.streams.rules.scored import Scored
from inferloop.streams.rules.stateful import acted, matched, observe, restrain

NO_RULE = "no_rule"
STALE = "stale"
SUPPRESSED = "suppressed"
Seen = Callable[[str, object], bool]
Skipped = Callable[[str], None]


class Effect(msgspec.Struct, frozen=True):
    """One payload for one sink.

    Attributes:
        once: the value of `once_per`; None where the message's id identifies the effect.
    """

    rule: str
    sink: str
    payload: Mapping[str, Any]
    once: object = None


class Verdict(msgspec.Struct, frozen=True):
    """What the rules say of one message.

    Attributes:
        rule: the rules that matched, with commas between them; empty if none did.
        reason: empty when it acts, else `no_rule`, `stale` or `suppressed: PART`.
        label: the label that the deciding rule looked at, else the top one.
    """

    rule: str
    reason: str
    label: str
    score: float
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rule:
    section: RuleSection
    when: Expression | None


class Rulebook:
    """The rules of one pipeline, compiled. Used by one thread at a time.

    Args:
        rules: in order.
        match: `first` or `all`.
        kinds: every name that expressions may read, with its kind.
        templates: the payload of each sink.
    """

    def __init__(
        self, rules: Sequence[RuleSection], *, match: str, kinds: Mapping[str, str], templates: Mapping[str, Template]
    ) -> None:
        self._rules = [_Rule(rule, compile_expression(rule.when, kinds, boolean=True) if rule.when else None) for rule in rules]
        self._all = match == "all"
        self._templates = templates
        self._awaited: dict[str, list[RuleSection]] = {}
        for rule in rules:
            if rule.after is not None:
                self._awaited.setdefault(rule.after.rule, []).append(rule)
        self.asks_once = any(rule.once_per is not None for rule in rules)

    def decide(self, scope: Mapping[str, Any], scored: Scored, memory: Memory, *, skipped: Skipped, seen: Seen) -> Verdict:
        """Decide one message and note in `memory` what it changes.

        Args:
            scope: the fields and built-in names of the message; no entry for a missing one. `time` is its event time.
            scored: what the model said.
            memory: the state of the stateful rules.
            skipped: told the name of each rule whose condition touched a missing value.
            seen: whether the effect of a sink and a `once_per` value was asked for before; asking takes it.
        """
        memory.forget(scope["time"])
        verdicts: list[Verdict] = []
        led_to: list[RuleSection] = []
        decided = False
        for rule in self._rules:
            label, score = _looked_at(rule.section, scored)
            names = {**scope, "label": label, "score": score, "scores": scored.scores}
            matches = self._matches(rule, scored, names, memory, decided=decided, skipped=skipped)
            if matches:
                led_to += self._awaited.get(rule.section.name, ())
            if matches and not decided:
                verdicts.append(self._act(rule.section, names, memory, seen))
                decided = not self._all
        for waiting in led_to:  # last: a sequence is of two messages
            matched(waiting, memory, scope, time=scope["time"])
        return _joined(verdicts, scored)

    def once_values(self, scope: Mapping[str, Any], scored: Scored) -> Iterator[tuple[str, object]]:
        """Every pair of sink and `once_per` value that this message may ask for."""
        for rule in self._rules:
            section = rule.section
            if section.once_per is None:
                continue
            label, score = _looked_at(section, scored)
            value = {**scope, "label": label, "score": score, "scores": scored.scores}.get(section.once_per)
            if value is not None:
                yield from ((sink, value) for sink in section.send)

    def _matches(
        self, rule: _Rule, scored: Scored, names: Mapping[str, Any], memory: Memory, *, decided: bool, skipped: Skipped
    ) -> bool:
        section = rule.section
        remembers = section.remembers or section.name in self._awaited
        if decided and not remembers:
            return False
        holds = _condition(section, scored, names["score"])
        try:
            holds = holds and (rule.when is None or rule.when.holds(names))
            if holds and section.once_per is not None and names.get(section.once_per) is None:
                raise Missing(section.once_per)
        except Missing:
            skipped(section.name)
            holds = False
        if not remembers and section.after is None:
            return holds
        return observe(section, memory, names, holds=holds, score=names["score"], time=names["time"])

    def _act(self, rule: RuleSection, names: Mapping[str, Any], memory: Memory, seen: Seen) -> Verdict:
        label, score = names["label"], names["score"]
        restrained = restrain(rule, memory, names, time=names["time"])
        if restrained:
            return Verdict(rule.name, f"{SUPPRESSED}: {restrained}", label, score)
        once = None if rule.once_per is None else names[rule.once_per]
        sinks = [sink for sink in dict.fromkeys(rule.send) if once is None or not seen(sink, once)]
        if rule.send and not sinks:
            return Verdict(rule.name, f"{SUPPRESSED}: once_per", label, score)
        acted(rule, memory, names, time=names["time"])
        known = {**names, "_rule": rule.name}
        effects = tuple(Effect(rule.name, sink, self._templates[sink](known), once) for sink in sinks)
        return Verdict(rule.name, "", label, score, effects)


def _condition(rule: RuleSection, scored: Scored, score: float) -> bool:
    """The declared part: label, above, below, abstain. NaN is neither above nor below anything."""
    if rule.abstain and not scored.abstained:
        return False
    if rule.label is not None and rule.above is None and rule.below is None and scored.label != rule.label:
        return False
    return (rule.above is None or score > rule.above) and (rule.below is None or score < rule.below)


def _looked_at(rule: RuleSection, scored: Scored) -> tuple[str, float]:
    """The label that a rule is about and its score; NaN for a label that the model does not have."""
    if rule.label is None or (rule.label == scored.label):
        return scored.label, scored.score
    return rule.label, scored.scores.get(rule.label, math.nan)


def _joined(verdicts: Sequence[Verdict], scored: Scored) -> Verdict:
    """One verdict of those of all rules that matched."""
    if not verdicts:
        return Verdict("", NO_RULE, scored.label, scored.score)
    if len(verdicts) == 1:
        return verdicts[0]
    acting = [verdict for verdict in verdicts if not verdict.reason] or verdicts
    effects = {
        (effect.sink, effect.rule if effect.once is None else str(effect.once)): effect for v in acting for effect in v.effects
    }
    rule = ",".join(verdict.rule for verdict in acting)
    return Verdict(rule, acting[0].reason, acting[0].label, acting[0].score, tuple(effects.values()))
