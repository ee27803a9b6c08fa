"""Whether a target computes what the bundle says it must: the golden inputs through an engine, as a Report."""

from __future__ import annotations

from inferloop.core.bundle import Bundle
from inferloop.core.report import Gate, Report, Table
from inferloop.core.target import Target
from inferloop.evaluation.sessions import opened


def parity(bundle: Bundle, target: Target | None = None, *, tolerance: float = 1e-4) -> Report:
    """Compare a target's outputs with the golden outputs; the gate is the error in units of the output's scale."""
    chosen = target or Target()
    with opened(bundle, chosen) as session:
        found = bundle.verify(session, tolerance=tolerance)
    relative = {name: error / max(1.0, found.scale[name]) for name, error in found.max_error.items()}
    worst = max(relative.values(), default=0.0)
    rows = tuple((name, found.max_error[name], found.scale[name], relative[name]) for name in relative)
    return Report(
        "parity",
        f"{bundle.name}:{bundle.version} on {chosen}",
        figures={"relative_error": worst, "rows": float(found.rows)},
        facts={"target": str(chosen), "digest": bundle.manifest.digest},
        tables=(Table("largest difference by output", ("output", "difference", "scale", "relative"), rows),),
        gates=(Gate("relative_error", "<=", tolerance, worst),),
    )
