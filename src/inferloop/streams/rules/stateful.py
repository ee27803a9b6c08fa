"""The stateful parts of a rule, on event time alone: the same messages in the same order always decide the same.

observe   change, vote, for, clear_below see every message      -> may the rule match?
restrain  clear_below, cooldown, budget see every match         -> may it act?
acted     it acts                                               -> remember when
matched   a rule that another comes `after` matched a message   -> the other may match a later one
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from inferloop.streams.config import RuleSection
from inferloop.streams.rules.memory import KeyState, Memory

Scope = Mapping[str, Any]


def observe(rule: RuleSection, memory: Memory, scope: Scope, *, holds: bool, score: float, time: float) -> bool:
    """Count one message; returns whether the rule matches: it holds now, long enough and often enough."""
    holds = holds and _follows(rule, memory, scope, time)
    if rule.change is not None:
        holds = _changed(rule, memory, scope, time) and holds
    matches = holds
    if rule.vote is not None:
        matches = _vote(rule, memory, scope, holds) and matches
    if rule.for_ is not None:
        matches = _held(rule, memory, scope, holds, time) and matches
    if rule.clear_below is not None:
        _clear(rule, memory, scope, score)
    return matches


def restrain(rule: RuleSection, memory: Memory, scope: Scope, *, time: float) -> str:
    """Why a rule that matches must not act now; empty if it may."""
    if rule.clear_below is not None and memory.at(rule.name, "latch", scope.get("key", "")).latched:
        return "clear_below"
    if rule.cooldown is not None:
        acted = memory.at(rule.name, "cooldown", _by(scope, rule.cooldown.by)).acted
        if acted and time < acted[-1] + rule.cooldown.for_:
            return "cooldown"
    if rule.budget is not None:
        spent = memory.at(rule.name, "budget", _by(scope, rule.budget.by)).acted
        if sum(moment > time - rule.budget.rate.per_s for moment in spent) >= rule.budget.rate.count:
            return "budget"
    return ""


def matched(waiting: RuleSection, memory: Memory, scope: Scope, *, time: float) -> None:
    """Remember that the rule that `waiting` comes after matched."""
    if waiting.after is not None:
        until = time + waiting.after.within
        memory.touch(waiting.name, "after", _by(scope, waiting.after.by), KeyState(acted=[time], until=until))


def acted(rule: RuleSection, memory: Memory, scope: Scope, *, time: float) -> None:
    """Remember that the rule acted."""
    if rule.after is not None:
        memory.touch(rule.name, "after", _by(scope, rule.after.by), KeyState())
    if rule.clear_below is not None:
        memory.touch(rule.name, "latch", scope.get("key", ""), KeyState(latched=True))
    if rule.cooldown is not None:
        memory.touch(rule.name, "cooldown", _by(scope, rule.cooldown.by), KeyState(acted=[time], until=time + rule.cooldown.for_))
    if rule.budget is not None:
        value = _by(scope, rule.budget.by)
        spent = memory.at(rule.name, "budget", value).acted
        recent = sorted(moment for moment in (*spent, time) if moment > time - rule.budget.rate.per_s)
        kept = recent[-rule.budget.rate.count :]
        memory.touch(rule.name, "budget", value, KeyState(acted=kept, until=kept[-1] + rule.budget.rate.per_s))


def _follows(rule: RuleSection, memory: Memory, scope: Scope, time: float) -> bool:
    if rule.after is None:
        return True
    before = memory.at(rule.name, "after", _by(scope, rule.after.by)).acted
    return bool(before) and 0 <= time - before[-1] <= rule.after.within


def _changed(rule: RuleSection, memory: Memory, scope: Scope, time: float) -> bool:
    """Compare with the message before; one that is not newer than that neither counts nor is kept."""
    change = rule.change
    if change is None:
        return True
    number = scope.get(change.of)
    if not isinstance(number, int | float) or not math.isfinite(number):
        return False
    value = _by(scope, change.by)
    last = memory.at(rule.name, "change", value).last
    if last is not None and time <= last[0]:
        return False
    memory.touch(rule.name, "change", value, KeyState(last=(time, float(number))))
    if last is None:
        return False
    speed = (number - last[1]) / (time - last[0]) * change.per
    return (change.above is None or speed > change.above) and (change.below is None or speed < change.below)


def _vote(rule: RuleSection, memory: Memory, scope: Scope, holds: bool) -> bool:
    vote = rule.vote
    if vote is None:
        return True
    value = _by(scope, vote.by)
    before = memory.at(rule.name, "vote", value).votes
    votes = [*before, holds][-vote.of :]
    if votes != before and (any(votes) or before):
        memory.touch(rule.name, "vote", value, KeyState(votes=votes if any(votes) else []))
    return sum(votes) >= vote.need


def _held(rule: RuleSection, memory: Memory, scope: Scope, holds: bool, time: float) -> bool:
    span = rule.for_
    if span is None:
        return True
    value = _by(scope, span.by)
    since = memory.at(rule.name, "for", value).since
    if not holds:
        if since is not None:
            memory.touch(rule.name, "for", value, KeyState())
        return False
    if since is None or time < since:
        memory.touch(rule.name, "for", value, KeyState(since=time))
        since = time
    return time - since >= span.for_


def _clear(rule: RuleSection, memory: Memory, scope: Scope, score: float) -> None:
    value = scope.get("key", "")
    if rule.clear_below is not None and score < rule.clear_below and memory.at(rule.name, "latch", value).latched:
        memory.touch(rule.name, "latch", value, KeyState())


def _by(scope: Scope, name: str) -> object:
    return scope.get(name, "")
