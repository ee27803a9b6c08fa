"""`inferloop learn`: a challenger from feedback, judged by the guard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from inferloop.learning.rows import SplitBy


@click.command()
@click.argument("model")
@click.option("--promote", is_flag=True, help="Make the challenger the champion if every gate passes.")
@click.option("--margin", type=float, help="Accuracy that the frozen hold-out may lose at most, e.g. 0.02.")
@click.option("--split-by", type=click.Choice(["input", "key", "time"]), default="input", show_default=True,
              help="What labeled rows must share to stand on the same side, fitted or judging.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the cross-validation.")
@click.option("--by", default="", help="Who decided it; by default the user's name.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Write the guard's Report as .html or .json.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    promote: bool,
    margin: float | None,
    split_by: str,
    seed: int,
    by: str,
    report_path: Path | None,
    as_json: bool,
) -> None:
    r"""Fit a new head for MODEL from its feedback and judge it against the champion; the exit code is 1 if the guard says no.

    The challenger is registered as MODEL@challenger either way.

    \b
    Examples:
      inferloop learn refunds
      inferloop learn refunds --promote --report guard.html
    """
    from inferloop.cli.evaluate import show
    from inferloop.cli.promote import user
    from inferloop.data.ledger.ledger import Ledger, ledger_path
    from inferloop.learning.guard import GuardConfig
    from inferloop.learning.learn import LearnConfig, learn
    from inferloop.learning.update import UpdateConfig
    from inferloop.registry.registry import Registry

    guard = GuardConfig() if margin is None else GuardConfig(margin=margin)
    config = LearnConfig(update=UpdateConfig(seed=seed), guard=guard, split_by=cast("SplitBy", split_by))
    name = model.partition("@")[0]
    with Registry() as registry, Ledger(ledger_path()) as ledger:
        result = learn(name, registry=registry, ledger=ledger, promote=promote, config=config, by=by or user())
    show(result.report, as_json=as_json, path=report_path)
    ctx.exit(0 if result.report.passed else 1)
