from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.streams.config import RuleSection
from inferloop.streams.expressions import BUILTINS
from inferloop.streams.rules.memory import Memory
from inferloop.streams.rules.rulebook import Rulebook, Verdict
from inferloop.streams.rules.scored import Scored
from inferloop.streams.scope import scope_of
from support.pipelines import sample

KINDS = {**BUILTINS, "total": "number", "order": "string"}


class Desk:
    """A rulebook with its memory, asked one message after the other."""

    def __init__(self, *rules: Mapping[str, Any], match: str = "first", state: Mapping[str, bytes] | None = None) -> None:
        sections = [RuleSection.model_validate(rule) for rule in rules]
        sinks = {sink for rule in sections for sink in rule.send}
        templates = {sink: lambda scope: {"id": scope["id"], "label": scope["label"]} for sink in sinks}
        self._book = Rulebook(sections, match=match, kinds=KINDS, templates=templates)
        self.memory = Memory(state)
        self.skipped: list[str] = []
        self._taken: set[tuple[str, object]] = set()

    def ask(
        self, score: float = 0.9, *, label: str = "hot", at: float = 0.0, key: str = "k", abstained: bool = False, **fields: Any
    ) -> Verdict:
        scores = {label: score, "other": 1 - score}
        scored = Scored(label, score, scores, abstained=abstained)
        names = {**scope_of(sample(**fields), scored, identity="m", received=at, now=at), "key": key, "time": at}
        return self._book.decide(names, scored, self.memory, skipped=self.skipped.append, seen=self._seen)

    def acts(self, score: float = 0.9, **known: Any) -> bool:
        return not self.ask(score, **known).reason

    def _seen(self, sink: str, value: object) -> bool:
        before = (sink, value) in self._taken
        self._taken.add((sink, value))
        return before


def rule(**parts: Any) -> dict[str, Any]:
    return {"name": "act", "send": ["sink"], **parts}


def test_a_rule_without_conditions_always_matches() -> None:
    assert Desk(rule()).acts()


@pytest.mark.parametrize(
    ("parts", "matches"),
    [
        ({"above": 0.8}, True),
        ({"above": 0.9}, False),
        ({"below": 0.95}, True),
        ({"below": 0.9}, False),
        ({"label": "hot"}, True),
        ({"label": "other"}, False),
        ({"label": "other", "below": 0.2}, True),
        ({"label": "other", "above": 0.2}, False),
        ({"label": "unknown", "above": 0.0}, False),
        ({"label": "unknown", "below": 1.0}, False),
        ({"abstain": True}, False),
    ],
)
def test_conditions_look_at_the_score_of_their_label_else_of_the_top_one(parts: dict[str, Any], matches: bool) -> None:
    assert Desk(rule(**parts)).acts(0.9) is matches


def test_an_abstaining_model_matches_the_rule_for_it() -> None:
    assert Desk(rule(abstain=True)).acts(abstained=True)


def test_the_first_rule_that_matches_decides() -> None:
    desk = Desk(rule(name="one", above=0.95), rule(name="two", above=0.5), rule(name="three"))
    assert desk.ask(0.9).rule == "two"


def test_with_match_all_every_rule_that_matches_acts() -> None:
    verdict = Desk(rule(name="one"), rule(name="two", above=0.95), rule(name="three", send=["sink", "more"]), match="all").ask(
        0.9
    )
    assert verdict.rule == "one,three"
    assert [(effect.rule, effect.sink) for effect in verdict.effects] == [("one", "sink"), ("three", "sink"), ("three", "more")]


def test_no_rule_is_a_decision_with_that_reason() -> None:
    assert Desk(rule(above=0.95)).ask(0.9) == Verdict("", "no_rule", "hot", 0.9)


def test_a_condition_on_a_missing_value_is_false_and_counted() -> None:
    desk = Desk(rule(when="total < 100.0"))
    assert not desk.acts()
    assert desk.skipped == ["act"]
    assert desk.acts(total=40.0)


def test_once_per_suppresses_the_second_with_the_same_value_and_skips_a_missing_one() -> None:
    desk = Desk(rule(once_per="order"), rule(name="rest", send=[]))
    reasons = [desk.ask(order=order).reason for order in ("o1", "o2", "o1")]
    assert reasons == ["", "", "suppressed: once_per"]
    assert desk.ask().rule == "rest"
    assert desk.skipped == ["act"]


def test_a_vote_needs_enough_of_the_last_messages_of_the_key() -> None:
    desk = Desk(rule(above=0.5, vote={"of": 3, "need": 2}))
    assert [desk.acts(score) for score in (0.9, 0.1, 0.9, 0.1, 0.1, 0.9)] == [False, False, True, False, False, False]
    assert not desk.acts(0.9, key="another")


def test_for_needs_the_condition_to_hold_without_a_break() -> None:
    desk = Desk(rule(above=0.5, **{"for": "2s"}))
    steps = [(0.9, 0.0), (0.9, 1.9), (0.9, 2.0), (0.1, 2.5), (0.9, 3.0), (0.9, 4.9), (0.9, 5.0)]
    assert [desk.acts(score, at=at) for score, at in steps] == [False, False, True, False, False, False, True]


