"""Whether a challenger may take the champion's place: both answer the same rows, and every gate must agree.

    hold-out (frozen, never fitted)      not worse by more than a margin, with stated confidence
    recent labeled rows (never fitted)   better: exact McNemar p below 1 - confidence, and in the right direction
    both                                 no class loses more than the floor; calibration stays inside its limit

"No difference found" is not "equal": the Report says how small a difference these rows could have shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput
from inferloop.core.report import Gate, Report, Table
from inferloop.evaluation.calibration import ece
from inferloop.evaluation.intervals import (
    Discordant,
    discordant,
    paired_bootstrap,
    paired_difference,
    sign_test,
    smallest_visible,
)
from inferloop.evaluation.metrics import accuracy, macro_f1

_MANY_READINGS = 5


@dataclass(frozen=True, slots=True)
class GuardConfig:
    """What the guard demands.

    Attributes:
        confidence: of every statement; 0.95 asks p < 0.05.
        margin: accuracy that the hold-out may lose at most.
        floor: recall that a class may lose at most, as far as its rows can show it.
        class_rows: a class with fewer rows is not judged on its own.
        ece_limit: calibration error that is always good enough.
        ece_slack: how much more than the champion's is allowed above that limit.
        calibration_rows: fewer rows say nothing about calibration.
        resamples: of the bootstrap of macro-F1, which describes and decides nothing.
    """

    confidence: float = 0.95
    margin: float = 0.02
    floor: float = 0.10
    class_rows: int = 20
    ece_limit: float = 0.05
    ece_slack: float = 0.02
    calibration_rows: int = 100
    resamples: int = 1000

    def __post_init__(self) -> None:
        if not (0.5 <= self.confidence < 1 and 0 < self.margin < 1 and 0 < self.floor <= 1):
            raise InvalidInput(
                f"confidence {self.confidence}, margin {self.margin}, floor {self.floor}",
                hint="a confidence of 0.5 to 1, a margin and a floor between 0 and 1",
            )


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What two models say about the same rows.

    Attributes:
        truth: int64 [N].
        champion: probabilities [N, C].
        challenger: probabilities [N, C].
    """

    truth: Array
    champion: Array
    challenger: Array

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def pairs(self) -> Discordant:
        """The rows that only one of them has right."""
        return discordant(self.truth, self.champion.argmax(axis=1), self.challenger.argmax(axis=1))


@dataclass(slots=True)
class _Findings:
    figures: dict[str, float] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judge(
    holdout: Answers,
    recent: Answers,
    *,
    labels: Sequence[str],
    config: GuardConfig | None = None,
    readings: int = 0,
    title: str = "challenger against champion",
) -> Report:
    """Compare two models and say with gates whether the second may replace the first.

    Args:
        holdout: answers on the frozen hold-out; may be empty, then nothing can be shown and the gate fails.
        recent: answers on recent labeled rows that neither model was fitted on; may be empty, likewise.
        labels: the classes.
        config: what is demanded.
        readings: how often the hold-out was read before this time.
        title: of the Report.
    """
    chosen = config or GuardConfig()
    found = _Findings()
    parts = {"holdout": holdout, "recent": recent}
    for name, answers in parts.items():
        _measure(name, answers, found, config=chosen, classes=len(labels))
    _not_worse(holdout, found, chosen)
    _better(recent, found, chosen)
    _classes(parts, labels, found, config=chosen)
    _calibration(parts, found, chosen)
    _count_readings(readings, found, chosen)
    return Report(
        "guard",
        title,
        figures=found.figures,
        tables=tuple(found.tables),
        gates=tuple(found.gates),
        notes=tuple(found.notes),
    )


def _measure(name: str, answers: Answers, found: _Findings, *, config: GuardConfig, classes: int) -> None:
    found.figures[f"{name}_rows"] = float(len(answers))
    if len(answers) == 0:
        return
    pairs = answers.pairs
    first, second = answers.champion.argmax(axis=1), answers.challenger.argmax(axis=1)
    interval = paired_difference(pairs, confidence=config.confidence)
    f1 = paired_bootstrap(
        answers.truth,
        first,
        second=second,
        metric=partial(macro_f1, classes=classes),
        resamples=config.resamples,
        confidence=config.confidence,
    )
    visible = smallest_visible(pairs.wins + pairs.losses, pairs.rows, confidence=config.confidence)
    found.figures.update(
        {
            f"{name}_accuracy_champion": accuracy(answers.truth, first),
            f"{name}_accuracy_challenger": accuracy(answers.truth, second),
            f"{name}_difference": pairs.difference,
            f"{name}_macro_f1_difference": f1.estimate,
            f"{name}_smallest_visible": visible,
        }
    )
    percent = f"{config.confidence:.0%}"
    rows = (
        ("accuracy", interval.estimate, interval.low, interval.high),
        ("macro-F1", f1.estimate, f1.low, f1.high),
    )
    found.tables.append(
        Table(f"{name}: challenger minus champion on {pairs.rows} rows", ("figure", "difference", f"{percent} low", "high"), rows)
    )
    found.notes.append(_visible_note(name, pairs, visible))


