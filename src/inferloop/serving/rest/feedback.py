"""POST .../feedback: what was right, for predictions that were made."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from inferloop.core.errors import InvalidInput, NotFound
from inferloop.data.ledger.records import FeedbackRecord
from inferloop.net.http import Request, Response
from inferloop.serving.operations.truth import Truth
from inferloop.serving.rest.paths import Route
from inferloop.serving.services import Services

_MOST = 10_000


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """One correction or confirmation."""

    prediction_id: str
    label: str
    by: str = "rest"


class Refused(msgspec.Struct):
    """An entry that could not be stored."""

    index: int
    prediction_id: str
    error: str


class FeedbackRoutes:
    """The operations that attach truth; it is on disk when they answer."""

    def __init__(self, services: Services) -> None:
        self._router = services.router
        self._truth = Truth(services)

    async def one(self, request: Request, route: Route) -> Response:
        """POST /v2/models/M/feedback with one object: the label must be one of the model's."""
        bundle = self._router.bundle(route.model, version=route.version)
        labels = bundle.labels
        item = _decode(request.body, Feedback)
        if labels and item.label not in labels:
            raise InvalidInput(f"model {route.model!r} has no label {item.label!r}", hint=f"known: {', '.join(labels)}")
        model = await self._truth.model_of(item.prediction_id)
        if model != bundle.name:
            raise NotFound(f"prediction {item.prediction_id!r} was made by {model!r}, not by {bundle.name!r}")
        if await self._truth.add([_record(item)]):  # erased in between
            raise NotFound(_refused(0, item).error)
        return Response(200, msgspec.json.encode({"prediction_id": item.prediction_id, "stored": 1}))

    async def many(self, request: Request, _route: Route) -> Response:
        """POST /v2/feedback with a list: what cannot be stored is named in `refused`; an error if nothing could."""
        items = _decode(request.body, list[Feedback])
        if len(items) > _MOST:
            raise InvalidInput(f"{len(items)} entries, one request takes {_MOST}")
        unknown = set(await self._truth.add([_record(item) for item in items]))
        refused = [_refused(index, item) for index, item in enumerate(items) if item.prediction_id in unknown]
        if refused and len(refused) == len(items):
            raise NotFound(refused[0].error, hint="it may be older than the ledger keeps")
        return Response(200, msgspec.json.encode({"stored": len(items) - len(refused), "refused": refused}))


def _record(item: Feedback) -> FeedbackRecord:
    return FeedbackRecord(item.prediction_id, item.label, item.by, time.time())


def _refused(index: int, item: Feedback) -> Refused:
    return Refused(index, item.prediction_id, f"no prediction {item.prediction_id!r} in the ledger")


def _decode(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        hint = '{"prediction_id": "...", "label": "...", "by": "..."}, or a list of these at /v2/feedback'
        raise InvalidInput(f"the feedback is not as expected: {error}", hint=hint) from error
