"""`inferloop plugins`: what can be plugged in, and what of it is installed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import click

from inferloop.core import plugins
from inferloop.core.errors import MissingDependency


@dataclass(frozen=True, slots=True)
class Row:
    """One plugin.

    Attributes:
        state: `ready`, or what is missing with the line that installs it.
    """

    kind: str
    name: str
    summary: str
    state: str


@click.command()
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def command(kind: str | None, as_json: bool) -> None:
    r"""List engines, codecs, sources, sinks and the rest.

    KIND shows only one kind, e.g. `sinks`.

    \b
    Example:
      inferloop plugins sinks
    """
    rows = [_row(each, name) for each in ([kind] if kind else plugins.TABLE) for name in plugins.names(each)]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
        return
    for row in rows:
        click.echo(f"{row.kind:10} {row.name:12} {row.summary}{'' if row.state == 'ready' else f'  ({row.state})'}")


def _row(kind: str, name: str) -> Row:
    summary = plugins.plugins(kind)[name].summary
    try:
        plugins.load(kind, name)
    except MissingDependency as error:
        return Row(kind, name, summary, f"not installed: {error.hint}")
    return Row(kind, name, summary, "ready")
