"""What a key allows: the scope that each operation asks for, over REST and over gRPC.

infer      predictions
feedback   what was right for a prediction
admin      whatever changes the server: load and unload, trace and log settings, shared memory
any        reading: a key of any scope
open       no key: health, the page's frame and the OpenAPI document, which name no model

What no table names asks for `admin`, so that a new operation is closed until somebody decides.
"""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """What a key may do."""

    INFER = "infer"
    FEEDBACK = "feedback"
    ADMIN = "admin"


class Need(StrEnum):
    """What an operation asks for; the first three are the scopes of the same name."""

    INFER = "infer"
    FEEDBACK = "feedback"
    ADMIN = "admin"
    ANY = "any"
    OPEN = "open"


OPERATIONS: dict[str, Need] = {
    "live": Need.OPEN,
    "ready": Need.OPEN,
    "model_ready": Need.OPEN,
    "page": Need.OPEN,
    "openapi": Need.OPEN,
    "server": Need.ANY,
    "models": Need.ANY,
    "model": Need.ANY,
    "config": Need.ANY,
    "stats": Need.ANY,
    "metrics": Need.ANY,
    "repository_index": Need.ANY,
    "infer": Need.INFER,
    "generate": Need.INFER,
    "generate_stream": Need.INFER,
    "feedback": Need.FEEDBACK,
    "feedback_many": Need.FEEDBACK,
}
"""By the name of the operation in `rest/paths.py`."""

READS: frozenset[str] = frozenset({"trace", "trace_of_model", "logging"})
"""Operations whose GET asks for any key and whose POST asks for `admin`."""

RPCS: dict[str, Need] = {
    "ServerLive": Need.OPEN,
    "ServerReady": Need.OPEN,
    "ModelReady": Need.OPEN,
    "Check": Need.OPEN,
    "Watch": Need.OPEN,
    "List": Need.OPEN,
    "ServerReflectionInfo": Need.OPEN,
    "ServerMetadata": Need.ANY,
    "ModelMetadata": Need.ANY,
    "ModelConfig": Need.ANY,
    "ModelStatistics": Need.ANY,
    "RepositoryIndex": Need.ANY,
    "ModelInfer": Need.INFER,
    "ModelStreamInfer": Need.INFER,
}
"""By the last part of the method's path. Trace and log settings are read and written by one method: `admin`."""


def of_operation(name: str, method: str) -> Need:
    """What a REST operation asks for when it is called with an HTTP method."""
    if name in READS:
        return Need.ANY if method in ("GET", "HEAD") else Need.ADMIN
    return OPERATIONS.get(name, Need.ADMIN)


def of_rpc(method: str) -> Need:
    """What a gRPC method, `/package.Service/Method`, asks for."""
    return RPCS.get(method.rpartition("/")[2], Need.ADMIN)
