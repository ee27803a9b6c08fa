"""The other system: a service on loopback that counts, and acts once however often a key comes.

POST /NAME    a JSON object with the header Idempotency-Key -> 201, or 200 if the key is known
GET  /NAME    the counts
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web


@dataclass(slots=True)
class Counts:
    """What the service did.

    Attributes:
        done: things acted on, e.g. orders refunded.
        total: the sum of `total` in the requests, where they have one.
        repeats: requests whose key was known already: answered, and nothing done again.
        duplicates: requests with a new key for a thing that was acted on before: money paid twice.
    """

    done: int = 0
    total: float = 0.0
    repeats: int = 0
    duplicates: int = 0


@dataclass(slots=True)
class _State:
    counts: Counts = field(default_factory=Counts)
    keys: set[str] = field(default_factory=set)
    things: set[str] = field(default_factory=set)


class EffectService:
    """`async with EffectService("refunds", identity="order") as service: service.url, service.counts`.

    Args:
        name: the path.
        identity: the key of the body that names what is acted on.
    """

    def __init__(self, name: str, *, identity: str) -> None:
        self._name = name
        self._identity = identity
        self._state = _State()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where effects are posted."""
        return f"http://127.0.0.1:{self.port}/{self._name}"

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        return self._state.counts

    @property
    def keys(self) -> frozenset[str]:
        """The idempotency keys that were acted on."""
        return frozenset(self._state.keys)

    async def __aenter__(self) -> Self:
        """Listen on a free port of the loopback address."""
        app = web.Application()
        app.add_routes([web.post(f"/{self._name}", self._act), web.get(f"/{self._name}", self._show)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _act(self, request: web.Request) -> web.Response:
        key = request.headers.get("Idempotency-Key", "")
        if not key:
            return web.json_response({"error": "the header Idempotency-Key is missing"}, status=400)
        body = await request.json()
        thing, state = str(body[self._identity]), self._state
        if key in state.keys:
            state.counts.repeats += 1
            return web.json_response({"done": thing, "repeated": True})
        state.keys.add(key)
        state.counts.duplicates += thing in state.things
        state.things.add(thing)
        state.counts.done += 1
        state.counts.total += float(body.get("total", 0.0))
        return web.json_response({"done": thing, "repeated": False}, status=201)

    async def _show(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        return web.json_response(asdict(self._state.counts))
