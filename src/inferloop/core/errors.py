"""Everything that can go wrong, and what a front end answers.

    InferloopError                500 INTERNAL             exit 3
    ├── InvalidInput              400 INVALID_ARGUMENT     exit 2   data, command or config of the caller is wrong
    │   ├── InvalidConfig         400 INVALID_ARGUMENT     exit 2   all problems of one file at once, each with its path
    │   ├── InvalidBundle         400 INVALID_ARGUMENT     exit 2   corrupted, truncated or foreign directory
    │   ├── NewerSchema           400 INVALID_ARGUMENT     exit 2   stored by a newer inferloop
    │   └── TooLarge              413 RESOURCE_EXHAUSTED   exit 2
    ├── NotFound                  404 NOT_FOUND            exit 2
    ├── Conflict                  409 ALREADY_EXISTS       exit 2
    ├── Unauthorized              401 UNAUTHENTICATED      exit 2
    ├── Forbidden                 403 PERMISSION_DENIED    exit 2
    ├── Unsupported               501 UNIMPLEMENTED        exit 2
    ├── MissingDependency         501 UNIMPLEMENTED        exit 3   a package is not installed
    ├── Overloaded                503 UNAVAILABLE          exit 3   a bounded queue is full
    ├── Unavailable               503 UNAVAILABLE          exit 3   model, port, broker or service is not there
    ├── DeadlineExceeded          504 DEADLINE_EXCEEDED    exit 3
    ├── Cancelled                 499 CANCELLED            exit 3   the caller went away
    ├── EngineError               500 INTERNAL             exit 3   an engine failed on a batch; it stays usable
    └── StorageError              500 INTERNAL             exit 3   disk full, database locked or damaged

Front ends read `status`, `grpc_code` and `exit_code` and never test for classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class InferloopError(Exception):
    """Root of the tree: a message with names and numbers, and a hint what to do next.

    Attributes:
        hint: what the user can do next; empty if there is nothing to say.
    """

    status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(InferloopError):
    """The caller's data, command or configuration is wrong."""

    status = 400
    grpc_code = "INVALID_ARGUMENT"
    exit_code = 2


class InvalidConfig(InvalidInput):
    """A configuration file with one or more problems, all of them named.

    Attributes:
        problems: one line each, `file: path.to.key: what is wrong`.
    """

    def __init__(self, problems: Iterable[str], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems), hint=hint)


class InvalidBundle(InvalidInput):
    """A directory that is no Bundle, or one that was damaged."""


class NewerSchema(InvalidInput):
    """Something stored by a newer version than this one can read."""


class TooLarge(InvalidInput):
    """A body, header or file above its limit."""

    status = 413
    grpc_code = "RESOURCE_EXHAUSTED"


class NotFound(InferloopError):
    """No model, version, alias, plugin or file of that name."""

    status = 404
    grpc_code = "NOT_FOUND"
    exit_code = 2


class Conflict(InferloopError):
    """The thing exists already, or moved while we looked."""

    status = 409
    grpc_code = "ALREADY_EXISTS"
    exit_code = 2


class Unauthorized(InferloopError):
    """No key, or one that is not known."""

    status = 401
    grpc_code = "UNAUTHENTICATED"
    exit_code = 2


class Forbidden(InferloopError):
    """A known key without the scope that the call needs."""

    status = 403
    grpc_code = "PERMISSION_DENIED"
    exit_code = 2


class Unsupported(InferloopError):
    """Understood, and not offered."""

    status = 501
    grpc_code = "UNIMPLEMENTED"
    exit_code = 2


class MissingDependency(InferloopError):
    """A package that this feature needs is not installed."""

    status = 501
    grpc_code = "UNIMPLEMENTED"


class Overloaded(InferloopError):
    """A bounded queue is full; said at once instead of waiting.

    Attributes:
        retry_after_s: when a new try makes sense, in seconds.
    """

    status = 503
    grpc_code = "UNAVAILABLE"

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Unavailable(InferloopError):
    """A model, port, broker or service is not there now."""

    status = 503
    grpc_code = "UNAVAILABLE"


class DeadlineExceeded(InferloopError):
    """The answer would come after the caller's deadline."""

    status = 504
    grpc_code = "DEADLINE_EXCEEDED"


class Cancelled(InferloopError):
    """The caller left before its answer."""

    status = 499
    grpc_code = "CANCELLED"


class EngineError(InferloopError):
    """An engine failed on a batch; its session stays usable."""


class StorageError(InferloopError):
    """The disk is full, or a database is locked or damaged."""
