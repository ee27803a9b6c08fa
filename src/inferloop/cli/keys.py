"""`inferloop keys`: who may call a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from inferloop.serving.key_file import Key
    from inferloop.serving.scopes import Scope

_FILE = click.option("--file", "path", type=click.Path(path_type=Path), help="The file; INFERLOOP_HOME/keys.json unless given.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def command() -> None:
    """Make, list and revoke the API keys of a server; `inferloop serve --keys FILE` follows the file while it runs."""


@command.command()
@click.option("--scope", "scopes", required=True, help="What it may do: infer, feedback, admin; several with commas.")
@click.option("--name", default="", help="Whose key it is, for lists and logs.")
@_FILE
@_JSON
def create(scopes: str, name: str, path: Path | None, as_json: bool) -> None:
    r"""Make a key and print it: it is shown once and stored nowhere.

    \b
    Example:
      inferloop keys create --scope infer,feedback --name shop
    """
    from inferloop.serving.key_file import create as make

    where = _path(path)
    secret, key = make(where, _scopes(scopes), name=name)
    click.echo(json.dumps({"key": secret, **_shown(key)}) if as_json else secret)
    click.echo(f"key {key.id} is in {where}; this is the only time that it is shown", err=True)


@command.command(name="list")
@_FILE
@_JSON
def list_keys(path: Path | None, as_json: bool) -> None:
    """List the keys: ids, names, scopes; never the keys themselves."""
    from inferloop.serving.key_file import read

    keys = read(_path(path))
    if as_json:
        click.echo(json.dumps({"keys": [_shown(key) for key in keys]}))
        return
    click.echo(f"{'ID':10} {'NAME':20} {'SCOPES':24} CREATED")
    for key in keys:
        click.echo(f"{key.id:10} {key.name:20} {','.join(sorted(key.scopes)):24} {key.created}")


@command.command()
@click.argument("key", metavar="ID|NAME")
@_FILE
@_JSON
def revoke(key: str, path: Path | None, as_json: bool) -> None:
    """Take a key away; servers that run refuse it within a second or two."""
    from inferloop.serving.key_file import revoke as take

    found = take(_path(path), key)
    click.echo(json.dumps(_shown(found)) if as_json else f"key {found.id} {found.name} is revoked")


def _path(path: Path | None) -> Path:
    from inferloop.core.home import home

    return path or home() / "keys.json"


def _scopes(text: str) -> list[Scope]:
    from inferloop.core.errors import InvalidInput
    from inferloop.serving.scopes import Scope

    try:
        return [Scope(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InvalidInput(f"{error.args[0]}", hint=f"known: {', '.join(Scope)}") from error


def _shown(key: Key) -> dict[str, Any]:
    return {"id": key.id, "name": key.name, "scopes": sorted(key.scopes), "created": key.created}
