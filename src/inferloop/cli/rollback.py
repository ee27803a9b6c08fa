"""`inferloop rollback`: back to the champion before."""

from __future__ import annotations

import json

import click

from inferloop.cli.promote import user


@click.command()
@click.argument("name")
@click.option("--by", default="", help="Who decided it; by default the user's name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(name: str, by: str, as_json: bool) -> None:
    r"""Make the champion before the present one champion again; a second call goes one further back.

    \b
    Example:
      inferloop rollback refunds
    """
    from inferloop.registry.registry import Registry

    with Registry() as registry:
        change = registry.rollback(name, by=by or user())
    if as_json:
        click.echo(json.dumps({"model": name, "before": change.before, "after": change.after}))
    else:
        click.echo(f"{name}@champion: {change.before} -> {change.after}")
