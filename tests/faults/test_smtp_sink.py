"""Mails that are put off, refused, interrupted or begun with a wrong password: each comes or is told, and to whom it did not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery
from inferloop.streams.contexts import SinkContext
from inferloop.streams.mailing import MailConfig, composed
from inferloop.streams.sinks.smtp import SmtpSink
from support.stream_worlds.smtp import Mailbox, mailbox

KEY = "0123456789abcdef" * 4
PLAIN = {"starttls": False, "from": "Öps <ops@example.com>", "to": "you@example.com"}


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as box:
        yield box


def sink(url: str, **options: Any) -> SmtpSink:
    return SmtpSink(SmtpSink.Config(**{"url": url, **PLAIN, **options}), SinkContext("p", "mail"))


def delivery(**payload: Any) -> Delivery:
    return Delivery(KEY, payload, "m1")


async def given_to(there: SmtpSink, *deliveries: Delivery) -> None:
    await there.open()
    try:
        for each in deliveries:
            await there.send([each])
    finally:
        await there.close()


async def test_places_are_filled_in_subject_bodies_and_recipients(box: Mailbox) -> None:
    texts = {"subject": "{rule}: {fields.machine} {score}", "text": ".\n{name} ä\n..{none}", "html": "<b>{name}</b> {color: red}"}
    mail = sink(box.url, to=["You <you@example.com>", "{owner}", "you@example.com"], **texts)
    payload = {"rule": "worn\r\nBcc: x@y.z", "fields": {"machine": 7}, "score": 0.5, "name": "<A&B>", "owner": "o@example.org"}
    await given_to(mail, delivery(**payload, none=None))
    ((recipients, message),) = box.seen
    assert recipients == ["you@example.com", "o@example.org"], "each once"
    assert message["Subject"] == "worn Bcc: x@y.z: 7 0.5"
    assert message["Bcc"] is None
    assert message["From"] == "Öps <ops@example.com>"
    assert message["Message-ID"] == f"<{KEY}@example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_body(("plain",)).get_content().splitlines() == [".", "<A&B> ä", ".."]
    assert message.get_body(("html",)).get_content().splitlines() == ["<b>&lt;A&amp;B&gt;</b> {color: red}"]


@pytest.mark.parametrize(
    "owner", ["", None, "a@b.c, d@e.f", "a@b.c\nTo: d@e.f", "nobody", "ä@b.c", "@", "a@", [1], "group: a@b.c;"]
)
async def test_a_value_that_is_no_address_is_refused_and_nobody_gets_the_mail(box: Mailbox, owner: Any) -> None:
    mail = sink(box.url, to=["you@example.com", "{owner}"])
    with pytest.raises(InvalidInput, match="is no mail address"):
        await given_to(mail, delivery(owner=owner))
    assert box.seen == []


@pytest.mark.parametrize("place", ["", "you@example.com"])
async def test_what_is_put_off_is_tried_again_and_what_is_refused_is_not(box: Mailbox, place: str) -> None:
    mail = sink(box.url)
    await mail.open()
    for answer, error in (
        ("451 busy", Unavailable),
        ("421 closing", Unavailable),
        ("530 log in", Unavailable),
        ("550 no", InvalidInput),
    ):
        box.answers[place] = answer
        with pytest.raises(error, match=answer):
            await mail.send([delivery(a=1)])
    box.answers.clear()
    await mail.send([delivery(a=1)])
    await mail.close()
    assert box.message_ids() == [f"<{KEY}@example.com>"]


async def test_one_recipient_that_is_put_off_holds_up_the_mail_and_one_that_is_refused_does_not(box: Mailbox) -> None:
    mail = sink(box.url, to=["a@example.com", "b@example.com", "c@example.com"])
    await mail.open()
    box.answers = {"b@example.com": "450 later", "c@example.com": "550 unknown"}
    with pytest.raises(Unavailable, match=r"b@example\.com: 450 later"):
        await mail.send([delivery(a=1)])
    assert box.seen == []
    box.answers = {"b@example.com": "550 unknown"}
    with pytest.raises(InvalidInput, match=r"not delivered to b@example\.com: 550 unknown; the other recipients have it"):
        await mail.send([delivery(a=1)])
    assert [recipients for recipients, _ in box.seen] == [["a@example.com", "c@example.com"]]
    box.answers = dict.fromkeys(("a@example.com", "b@example.com", "c@example.com"), "550 unknown")
    with pytest.raises(InvalidInput, match=r"a@example\.com: 550 unknown; b@example\.com"):
        await mail.send([delivery(a=1)])
    await mail.close()
    assert len(box.seen) == 1


async def test_a_server_that_went_away_between_two_mails_is_found_again(box: Mailbox) -> None:
    mail = sink(box.url)
    await mail.open()
    await mail.send([delivery(a=1)])
    box.stop()
    with pytest.raises(Unavailable):
        await mail.send([delivery(a=2)])
    with pytest.raises(Unavailable):
        await mail.send([delivery(a=2)])
    box.start()
    await mail.send([delivery(a=2)])
    await mail.close()
    assert [json.loads(message.get_content())["a"] for _, message in box.seen] == [1, 2]


@contextlib.asynccontextmanager
async def talking(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that says what a test tells it to; gives its address."""
    talks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.append(task)
        writer.write(b"220 here\r\n")
        with contextlib.suppress(ConnectionError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*talks)


