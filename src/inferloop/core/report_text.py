"""A Report as plain text: figures, gates, tables with aligned columns, notes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from inferloop.core.report import Gate, Report, Table

_WIDEST_CELL = 60


def text(report: Report) -> str:
    """All of a Report but its plots, lines separated by newlines, none at the end."""
    blocks = [report.title]
    if report.figures:
        blocks.append(_aligned(tuple((name, cell(value)) for name, value in report.figures.items())))
    blocks += [f"{table.title}\n{table_text(table)}" for table in report.tables if table.rows]
    if report.gates:
        blocks.append("gates\n" + "\n".join(gate_text(gate) for gate in report.gates))
    if report.notes:
        blocks.append("\n".join(f"note: {note}" for note in report.notes))
    return "\n\n".join(blocks)


def table_text(table: Table) -> str:
    """The header and the rows of a table, columns aligned: numbers to the right, text to the left."""
    return _aligned((table.columns, *(tuple(cell(value) for value in row) for row in table.rows)), values=table.rows)


def gate_text(gate: Gate) -> str:
    """One line: `passed  accuracy = 0.981, required >= 0.97`."""
    verdict = "passed" if gate.passed else "FAILED"
    return f"  {verdict}  {gate.name} = {cell(gate.value)}, required {gate.op} {cell(gate.limit)}"


def cell(value: Any) -> str:
    """One value for people: floats with four significant digits, a dash for what is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    plain = " ".join(str(value).split())
    return plain if len(plain) <= _WIDEST_CELL else plain[: _WIDEST_CELL - 1] + "…"


def _number(value: float) -> str:
    size = abs(value)
    if 1000 <= size < 1e9:
        return f"{value:.0f}"
    return f"{value:.4g}" if size == 0 or 1e-3 <= size < 1000 else f"{value:.3e}"


def _aligned(lines: Sequence[tuple[str, ...]], *, values: Sequence[tuple[Any, ...]] = ()) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    right = [bool(values) and all(_is_number(row[column]) for row in values) for column in range(len(widths))]
    padded = (
        (field.rjust(width) if flush else field.ljust(width) for field, width, flush in zip(line, widths, right, strict=True))
        for line in lines
    )
    return "\n".join("  " + "  ".join(fields).rstrip() for fields in padded)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
