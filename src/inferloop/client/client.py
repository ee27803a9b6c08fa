"""A thin asynchronous client of a running server, over the wire that any client of the protocol uses.

async with Client("http://127.0.0.1:8000") as client:
    answer = await client.predict("refunds", b"my flight was cancelled", content_type="text/plain")
    await client.feedback([Truth(answer.id, "dissatisfied", by="anna")])
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InferloopError,
    InvalidInput,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from inferloop.data.codecs import tensor_bytes

_LENGTH = "Inference-Header-Content-Length"
_ERRORS: tuple[type[InferloopError], ...] = (
    InvalidInput,
    Unauthorized,
    Forbidden,
    NotFound,
    Conflict,
    TooLarge,
    Unsupported,
    Overloaded,
    DeadlineExceeded,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a raw input.

    Attributes:
        id: names the prediction; feedback refers to it.
        label: empty, and `scores` too, for a model without labels.
    """

    id: str
    model: str
    version: str
    label: str = ""
    score: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TensorAnswer:
    """The answer to a request of tensors."""

    id: str
    model: str
    version: str
    outputs: Tensors


@dataclass(frozen=True, slots=True)
class Truth:
    """What was right for a prediction, and who says so."""

    prediction_id: str
    label: str
    by: str = "client"


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of feedback.

    Attributes:
        refused: why, by prediction id.
    """

    count: int
    refused: Mapping[str, str]


class Client:
    """One server. Opened by `async with`; all on one event loop.

    Errors of the server are raised as the errors of `core.errors` that they were there, with message and hint; a server that
    cannot be reached is `Unavailable`.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, key: str = "", ca: Path | None = None) -> None:
        """Set up.

        Args:
            url: `http://HOST:PORT` or `https://HOST:PORT`, with a base path if there is one.
            timeout_s: for one call, from connecting to the last byte.
            key: an API key of the server.
            ca: who signed the server's certificate, PEM; None trusts whom the system trusts.

        Raises:
            OSError: `ca` cannot be read.
        """
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._trust = ssl.create_default_context(cafile=ca) if ca is not None else True
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers=self._headers,
            connector=aiohttp.TCPConnector(ssl=self._trust),
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def is_ready(self) -> bool:
        """Whether every model of the server answers; false if it cannot be reached."""
        try:
            await self._call("GET", "/v2/health/ready")
        except InferloopError:
            return False
        return True

    async def models(self) -> list[dict[str, Any]]:
        """The open models with version, state and reason."""
        body, _ = await self._call("GET", "/v2/models")
        with self._expected():
            models: list[dict[str, Any]] = json.loads(body)["models"]
            return models

    async def predict(self, model: str, body: bytes, *, content_type: str = "", key: str = "") -> Answer:
        """Send one image, recording, text or JSON object to the model's transforms."""
        headers = {"Content-Type": content_type or "application/octet-stream"}
        if key:
            headers["Inferloop-Key"] = key
        answered, _ = await self._call("POST", _path(model, "infer"), body, headers)
        with self._expected():
            content = json.loads(answered)
            return Answer(
                content["id"],
                content["model_name"],
                content["model_version"],
                content.get("label", ""),
                content.get("score", 0.0),
                content.get("scores", {}),
            )

    async def infer(self, model: str, tensors: Tensors, *, outputs: Sequence[str] = ()) -> TensorAnswer:
        """Send tensors, binary both ways.

        Args:
            model: a name or reference that the server has open.
            tensors: every input of the model.
            outputs: the outputs that are wanted; all if empty.
        """
        described, blobs = zip(*(_described(name, array) for name, array in tensors.items()), strict=True)
        request: dict[str, Any] = {"inputs": described, "parameters": {"binary_data_output": True}}
        if outputs:
            request["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
        head = json.dumps(request).encode()
        headers = {_LENGTH: str(len(head)), "Content-Type": "application/octet-stream", "Accept-Encoding": "identity"}
        body, answered = await self._call("POST", _path(model, "infer"), b"".join((head, *blobs)), headers)
        with self._expected():
            return _tensor_answer(body, answered)

    async def feedback(self, truths: Sequence[Truth]) -> Stored:
        """Attach the truth to predictions; on the server's disk when it returns. An error if none could be stored."""
        body = json.dumps([asdict(truth) for truth in truths]).encode()
        answered, _ = await self._call("POST", "/v2/feedback", body, {"Content-Type": "application/json"})
        with self._expected():
            content = json.loads(answered)
            return Stored(content["stored"], {entry["prediction_id"]: entry["error"] for entry in content["refused"]})

    @contextmanager
    def _expected(self) -> Iterator[None]:
        """Around reading an answer: what is not as expected comes from another kind of server."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError, InvalidInput) as error:
            raise Unavailable(f"{self._url} answers, but not as `inferloop serve` does", hint="check the URL") from error

    async def _call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        if self._session is None:
            raise InvalidInput("the client is not open", hint="use it as `async with Client(url) as client:`")
        try:
            async with self._session.request(method, self._url + path, data=body or None, headers=headers) as response:
                content = await response.read()
                if response.status != 200:
                    raise _error(response.status, content, response.headers)
                return content, response.headers
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._url} gave no answer within {self._timeout_s:g} s") from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise InvalidInput(f"{self._url!r} is no URL of a server", hint="e.g. http://127.0.0.1:8000") from error
        except aiohttp.ClientError as error:
            raise Unavailable(f"no server at {self._url}: {error}", hint="`inferloop serve` starts one") from error


def _path(model: str, operation: str) -> str:
    return f"/v2/models/{quote(model, safe='')}/{operation}"


def _error(status: int, content: bytes, headers: Mapping[str, str]) -> InferloopError:
    try:
        message = str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {status}"
    kind = next((kind for kind in _ERRORS if kind.status == status), InferloopError)
    return kind(message, hint=headers.get("Inferloop-Hint", ""))


def _described(name: str, array: Array) -> tuple[dict[str, Any], bytes]:
    blob = tensor_bytes.write(array)
    content = {
        "name": name,
        "shape": array.shape,
        "datatype": DataType.of(array).value,
        "parameters": {"binary_data_size": len(blob)},
    }
    return content, blob


def _tensor_answer(body: bytes, headers: Mapping[str, str]) -> TensorAnswer:
    position = int(headers.get(_LENGTH, len(body)))
    content = json.loads(body[:position])
    outputs: Tensors = {}
    for output in content["outputs"]:
        size = output["parameters"]["binary_data_size"]
        blob = memoryview(body)[position : position + size]
        outputs[output["name"]] = tensor_bytes.read(output["name"], DataType(output["datatype"]), output["shape"], blob)
        position += size
    return TensorAnswer(headers.get("Inferloop-Prediction-Id", ""), content["model_name"], content["model_version"], outputs)
