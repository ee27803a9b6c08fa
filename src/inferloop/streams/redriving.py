"""Dead letters once more: what could not be decided is decided anew, what a sink refused is sent again with its key.

    NAME.jsonl ──rename──> NAME.jsonl.redriving ──> decided, sent ──rename──> NAME.jsonl.redriven-TIME
                                                └─> what fails again is a new dead letter in NAME.jsonl

A run that is killed is simply repeated: it goes on with the `.redriving` file, and the journal knows what is done already.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

from inferloop.core.errors import InferloopError, InvalidConfig, InvalidInput, NotFound
from inferloop.core.home import home
from inferloop.core.protocols import Delivery, Source
from inferloop.core.sample import Message
from inferloop.data.journal import Journal
from inferloop.data.ledger.ledger import Ledger
from inferloop.streams.contexts import SinkContext
from inferloop.streams.guarantee import make_sink
from inferloop.streams.loading import PipelineSpec
from inferloop.streams.ownership import owned
from inferloop.streams.pipeline import Pipeline
from inferloop.streams.scoring import Predicts

log = logging.getLogger(__name__)

_CHUNK = 256
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Letter:
    """One line of a file of dead letters.

    Attributes:
        sink: who refused it; empty for a message that could not be decided.
    """

    line: bytes
    content: Mapping[str, Any]

    @classmethod
    def of(cls, line: bytes, where: str) -> Self:
        """Read one line.

        Raises:
            InvalidInput: it is no dead letter.
        """
        try:
            content = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"{where}: is no JSON: {error}") from error
        known = isinstance(content, dict) and "reason" in content and ("delivery" in content or "source" in content)
        if not known:
            raise InvalidInput(f"{where}: is no dead letter, it has no reason with a delivery or a source")
        return cls(line, content)

    @property
    def sink(self) -> str:
        """The sink that refused it; empty for a message."""
        return str(self.content.get("sink", "")) if "delivery" in self.content else ""

    @property
    def reason(self) -> str:
        """Why it is one."""
        return str(self.content["reason"])

    def message(self) -> Message:
        """The message as it came."""
        content = self.content
        encoded = content.get("payload_base64")
        payload = base64.b64decode(encoded) if encoded is not None else str(content.get("payload", "")).encode()
        return Message(
            payload,
            str(content["source"]),
            float(content.get("received", time.time())),
            topic=str(content.get("topic", "")),
            position=str(content.get("position", "")),
            headers=dict(content.get("headers", {})),
        )


@dataclass(slots=True)
class Redriven:
    """What became of the letters: `delivered` by sink, `decided` anew, `dead` again, `kept` as they were."""

    letters: int = 0
    delivered: dict[str, int] = field(default_factory=dict)
    decided: int = 0
    dead: int = 0
    kept: int = 0


class LetterFile:
    """The file of dead letters of a pipeline.

    Raises:
        InvalidConfig: the dead letters do not go to a file.
        NotFound: there is none.
    """

    def __init__(self, spec: PipelineSpec, path: Path | None = None) -> None:
        self.path = path or _declared(spec)
        self._taken = self.path.with_name(f"{self.path.name}.redriving")
        if not self._taken.exists() and (not self.path.exists() or not self.path.stat().st_size):
            raise NotFound(f"no dead letters: {self.path} is empty or not there")

    def look(self) -> list[Letter]:
        """Every letter, taken or not."""
        return [letter for path in (self._taken, self.path) if path.exists() for letter in _read(path)]

    def take(self) -> list[Letter]:
        """Move the file away and read it; those that an earlier run took and did not finish come alone."""
        if self._taken.exists():
            return _read(self._taken)
        letters = _read(self.path)
        self.path.rename(self._taken)
        return letters

    def done(self, kept: Sequence[Letter]) -> Path:
        """Put back what is kept, and rename what was taken. Returns its new name."""
        if kept:
            with self.path.open("ab") as file:
                file.writelines(letter.line + b"\n" for letter in kept)
                file.flush()
                os.fsync(file.fileno())
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        archive = self.path.with_name(f"{self.path.name}.redriven-{stamp}-{time.time_ns() % 1_000_000_000:09d}")
        self._taken.rename(archive)
        return archive


async def redrive(
    pipeline: Pipeline, file: LetterFile, *, router: Predicts, journal: Journal, ledger: Ledger | None = None, reason: str = ""
) -> Redriven:
    """Decide and send the letters whose reason contains `reason`.

    Args:
        pipeline: as it is now, mended.
        file: is moved away meanwhile, and renamed in the end.
        router: has the model of the pipeline open.
        journal: knows what was decided and delivered already.
        ledger: gets a copy of every decision.
        reason: empty for all.

    Raises:
        Conflict: the pipeline is running.
        InvalidInput: a line of the file is no dead letter.
    """
    with owned(journal.path, pipeline.name):
        letters = file.take()
    chosen = [letter for letter in letters if reason in letter.reason]
    kept = [letter for letter in letters if reason not in letter.reason]
    result = Redriven(len(chosen))
    kept += await _send_again(pipeline.spec, [letter for letter in chosen if letter.sink], result, journal)
    kept += await _decide_again(pipeline, [letter for letter in chosen if not letter.sink], result, router, journal, ledger)
    result.kept = len(kept)
    file.done(kept)
    return result


async def _send_again(spec: PipelineSpec, letters: Sequence[Letter], result: Redriven, journal: Journal) -> list[Letter]:
    """Send refused deliveries with their keys; returns those that are still not taken."""
    left = []
    parts = {part.name: part for part in spec.sinks}
    for name in dict.fromkeys(letter.sink for letter in letters):
        mine = [letter for letter in letters if letter.sink == name]
        if name not in parts:
            log.warning("the pipeline has no such sink any more", extra={"sink": name, "letters": len(mine)})
            left += mine
            continue
        sink = make_sink(parts[name], SinkContext(spec.name, name, journal))
        await sink.open()
        try:
            for letter in mine:
                if await _sent(sink.send, letter):
                    result.delivered[name] = result.delivered.get(name, 0) + 1
                else:
                    left.append(letter)
        finally:
            await sink.close()
    return left


async def _sent(send: Any, letter: Letter) -> bool:
    content = letter.content
    delivery = Delivery(str(content["key"]), dict(content["delivery"]), str(content["id"]))
    for attempt in range(_TRIES):
        try:
            await send([delivery])
            return True
        except InvalidInput as error:
            log.warning("refused again", extra={"sink": letter.sink, "reason": error.message, "message_id": content["id"]})
            return False
        except InferloopError as error:
            log.warning("sink is not there", extra={"sink": letter.sink, "reason": error.message})
            await asyncio.sleep(0.1 * 4**attempt)
    return False


async def _decide_again(
    pipeline: Pipeline, letters: Sequence[Letter], result: Redriven, router: Predicts, journal: Journal, ledger: Ledger | None
) -> list[Letter]:
    """Run the pipeline over messages that could not be decided; returns those whose source is not in the file any more."""
    sources = [part.name for part in pipeline.spec.sources]
    known = [letter for letter in letters if letter.content["source"] in sources]
    if known:
        ids = [str(letter.content["id"]) for letter in known]
        await asyncio.to_thread(journal.reopen, pipeline.name, ids)
        given = {name: _Letters([letter.message() for letter in known if letter.content["source"] == name]) for name in sources}
        summary = await pipeline.run(router=router, journal=journal, ledger=ledger, sources=given)
        result.decided, result.dead = summary.decisions + summary.redelivered, summary.dead_letters
    return [letter for letter in letters if letter.content["source"] not in sources]


class _Letters(Source):
    """Messages of one source, as they came once; ends with the last."""

    durable = True
    replayable = False
    ordered = True

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)

    async def open(self) -> None:
        """See `Source.open`."""

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        chunk, self._messages = self._messages[:_CHUNK], self._messages[_CHUNK:]
        return chunk

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`; the file stays until all are done."""

    async def close(self) -> None:
        """See `Source.close`."""


def _declared(spec: PipelineSpec) -> Path:
    if spec.dead_letter is None:
        return home() / "dead-letters" / f"{spec.name}.jsonl"
    if spec.dead_letter.plugin != "file":
        raise InvalidConfig(
            [f"{spec.path}: dead_letter: goes to {spec.dead_letter.plugin}, a redrive reads a file"],
            hint="export them as JSON lines and give the file with --from",
        )
    path: Path = spec.dead_letter.config.path
    return path


def _read(path: Path) -> list[Letter]:
    lines = path.read_bytes().split(b"\n")
    return [Letter.of(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
