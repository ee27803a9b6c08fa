"""What came of deciding history again: counts, what would be won or lost, examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from inferloop.core.report import Report, Table
from inferloop.streams.loading import PipelineSpec
from inferloop.streams.replaying import Redecided

_EXAMPLES = 20


def line_of(one: Redecided) -> bytes:
    """One decision as a line of JSON."""
    then = one.row.decision
    row = {"message": then.message_id, "key": then.key, "time": then.time, "before": one.before, "after": one.after}
    return msgspec.json.encode({**row, "truth": one.row.truth, "lacks": one.lacks}) + b"\n"


class Tally:
    """Counts decisions as they come.

    Args:
        before: the file whose rules decided then; tells which label a rule acts on.
        after: the file whose rules decide now.
        right: what it is worth to act on a message whose truth is the label that the rule acts on.
        wrong: the same where it is another.
    """

    def __init__(self, before: PipelineSpec, after: PipelineSpec, *, right: float, wrong: float) -> None:
        self._labels = (_labels(before), _labels(after))
        self._prices = {True: right, False: wrong}
        self._changes: Counter[tuple[str, str]] = Counter()
        self._lacks: Counter[str] = Counter()
        self._values = [0.0, 0.0]
        self._judged = 0
        self._examples: list[tuple[str, ...]] = []
        self.decisions = 0

    def add(self, one: Redecided) -> None:
        """Count one."""
        self.decisions += 1
        if one.lacks:
            self._lacks[one.lacks] += 1
            return
        self._price(one)
        if one.differs:
            self._changes[one.before, one.after] += 1
            if len(self._examples) < _EXAMPLES:
                then = one.row.decision
                at = datetime.fromtimestamp(then.time, UTC).isoformat(timespec="seconds")
                self._examples.append((at, then.message_id, then.key, one.before, one.after, one.row.truth))

    def report(self, title: str) -> Report:
        """All of it."""
        differ, left = sum(self._changes.values()), sum(self._lacks.values())
        figures: dict[str, float] = {
            "decisions": self.decisions,
            "same": self.decisions - differ - left,
            "differ": differ,
            "not_decided_again": left,
            "with_truth": self._judged,
        }
        if any(self._prices.values()):
            before, after = self._values
            figures |= {"value_before": before, "value_after": after, "gain": after - before}
        changes = tuple((before, after, count) for (before, after), count in self._changes.most_common())
        return Report(
            kind="replay",
            title=title,
            figures=figures,
            tables=(
                Table("what would differ", ("was", "would be", "decisions"), changes),
                Table("for example", ("decided", "message", "key", "was", "would be", "truth"), tuple(self._examples)),
            ),
            notes=(
                *(f"{count} stay as they were: {reason}" for reason, count in self._lacks.most_common(5)),
                "rules begin with an empty memory where the window begins; source and topic of a message are not kept",
            ),
        )

    def _price(self, one: Redecided) -> None:
        """The worth of acting, where the truth is known."""
        if not one.row.truth:
            return
        self._judged += 1
        decision = one.row.decision
        for place, (rule, sinks) in enumerate(((decision.rule, decision.sinks), (one.rule, one.sinks))):
            labels = [self._labels[place][name] for name in rule.split(",") if name in self._labels[place]]
            if sinks and labels:  # with `match: all` several rules act at once; it is right if one of them is
                self._values[place] += self._prices[one.row.truth in labels]


def _labels(spec: PipelineSpec) -> Mapping[str, str]:
    return {rule.name: rule.label for rule in spec.rules if rule.label is not None}