def test_a_cooldown_rests_after_acting_and_counts_by_the_named_field() -> None:
    desk = Desk(rule(cooldown={"for": "10s", "by": "order"}))
    steps = [("o1", 0.0), ("o1", 9.9), ("o2", 9.9), ("o1", 10.0), ("o1", 5.0)]
    assert [desk.ask(order=order, at=at).reason for order, at in steps] == [
        "",
        "suppressed: cooldown",
        "",
        "",
        "suppressed: cooldown",
    ]


def test_a_budget_lets_so_many_through_within_its_time() -> None:
    desk = Desk(rule(budget="2/10s"))
    assert [desk.acts(at=at) for at in (0.0, 1.0, 2.0, 9.9, 10.0, 10.5, 11.0)] == [True, True, False, False, True, False, True]


def test_clear_below_acts_once_until_the_score_fell() -> None:
    desk = Desk(rule(above=0.8, clear_below=0.5))
    reasons = [desk.ask(score).reason for score in (0.9, 0.9, 0.6, 0.9, 0.4, 0.9)]
    assert reasons == ["", "suppressed: clear_below", "no_rule", "suppressed: clear_below", "no_rule", ""]


def test_a_vote_counts_messages_that_an_earlier_rule_decided() -> None:
    desk = Desk(rule(name="early", above=0.99), rule(name="late", above=0.5, vote={"of": 2, "need": 2}))
    assert [desk.ask(score).rule for score in (0.995, 0.9)] == ["early", "late"]


def test_a_model_with_one_output_and_no_labels_is_judged_by_it() -> None:
    book = Rulebook([RuleSection.model_validate(rule(above=3.0))], match="first", kinds=KINDS, templates={"sink": lambda _: {}})
    names = {"id": "m", "key": "k", "time": 0.0}
    assert book.decide(names, Scored("", 3.5), Memory(), skipped=print, seen=lambda *_: False).rule == "act"
    assert book.decide(names, Scored("", math.nan), Memory(), skipped=print, seen=lambda *_: False).rule == ""


@pytest.mark.parametrize(
    "parts",
    [
        {"vote": {"of": 2, "need": 3}},
        {"clear_below": 0.5},
        {"above": 0.5, "clear_below": 0.6},
        {"cooldown": 5},
        {"cooldown": {"for": "5s", "per": "key"}},
        {"budget": "20"},
        {"budget": "10001/1d"},
        {"for": "-2s"},
        {"abov": 0.5},
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        RuleSection.model_validate(rule(**parts))


STATEFUL: Sequence[dict[str, Any]] = (
    rule(name="vote", above=0.5, vote={"of": 3, "need": 2}),
    rule(name="held", above=0.5, **{"for": "2s"}),
    rule(name="rest", above=0.3, cooldown="3s"),
    rule(name="spend", above=0.2, budget="2/4s"),
    rule(name="alarm", above=0.6, clear_below=0.4),
)
messages = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 1), st.floats(0, 2)), max_size=40)


def decide_all(desk: Desk, steps: Sequence[tuple[str, float, float]], start: float = 0.0) -> list[tuple[str, str]]:
    at, verdicts = start, []
    for key, score, gap in steps:
        at += gap
        verdict = desk.ask(score, key=key, at=at)
        verdicts.append((verdict.rule, verdict.reason))
    return verdicts


@given(messages)
def test_the_same_messages_decide_the_same_whatever_key_comes_between(steps: list[tuple[str, float, float]]) -> None:
    at, timed = 0.0, []
    for key, score, gap in steps:
        at += gap
        timed.append((key, score, at))
    together, alone = Desk(*STATEFUL, match="all"), Desk(*STATEFUL, match="all")
    mixed = [together.ask(score, key=key, at=at) for key, score, at in timed]
    only_a = [alone.ask(score, key=key, at=at) for key, score, at in timed if key == "a"]
    assert [v for v, (key, _, _) in zip(mixed, timed, strict=True) if key == "a"] == only_a


@given(messages, st.integers(0, 40))
def test_a_restart_between_two_messages_changes_no_decision(steps: list[tuple[str, float, float]], cut: int) -> None:
    whole = decide_all(Desk(*STATEFUL, match="all"), steps)
    first = Desk(*STATEFUL, match="all")
    before = decide_all(first, steps[:cut])
    stored = {name: value for name, value in first.memory.take_changes().items() if value}
    after = decide_all(Desk(*STATEFUL, match="all", state=stored), steps[cut:], sum(gap for _, _, gap in steps[:cut]))
    assert before + after == whole


@given(messages)
def test_a_budget_is_never_exceeded_in_any_window(steps: list[tuple[str, float, float]]) -> None:
    desk, at, acted = Desk(rule(budget="2/4s")), 0.0, []
    for _, score, gap in steps:
        at += gap
        if desk.acts(score, at=at):
            acted.append(at)
    assert all(sum(start < moment <= start + 3.999 for moment in acted) <= 2 for start in acted)


