"""`inferloop doctor`: is this machine and this installation fit to work, and what is missing."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import click
from packaging.requirements import Requirement

from inferloop.core import plugins
from inferloop.core.errors import InferloopError
from inferloop.core.home import home

_FREE_BYTES = 1_000_000_000
_SQLITE = (3, 35, 0)
_PYTHON = (3, 11)
_EXTRA = re.compile(r"""extra == ["']([^"']+)""")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        fit: False where inferloop cannot work until it is mended.
        advice: what to do; empty where there is nothing to do.
    """

    what: str
    found: str
    fit: bool = True
    advice: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    r"""Check this machine and this installation.

    Exit code 1 says that something must be mended first.

    \b
    Example:
      inferloop doctor
    """
    findings = list(examine())
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            mark = "ok  " if finding.fit else "MEND"
            click.echo(f"{mark} {finding.what:22} {finding.found}{f'  ({finding.advice})' if finding.advice else ''}")
    ctx.exit(0 if all(finding.fit for finding in findings) else 1)


def examine() -> Iterator[Finding]:
    """Look at the interpreter, the machine, the home directory, the engines and the packages."""
    yield _at_least("python", platform.python_version(), sys.version_info[:2] >= _PYTHON, "3.11 or later")
    yield _at_least("sqlite", sqlite3.sqlite_version, sqlite3.sqlite_version_info >= _SQLITE, "3.35 or later")
    yield Finding("machine", f"{platform.system()} {platform.machine()}, {_cores()} cores")
    yield from _home()
    yield from _engines()
    yield from _packages()


def _at_least(what: str, found: str, fit: bool, needed: str) -> Finding:
    return Finding(what, found, fit=fit, advice="" if fit else f"needs {needed}")


def _home() -> Iterator[Finding]:
    path = Path(os.environ.get("INFERLOOP_HOME") or Path.home() / ".inferloop")
    try:
        probe = home() / f".doctor-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        yield Finding("home", str(path), fit=False, advice=f"{error.strerror}: set INFERLOOP_HOME to a writable directory")
        return
    free = shutil.disk_usage(path).free
    advice = "" if free >= _FREE_BYTES else "less than 1 GB: ledger and registry need room"
    yield Finding("home", f"{path}, {free / 1e9:.1f} GB free", advice=advice)


def _engines() -> Iterator[Finding]:
    for name in plugins.names("engines"):
        try:
            devices = plugins.load("engines", name)().devices()
        except InferloopError as error:
            yield Finding(f"engine {name}", "not there", fit=name != "onnxruntime", advice=error.hint)
        else:
            yield Finding(f"engine {name}", f"devices: {', '.join(devices)}")


def _packages() -> Iterator[Finding]:
    """The packages of the core, which must be there, then each extra with the line that installs it."""
    extras: dict[str, list[str]] = {}
    for requirement in map(Requirement, requires("inferloop") or ()):
        extra = _EXTRA.search(str(requirement.marker or ""))
        if extra is not None:
            extras.setdefault(extra[1], []).append(requirement.name)
        elif requirement.marker is None or requirement.marker.evaluate():
            found = _version(requirement.name)
            advice = "" if found else f"pip install {requirement.name}"
            yield Finding(f"package {requirement.name}", found or "missing", fit=bool(found), advice=advice)
    for extra_name, names in extras.items():
        missing = [name for name in names if not _version(name)]
        found = f"missing: {', '.join(missing)}" if missing else "complete"
        yield Finding(f"extra {extra_name}", found, advice=f"pip install 'inferloop[{extra_name}]'" if missing else "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
