"""Methods for tests of gRPC transports: what goes in comes out, in every way that a call can go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from inferloop.core.errors import NotFound
from inferloop.net.grpc_call import Call, Handler, Method


@dataclass(frozen=True, slots=True)
class Way:
    """See `grpc_call.Method`."""

    handle: Handler
    streams: bool = False
    unary: Callable[[Call, bytes], Awaitable[bytes]] | None = None


@dataclass(slots=True)
class Calls:
    """The methods by path, and what they saw."""

    seen: list[Call] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    working: int = 0
    begun: int = 0
    """Calls of `zeros` and `echo` so far."""

    def find(self, path: str) -> Method | None:
        """See `grpc_call.Find`."""
        name = path.rpartition("/")[2]
        one = getattr(self, f"_one_{name}", None)
        many = getattr(self, f"_many_{name}", None)
        if not path.startswith("/test.Echo/") or (one is None and many is None):
            return None
        return Way(many or self._never, many is not None, one)

    async def _never(self, call: Call) -> None:
        raise AssertionError("a unary method has its short way")

    async def _one_same(self, call: Call, message: bytes) -> bytes:
        """The request."""
        self.seen.append(call)
        return message

    async def _one_size(self, call: Call, message: bytes) -> bytes:
        """How long the request is, as text."""
        return b"%d" % len(message)

    async def _one_zeros(self, call: Call, message: bytes) -> bytes:
        """As many zero bytes as the request says."""
        self.begun += 1
        return bytes(int(message))

    async def _one_later(self, call: Call, message: bytes) -> bytes:
        """The request, after a few turns of the loop."""
        await asyncio.sleep(0)
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.001, lambda: future.done() or future.set_result(None))
        await future
        return message

    async def _one_held(self, call: Call, message: bytes) -> bytes:
        """The request, when the test releases it."""
        self.working += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(message.decode())
            raise
        finally:
            self.working -= 1
        return message

    async def _one_trailing(self, call: Call, message: bytes) -> bytes:
        """The request, and it once more as a trailer."""
        call.set_trailers({"x-said": message.decode()})
        return message

    async def _one_missing(self, call: Call, message: bytes) -> bytes:
        """An error of ours."""
        raise NotFound("no model 'ä%'", hint="known: b")

    async def _one_broken(self, call: Call, message: bytes) -> bytes:
        """An error that is a defect."""
        raise RuntimeError("secret")

    async def _many_echo(self, call: Call) -> None:
        """Each message as it arrives."""
        self.begun += 1
        self.working += 1
        try:
            while (message := await call.recv()) is not None:
                await call.send(message)
        except asyncio.CancelledError:
            self.cancelled.append(call.method)
            raise
        finally:
            self.working -= 1

    async def _many_count(self, call: Call) -> None:
        """As many messages as the one request says, 100 bytes each."""
        request = await call.recv()
        for index in range(int(request or b"0")):
            await call.send(b"%0100d" % index)

    async def _many_sum(self, call: Call) -> None:
        """The sizes of all messages together."""
        total = 0
        while (message := await call.recv()) is not None:
            total += len(message)
        await call.send(b"%d" % total)

    async def _many_fails(self, call: Call) -> None:
        """One message, then an error."""
        await call.send(b"first")
        raise NotFound("gone")
