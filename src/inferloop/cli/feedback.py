"""`inferloop feedback`: what was right for a prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from inferloop.learning.feedback import Imported


@click.command()
@click.argument("prediction_id", required=False)
@click.argument("label", required=False)
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="A file with columns prediction_id, label[, by, time].")
@click.option("--url", help="Send it to this server instead of the ledger of this machine, e.g. http://127.0.0.1:8000.")
@click.option("--by", default="", help="Who says so; by default the user's name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    prediction_id: str | None,
    label: str | None,
    csv_path: Path | None,
    url: str | None,
    by: str,
    as_json: bool,
) -> None:
    r"""Say that LABEL was right for PREDICTION_ID; or import a CSV file of such lines.

    Lines that cannot be kept are named, the others are kept, and the exit code is then 1.

    \b
    Examples:
      inferloop feedback 0198f2c0 dissatisfied
      inferloop feedback --csv reviewed.csv --url http://127.0.0.1:8000
    """
    if (csv_path is None) != (prediction_id is not None and label is not None):
        raise click.UsageError("give either PREDICTION_ID and LABEL, or --csv FILE")
    from inferloop.cli.promote import user

    who = by or user()
    if csv_path is None:
        _one(str(prediction_id), str(label), url=url, by=who)
        click.echo(json.dumps({"written": 1, "refused": []}) if as_json else "written")
        return
    imported = _file(csv_path, url=url, by=who)
    _print(imported, as_json=as_json)
    ctx.exit(1 if imported.refused else 0)


def _one(prediction_id: str, label: str, *, url: str | None, by: str) -> None:
    import time

    from inferloop.data.ledger.ledger import Ledger, ledger_path
    from inferloop.data.ledger.records import FeedbackRecord
    from inferloop.learning.feedback import send_rows

    row = {"prediction_id": prediction_id, "label": label}
    if url is not None:
        _raise_refused(send_rows([(1, row)], url, by=by))
        return
    with Ledger(ledger_path()) as ledger:
        ledger.feedback(FeedbackRecord(prediction_id, label, by, time.time()))


def _file(path: Path, *, url: str | None, by: str) -> Imported:
    from inferloop.data.ledger.ledger import Ledger, ledger_path
    from inferloop.learning.feedback import import_csv, read_csv, send_rows

    if url is not None:
        return send_rows(read_csv(path), url, by=by)
    with Ledger(ledger_path()) as ledger:
        return import_csv(path, ledger, by=by)


def _raise_refused(imported: Imported) -> None:
    from inferloop.core.errors import NotFound

    if imported.refused:
        raise NotFound(imported.refused[0].reason)


def _print(imported: Imported, *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        click.echo(json.dumps(asdict(imported)))
        return
    click.echo(f"{imported.written} written, {len(imported.refused)} refused")
    for line in imported.refused[:20]:
        click.echo(f"line {line.line}: {line.reason}", err=True)
    if len(imported.refused) > 20:
        click.echo(f"and {len(imported.refused) - 20} more", err=True)
