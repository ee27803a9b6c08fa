"""The same client for programs without an event loop: scripts, notebooks, threads.

with SyncClient("http://127.0.0.1:8000") as client:
    answer = client.predict("refunds", b"my flight was cancelled", content_type="text/plain")
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from inferloop.client.client import Answer, Client, Stored, TensorAnswer, Truth
from inferloop.core.datatypes import Tensors
from inferloop.core.errors import InvalidInput

T = TypeVar("T")


class SyncClient:
    """`Client`, with calls that block. Opened by `with`; then any number of threads may call it at once.

    It has an event loop in a thread of its own, so it also works where a loop is running already, as in a notebook. Arguments,
    answers and errors are those of `Client`.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, key: str = "", ca: Path | None = None) -> None:
        self._client = Client(url, timeout_s=timeout_s, key=key, ca=ca)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="inferloop-client", daemon=True)
        self._thread.start()
        self._wait(self._client.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            self._wait(self._client.__aexit__(kind, error, trace))
        finally:
            self._loop = self._thread = None
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def is_ready(self) -> bool:
        """See `Client.is_ready`."""
        return self._wait(self._client.is_ready())

    def models(self) -> list[dict[str, Any]]:
        """See `Client.models`."""
        return self._wait(self._client.models())

    def predict(self, model: str, body: bytes, *, content_type: str = "", key: str = "") -> Answer:
        """See `Client.predict`."""
        return self._wait(self._client.predict(model, body, content_type=content_type, key=key))

    def infer(self, model: str, tensors: Tensors, *, outputs: Sequence[str] = ()) -> TensorAnswer:
        """See `Client.infer`."""
        return self._wait(self._client.infer(model, tensors, outputs=outputs))

    def feedback(self, truths: Sequence[Truth]) -> Stored:
        """See `Client.feedback`."""
        return self._wait(self._client.feedback(truths))

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            call.close()
            raise InvalidInput("the client is not open", hint="use it as `with SyncClient(url) as client:`")
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()
