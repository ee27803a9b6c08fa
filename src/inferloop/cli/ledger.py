"""`inferloop ledger`: what was predicted, decided and corrected."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click


@click.group()
def command() -> None:
    """Statistics, export and erasure of the ledger."""


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stats(as_json: bool) -> None:
    """Count predictions, kept inputs and feedback, by model."""
    from inferloop.data.ledger.ledger import Ledger, ledger_path

    with Ledger(ledger_path()) as ledger:
        found = ledger.stats()
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(f"{'MODEL':24} {'PREDICTIONS':>12} {'INPUTS':>10} {'LABELED':>10}  FROM              TO")
    for m in found.models:
        click.echo(f"{m.model:24} {m.predictions:12,} {m.inputs:10,} {m.labeled:10,}  {_date(m.oldest)}  {_date(m.newest)}")
    click.echo(f"{found.decisions:,} decisions, {found.size_bytes:,} bytes")


@command.command()
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="FILE.jsonl (with inputs) or FILE.csv.")
@click.option("--model", help="Only this model.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(output: Path, model: str | None, as_json: bool) -> None:
    r"""Write predictions with their feedback to a file.

    \b
    Example:
      inferloop ledger export -o predictions.jsonl --model refunds
    """
    from inferloop.data.ledger.ledger import Ledger, ledger_path

    with Ledger(ledger_path()) as ledger:
        rows = ledger.export(output, model=model)
    click.echo(json.dumps({"path": str(output), "rows": rows}) if as_json else f"{rows:,} predictions written to {output}")


@command.command()
@click.option("--key", required=True, help="The customer, device, ... as the message's key says.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def erase(key: str, as_json: bool) -> None:
    """Erase everything that belongs to a key, from the ledger and from the journal with its review queue.

    Decisions whose actions are still under way stay until they are delivered; the output counts them.
    """
    from inferloop.data.journal import Journal, journal_path
    from inferloop.data.ledger.ledger import Ledger, ledger_path

    with Ledger(ledger_path()) as ledger:
        removed = ledger.erase(key)
    with Journal(journal_path()) as journal:
        from_journal = journal.erase(key)
    if as_json:
        click.echo(json.dumps({"ledger": asdict(removed), "journal": asdict(from_journal)}))
        return
    click.echo(
        f"ledger: {removed.predictions} predictions, {removed.inputs} inputs, {removed.feedback} feedback, "
        f"{removed.decisions} decisions"
    )
    click.echo(
        f"journal: {from_journal.decisions} decisions, {from_journal.deliveries} deliveries, {from_journal.reviews} reviews, "
        f"{from_journal.state} entries of rule state"
    )
    if from_journal.left:
        click.echo(f"{from_journal.left} decisions are still being delivered: erase again when they are", err=True)


def _date(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%MZ")
