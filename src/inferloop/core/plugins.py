"""The table of plugins: names to lazy `module:Class` strings, and the entry points of other distributions.

The only place that names a plugin. A plugin is one file, one line here, and at most one extra in `pyproject.toml`.
Other distributions register entry points in the group `inferloop.<kind>`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from inferloop.core.errors import MissingDependency, NotFound


@dataclass(frozen=True, slots=True)
class Plugin:
    """Where a plugin lives and which extra brings its packages."""

    path: str
    summary: str
    extra: str = ""


TABLE: dict[str, dict[str, Plugin]] = {
    "engines": {
        "onnxruntime": Plugin("inferloop.engines.onnxruntime:OnnxRuntimeEngine", "ONNX Runtime on the CPU"),
        "numpy": Plugin("inferloop.engines.numpy:NumpyEngine", "a small reference engine in plain NumPy"),
    },
    "importers": {
        "pytorch": Plugin("inferloop.importers.pytorch:PyTorchImporter", "a PyTorch module as ONNX", "train"),
    },
    "codecs": {
        "json": Plugin("inferloop.data.codecs.json:JsonCodec", "a JSON object, values by JSONPath"),
        "cbor": Plugin("inferloop.data.codecs.cbor:CborCodec", "a CBOR map, values by JSONPath", "codecs"),
        "msgpack": Plugin("inferloop.data.codecs.msgpack:MsgpackCodec", "a MessagePack map, values by JSONPath"),
        "senml": Plugin("inferloop.data.codecs.senml:SenmlCodec", "a SenML pack in JSON, or in CBOR with the package cbor2"),
        "cloudevents": Plugin("inferloop.data.codecs.cloudevents:CloudEventsCodec", "a CloudEvent, its data by another codec"),
        "sparkplug": Plugin("inferloop.data.codecs.sparkplug:SparkplugCodec", "metrics of a Sparkplug B message"),
        "bytes": Plugin("inferloop.data.codecs.bytes:BytesCodec", "the payload as it is"),
        "text": Plugin("inferloop.data.codecs.text:TextCodec", "the payload is the text"),
        "csv": Plugin("inferloop.data.codecs.csv:CsvCodec", "one row of a CSV file"),
        "image": Plugin("inferloop.data.codecs.image:ImageCodec", "the payload is a JPEG, PNG or other image"),
        "wav": Plugin("inferloop.data.codecs.wav:WavCodec", "the payload is a WAV recording"),
    },
    "sources": {
        "mqtt": Plugin("inferloop.streams.sources.mqtt:MqttSource", "topics of an MQTT broker, acknowledged by hand"),
        "kafka": Plugin("inferloop.streams.sources.kafka:KafkaSource", "topics of Kafka, by a consumer group", "kafka"),
        "nats": Plugin("inferloop.streams.sources.nats:NatsSource", "a NATS JetStream stream", "nats"),
        "rabbitmq": Plugin(
            "inferloop.streams.sources.rabbitmq:RabbitSource", "a queue of RabbitMQ, acknowledged by hand", "amqp"
        ),
        "redis": Plugin("inferloop.streams.sources.redis:RedisSource", "a Redis stream", "redis"),
        "http": Plugin("inferloop.streams.sources.http:HttpSource", "requests to a port of ours, answered when they are done"),
        "websocket": Plugin("inferloop.streams.sources.websocket:WebSocketSource", "frames of a WebSocket server"),
        "directory": Plugin("inferloop.streams.sources.directory:DirectorySource", "the files that arrive in a directory"),
        "video": Plugin("inferloop.streams.sources.video:VideoSource", "the frames of a video file", "camera"),
        "camera": Plugin("inferloop.streams.sources.camera:CameraSource", "a camera: device, RTSP or HTTP", "camera"),
        "stdin": Plugin("inferloop.streams.sources.stdin:StdinSource", "lines of standard input"),
        "file": Plugin("inferloop.streams.sources.file:FileSource", "the lines of a JSONL or CSV file"),
    },
    "sinks": {
        "webhook": Plugin("inferloop.streams.sinks.webhook:WebhookSink", "an HTTP POST with an Idempotency-Key"),
        "model": Plugin("inferloop.streams.sinks.model:ModelSink", "a request to a model on another server"),
        "smtp": Plugin("inferloop.streams.sinks.smtp:SmtpSink", "a mail"),
        "mqtt": Plugin("inferloop.streams.sinks.mqtt:MqttSink", "a message to a topic of an MQTT broker"),
        "kafka": Plugin("inferloop.streams.sinks.kafka:KafkaSink", "a message to a topic of Kafka", "kafka"),
        "nats": Plugin("inferloop.streams.sinks.nats:NatsSink", "a message in a NATS JetStream stream, once per key", "nats"),
        "rabbitmq": Plugin("inferloop.streams.sinks.rabbitmq:RabbitSink", "a message to an exchange of RabbitMQ", "amqp"),
        "postgres": Plugin("inferloop.streams.sinks.postgres:PostgresSink", "a row in PostgreSQL, once per key", "postgres"),
        "influxdb": Plugin("inferloop.streams.sinks.influxdb:InfluxDbSink", "a point in InfluxDB, version 1 or 2"),
        "redis": Plugin("inferloop.streams.sinks.redis:RedisSink", "an entry in a Redis stream, once per key", "redis"),
        "s3": Plugin("inferloop.streams.sinks.s3:S3Sink", "objects with many records in S3 or a store like it", "s3"),
        "sqlite": Plugin("inferloop.streams.sinks.sqlite:SqliteSink", "a row in a SQLite table, once per key"),
        "file": Plugin("inferloop.streams.sinks.file:FileSink", "a line in a JSONL file"),
        "stdout": Plugin("inferloop.streams.sinks.stdout:StdoutSink", "a line on standard output"),
        "queue": Plugin("inferloop.streams.sinks.queue:QueueSink", "the built-in human review queue"),
    },
    "passes": {},
    "metrics": {},
}


@cache
def plugins(kind: str) -> dict[str, Plugin]:
    """All plugins of a kind, the built-in ones first."""
    known = dict(_kind(kind))
    for point in entry_points(group=f"inferloop.{kind}"):
        known.setdefault(point.name, Plugin(point.value, f"from {point.dist.name if point.dist else 'elsewhere'}"))
    return known


def names(kind: str) -> list[str]:
    """The names of all plugins of a kind."""
    return list(plugins(kind))


def load(kind: str, name: str) -> Any:
    """Import one plugin and return its class.

    Raises:
        NotFound: no plugin of that name; the hint lists the known ones.
        MissingDependency: a package that it needs is not installed; the hint is the pip line.
    """
    known = plugins(kind)
    if name not in known:
        raise NotFound(f"no {kind.removesuffix('s')} named {name!r}", hint=f"known: {', '.join(known)}")
    plugin = known[name]
    module, _, attribute = plugin.path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        missing = error.name or str(error)
        if missing.startswith("inferloop"):
            raise
        raise missing_package(missing, plugin.extra, f"{kind.removesuffix('s')} {name!r}") from error


def missing_package(package: str, extra: str, needed_by: str) -> MissingDependency:
    """The error for a package that is not installed, with the line that installs it."""
    line = f"pip install 'inferloop[{extra}]'" if extra else f"pip install {package}"
    return MissingDependency(f"{needed_by} needs the package {package}", hint=line)


def _kind(kind: str) -> dict[str, Plugin]:
    if kind not in TABLE:
        raise NotFound(f"no plugin kind named {kind!r}", hint=f"known: {', '.join(TABLE)}")
    return TABLE[kind]
