"""Logging of the command line: one line an event on stderr, the facts after it as `key=value` or as JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class Console(logging.StreamHandler[TextIO]):
    """The handler of the command line; a second call of `configure` replaces it and no other."""


class TextFormatter(logging.Formatter):
    """`18:03:11 WARNING inferloop.streams broker not there url=mqtt://127.0.0.1:1883`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        facts = "".join(f" {key}={_plain(value)}" for key, value in _facts(record).items())
        line = f"{clock} {record.levelname:7} {record.name} {record.getMessage()}{facts}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def configure(level: str, form: str) -> None:
    """Send the log to stderr.

    Args:
        level: one of `LEVELS`; packages that inferloop uses are heard from `warning` on.
        form: one of `FORMATS`.
    """
    root = logging.getLogger()
    for earlier in [handler for handler in root.handlers if isinstance(handler, Console)]:
        root.removeHandler(earlier)
    console = Console(sys.stderr)
    console.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root.addHandler(console)
    root.setLevel(logging.WARNING)
    logging.getLogger("inferloop").setLevel(level.upper())


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _plain(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return json.dumps(text) if " " in text or not text else text
