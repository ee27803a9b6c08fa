"""Exchanges recorded from a real Triton 2.51, replayed against our server: which lines we answer alike, and why not the others.

    echo   x FP32[-1, 2] -> x           dynamic batching, at most 64 rows
    ens    a -> echo -> m -> echo -> b  an ensemble
    rep    x FP32[-1] -> x              decoupled: x, then x + 1

ONNX knows no tensor that is input and output at once, so that the output `x` of echo and rep is `y` here; names are exchanged
on the way in and out. `python -m support.conformance FOLDER` prints the share and every line that is not met.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from inferloop.net.http_server import HttpServer
from inferloop.prediction.repository.repository import Control, Repository
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.serving.rest.app import App
from inferloop.serving.services import Services
from support import served
from support.serving import Reply

FILE = "conformance/triton-2.51.jsonl"
MODELS = ("echo", "rep", "ens")

DEVIATIONS = {
    "infer no inputs": "DV1",
    "infer few data": "DV1",
    "infer no shape": "DV1",
    "load bad": "DV1",
    "trace bad": "DV2",
    "log bad": "DV2",
    "shm reg bad": "DV4",
    "timeout": "DV5",
}
"""Lines that we answer differently on purpose, by the rule of `docs/decisions/0012`; DV3 is about loading, no line shows it."""

_STATUS = {"DV1": range(400, 500), "DV2": range(400, 401), "DV4": range(403, 404), "DV5": range(504, 505)}
_SAID_DIFFERENTLY = frozenset({"platform", "backend", "error", "default_model_filename", "optimization", "instance_group"})
_COUNTED = frozenset({"last_inference", "inference_count", "execution_count", "count", "ns", "batch_stats"})

Line = Mapping[str, Any]
Ask = Callable[[str, str, bytes, Mapping[str, str]], Awaitable[Reply]]


class Outcome(NamedTuple):
    """What became of one line.

    Attributes:
        deviation: the rule by which it is met; empty if we answer alike.
        difference: why it is not met; empty if it is.
    """

    name: str
    deviation: str = ""
    difference: str = ""

    @property
    def met(self) -> bool:
        """Whether we answer alike, or as a documented rule says."""
        return not self.difference


def lines(shared: Path) -> list[Line]:
    """The recorded exchanges, in their order."""
    return [json.loads(line) for line in (shared / FILE).read_text().splitlines()]


def share(outcomes: Iterable[Outcome]) -> float:
    """The part of the lines that are met, 0 to 1."""
    met = [outcome.met for outcome in outcomes]
    return sum(met) / len(met)


async def replay(recorded: Iterable[Line], ask: Ask) -> list[Outcome]:
    """Send every line to a server that has the models, in order, with the preconditions that they were recorded under."""
    outcomes = []
    for line in recorded:
        await _prepare(line["name"], ask)
        body = line["req_body"].replace('"outputs": [{"name": "x"', '"outputs": [{"name": "y"').encode("latin-1")
        reply = await ask(line["method"], line["path"], body, line["req_headers"])
        outcomes.append(judge(line, reply))
    return outcomes


def judge(line: Line, reply: Reply) -> Outcome:
    """Hold an answer against the recorded one."""
    name, rule = line["name"], DEVIATIONS.get(line["name"], "")
    if rule and reply.status in _STATUS[rule] and list(reply.json) == ["error"]:
        return Outcome(name, rule)
    if reply.status // 100 != line["status"] // 100:
        return Outcome(name, "", f"status {reply.status} {reply.body[:200]!r}, recorded {line['status']}")
    expected, expected_blob = _parts(line["headers"], line["body"].encode("latin-1"))
    try:
        content, blob = _parts(reply.headers, reply.body)
    except ValueError:
        return Outcome(name, "", f"no JSON: {reply.body[:200]!r}")
    if expected is None:  # an empty body there; health says a word here
        return Outcome(name)
    if _comparable(content) == _comparable(expected) and blob == expected_blob:
        return Outcome(name)
    return Outcome(name, "", f"{content} {blob!r}, recorded {expected} {expected_blob!r}")


async def _prepare(name: str, ask: Ask) -> None:
    if name == "infer unloaded":
        await _until_closed("rep", ask)
    elif name == "stats all":
        await ask("POST", "/v2/repository/models/rep/load", b"", {})
    elif name == "trace model":
        await ask("POST", "/v2/trace/setting", b'{"trace_rate":"500"}', {})


async def _until_closed(model: str, ask: Ask) -> None:
    async with asyncio.timeout(60):
        while True:
            index = (await ask("POST", "/v2/repository/index", b"", {})).json
            if all(entry["name"] != model or entry["state"] == "UNAVAILABLE" for entry in index):
                return
            await asyncio.sleep(0.02)


def _parts(headers: Mapping[str, str], body: bytes) -> tuple[Any, bytes]:
    """The JSON of an answer and the bytes after it; our output `y` is Triton's `x`."""
    size = int({name.lower(): value for name, value in headers.items()}.get("inference-header-content-length", len(body)))
    if body.startswith(b"data: "):
        events = [json.loads(line.removeprefix("data: ")) for line in body.decode().split("\n\n") if line]
        return [{("x" if name == "y" else name): value for name, value in event.items()} for event in events], b""
    content = json.loads(body[:size]) if size else None
    if isinstance(content, dict):
        content.pop("parameters", None) if "outputs" in content else None  # Triton's ensembles add some: optional
        for output in (*content.get("outputs", ()), *content.get("output", ())):
            output["name"] = "x" if output["name"] == "y" else output["name"]
    return content, body[size:]


