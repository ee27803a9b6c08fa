"""What every benchmark shares: a figure with its goal, the table on screen, and the committed list in `results/`."""

from __future__ import annotations

import json
import operator
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure.

    Attributes:
        goal: `<= 240`, or empty for a figure that stands beside others without a goal of its own.
        met: whether the value meets the goal; None without a goal.
        command: what a reader types to measure it again.
        peer: what others reach, for the table only.
    """

    figure: str
    value: float
    unit: str
    goal: str
    met: bool | None
    command: str
    peer: str = ""


def judged(figure: str, value: float, unit: str, *, goal: str, command: str, peer: str = "") -> Row:
    """A figure held against its goal, `OP NUMBER`; NaN meets none."""
    if not goal:
        return Row(figure, value, unit, goal, None, command, peer)
    match = re.fullmatch(r"(>=|<=|>|<|==)\s*(-?[\d.]+)", goal)
    if match is None:
        raise ValueError(f"goal {goal!r} of {figure} is not OP NUMBER")
    return Row(figure, value, unit, goal, _COMPARE[match[1]](value, float(match[2])), command, peer)


def write(name: str, rows: Sequence[Row]) -> Path:
    """Print the table and write `results/NAME.json`: a list of figure, value, unit, goal, met, command, commit, host, when.

    Args:
        name: the benchmark; a figure written before and not measured now stays with its own commit and date.
        rows: what was measured.
    """
    facts = {"commit": commit(), "host": host(), "when": datetime.now(UTC).isoformat(timespec="seconds")}
    fresh = [{**{key: value for key, value in asdict(row).items() if key != "peer"}, **facts} for row in rows]
    path = RESULTS / f"{name}.json"
    measured = {row.figure for row in rows}
    kept = [old for old in (json.loads(path.read_text()) if path.exists() else []) if old["figure"] not in measured]
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps([*kept, *fresh], indent=2) + "\n", encoding="utf-8")
    print(table(rows))
    print(f"\n{facts['host']}, commit {facts['commit']}, written to {path.relative_to(ROOT)}")
    return path


def table(rows: Sequence[Row]) -> str:
    """The figures beside their goals and peers."""
    cells = [("figure", "value", "unit", "goal", "met", "peers")]
    cells += [(row.figure, f"{row.value:.4g}", row.unit, row.goal or "-", _yes(row.met), row.peer) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells)


def commit() -> str:
    """The commit that is measured; `+` after it says that files differ from it."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "src", "benchmarks") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def host() -> str:
    """Processor, cores, system and interpreter."""
    cpu = next((line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {platform.system()}, Python {platform.python_version()}"


def cpu_seconds(command: Sequence[str], *, runs: int) -> float:
    """The median CPU time (user + system) of a command, in seconds."""
    taken = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return sorted(taken)[len(taken) // 2]


def tool(name: str) -> str:
    """A program of the environment that runs this script."""
    return str(Path(sys.executable).parent / name)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _yes(met: bool | None) -> str:
    return "-" if met is None else "yes" if met else "NO"
