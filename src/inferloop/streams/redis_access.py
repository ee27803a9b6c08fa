"""A connection to Redis, for the source and the sink."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis.asyncio as redis
from pydantic import BaseModel, ConfigDict, Field, field_validator
from redis import exceptions

from inferloop.core.errors import InferloopError, InvalidInput, Unavailable
from inferloop.streams.addresses import checked_url

_CONNECT_S = 5.0
_PASSING = ("LOADING", "READONLY", "MASTERDOWN", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "OOM", "MISCONF", "NOREPLICAS")


class RedisConfig(BaseModel):
    """Where the server is, and which stream.

    Attributes:
        url: `redis://[user:password@]host[:6379][/database]`, or `rediss://` for TLS.
        stream: the key of the stream.
        field: the field of an entry that holds the payload.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    url: str = Field(repr=False)
    stream: str = Field(min_length=1)
    field: str = Field("data", min_length=1)

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        return checked_url(value, "redis", "rediss")


def client(config: RedisConfig, name: str) -> redis.Redis:
    """A client that connects with the first command, and fails a command instead of repeating it by itself."""
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return redis.Redis.from_url(
        config.url,
        client_name=name.replace(" ", "-"),
        socket_connect_timeout=_CONNECT_S,
        socket_timeout=None,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Errors of the client as ours: what a later try may heal is Unavailable, everything else InvalidInput."""
    try:
        yield
    except InferloopError:
        raise
    except exceptions.AuthenticationError as error:
        raise Unavailable(f"{name}: {error}") from error
    except exceptions.ResponseError as error:
        kind: type[InferloopError] = Unavailable if str(error).startswith(_PASSING) else InvalidInput
        raise kind(f"{name}: {error}") from error
    except (exceptions.RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"{name}: {str(error) or type(error).__name__}") from error
