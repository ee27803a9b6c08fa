"""Who decides which models of a repository are open."""

from __future__ import annotations

from enum import StrEnum


class Control(StrEnum):
    """Who decides what is open."""

    NONE = "none"
    POLL = "poll"
    EXPLICIT = "explicit"