async def test_a_server_that_breaks_off_after_a_mail_gets_it_again_with_the_same_identity() -> None:
    """The answer to the mail is lost: whether the server has it, nobody knows."""
    bodies: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).upper():
            if line.startswith(b"DATA"):
                writer.write(b"354 go on\r\n")
                bodies.append(await reader.readuntil(b"\r\n.\r\n"))
                if len(bodies) == 1:
                    writer.transport.abort()
                    return
            writer.write(b"250 OK\r\n")

    async with talking(talk) as url:
        mail = sink(url)
        await mail.open()
        with pytest.raises(Unavailable):
            await mail.send([delivery(a=1)])
        await mail.send([delivery(a=1)])
        await mail.close()
    assert len(bodies) == 2
    assert all(f"<{KEY}@example.com>".encode() in body for body in bodies)


async def test_a_server_that_never_answers_holds_nobody_up_at_the_end() -> None:
    stuck = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).upper():
            if line.startswith(b"MAIL"):
                stuck.set()
                await reader.read()
                return
            writer.write(b"250 OK\r\n")

    async with asyncio.timeout(20), talking(talk) as url:
        mail = sink(url, timeout="10m")
        await mail.open()
        sending = asyncio.create_task(mail.send([delivery(a=1)]))
        await stuck.wait()
        await mail.close()
        with pytest.raises(Unavailable):
            await sending


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """Of a server whose authority is in `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_over_tls_only_a_server_that_is_trusted_gets_password_and_mail(
    scheme: str, tls: ssl.SSLContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    who = {"user": "me", "password": "geheim", "starttls": True}
    with mailbox(tls=tls) if scheme == "smtps" else mailbox(starttls=tls) as box:
        url = box.url.replace("smtp:", f"{scheme}:")
        await _told_while_opening(sink(url, **who), caplog, "certificate")
        assert box.logins == []
        await given_to(sink(url, ca=tmp_path / "ca.pem", **who), delivery(a=1))
        assert box.logins[0].endswith("me")
        assert len(box.seen) == 1


async def test_a_server_without_starttls_gets_neither_password_nor_mail(box: Mailbox, caplog: pytest.LogCaptureFixture) -> None:
    await _told_while_opening(sink(box.url, starttls=True, user="me", password="geheim"), caplog, "see `starttls`")
    assert (box.logins, box.seen) == ([], [])
    assert "geheim" not in str([record.__dict__ for record in caplog.records])


async def test_a_wrong_password_is_told_and_tried_again_without_saying_it(box: Mailbox, caplog: pytest.LogCaptureFixture) -> None:
    mail = sink(box.url, user="me", password="falsch")
    await _told_while_opening(mail, caplog, "535")
    told = str([record.__dict__ for record in caplog.records])
    assert "falsch" not in told + repr(mail._config)


async def _told_while_opening(mail: SmtpSink, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    """It never opens, and says why."""
    opening = asyncio.create_task(mail.open())
    async with asyncio.timeout(60):
        while not any(reason in str(record.__dict__) for record in caplog.records):
            assert not opening.done()
            await asyncio.sleep(0.02)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await mail.close()


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text() | st.integers() | st.floats() | st.none() | st.lists(st.text()))
)
def test_whatever_the_values_hold_a_mail_has_these_headers_and_no_others(payload: dict[str, Any]) -> None:
    config = MailConfig(**{"from": "a@b.c", "to": "d@e.f", "subject": "{a} {b}", "text": "{c}"})
    content = composed(config, delivery(**payload)).content
    head = content.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    assert sorted(names) == sorted(
        [
            b"From",
            b"To",
            b"Subject",
            b"Date",
            b"Message-ID",
            b"Auto-Submitted",
            b"MIME-Version",
            b"Content-Type",
            b"Content-Transfer-Encoding",
        ]
    )
    assert content.isascii()
