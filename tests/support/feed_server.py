"""A WebSocket server in a process of its own, which a test kills: `python feed_server.py PORT FOLDER`.

`/flood` sends numbers without end, and writes into FOLDER/sent how many it has sent so far. Whoever connects says first what it
wants; what was said, and with which headers, is a line of FOLDER/hellos.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from support.own_server import OwnServer


class FeedServer(OwnServer):
    """The same, as a test has it."""

    @property
    def url(self) -> str:
        """Where the numbers come."""
        return f"ws://127.0.0.1:{self.port}/flood"

    def command(self) -> Sequence[str]:
        """See `OwnServer`."""
        tests = str(Path(__file__).parents[1])
        start = f"import sys; sys.path.insert(0, {tests!r}); from support.feed_server import serve; serve({self.port}, '.')"
        return [sys.executable, "-c", start]

    def hellos(self) -> list[dict[str, str]]:
        """What was said by everyone who connected, in order."""
        file = self.folder / "hellos"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def sent(self) -> int:
        """Messages of the last connection."""
        file = self.folder / "sent"
        return len(file.read_bytes()) if file.exists() else 0


def serve(port: int, folder: str) -> None:
    """Serve until the process ends."""
    app = web.Application()
    app[_FOLDER] = Path(folder)
    app.router.add_get("/flood", _flood)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


async def _flood(request: web.Request) -> web.WebSocketResponse:
    folder = request.app[_FOLDER]
    socket = web.WebSocketResponse(protocols=("v2.numbers",))
    await socket.prepare(request)
    said = {
        "hello": await socket.receive_str(),
        "protocol": socket.ws_protocol,
        "authorization": request.headers.get("Authorization", ""),
        "extra": request.headers.get("X-Extra", ""),
    }
    with (folder / "hellos").open("a") as file:
        file.write(json.dumps(said) + "\n")
    start = said["hello"].partition(" ")[2]
    number = int(start or 0)
    with (folder / "sent").open("wb", buffering=0) as sent:
        while True:
            await socket.send_str(json.dumps({"number": number, "filler": "x" * 1000}))
            sent.write(b".")
            number += 1


_FOLDER = web.AppKey("folder", Path)
