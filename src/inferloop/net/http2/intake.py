"""What arrives for one call: bytes in, messages out, and how much more the client may send.

    | flag | length, 4 bytes | message | flag | length | ...      not aligned with frames

Only unread bytes are kept, in one piece, and the client has credit for a window's worth, or for the message that has begun to
arrive. So a call holds at most a window, or one message within the limit.
"""

from __future__ import annotations

from inferloop.core.errors import InferloopError, TooLarge

PREFIX = 5


class Broken(InferloopError):
    """What arrived are no whole gRPC messages; INTERNAL."""


class Intake:
    """The receiving half of a call.

    Attributes:
        window: what the client may still send; negative is its mistake.
        ended: whether it has finished sending.
    """

    __slots__ = ("_bytes", "_message_bytes", "_next", "_window_bytes", "ended", "window")

    def __init__(self, window_bytes: int, message_bytes: int) -> None:
        self._bytes = bytearray()
        self._window_bytes = window_bytes
        self._message_bytes = message_bytes
        self._next = 0
        self.window = window_bytes
        self.ended = False

    @property
    def unread_bytes(self) -> int:
        """What is kept."""
        return len(self._bytes)

    def add(self, data: bytes) -> None:
        """Take what arrived; the window has been charged.

        Raises:
            TooLarge: the message that begins is above the limit.
            Broken: its flag is neither 0 nor 1.
        """
        self._bytes += data
        if not self._next:
            self._look()

    def take(self) -> tuple[bool, bytes] | None:
        """The next message, and whether it is compressed; None if none is complete.

        Raises:
            TooLarge, Broken: see `add`; or the client finished within a message.
        """
        size = self._next
        if not size or len(self._bytes) < size:
            if self.ended and self._bytes:
                raise Broken(f"the message ends after {len(self._bytes)} bytes")
            return None
        compressed = self._bytes[0] == 1
        with memoryview(self._bytes) as view:
            message = bytes(view[PREFIX:size])
        del self._bytes[:size]
        self._next = 0
        self._look()
        return compressed, message

    def credit(self) -> int:
        """Bytes to grant the client now; counted as granted. 0 while it has enough, or while messages wait to be read."""
        if self.ended:
            return 0
        room = max(self._window_bytes, self._next) - len(self._bytes)
        target = min(self._window_bytes, room)
        grant = target - self.window
        if grant <= 0 or (grant < self._window_bytes // 2 and self.window > 0):
            return 0
        self.window += grant
        return grant

    def clear(self) -> None:
        """Forget what was not read."""
        self._bytes = bytearray()
        self._next = 0

    def _look(self) -> None:
        """Read the prefix of the message at the front, if it is there."""
        if len(self._bytes) < PREFIX:
            return
        if self._bytes[0] > 1:
            raise Broken(f"the flag of a message is {self._bytes[0]}")
        size = int.from_bytes(self._bytes[1:PREFIX], "big")
        if size > self._message_bytes:
            hint = "send it in smaller messages, or raise the limit of the server"
            raise TooLarge(f"the message is {size} bytes, the limit is {self._message_bytes}", hint=hint)
        self._next = PREFIX + size
