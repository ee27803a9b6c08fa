"""A pipeline world for tests: a registered model of numbers, the refunds pipeline as a file, messages that decide predictably.

The model `numbers` answers hot, warm or cold; `bias` on one label makes it always answer that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from inferloop.core.sample import Sample
from inferloop.data.journal import Journal
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.streams.events import EventKind, PipelineEvent
from inferloop.streams.pipeline import Pipeline

HOT = (0.0, 0.0, 30.0)
COLD = (30.0, 0.0, 0.0)


def numbers_registry(folder: Path, *biases: Sequence[float]) -> Registry:
    """A registry with `numbers`, one version a bias; the first is the champion."""
    from support.bundles import numbers

    registry = Registry(folder / "registry")
    for index, bias in enumerate(biases or (HOT,)):
        registry.register(numbers(folder / f"bundle-{index}", bias=bias), alias="champion" if index == 0 else None)
    return registry


@contextlib.asynccontextmanager
async def numbers_router(folder: Path, *biases: Sequence[float]) -> AsyncIterator[Router]:
    """A Router with `numbers@champion` open."""
    with numbers_registry(folder, *biases) as registry:
        async with Router(registry) as router:
            await router.open(["numbers@champion"])
            yield router


@contextlib.contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """A journal in the folder."""
    with Journal(folder / "journal.db") as journal:
        yield journal


def message(number: int, **changes: Any) -> bytes:
    """One message: id, key, time, values and a total, each to be overridden; None leaves it out."""
    content = {
        "id": f"m{number}",
        "device": f"d{number % 50}",
        "at": time.time(),
        "values": [1, 2, 3, 4],
        "order": f"o{number}",
        "total": 40.0,
    }
    return json.dumps({name: value for name, value in {**content, **changes}.items() if value is not None}).encode()


def content(**changes: Any) -> dict[str, Any]:
    """A pipeline over `numbers` whose one rule sends everything hot to the sink `act`; sections to be overridden."""
    return {
        "pipeline": "demo",
        "sources": {"feed": {"file": {"path": "feed.jsonl"}}},
        "message": {
            "json": {
                "id": "$.id",
                "key": "$.device",
                "time": "$.at",
                "fields": {
                    "values": {"path": "$.values", "type": "array"},
                    "order": {"path": "$.order", "type": "string"},
                    "total": {"path": "$.total", "type": "number"},
                },
            }
        },
        "model": {"ref": "numbers@champion"},
        "rules": [{"name": "act", "label": "hot", "above": 0.5, "send": ["act"]}],
        "sinks": {"act": {"file": {"path": "act.jsonl", "json": {"id": "=id", "order": "=order", "label": "=label"}}}},
        **changes,
    }


def pipeline(**changes: Any) -> Pipeline:
    """The same, checked."""
    return Pipeline.of(content(**changes))


class StopAfter:
    """Hears the events of a run, and stops it after `count` of one kind, and a while."""

    def __init__(self, kind: EventKind, count: int, *, more_s: float = 0.0) -> None:
        self.stop = asyncio.Event()
        self._kind = kind
        self._left = count
        self._more_s = more_s

    def __call__(self, event: PipelineEvent) -> None:
        self._left -= event.kind is self._kind
        if self._left == 0 and event.kind is self._kind:
            asyncio.get_running_loop().call_later(self._more_s, self.stop.set)


def save(path: Path, sections: Mapping[str, Any]) -> Path:
    """Write a pipeline file."""
    path.write_text(yaml.safe_dump(dict(sections), sort_keys=False))
    return path


def sample(**fields: Any) -> Sample:
    """A Sample with these fields."""
    return Sample(fields=fields, id="m1", key="k1", time=1_000.0)
