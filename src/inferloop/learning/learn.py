"""From feedback to a better version: collect, refit, guard, register, and promote if the guard agrees.

    ledger ─ collect ─┬─ fit rows ──── refit ── challenger ─┬─ guard ── Report ── register as @challenger ── promote
                      └─ judge rows ────────────────────────┘

A crash at any point leaves the champion as it was: files are complete before an alias names them, and the move of the alias
is the last step. Servers follow the alias by themselves.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

from inferloop.core.bundle import HOLDOUT, Bundle
from inferloop.core.errors import Conflict, InferloopError
from inferloop.core.report import Gate, Report, Table
from inferloop.data.ledger.ledger import Ledger
from inferloop.learning.compare import holdout_answers, recent_answers
from inferloop.learning.guard import GuardConfig, judge
from inferloop.learning.head_model import backbone_digest
from inferloop.learning.readings import Readings
from inferloop.learning.rows import Collected, SplitBy, collect
from inferloop.learning.update import Update, UpdateConfig, refit
from inferloop.registry.registry import Registry

log = logging.getLogger(__name__)

CHAMPION = "champion"
CHALLENGER = "challenger"


@dataclass(frozen=True, slots=True)
class LearnConfig:
    """How `learn` goes about it.

    Attributes:
        update: how the head is refitted.
        guard: what the challenger must show.
        judge_share: the share of the labeled rows that only the guard sees.
        judge_rows: at most this many of them, the newest.
        split_by: what rows must share to stand on the same side.
        least_rows: fewer rows to fit are not worth an update.
        newest_rows: look at no more labeled rows than these.
    """

    update: UpdateConfig = field(default_factory=UpdateConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    judge_share: float = 0.4
    judge_rows: int = 2000
    split_by: SplitBy = "input"
    least_rows: int = 20
    newest_rows: int = 20_000


@dataclass(frozen=True, slots=True)
class LearnResult:
    """What came of it.

    Attributes:
        champion: the version that was live when it began.
        challenger: the registered challenger; None if there was too little to learn from.
        report: the guard's verdict, with gates.
        promoted: whether the challenger is the champion now.
    """

    champion: Bundle
    challenger: Bundle | None
    report: Report
    promoted: bool


def learn(
    name: str,
    *,
    registry: Registry,
    ledger: Ledger,
    promote: bool = False,
    config: LearnConfig | None = None,
    by: str = "learn",
) -> LearnResult:
    """Make a challenger from the feedback on a model, judge it, and promote it if asked and if every gate passed.

    Args:
        name: a registered model with a champion.
        registry: where the champion is and the challenger goes.
        ledger: where the feedback is.
        promote: move the alias if the guard agrees.
        config: of update and guard.
        by: who asked; stands in the registry's history.

    Returns:
        The Report says why where nothing was promoted.

    Raises:
        NotFound: no such model, or it has no champion.
        Unsupported: the champion has no head that can be refitted.
        Conflict: another champion was promoted meanwhile; the challenger is registered, nothing was promoted.
    """
    chosen = config or LearnConfig()
    champion = registry.resolve(f"{name}@{CHAMPION}")
    rows = _collect(champion, registry, ledger, chosen)
    if len(rows.fit) < max(1, chosen.least_rows):
        return LearnResult(champion, None, _too_little(champion, rows, chosen), promoted=False)
    with tempfile.TemporaryDirectory(prefix="inferloop-learn-") as folder:
        update = refit(champion, rows.fit, Path(folder) / "refit", config=chosen.update)
        report = _judged(champion, update, rows, registry=registry, config=chosen)
        challenger = _registered(update.challenger, report, registry=registry, folder=Path(folder))
    report = replace(report, facts={**report.facts, "challenger": f"{name}:{challenger.version}"})
    promoted = promote and report.passed
    report = _concluded(report, promoted=promoted)
    if promoted:
        _promote(champion, challenger, report, registry=registry, by=by)
    log.info("learned", extra={"model": name, "challenger": challenger.version, "promoted": promoted})
    return LearnResult(champion, challenger, report, promoted)


def _collect(champion: Bundle, registry: Registry, ledger: Ledger, config: LearnConfig) -> Collected:
    backbone = backbone_digest(champion)

    @cache
    def shares_backbone(version: int) -> bool:
        if version == champion.version:
            return True
        try:
            return backbone_digest(registry.resolve(f"{champion.name}:{version}")) == backbone
        except InferloopError:  # a version that was removed: its embeddings are computed again
            return False

    ledger.flush()
    return collect(
        champion,
        ledger.labeled(champion.name, limit=config.newest_rows),
        shares_backbone=shares_backbone,
        judge_share=config.judge_share,
        judge_rows=config.judge_rows,
        split_by=config.split_by,
    )


def _judged(champion: Bundle, update: Update, rows: Collected, *, registry: Registry, config: LearnConfig) -> Report:
    challenger = update.challenger
    gate_set = champion.manifest.files.get(HOLDOUT, "")
    with Readings(registry.path / "readings.db") as readings:
        before = readings.add(
            gate_set, model=champion.name, champion=champion.manifest.digest, challenger=challenger.manifest.digest
        )
    report = judge(
        holdout_answers(champion, challenger),
        recent_answers(champion, challenger, rows.judge),
        labels=champion.labels,
        config=config.guard,
        readings=before,
        title=f"{champion.name}: a challenger refitted from {len(rows.fit)} labeled rows against version {champion.version}",
    )
    losses = Table("out-of-fold log loss by C", ("C", "log loss"), tuple(update.losses.items()))
    return replace(
        report,
        figures={**report.figures, **{f"update_{name}": value for name, value in update.figures.items()}},
        facts={**_facts(champion, rows, config), "challenger_digest": challenger.manifest.digest},
        tables=(*report.tables, losses),
        notes=(*report.notes, *_skip_notes(rows.skipped)),
    )


def _registered(challenger: Bundle, report: Report, *, registry: Registry, folder: Path) -> Bundle:
    """Register with the guard's figures; the very same challenger once only."""
    figures = {name: value for name, value in report.figures.items() if name != "gate_readings"}
    evaluation = {**challenger.manifest.evaluation, "guard": figures}
    judged = challenger.copy(
        folder / "judged", evaluation=evaluation, lineage={**challenger.manifest.lineage, "passed": report.passed}
    )
    present = registry.alias(challenger.name, CHALLENGER)
    if present is not None:
        known = registry.resolve(f"{challenger.name}:{present}")
        if known.manifest.digest == judged.manifest.digest:
            return known
    return registry.register(judged, alias=CHALLENGER)


