"""What bytes look like, for messages that say what came instead of what was asked for."""

from __future__ import annotations

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"P5\n", "a PGM image"),
    (b"P6\n", "a PPM image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"OggS", "an Ogg recording"),
    (b"fLaC", "a FLAC recording"),
    (b"ID3", "an MP3 recording"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "a SQLite database"),
)

_CONTROL = frozenset(range(32)) - frozenset(b"\t\r\n\f\x1b")


def describe(body: bytes) -> str:
    """What `body` is, as far as its first bytes tell, and its size: `a PDF document, 1,204 bytes`."""
    if not body:
        return "empty, 0 bytes"
    return f"{_kind(body[:512])}, {len(body):,} byte{'s' if len(body) != 1 else ''}"


def is_image(body: bytes) -> bool:
    """Whether the first bytes are those of an image format that we read."""
    return describe(body[:512]).split(",")[0].endswith(" image")


def is_wav(body: bytes) -> bool:
    """Whether the first bytes are those of a WAV recording."""
    return body[:4] == b"RIFF" and body[8:12] == b"WAVE"


def _kind(head: bytes) -> str:
    if head[:4] == b"RIFF":
        return {b"WAVE": "a WAV recording", b"WEBP": "a WebP image"}.get(head[8:12], "RIFF data")
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or len(head) < 512:  # else a character was cut where the head ends
            return _foreign_kind(head)
        text = head[: error.start].decode("utf-8")
    if _CONTROL.intersection(head):
        return _foreign_kind(head)
    return _text_kind(text.lstrip("\ufeff \t\r\n").lower())


def _foreign_kind(head: bytes) -> str:
    if not _CONTROL.intersection(head) and sum(byte > 127 for byte in head) < len(head) / 3:
        return "text in another encoding than UTF-8"
    return f"binary data that starts with {head[:4].hex(' ')}"


def _text_kind(start: str) -> str:
    if start.startswith(("<!doctype html", "<html")):
        return "HTML text"
    if start.startswith("<"):
        return "XML text"
    if start.startswith(("{", "[")):
        return "JSON text"
    return "text"
