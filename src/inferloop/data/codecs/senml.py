"""A SenML pack (RFC 8428), in JSON or CBOR, to one Sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pydantic

from inferloop.core.errors import InvalidInput
from inferloop.core.protocols import Codec
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.content import describe
from inferloop.data.codecs.envelope import FROZEN, Origin, identity, present, time_s
from inferloop.data.codecs.field import FieldOptions, beside, settled
from inferloop.data.codecs.json import parse_json
from inferloop.data.codecs.senml_pack import CBOR_LABELS, Pack, Record, Value, resolve

Part = Literal["name", "record", "time"]
Parts = Annotated[list[Part], pydantic.Field(min_length=1)]
Name = Annotated[str, pydantic.Field(min_length=1)]


class RecordConfig(FieldOptions):
    """One field: the records that it takes, what they must be, and what stands for them where there are none.

    Attributes:
        name: the resolved name of the records, or its end after a `:`, `/` or `.`, or their name without the base name.
        unit: what the unit of the records must be; without it, any.
        header: the header that holds it, as text.
        topic: the level of the topic that holds it, counted from 0 (-1 is the last).
        type: `array` is one also for one record.
        default: what stands for it where it is missing.
        required: a message without it is refused; otherwise the Sample lacks the field.
    """

    place: ClassVar[str] = "name"

    name: Name | None = None
    unit: str | None = None


class SenmlCodec(Codec):
    """See `Codec`.

    A field is the value of its record (its sum if it has no value); of several records, their numbers in the order of time.
    """

    class Config(pydantic.BaseModel):
        """Options of the codec `senml`.

        Attributes:
            id: the message's identity, of `name`, `record` and `time`, or a list of these, which joins them.
            key: what state and order belong to. `name` is the base name that all records share, or without one their name;
                `record` is the whole name of the first record.
            time: `time` is that of the first record.
            fields: values by field name, each the name of its records or a mapping.
        """

        model_config = FROZEN

        id: Part | Parts | Origin | None = None
        key: Part | Parts | Origin | None = None
        time: Literal["time"] | Origin | None = None
        fields: dict[str, Name | RecordConfig] = pydantic.Field(min_length=1)

    def __init__(self, config: Config) -> None:
        self._config = config
        declared = {
            name: field if isinstance(field, RecordConfig) else RecordConfig(name=field) for name, field in config.fields.items()
        }
        self._fields = {name: (field, field.origin) for name, field in declared.items()}

    def decode(self, message: Message) -> Sample:
        """See `Codec.decode`."""
        pack = resolve(_document(message.payload), message.received)
        return Sample(
            fields=self._values(pack, message),
            id=_joined(self._config.id, "id", pack, message),
            key=_joined(self._config.key, "key", pack, message),
            time=self._moment(pack, message),
            raw=message.payload,
            source=message.source,
            topic=message.topic,
        )

    def fields(self) -> Mapping[str, str]:
        """See `Codec.fields`."""
        return {name: field.type for name, (field, _) in self._fields.items()}

    def _values(self, pack: Pack, message: Message) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, (config, origin) in self._fields.items():
            if origin is None:
                value = settled(_of_records(pack, config, name), config, name, f"records named {config.name!r}")
            else:
                value = settled(beside(origin, message, config, name), config, name, origin)
            if value is not None:
                values[name] = value
        return values

    def _moment(self, pack: Pack, message: Message) -> float | None:
        place = self._config.time
        if isinstance(place, Origin):
            return time_s(present(place.read(message), "time", str(place)), str(place))
        return pack.records[0].time if place else None


def _document(payload: bytes) -> Any:
    is_cbor = payload[:1] >= b"\x80" and payload[:1] != b"\xef"  # a list of CBOR; in JSON, [ or space or a byte order mark
    if not is_cbor:
        return parse_json(payload)
    try:
        from inferloop.data.codecs.cbor import parse_cbor
    except ImportError as error:
        hint = "pip install 'inferloop[codecs]'"
        raise InvalidInput(f"the payload is no SenML in JSON ({describe(payload)}), CBOR needs cbor2", hint=hint) from error
    document = parse_cbor(payload)
    return [_labelled(record) for record in document] if isinstance(document, list) else document


def _labelled(record: Any) -> Any:
    return {CBOR_LABELS.get(label, label): value for label, value in record.items()} if isinstance(record, dict) else record


def _of_records(pack: Pack, config: RecordConfig, name: str) -> Any:
    records = [record for record in pack.records if _is_named(record, config.name or "")]
    if config.unit is not None and any(record.unit != config.unit for record in records):
        raise InvalidInput(f"field {name!r} must have the unit {config.unit!r}, its records have another or none")
    if len(records) == 1 and config.type != "array":
        return _value(records[0])
    return _series(records, name) if records else None


def _is_named(record: Record, name: str) -> bool:
    return name in (record.name, record.local) or record.name.endswith((f":{name}", f"/{name}", f".{name}"))


def _value(record: Record) -> Value | None:
    return record.sum if record.value is None else record.value


def _series(records: Sequence[Record], name: str) -> Any:
    values = [_value(record) for record in sorted(records, key=lambda record: record.time)]
    if not all(isinstance(value, bool | float) for value in values):
        raise InvalidInput(f"field {name!r} has {len(values)} records, and not all of them are numbers")
    return np.array(values, dtype=np.float64)


def _joined(parts: Part | list[Part] | Origin | None, what: str, pack: Pack, message: Message) -> str:
    if parts is None:
        return ""
    if isinstance(parts, Origin):
        return identity([(parts.read(message), str(parts))], what)
    first = pack.records[0]
    known: dict[str, Any] = {"name": pack.name or None, "record": first.name, "time": first.time}
    chosen = parts if isinstance(parts, list) else [parts]
    return identity([(known[part], f"{part} (the records share no base name)") for part in chosen], what)