def _promote(champion: Bundle, challenger: Bundle, report: Report, *, registry: Registry, by: str) -> None:
    if registry.alias(champion.name, CHAMPION) != champion.version:
        raise Conflict(
            f"version {champion.version} of {champion.name!r} is no longer the champion that version {challenger.version} was "
            "judged against",
            hint="run `inferloop learn` again: it compares with the new champion",
        )
    digest = "sha256:" + hashlib.sha256(report.to_json().encode()).hexdigest()
    registry.promote(champion.name, challenger.version, by=by, report_digest=digest)


def _concluded(report: Report, *, promoted: bool) -> Report:
    failed = [gate.name for gate in report.gates if not gate.passed]
    if promoted:
        verdict = "promoted: every gate passed"
    elif failed:
        verdict = f"not promoted, the champion stays: {', '.join(failed)} did not pass"
    else:
        verdict = "every gate passed; not promoted because that was not asked for"
    return replace(report, figures={**report.figures, "promoted": float(promoted)}, notes=(verdict, *report.notes))


def _too_little(champion: Bundle, rows: Collected, config: LearnConfig) -> Report:
    found = len(rows.fit)
    note = f"not promoted, nothing was learned: {found} labeled rows can be fitted, {config.least_rows} are needed"
    return Report(
        "guard",
        f"{champion.name}: too little feedback to learn from",
        figures={"feedback_rows": float(found), "recent_rows": float(len(rows.judge)), "promoted": 0.0},
        facts=_facts(champion, rows, config),
        gates=(Gate("feedback_rows", ">=", float(config.least_rows), float(found)),),
        notes=(note, *_skip_notes(rows.skipped)),
    )


def _facts(champion: Bundle, rows: Collected, config: LearnConfig) -> dict[str, object]:
    return {
        "champion": f"{champion.name}:{champion.version}",
        "champion_digest": champion.manifest.digest,
        "rows_to_fit": len(rows.fit),
        "rows_to_judge": len(rows.judge),
        "rows_digest": rows.fit.digest,
        "config": asdict(config),
    }


def _skip_notes(skipped: Mapping[str, int]) -> list[str]:
    return [f"{count} labeled rows left out: {reason}" for reason, count in sorted(skipped.items())]
