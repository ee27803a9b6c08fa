"""A Report as one self-contained HTML page: no script, no font, no image from elsewhere; light and dark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from inferloop.core.report import Gate, Plot, Report, Table
from inferloop.core.report_svg import line_plot
from inferloop.core.report_text import cell

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5c6775; --line: #d9dee5; --paper: #ffffff; --panel: #f5f7f9;
  --good: #14703c; --bad: #b3261e; --s0: #0b62a8; --s1: #c2560c; --s2: #1b7f5c; --s3: #a0338f; --s4: #7a6a00; --s5: #495057; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7ebf0; --soft: #9aa6b4; --line: #343c47; --paper: #14181d;
  --panel: #1c2229; --good: #5fcf8d; --bad: #ff8a80; --s0: #6cb6ff; --s1: #ffa657; --s2: #56d3a4; --s3: #e08ad3; --s4: #d8c750;
  --s5: #adb5bd; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .6rem; }
.kind { color: var(--soft); margin: 0; }
.verdict { display: inline-block; margin-top: .75rem; font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0; padding: 0; }
.figures div { background: var(--panel); border-radius: 6px; padding: .5rem .9rem; min-width: 8rem; }
dt { color: var(--soft); font-size: .82rem; overflow-wrap: anywhere; }
dd { margin: 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 0 0 1.5rem; } figcaption { font-weight: 600; margin-bottom: .25rem; }
svg { width: 100%; max-width: 46rem; height: auto; display: block; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg .mark { fill: none; stroke-width: 2; stroke-linejoin: round; }
li { margin-bottom: .35rem; } pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
""".strip()


def page(report: Report) -> str:
    """The whole page; every text of the Report is escaped."""
    parts = [
        f'<p class="kind">{escape(report.kind)}</p><h1>{escape(report.title)}</h1>',
        _verdict(report),
        _figures(report.figures),
        _gates(report.gates),
        *(_table(table) for table in report.tables if table.rows),
        *(_plot(plot) for plot in report.plots),
        _notes(report.notes),
        _facts(report.facts),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _verdict(report: Report) -> str:
    if not report.gates:
        return ""
    failed = sum(not gate.passed for gate in report.gates)
    if failed:
        return f'<p class="verdict bad">✗ {failed} of {len(report.gates)} gates failed</p>'
    return f'<p class="verdict good">✓ all {len(report.gates)} gates passed</p>'


def _figures(figures: Mapping[str, float]) -> str:
    if not figures:
        return ""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(cell(value))}</dd></div>" for name, value in figures.items())
    return f'<h2>Figures</h2>\n<dl class="figures">{items}</dl>'


def _gates(gates: tuple[Gate, ...]) -> str:
    if not gates:
        return ""
    rows = "".join(
        f'<tr><td>{escape(gate.name)}</td><td class="number">{escape(cell(gate.value))}</td>'
        f"<td>{escape(gate.op)} {escape(cell(gate.limit))}</td>"
        f"<td>{_mark(gate)}</td></tr>"
        for gate in gates
    )
    return f"<h2>Gates</h2>\n{_framed('<th>figure</th><th>measured</th><th>required</th><th>verdict</th>', rows)}"


def _mark(gate: Gate) -> str:
    return '<span class="good">✓ passed</span>' if gate.passed else '<span class="bad">✗ failed</span>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in table.rows)
    return f"<h2>{escape(table.title)}</h2>\n{_framed(head, rows)}"


def _cell(value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    content = cell(value) if number or value is None or isinstance(value, bool) else str(value)
    return f'<td class="number">{escape(content)}</td>' if number else f"<td>{escape(content)}</td>"


def _framed(head: str, rows: str) -> str:
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _plot(plot: Plot) -> str:
    return f"<h2>{escape(plot.title)}</h2>\n<figure>{line_plot(plot)}</figure>"


def _notes(notes: tuple[str, ...]) -> str:
    if not notes:
        return ""
    return "<h2>Notes</h2>\n<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _facts(facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    rows = "".join(f"<tr><th>{escape(str(name))}</th><td>{_fact(value)}</td></tr>" for name, value in facts.items())
    return f'<h2>Facts</h2>\n<div class="scroll"><table><tbody>{rows}</tbody></table></div>'


def _fact(value: Any) -> str:
    if isinstance(value, (str, int, float, bool)) or value is None:
        return escape(str(value))
    return f"<pre>{escape(json.dumps(value, indent=1, default=str))}</pre>"