@pytest.mark.parametrize("parts", [{"cooldown": "1h"}, {"budget": "2/1h"}])
def test_a_key_that_acted_once_is_forgotten_a_day_after_it_says_nothing_more(parts: dict[str, Any]) -> None:
    desk = Desk(rule(**parts))
    for second in range(100):
        desk.ask(key=f"k{second}", at=float(second))
    kept = desk.memory.take_changes()
    desk.ask(key="last", at=2 * 86_400.0)
    changes = desk.memory.take_changes()
    assert (len(kept), len(desk.memory)) == (100, 1)
    assert sorted(kept) == sorted(name for name, value in changes.items() if not value)


def test_what_a_restart_loads_is_forgotten_too() -> None:
    desk = Desk(rule(cooldown="1h"))
    desk.ask(at=0.0)
    again = Desk(rule(cooldown="1h"), state=desk.memory.take_changes())
    assert not again.acts(at=10.0)
    again.ask(key="other", at=2 * 86_400.0)
    assert len(again.memory) == 1


def changing(**parts: Any) -> dict[str, Any]:
    return rule(change={"of": "total", "per": "1s", **parts})


def test_a_rate_of_change_is_the_difference_by_the_time_of_each_key() -> None:
    desk = Desk(changing(above=2.0))
    assert not desk.acts(total=0.0, at=0.0), "the first has nothing before it"
    assert not desk.acts(total=4.0, at=2.0), "exactly 2 a second"
    assert not desk.acts(total=100.0, at=2.5, key="other")
    assert desk.acts(total=6.2, at=3.0)
    assert not desk.acts(total=0.0, at=4.0)


def test_a_fall_is_below_a_negative_rate_and_the_unit_of_time_counts() -> None:
    desk = Desk(changing(below=-60.0, per="1m"))
    assert [desk.acts(total=value, at=at) for at, value in [(0.0, 10.0), (1.0, 9.5), (2.0, 7.9)]] == [False, False, True]


def test_a_message_that_is_not_newer_or_has_no_number_changes_nothing() -> None:
    desk = Desk(changing(above=1.0))
    desk.ask(total=0.0, at=10.0)
    assert not desk.acts(total=50.0, at=10.0)
    assert not desk.acts(total=50.0, at=9.0)
    assert not desk.acts(total=float("nan"), at=11.0)
    assert not desk.acts(at=11.5)
    assert desk.acts(total=4.0, at=12.0), "2 a second since the one at 10"


def test_the_rate_of_the_score_with_a_vote() -> None:
    desk = Desk(rule(change={"above": 0.1}, vote={"of": 3, "need": 2}))
    assert [desk.acts(score, at=float(at)) for at, score in enumerate((0.1, 0.3, 0.31, 0.5))] == [False, False, False, True]


def sequence(**after: Any) -> Desk:
    first = {"name": "first", "label": "cold", "send": []}
    return Desk(first, {"name": "act", "label": "hot", "after": {"rule": "first", "within": "10s", **after}, "send": ["sink"]})


def acts(desk: Desk, label: str, at: float, **known: Any) -> bool:
    return desk.ask(label=label, at=at, **known).rule == "act"


def test_a_sequence_is_one_rule_then_the_other_in_time_for_one_key_once() -> None:
    desk = sequence()
    assert not acts(desk, "hot", 0.0)
    assert not acts(desk, "cold", 1.0)
    assert not acts(desk, "hot", 2.0, key="other")
    assert acts(desk, "hot", 11.0)
    assert not acts(desk, "hot", 11.5), "used up"
    acts(desk, "cold", 20.0)
    assert not acts(desk, "hot", 30.1), "too late"


def test_one_message_is_no_sequence() -> None:
    both = Desk({"name": "first", "send": []}, rule(after={"rule": "first", "within": "10s"}), match="all")
    assert not both.ask(at=0.0).effects
    assert both.ask(at=1.0).effects


def test_a_rule_that_another_comes_after_is_seen_behind_one_that_decides() -> None:
    deciding = {"name": "deciding", "label": "cold", "send": []}
    first = {"name": "first", "label": "cold", "send": []}
    desk = Desk(deciding, first, rule(label="hot", after={"rule": "first", "within": "10s"}))
    assert desk.ask(label="cold", at=0.0).rule == "deciding"
    assert desk.ask(label="hot", at=1.0).rule == "act"


def test_a_sequence_and_a_change_survive_a_new_start() -> None:
    desk = sequence()
    acts(desk, "cold", 1.0)
    first = {"name": "first", "label": "cold", "send": []}
    later = Desk(first, rule(label="hot", after={"rule": "first", "within": "10s"}), state=desk.memory.take_changes())
    assert later.acts(at=2.0)
    before = Desk(changing(above=1.0))
    before.ask(total=0.0, at=0.0)
    assert Desk(changing(above=1.0), state=before.memory.take_changes()).acts(total=5.0, at=1.0)
