"""Requests of a sink to one service: one kept-alive connection, no redirects, the pauses that the service asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from inferloop.core.errors import Unavailable
from inferloop.streams.delivery.pausing import Pause

if TYPE_CHECKING:
    import aiohttp

_MAX_SHOWN = 500


class Answer(NamedTuple):
    """The status, and the beginning of what is said beside it."""

    status: int
    said: str

    @property
    def is_good(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300


class HttpCaller:
    """Opened and closed with its sink.

    Args:
        part: who calls, for messages.
        timeout_s: of one request.
        headers: of every request.
    """

    def __init__(self, part: str, *, timeout_s: float, headers: Mapping[str, str]) -> None:
        self._part = part
        self._timeout_s = timeout_s
        self._headers = dict(headers)
        self._session: aiohttp.ClientSession | None = None
        self._pause = Pause()

    def open(self) -> None:
        """Get ready; the first connection is made by the first call."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        self._session = aiohttp.ClientSession(timeout=timeout, headers=self._headers)

    async def close(self) -> None:
        """Hang up. A second call does nothing."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def rest(self) -> None:
        """Wait until the service wants to hear from us again."""
        await self._pause.over()

    async def call(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request.

        Raises:
            Unavailable: no answer came.
        """
        import aiohttp

        if self._session is None:
            raise Unavailable(f"{self._part} is closed")
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, params=query, allow_redirects=False
            ) as response:
                said = (await response.content.read(_MAX_SHOWN)).decode("utf-8", "replace")
                if not 200 <= response.status < 300:
                    self._pause.asked(response.headers)
                return Answer(response.status, " ".join(said.split()))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{self._part}: {without_address(error)}") from error


def without_address(error: BaseException) -> str:
    """What went wrong, for logs: never the address, whose path or query may be a password."""
    import aiohttp

    name = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{name}: {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return f"{name}: {error}"
    return "no answer in time" if isinstance(error, TimeoutError) else name
