"""The one result type of evaluate, bench, train, parity, guard and drift: facts, tables, plots and gates."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferloop.core.errors import InvalidInput

_GATE = re.compile(r"\s*(?P<name>[\w().%-]+)\s*(?P<op>>=|<=|>|<|==)\s*(?P<limit>-?[\d.]+(e-?\d+)?)\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition on one figure: `accuracy >= 0.97`."""

    name: str
    op: str
    limit: float
    value: float

    @property
    def passed(self) -> bool:
        """Whether the value meets the limit; NaN never does."""
        return _COMPARE[self.op](self.value, self.limit)

    @classmethod
    def parse(cls, text: str, figures: Mapping[str, float]) -> Gate:
        """Read `NAME OP LIMIT` and take the value of NAME from the figures.

        Raises:
            InvalidInput: another form, or a figure that was not measured (the hint names those that were).
        """
        match = _GATE.fullmatch(text)
        if match is None:
            raise InvalidInput(f"gate {text!r} is not NAME OP NUMBER", hint="e.g. accuracy>=0.97")
        if match["name"] not in figures:
            raise InvalidInput(f"gate {text!r} names no measured figure", hint=f"measured: {', '.join(sorted(figures))}")
        return cls(match["name"], match["op"], float(match["limit"]), float(figures[match["name"]]))


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; cells are numbers or text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over one x axis, by name; each point is (x, y)."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, and whether it is good enough.

    Attributes:
        kind: the verb that made it: `evaluate`, `train`, `guard`, `parity`, ...
        figures: the measured numbers by name; gates refer to these names.
        facts: everything else worth knowing (model, data, seed, host).
        notes: sentences for the reader: caveats, sources, what could not be measured.
    """

    kind: str
    title: str
    figures: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every gate passed; true without gates."""
        return all(gate.passed for gate in self.gates)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": self.kind,
            "title": self.title,
            "passed": self.passed,
            "figures": dict(self.figures),
            "facts": dict(self.facts),
            "tables": [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in self.tables],
            "plots": [_plot_dict(plot) for plot in self.plots],
            "gates": [_gate_dict(gate) for gate in self.gates],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """One JSON object on one line."""
        return json.dumps(self.to_dict(), default=str)

    def to_html(self) -> str:
        """One self-contained page with tables and plots."""
        from inferloop.core.report_html import page

        return page(self)

    def save(self, path: Path) -> None:
        """Write as HTML or JSON, by the suffix of `path`."""
        path.write_text(self.to_html() if path.suffix == ".html" else self.to_json(), encoding="utf-8")


def _plot_dict(plot: Plot) -> dict[str, Any]:
    series = {name: [list(point) for point in points] for name, points in plot.series.items()}
    return {"title": plot.title, "x_label": plot.x_label, "y_label": plot.y_label, "series": series}


def _gate_dict(gate: Gate) -> dict[str, Any]:
    return {"name": gate.name, "op": gate.op, "limit": gate.limit, "value": gate.value, "passed": gate.passed}
