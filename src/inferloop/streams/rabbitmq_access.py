"""A connection to RabbitMQ, for the source and the sink."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError, PublishError
from pydantic import BaseModel, ConfigDict, Field, field_validator

from inferloop.core.errors import InferloopError, InvalidInput, NotFound, Unavailable
from inferloop.streams.addresses import checked_url

_CONNECT_S = 5.0


class RabbitConfig(BaseModel):
    """Where the broker is.

    Attributes:
        url: `amqp://[user:password@]host[:5672][/vhost]`, or `amqps://` for TLS.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    url: str = Field(repr=False)

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        return checked_url(value, "amqp", "amqps")


async def connected(config: RabbitConfig, name: str) -> AbstractConnection:
    """One try to connect; nothing is healed by itself.

    Raises:
        Unavailable: nobody answers, or the broker refuses user and password.
    """
    with translated(name):
        return await aio_pika.connect(config.url, timeout=_CONNECT_S, client_properties={"connection_name": name})


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Errors of the client as ours: a wrong name or a refused content is told apart from a broker that is not there."""
    try:
        yield
    except InferloopError:
        raise
    except ChannelNotFoundEntity as error:
        raise NotFound(f"{name}: {error}") from error
    except ChannelPreconditionFailed as error:
        raise InvalidInput(f"{name}: {error}") from error
    except PublishError as error:  # came back: no queue is bound for it
        raise InvalidInput(f"{name}: no queue takes the message: {error}") from error
    except (AMQPError, DeliveryError, OSError, TimeoutError, RuntimeError) as error:
        raise Unavailable(f"{name}: {str(error) or type(error).__name__}") from error
