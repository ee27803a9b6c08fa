"""An Eclipse Sparkplug B message to a Sample: its metrics by name or alias, its identity from topic, sequence and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import pydantic

from inferloop.core.errors import InvalidInput
from inferloop.core.protocols import Codec
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.envelope import FROZEN, Origin, identity
from inferloop.data.codecs.field import FieldOptions, beside, settled
from inferloop.data.codecs.sparkplug_payload import DataType, metric_name, metric_value, parse_payload

_TYPES = ("NBIRTH", "NDEATH", "NDATA", "NCMD", "DBIRTH", "DDEATH", "DDATA", "DCMD")
_LAST_MS = 10**14

TypeName = Literal[
    "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "DateTime", "Bytes",
    "Int8Array", "Int16Array", "Int32Array", "Int64Array", "UInt8Array", "UInt16Array", "UInt32Array", "UInt64Array",
    "FloatArray", "DoubleArray", "BooleanArray", "DateTimeArray",
]  # fmt: skip
Name = Annotated[str, pydantic.Field(min_length=1)]
Alias = Annotated[int, pydantic.Field(ge=0, lt=2**64)]


class MetricConfig(FieldOptions):
    """One field: its metric, what it must be, and what stands for it where it is missing.

    Attributes:
        metric: the name of the metric.
        default: what stands for it where it is missing.
        datatype: how numbers and bytes are read where the message does not say, as data messages may; without it, whole
            numbers are signed.
        header: the header that holds it, as text.
        topic: the level of the topic that holds it, counted from 0: 1 is the group, 3 the node, 4 the device.
        required: a message without it is refused; otherwise the Sample lacks the field.
    """

    place: ClassVar[str] = "metric"

    metric: Name | None = None
    datatype: TypeName | None = None


class _Topic(NamedTuple):
    type: str
    place: str


class SparkplugCodec(Codec):
    """See `Codec`.

    Reads one message at a time: gaps in `seq`, births and deaths are not tracked, aliases are those of the options. Data sets,
    templates, arrays of text and compressed payloads are not read. Of several metrics with one name the last counts.
    """

    class Config(pydantic.BaseModel):
        """Options of the codec `sparkplug`. The event time is the payload's timestamp.

        Attributes:
            fields: values by field name, each the name of a metric or a mapping.
            alias: the number of each metric that comes under its alias, as the birth message declares it. A metric with an
                alias that is not here is ignored.
            id: `message` joins group, node, device, `seq` and timestamp; a message without timestamp has none.
            key: `device` is `GROUP/NODE/DEVICE`, or `GROUP/NODE` of a message of the node itself.
        """

        model_config = FROZEN

        fields: dict[str, Name | MetricConfig] = pydantic.Field(min_length=1)
        alias: dict[str, Alias] = {}
        id: Literal["message"] | Origin = "message"
        key: Literal["device"] | Origin = "device"

        @pydantic.field_validator("alias")
        @classmethod
        def _one_name_each(cls, alias: dict[str, int]) -> dict[str, int]:
            if len(set(alias.values())) < len(alias):
                raise ValueError("must not give one number to two metrics")
            return alias

    def __init__(self, config: Config) -> None:
        self._config = config
        self._names = {alias: name for name, alias in config.alias.items()}
        declared = {
            name: field if isinstance(field, MetricConfig) else MetricConfig(metric=field)
            for name, field in config.fields.items()
        }
        self._fields = {name: (field, field.origin) for name, field in declared.items()}

    def decode(self, message: Message) -> Sample:
        """See `Codec.decode`."""
        topic = _topic(message.topic)
        payload = parse_payload(message.payload)
        if payload.timestamp > _LAST_MS:
            raise InvalidInput("the timestamp of the payload is out of range", hint="Sparkplug counts milliseconds")
        return Sample(
            fields=self._values(payload, message),
            id=_of(self._config.id, "id", message, _identity(topic, payload)),
            key=_of(self._config.key, "key", message, topic.place),
            time=payload.timestamp / 1000 if payload.HasField("timestamp") else None,
            raw=message.payload,
            source=message.source,
            topic=message.topic,
        )

    def fields(self) -> Mapping[str, str]:
        """See `Codec.fields`."""
        return {name: field.type for name, (field, _) in self._fields.items()}

    def _values(self, payload: Any, message: Message) -> dict[str, Any]:
        metrics, unknown = self._named(payload)
        values: dict[str, Any] = {}
        for name, (config, origin) in self._fields.items():
            if origin is not None:
                value = settled(beside(origin, message, config, name), config, name, origin)
            else:
                metric = metrics.get(config.metric or "")
                datatype = DataType[config.datatype] if config.datatype else None
                found = None if metric is None else metric_value(metric, name, datatype)
                value = settled(found, config, name, _place(config.metric or "", unknown))
            if value is not None:
                values[name] = value
        return values

    def _named(self, payload: Any) -> tuple[dict[str, Any], int]:
        """The metrics by name, and how many have an alias that is not known."""
        metrics, unknown = {}, 0
        for metric in payload.metrics:
            name = metric_name(metric) or (self._names.get(metric.alias, "") if metric.HasField("alias") else "")
            unknown += not name
            metrics[name] = metric
        return metrics, unknown


def _place(metric: str, unknown: int) -> str:
    hint = f" ({unknown} metrics have an alias that the option alias does not know)" if unknown else ""
    return f"metric {metric!r}{hint}"


def _topic(topic: str) -> _Topic:
    levels = topic.split("/")
    if levels[0] != "spBv1.0" or len(levels) not in (4, 5) or not all(levels) or levels[2] not in _TYPES:
        hint = "subscribe to spBv1.0/GROUP/DDATA/# or the like; STATE messages are not read"
        raise InvalidInput("the topic is none of Sparkplug B: spBv1.0/GROUP/TYPE/NODE[/DEVICE]", hint=hint)
    return _Topic(levels[2], "/".join([levels[1], *levels[3:]]))


def _identity(topic: _Topic, payload: Any) -> str:
    if not payload.HasField("timestamp"):  # seq alone comes again after 256 messages
        return ""
    sequence = str(payload.seq) if payload.HasField("seq") else topic.type
    return identity([(topic.place, "topic"), (sequence, "seq"), (payload.timestamp, "timestamp")], "id")


def _of(origin: str | Origin, what: str, message: Message, default: str) -> str:
    return identity([(origin.read(message), str(origin))], what) if isinstance(origin, Origin) else default
