"""What the Kafka source and the Kafka sink have in common: where the brokers are, and what an error of the client means."""

from __future__ import annotations

from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException
from pydantic import BaseModel, ConfigDict, Field

from inferloop.core.errors import InferloopError, InvalidInput, Unavailable

_FOR_GOOD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_MSG,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.TOPIC_EXCEPTION,
    }
)


class KafkaConfig(BaseModel):
    """Where the brokers are.

    Attributes:
        brokers: `host:port`, several with commas.
        security: how to connect; `sasl_...` needs `username` and `password`.
        mechanism: of SASL.
        ca: a file with the certificates to trust; by default those of the system.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    brokers: str = Field(pattern=r"^(\$\{.*|[^,:/\s]+:\d+(,[^,:/\s]+:\d+)*)$")
    security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str | None = None
    password: str | None = Field(None, repr=False)
    ca: str | None = None

    def client(self) -> dict[str, Any]:
        """Settings of librdkafka for the connection."""
        settings: dict[str, Any] = {"bootstrap.servers": self.brokers, "security.protocol": self.security}
        if self.security.startswith("sasl"):
            settings |= {"sasl.mechanism": self.mechanism, "sasl.username": self.username, "sasl.password": self.password}
        if self.ca:
            settings["ssl.ca.location"] = self.ca
        return settings


def error_of(name: str, error: KafkaError | KafkaException) -> InferloopError:
    """An error of the client as ours: what a later try may heal is Unavailable, everything else InvalidInput."""
    inner: KafkaError = error.args[0] if isinstance(error, KafkaException) else error
    kind: type[InferloopError] = InvalidInput if inner.code() in _FOR_GOOD else Unavailable
    return kind(f"{name}: {inner.str()}")
