"""`inferloop promote`: a version becomes the champion."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command()
@click.argument("model")
@click.option("--by", default="", help="Who decided it; by default the user's name.")
@click.option(
    "--report", type=click.Path(path_type=Path), help="The Report that justifies it; its SHA-256 goes into the history."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(model: str, by: str, report: Path | None, as_json: bool) -> None:
    r"""Make the version that MODEL names the champion; running servers follow without dropping a request.

    \b
    Examples:
      inferloop promote refunds:3
      inferloop promote refunds@challenger --report guard.json
    """
    from inferloop.registry.registry import Registry

    with Registry() as registry:
        name, version = registry.version_of(model)
        move = registry.promote(name, version, by=by or user(), report_digest=_digest(report) if report else "")
    if as_json:
        click.echo(json.dumps(asdict(move)))
    elif move.before == move.after:
        click.echo(f"{name}:{version} is the champion already")
    else:
        click.echo(f"{name}@champion: {move.before or 'none'} -> {version}")


def user() -> str:
    """The name of who calls, for the history."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _digest(path: Path) -> str:
    import hashlib

    from inferloop.core.errors import NotFound

    if not path.is_file():
        raise NotFound(f"no report at {path}")
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