def _comparable(value: Any) -> Any:
    """NaN equals NaN; what depends on the platform, on words, on live counters, does not count."""
    if isinstance(value, dict):
        return {key: "" if key in _SAID_DIFFERENTLY | _COUNTED else _comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def write_repository(folder: Path) -> Path:
    """The three models in Triton's layout."""
    root = folder / "repository"
    tensor = 'name: "%s" data_type: TYPE_FP32 dims: [ %s ]'
    configs = {
        "echo": f"max_batch_size: 64 input [ {{ {tensor % ('x', 2)} }} ] output [ {{ {tensor % ('y', 2)} }} ] "
        "dynamic_batching { max_queue_delay_microseconds: 100 }",
        "rep": f"max_batch_size: 0 input [ {{ {tensor % ('x', -1)} }} ] output [ {{ {tensor % ('y', '2, -1')} }} ] "
        "model_transaction_policy { decoupled: true }",
        "ens": f'platform: "ensemble" max_batch_size: 64 input [ {{ {tensor % ("a", 2)} }} ] '
        f"output [ {{ {tensor % ('b', 2)} }} ] ensemble_scheduling {{ step [ {_step('a', 'm')}, {_step('m', 'b')} ] }}",
    }
    made = {"echo": served.echo(folder / "echo"), "rep": served.rep(folder / "rep")}
    for name, config in configs.items():
        version = root / name / "1"
        version.mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(f'name: "{name}" {config}')
        if name in made:
            (version / "model.onnx").write_bytes(made[name].model_path.read_bytes())
    return root


def _step(source: str, target: str) -> str:
    return (
        f'{{ model_name: "echo" model_version: -1 input_map {{ key: "x" value: "{source}" }} '
        f'output_map {{ key: "y" value: "{target}" }} }}'
    )


@asynccontextmanager
async def oracle_world(folder: Path) -> AsyncIterator[Ask]:
    """A server that has the models of the recording, all loaded, under explicit control; how to ask it."""
    repository = Repository(write_repository(folder), control=Control.EXPLICIT)
    with Registry(folder / "registry") as registry, repository:
        async with Router(registry, repository=repository, poll_s=0.02) as router:
            for model in MODELS:
                await router.load(model)
            app = App(Services(router))
            async with HttpServer(app.handle, port=0) as server, aiohttp.ClientSession() as session:
                url = f"http://127.0.0.1:{server.port}"

                async def ask(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
                    options: dict[str, Any] = {"data": body or None, "headers": headers, "skip_auto_headers": ["Content-Type"]}
                    async with session.request(method, url + path, **options) as response:
                        return Reply(response.status, response.headers, await response.read())

                yield ask


async def outcomes(shared: Path, folder: Path) -> list[Outcome]:
    """Start the server, replay everything, stop it. Logs as a server does that was started from the command line."""
    root = logging.getLogger("inferloop")
    before = root.level
    root.setLevel(logging.INFO)
    try:
        async with oracle_world(folder) as ask:
            return await replay(lines(shared), ask)
    finally:
        root.setLevel(before)


def main() -> None:
    """Print the share, and each line that is not met."""
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(outcomes(Path(sys.argv[1]), Path(folder)))
    print(f"{share(found):.3f} of {len(found)} lines")  # noqa: T201
    for outcome in found:
        if outcome.deviation or outcome.difference:
            print(f"{outcome.name}: {outcome.deviation or outcome.difference}")  # noqa: T201


if __name__ == "__main__":
    main()