def _visible_note(name: str, pairs: Discordant, visible: float) -> str:
    counts = f"{name}: the challenger alone is right on {pairs.wins} rows, the champion alone on {pairs.losses}"
    if math.isnan(visible):
        return f"{counts}; with so few rows that differ no difference could have been seen"
    return f"{counts}; the smallest difference in accuracy that could have been seen is {visible:.2%}"


def _not_worse(holdout: Answers, found: _Findings, config: GuardConfig) -> None:
    """One-sided: the lower end of the interval stays above minus the margin."""
    if len(holdout) == 0:
        low = math.nan
        found.notes.append("there is no hold-out, so nothing shows that the challenger still does what the champion does")
    else:
        low = paired_difference(holdout.pairs, confidence=2 * config.confidence - 1).low if config.confidence > 0.5 else 0.0
    found.figures["holdout_difference_low"] = low
    found.gates.append(Gate("holdout_difference_low", ">=", -config.margin, low))
    if low < -config.margin <= holdout.pairs.difference:
        found.notes.append(
            f"the hold-out of {len(holdout)} rows is too small or the models differ too much on it to rule out a loss of "
            f"{config.margin:.1%}; more hold-out rows or a larger margin could"
        )


def _better(recent: Answers, found: _Findings, config: GuardConfig) -> None:
    p_value, difference = (recent.pairs.p_value, recent.pairs.difference) if len(recent) else (math.nan, math.nan)
    found.figures["recent_p_value"] = p_value
    found.figures.setdefault("recent_difference", difference)
    found.gates.append(Gate("recent_difference", ">", 0.0, difference))
    found.gates.append(Gate("recent_p_value", "<", round(1 - config.confidence, 9), p_value))
    if len(recent) == 0:
        found.notes.append("there are no recent labeled rows to judge by: give feedback first")


def _classes(parts: dict[str, Answers], labels: Sequence[str], found: _Findings, *, config: GuardConfig) -> None:
    """A class is ruined if it lost more recall than the floor and its own rows call that more than chance."""
    rows, ruined = [], []
    for name, answers in parts.items():
        for index, label in enumerate(labels):
            mine = answers.truth == index
            if np.sum(mine) < config.class_rows:
                continue
            pairs = Answers(answers.truth[mine], answers.champion[mine], answers.challenger[mine]).pairs
            chance = sign_test(wins=pairs.losses, losses=pairs.wins)
            lost = pairs.difference < -config.floor and chance < 1 - config.confidence
            before = accuracy(answers.truth[mine], answers.champion[mine].argmax(axis=1))
            rows.append((name, label, pairs.rows, before, before + pairs.difference, pairs.difference, "ruined" if lost else ""))
            ruined += [f"{label} ({name})"] if lost else []
    columns = ("part", "class", "rows", "recall champion", "recall challenger", "difference", "verdict")
    found.tables.append(Table(f"recall by class, {config.class_rows} rows and more", columns, tuple(rows)))
    found.figures["ruined_classes"] = float(len(ruined))
    found.gates.append(Gate("ruined_classes", "==", 0.0, float(len(ruined))))
    if ruined:
        found.notes.append(f"more than {config.floor:.0%} of recall lost in: {', '.join(ruined)}")


def _calibration(parts: dict[str, Answers], found: _Findings, config: GuardConfig) -> None:
    for name, answers in parts.items():
        if len(answers) < config.calibration_rows:
            found.notes.append(f"{name}: {len(answers)} rows are too few to judge calibration ({config.calibration_rows} needed)")
            continue
        before, after = ece(answers.champion, answers.truth), ece(answers.challenger, answers.truth)
        found.figures[f"{name}_ece_champion"] = before
        found.figures[f"{name}_ece"] = after
        found.gates.append(Gate(f"{name}_ece", "<=", max(config.ece_limit, before + config.ece_slack), after))


def _count_readings(readings: int, found: _Findings, config: GuardConfig) -> None:
    found.figures["gate_readings"] = float(readings)
    if readings >= _MANY_READINGS:
        chance = 1 - (0.5 + config.confidence / 2) ** (readings + 1)
        found.notes.append(
            f"the gate rows were read {readings} times before: looking so often would promote an equal challenger at least "
            f"once with a chance of up to {chance:.0%}; refresh the hold-out"
        )
