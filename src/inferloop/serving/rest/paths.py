"""What a path asks for."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote


class Route(NamedTuple):
    """One thing that can be asked for.

    Attributes:
        name: the name of the operation; empty if there is none at this path.
        version: as in the path; None if it names none.
    """

    name: str
    methods: tuple[str, ...] = ()
    model: str = ""
    version: int | None = None


_READ = ("GET", "HEAD")
_WRITE = ("POST",)
_READ_WRITE = (*_READ, *_WRITE)
_FIXED = {
    "/": Route("page", _READ),
    "/openapi.json": Route("openapi", _READ),
    "/v2": Route("server", _READ),
    "/v2/health/live": Route("live", _READ),
    "/v2/health/ready": Route("ready", _READ),
    "/v2/models": Route("models", _READ),
    "/v2/feedback": Route("feedback_many", _WRITE),
    "/metrics": Route("metrics", _READ),
    "/v2/models/stats": Route("stats", _READ),
    "/v2/repository/index": Route("repository_index", _WRITE),
    "/v2/trace/setting": Route("trace", _READ_WRITE),
    "/v2/logging": Route("logging", _READ_WRITE),
}
_OF_MODEL = {
    "": Route("model", _READ),
    "ready": Route("model_ready", _READ),
    "config": Route("config", _READ),
    "stats": Route("stats", _READ),
    "infer": Route("infer", _WRITE),
    "generate": Route("generate", _WRITE),
    "generate_stream": Route("generate_stream", _WRITE),
    "feedback": Route("feedback", _WRITE),
    "trace/setting": Route("trace_of_model", _READ_WRITE),
}
_IN_REPOSITORY = {"load": Route("repository_load", _WRITE), "unload": Route("repository_unload", _WRITE)}
_OF_REGION = {
    "/v2/systemsharedmemory": {
        "status": Route("shared_memory_status", _READ),
        "register": Route("shared_memory_register", _WRITE),
        "unregister": Route("shared_memory_unregister", _WRITE),
    },
    "/v2/cudasharedmemory": {
        "status": Route("cuda_status", _READ),
        "register": Route("cuda_register", _WRITE),
        "unregister": Route("cuda_unregister", _WRITE),
    },
}
UNKNOWN = Route("")
_PREFIX = "/v2/models/"
_REPOSITORY = "/v2/repository/models/"
_KEPT = 4096
_KEPT_LENGTH = 512


def patterns() -> dict[str, Route]:
    """Every path that there is, with `{model}`, `{version}` and `{region}`; built from the tables that `Paths` reads."""
    found = dict(_FIXED)
    for prefix in (f"{_PREFIX}{{model}}", f"{_PREFIX}{{model}}/versions/{{version}}"):
        found |= {f"{prefix}/{name}" if name else prefix: route for name, route in _OF_MODEL.items()}
    for base, verbs in _OF_REGION.items():
        found |= {f"{base}/region/{{region}}/{verb}": route for verb, route in verbs.items()}
        found |= {f"{base}/{verb}": route for verb, route in verbs.items() if verb != "register"}
    return found | {f"{_REPOSITORY}{{model}}/{name}": route for name, route in _IN_REPOSITORY.items()}


class Paths:
    """Paths to routes; remembers what it found, up to a bound."""

    def __init__(self) -> None:
        self._found: dict[str, Route] = {}

    def find(self, path: str) -> Route:
        """The route of a path as sent; `UNKNOWN` if there is none."""
        route = self._found.get(path)
        if route is None:
            route = _find(path)
            if route is not UNKNOWN and len(path) <= _KEPT_LENGTH:
                if len(self._found) >= _KEPT:
                    self._found.clear()
                self._found[path] = route
        return route


def _find(path: str) -> Route:
    trimmed = path.rstrip("/") or "/"
    if trimmed in _FIXED:
        return _FIXED[trimmed]
    if trimmed.startswith(_REPOSITORY):
        model, _, verb = trimmed.removeprefix(_REPOSITORY).partition("/")
        return _IN_REPOSITORY[verb]._replace(model=unquote(model)) if model and verb in _IN_REPOSITORY else UNKNOWN
    if not trimmed.startswith(_PREFIX):
        return _region(trimmed)
    model, *rest = trimmed.removeprefix(_PREFIX).split("/")
    version: int | None = None
    if rest and rest[0] == "versions":
        if len(rest) < 2 or not (rest[1].isascii() and rest[1].isdigit()) or len(rest[1]) > 18:
            return UNKNOWN
        version = int(rest[1])
        rest = rest[2:]
    route = _OF_MODEL.get("/".join(rest))
    if route is None or not model:
        return UNKNOWN
    return route._replace(model=unquote(model), version=version)


def _region(path: str) -> Route:
    """`BASE/VERB` for all regions, `BASE/region/R/VERB` for one; registering is for one only."""
    base, _, verb = path.rpartition("/")
    base, _, name = base.partition("/region/")
    route = _OF_REGION.get(base, {}).get(verb)
    if route is None or "/" in name or (verb == "register" and not name) or path.startswith(f"{base}/region//"):
        return UNKNOWN
    return route._replace(model=unquote(name))
