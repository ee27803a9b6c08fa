"""A mail for one delivery: who gets it, what it says, and a Message-ID that every repetition of it shares."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from inferloop.core.errors import InvalidInput
from inferloop.core.protocols import Delivery
from inferloop.streams.texts import Text, TextTemplate, unknown_places

_Recipients = Annotated[
    tuple[Text, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value), Field(min_length=1)
]
_MOST_SUBJECT = 500
_WORD = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_NAME = r'[^<>()\[\]:;@\\,"\x00-\x1f\x7f]*|"[^"\\\x00-\x1f\x7f]*"'
_SPEC = rf"(?P<user>{_WORD}(?:\.{_WORD})*)@(?P<domain>{_LABEL}(?:\.{_LABEL})*)"
_ADDRESS = re.compile(rf"(?P<bracket>(?P<name>{_NAME})\s*<)?{_SPEC}(?(bracket)>)")


class MailConfig(BaseModel):
    """What a mail says and who gets it; each text may have `{name}` places.

    Attributes:
        from: who sends it: `ops@example.com` or `Operations <ops@example.com>`.
        to: who gets it: an address or a list of them.
        subject: on one line, whatever the values hold.
        text: the body; without it and without `html`, all values as JSON.
        html: the body as HTML, beside the text if there is one; values in it are escaped.
        values: what the places hold, by name; a text that starts with `=` is an expression. Without it: identity, decision and
            `fields`, e.g. `{label}` and `{fields.order}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, arbitrary_types_allowed=True)

    sender: str = Field(alias="from")
    to: _Recipients
    subject: Text = TextTemplate("{rule}: {label} {key}")
    text: Text | None = None
    html: Text | None = None
    values: dict[str, Any] | None = Field(None, min_length=1)

    @field_validator("sender")
    @classmethod
    def _sender(cls, value: str) -> str:
        if "${" not in value:
            _address(value)
        return value

    @field_validator("to")
    @classmethod
    def _fixed_addresses(cls, value: tuple[TextTemplate, ...]) -> tuple[TextTemplate, ...]:
        for template in value:
            if not template.places and "${" not in template.text:
                _address(template.text)
        return value

    @model_validator(mode="after")
    def _known_places(self) -> MailConfig:
        if self.values is not None:
            texts = {"subject": self.subject, "text": self.text, "html": self.html}
            problems = unknown_places({**texts, **{f"to.{index}": each for index, each in enumerate(self.to)}}, self.values)
            if problems:
                raise ValueError("; ".join(problems))
        return self


@dataclass(frozen=True, slots=True)
class Mail:
    """What goes over the wire.

    Attributes:
        sender: the bare address that refusals come back to.
        recipients: bare addresses, each once.
        content: headers and body, ASCII alone.
    """

    sender: str
    recipients: Sequence[str]
    content: bytes


def composed(config: MailConfig, delivery: Delivery) -> Mail:
    """The mail for one delivery.

    Raises:
        InvalidInput: the values make no address of a recipient.
    """
    sender = _address(config.sender)
    try:
        recipients = [_address(template.filled(delivery.payload)) for template in config.to]
    except ValueError as error:
        raise InvalidInput(f"to: {error}") from error
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"] = sender, recipients
    message["Subject"] = " ".join(config.subject.filled(delivery.payload).split())[:_MOST_SUBJECT]
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{delivery.key}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    _fill(message, config, delivery)
    return Mail(sender.addr_spec, list(dict.fromkeys(each.addr_spec for each in recipients)), message.as_bytes())


def _fill(message: EmailMessage, config: MailConfig, delivery: Delivery) -> None:
    """Text alone, HTML alone, or both for the reader to choose."""
    page = config.html.filled(delivery.payload, html.escape) if config.html is not None else None
    if config.text is not None:
        message.set_content(config.text.filled(delivery.payload), cte="base64")
    elif page is None:
        body = msgspec.json.format(msgspec.json.encode(delivery.payload), indent=2).decode()
        message.set_content(body + "\n", cte="base64")
    if page is None:
        return
    if config.text is None:
        message.set_content(page, subtype="html", cte="base64")
    else:
        message.add_alternative(page, subtype="html", cte="base64")


def _address(text: str) -> Address:
    """One address, with or without a name.

    Raises:
        ValueError: it is none, or several, or not ASCII.
    """
    match = _ADDRESS.fullmatch(text.strip(" "))
    if match is None or len(match["user"]) > 64 or len(match["domain"]) > 253:
        raise ValueError(f"{text!r} is no mail address")
    name = match["name"] or ""
    return Address(name.strip().strip('"'), match["user"], match["domain"])
