"""`inferloop models`: what the registry holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click


@click.group()
def command() -> None:
    """List, show, compare and verify the models of the registry."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def list_(as_json: bool) -> None:
    """List all models with their versions and aliases."""
    from inferloop.registry.registry import Registry

    with Registry() as registry:
        models = registry.models()
    if as_json:
        click.echo(json.dumps([asdict(model) for model in models], default=dict))
        return
    rows = [(m.name, m.versions, m.latest, _aliases(m.aliases), m.owner or "-", _date(m.created)) for m in models]
    _table(("MODEL", "VERSIONS", "LATEST", "ALIASES", "OWNER", "CREATED"), rows)


@command.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(model: str, as_json: bool) -> None:
    r"""Show the versions of MODEL, what is live, and who moved what.

    \b
    Example:
      inferloop models show refunds
    """
    from inferloop.registry.registry import Registry

    with Registry() as registry:
        versions, desired, history = registry.versions(model), registry.desired(model), registry.history(model)
        newest = registry.resolve(f"{model}:{versions[-1].version}")
    if as_json:
        facts = {"name": model, "versions": versions, "desired": desired, "history": history}
        click.echo(json.dumps({**facts, "signature": asdict(newest.signature), "labels": newest.labels}, default=asdict))
        return
    rows = [
        (v.version, _names(v.aliases), v.digest[:19], f"{v.size_bytes:,}", v.owner or "-", _date(v.created)) for v in versions
    ]
    _table(("VERSION", "ALIASES", "DIGEST", "BYTES", "OWNER", "CREATED"), rows)
    if desired.canary:
        click.echo(f"canary: version {desired.canary.version} gets {desired.canary.share:.1%} of the keys")
    if desired.shadow:
        click.echo(f"shadow: version {desired.shadow}")
    click.echo(f"\nversion {newest.version}, labels: {', '.join(newest.labels) or '-'}")
    for side in ("inputs", "outputs"):
        for spec in getattr(newest.signature, side):
            click.echo(f"  {side[:-1]:6} {spec}")
    if history:
        click.echo("")
        moves = [(_date(m.time), m.kind, f"@{m.alias}", m.before or "-", m.after or "-", m.by or "-") for m in history]
        _table(("WHEN", "WHAT", "ALIAS", "FROM", "TO", "BY"), moves)


@command.command()
@click.argument("before")
@click.argument("after")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def diff(before: str, after: str, as_json: bool) -> None:
    r"""Compare two models: signature, labels, transforms, lineage, figures and files.

    \b
    Example:
      inferloop models diff refunds:1 refunds:2
    """
    from inferloop.registry.diff import differences
    from inferloop.registry.registry import Registry

    with Registry() as registry:
        found = differences(registry.resolve(before), registry.resolve(after))
    if as_json:
        click.echo(json.dumps([asdict(difference) for difference in found], default=str))
        return
    if not found:
        click.echo("no differences")
        return
    _table(("WHAT", before, after), [(d.path, _short(d.before), _short(d.after)) for d in found])


@command.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@click.pass_context
def verify(ctx: click.Context, model: str | None, as_json: bool) -> None:
    """Read every version of MODEL (or of all models) and compare all digests; exit code 1 if one is damaged."""
    from inferloop.registry.registry import Registry

    with Registry() as registry:
        names = [model] if model else [info.name for info in registry.models()]
        checks = [(name, check) for name in names for check in registry.verify(name)]
    if as_json:
        click.echo(json.dumps([{"model": name, **asdict(check)} for name, check in checks]))
    else:
        _table(("MODEL", "VERSION", "STATE"), [(name, check.version, check.problem or "as registered") for name, check in checks])
    if any(check.problem for _, check in checks):
        ctx.exit(1)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    texts = [tuple(map(str, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _aliases(aliases: Any) -> str:
    return ", ".join(f"@{alias}={version}" for alias, version in aliases.items()) or "-"


def _names(aliases: Sequence[str]) -> str:
    return ", ".join(f"@{alias}" for alias in aliases) or "-"


def _date(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
