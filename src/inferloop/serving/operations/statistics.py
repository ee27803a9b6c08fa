"""What each model version has done since it was loaded, in the words of the extension `statistics`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferloop.core.errors import InvalidInput, NotFound, Unavailable
from inferloop.prediction.live import State
from inferloop.prediction.meter import BatchStats, Duration, ResponseStats, Snapshot
from inferloop.prediction.router import Router
from inferloop.serving.services import Services

ASK = "statistics"
"""What workers ask each other."""

_KINDS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")


class Statistics:
    """Reads the meters of the models. Event loop only."""

    def __init__(self, services: Services) -> None:
        self._router = services.router
        self._services = services

    async def total(self, name: str = "", version: int | None = None) -> dict[str, Any]:
        """The same of all workers together, those that can be reached; see `statistics`."""
        own = self.statistics(name, version)
        if self._services.peers is None:
            return own
        others = await self._services.peers.ask(ASK, name=name, version=version)
        return {"model_stats": add_up([own, *others])}

    async def share(self, name: str, version: int | None) -> dict[str, Any]:
        """What this worker answers to another one: its statistics, none where it has no such model."""
        try:
            return self.statistics(name, version)
        except InvalidInput:
            return {"model_stats": []}

    def statistics(self, name: str = "", version: int | None = None) -> dict[str, Any]:
        """`{"model_stats": [...]}` of one version, of all versions of a model, or of all models, by name and version.

        Of this process only, see `total`.

        `inference_count` counts rows, `execution_count` runs of the engine, `success` and `fail` requests; times are in
        nanoseconds.

        Raises:
            InvalidInput: no such model or version is open.
        """
        found = [(model, number) for model, number in _loaded(self._router) if _is(name, model) and version in (None, number)]
        if name and not found:
            text = f"requested model '{name}'" + (f" version {version}" if version is not None else "")
            raise InvalidInput(f"{text} is not available")
        return {"model_stats": [self._one(model, number) for model, number in found]}

    def _one(self, model: str, version: int) -> dict[str, Any]:
        servable = self._router.predictor(model, version=version)
        return _model_stats(model, version, servable.meter.snapshot())


def add_up(workers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The `model_stats` of several workers as those of one: counts and times are summed, the last inference is the latest."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for worker in workers:
        for stats in worker["model_stats"]:
            key = (stats["name"], int(stats["version"]))
            found[key] = _sum(found[key], stats) if key in found else stats
    return [found[key] for key in sorted(found)]


def _sum(first: Any, second: Any) -> Any:
    """Of numbers the sum, of mappings that of each key, of lists by batch size that of each size; texts name the same thing."""
    if isinstance(first, dict):
        latest = {"last_inference": max(first["last_inference"], second["last_inference"])} if "last_inference" in first else {}
        keys = dict.fromkeys([*first, *second])
        both = {key: _sum(first[key], second[key]) if key in first and key in second else (first | second)[key] for key in keys}
        return both | latest
    if isinstance(first, list):
        sizes: dict[int, Any] = {}
        for batch in (*first, *second):
            size = batch["batch_size"]
            sizes[size] = {**_sum(sizes[size], batch), "batch_size": size} if size in sizes else batch
        return [sizes[size] for size in sorted(sizes)]
    return first if isinstance(first, str) else first + second


def _is(wanted: str, name: str) -> bool:
    return not wanted or wanted.partition("@")[0] == name or wanted.partition(":")[0] == name


def _loaded(router: Router) -> list[tuple[str, int]]:
    """Name and version of all that answers."""
    found = set()
    for state in router.models():
        if state.state is State.READY:
            try:
                router.predictor(state.name, version=state.version)
            except (NotFound, Unavailable):  # a shadow
                continue
            found.add((state.name, state.version))
    return sorted(found)


def _model_stats(model: str, version: int, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "name": model,
        "version": str(version),
        "last_inference": snapshot.last_inference,
        "inference_count": snapshot.inference_count,
        "execution_count": snapshot.execution_count,
        "inference_stats": {kind: _duration(getattr(snapshot, kind)) for kind in _KINDS},
        "response_stats": {str(place): _response(stats) for place, stats in enumerate(snapshot.response_stats)},
        "batch_stats": [_batch(stats) for stats in snapshot.batch_stats],
        "memory_usage": [],
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}


def _batch(stats: BatchStats) -> dict[str, Any]:
    return {
        "batch_size": stats.batch_size,
        "compute_input": _duration(stats.compute_input),
        "compute_infer": _duration(stats.compute_infer),
        "compute_output": _duration(stats.compute_output),
    }


def _response(stats: ResponseStats) -> dict[str, Any]:
    return {"success": _duration(stats.success), "fail": _duration(stats.fail)}
