"""A connection to NATS with JetStream, for the source and the sink."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import nats
import nats.errors
import nats.js.errors as js
from pydantic import BaseModel, ConfigDict, Field, field_validator

from inferloop.core.errors import InferloopError, InvalidInput, NotFound, Unavailable
from inferloop.streams.addresses import checked_url
from inferloop.streams.delivery.reaching import without_secrets

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger(__name__)

_CONNECT_S = 5.0


class NatsConfig(BaseModel):
    """Where the server is.

    Attributes:
        url: `nats://[user:password@]host[:4222]`, or `tls://` with TLS.
        token: instead of user and password.
        credentials: a file with JWT and seed, as `nsc` writes it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    url: str = Field(repr=False)
    token: str | None = Field(None, repr=False)
    credentials: str | None = None

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        return checked_url(value, "nats", "tls")


async def connected(config: NatsConfig, name: str) -> Client:
    """One try to connect; a connection that is lost stays lost, its owner makes a new one.

    Raises:
        Unavailable: nobody answers, or the server refuses user and password.
    """

    async def on_lost() -> None:
        log.warning("connection lost", extra={"part": name, "url": without_secrets(config.url)})

    async def on_error(error: Exception) -> None:
        log.debug("nats", extra={"part": name, "reason": str(error) or type(error).__name__})

    with translated(name):
        return await nats.connect(
            config.url,
            name=name,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # it tries again for minutes without a word otherwise, also here
            reconnect_time_wait=0,
            connect_timeout=int(_CONNECT_S),
            token=config.token,
            user_credentials=config.credentials,
            disconnected_cb=on_lost,
            error_cb=on_error,
        )


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Errors of the client as ours: a wrong name or a refused content is told apart from a server that is not there."""
    try:
        yield
    except InferloopError:
        raise
    except js.NotFoundError as error:
        raise NotFound(f"{name}: {error.description or error}") from error
    except (js.BadRequestError, nats.errors.MaxPayloadError, nats.errors.BadSubjectError, ValueError) as error:
        raise InvalidInput(f"{name}: {getattr(error, 'description', None) or error}") from error
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise Unavailable(f"{name}: {str(error) or type(error).__name__}") from error
