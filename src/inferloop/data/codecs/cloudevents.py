"""A CloudEvent (1.0) in structured or binary mode to a Sample; another codec reads its data."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote

import msgspec
import pydantic

from inferloop.core import plugins
from inferloop.core.errors import InferloopError, InvalidInput
from inferloop.core.protocols import Codec
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.content import describe
from inferloop.data.codecs.envelope import FROZEN, Origin, identity, kind_of, time_s
from inferloop.data.config import validate

Attribute = Annotated[str, pydantic.StringConstraints(pattern="^[a-z0-9]+$")]
Attributes = Annotated[list[Attribute], pydantic.Field(min_length=1)]

_REQUIRED = ("specversion", "id", "source", "type")
_PREFIXES = ("ce-", "ce_", "cloudevents:", "cloudevents_", "")
"""Of the headers, in lower case: HTTP and NATS, Kafka, AMQP twice; MQTT 5 has none."""

_MEDIA_TYPE = "application/cloudevents"


class _Event(NamedTuple):
    attributes: Mapping[str, str]
    data: bytes


def _inner(choice: Mapping[str, Any]) -> Codec:
    if len(choice) != 1:
        raise ValueError(f"must name exactly one codec, it names {len(choice)}; known: {', '.join(plugins.names('codecs'))}")
    name, options = next(iter(choice.items()))
    try:
        kind = plugins.load("codecs", name)
        codec: Codec = kind(validate(kind.Config, options or {}, ""))
    except InferloopError as error:
        raise ValueError(f"{name}: {error.message}" + (f"; {error.hint}" if error.hint else "")) from error
    return codec


def _checked_choice(choice: dict[str, Any]) -> dict[str, Any]:
    _inner(choice)
    return choice


class CloudEventsCodec(Codec):
    """See `Codec`.

    Without a content type and headers that tell, the payload is an event in JSON. Batches are not read.
    """

    class Config(pydantic.BaseModel):
        """Options of the codec `cloudevents`.

        Attributes:
            data: the codec that reads the event's data, with its options: `{json: {fields: ...}}`. An id, a key or a time
                that it gives goes before the defaults here.
            id: the attribute of the message's identity; a list of attributes joins their values.
            key: what state and order belong to, e.g. `partitionkey`; an event without `subject` has none.
            fields: attributes of the event that are fields of the Sample, by field name.
        """

        model_config = FROZEN

        data: Annotated[dict[str, Any], pydantic.AfterValidator(_checked_choice)]
        id: Attribute | Attributes | Origin = ["source", "id"]
        key: Attribute | Attributes | Origin = "subject"
        fields: dict[str, Attribute] = {}

    def __init__(self, config: Config) -> None:
        self._config = config
        self._inner = _inner(config.data)

    def decode(self, message: Message) -> Sample:
        """See `Codec.decode`."""
        event = _event(message)
        attributes = event.attributes
        headers = {**message.headers, "content-type": attributes.get("datacontenttype", "")}
        sample = self._inner.decode(msgspec.structs.replace(message, payload=event.data, headers=headers))
        taken = {name: attributes[attribute] for name, attribute in self._config.fields.items() if attribute in attributes}
        return msgspec.structs.replace(
            sample,
            fields={**sample.fields, **taken},
            id=self._own("id", sample.id) or _joined(self._config.id, "id", attributes, message),
            key=self._own("key", sample.key) or self._key(attributes, message),
            time=_moment(attributes) if sample.time is None else sample.time,
            raw=message.payload,
        )

    def _own(self, option: str, value: str) -> str:
        """What the inner codec gave, unless the options say something else."""
        return "" if option in self._config.model_fields_set else value

    def _key(self, attributes: Mapping[str, str], message: Message) -> str:
        is_said = "key" in self._config.model_fields_set
        return _joined(self._config.key, "key", attributes, message) if is_said else attributes.get("subject", "")

    def fields(self) -> Mapping[str, str]:
        """See `Codec.fields`."""
        return {**self._inner.fields(), **dict.fromkeys(self._config.fields, "string")}


def _event(message: Message) -> _Event:
    headers = {name.lower(): value for name, value in message.headers.items()}
    media = headers.get("content-type", headers.get("contenttype", "")).strip().lower()
    if media.startswith(f"{_MEDIA_TYPE}-batch"):
        raise InvalidInput("the payload is a batch of events, which is not read", hint="send each event as a message")
    prefix = next((prefix for prefix in _PREFIXES if f"{prefix}specversion" in headers), None)
    if media.startswith(_MEDIA_TYPE):
        form = media.removeprefix(_MEDIA_TYPE).partition(";")[0].strip()
        if form not in ("", "+json"):
            raise InvalidInput("the event is in a format other than JSON, which is not read", hint=f"send {_MEDIA_TYPE}+json")
        event = _structured(message.payload)
    elif prefix is not None:
        event = _binary(message.payload, headers, prefix)
    else:
        event = _structured(message.payload)
    _check(event)
    return event


def _binary(payload: bytes, headers: Mapping[str, str], prefix: str) -> _Event:
    attributes = {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}
    if prefix == "ce-":  # the only binding whose values are escaped
        attributes = {name: _unescaped(value) for name, value in attributes.items()}
    if "content-type" in headers:
        attributes["datacontenttype"] = headers["content-type"]
    return _Event(attributes, payload)


def _unescaped(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return unquote(value)


def _structured(payload: bytes) -> _Event:
    try:
        members = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
        known = {name: msgspec.json.decode(raw) for name, raw in members.items() if name != "data"}
        data = _as_sent(bytes(members.get("data", b"null")), known.get("datacontenttype"))
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error).partition("\n")[0].lower()
        hint = "in binary mode, the attributes are headers: does the source bring them?"
        raise InvalidInput(f"the payload is no event in JSON: {reason} ({describe(payload)})", hint=hint) from error
    encoded = known.pop("data_base64", None)
    attributes = {name: _attribute(name, value) for name, value in known.items() if value is not None}
    if encoded is not None:
        if data:
            raise InvalidInput("the event has both data and data_base64")
        return _Event(attributes, _from_base64(encoded))
    return _Event(attributes, data)


def _attribute(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise InvalidInput(f"the attribute {name!r} must be text, a whole number or true or false, it is {kind_of(value)}")


def _as_sent(data: bytes, media: Any) -> bytes:
    """The data as its content type has it: what is not JSON stands in the event as a JSON string."""
    if data == b"null":
        return b""
    kind = media.partition(";")[0].strip().lower() if isinstance(media, str) else ""
    is_json = not kind or kind.endswith(("/json", "+json"))
    return data if is_json or not data.startswith(b'"') else msgspec.json.decode(data, type=str).encode()


def _from_base64(value: Any) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidInput("data_base64 must be text in base64, it is something else")


def _check(event: _Event) -> None:
    missing = [name for name in _REQUIRED if not event.attributes.get(name)]
    if missing:
        raise InvalidInput(f"the event lacks the attributes: {', '.join(missing)}")
    if event.attributes["specversion"] != "1.0":
        raise InvalidInput("the event is of another version of CloudEvents, 1.0 is read")
    if not event.data:
        raise InvalidInput("the event has no data")


def _joined(names: str | list[str] | Origin, what: str, attributes: Mapping[str, str], message: Message) -> str:
    if isinstance(names, Origin):
        return identity([(names.read(message), str(names))], what)
    chosen = [names] if isinstance(names, str) else names
    return identity([(attributes.get(name), f"the attribute {name!r}") for name in chosen], what)


def _moment(attributes: Mapping[str, str]) -> float | None:
    return time_s(attributes["time"], "the attribute 'time'") if "time" in attributes else None
