"""Text to tensors: hashed n-gram counts and tokens. Training calls the same functions as serving."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidBundle
from inferloop.core.plugins import missing_package
from inferloop.data.transforms.operation import Assets, Operation

Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
Length = Annotated[int, msgspec.Meta(ge=1, le=64)]

_WORD = re.compile(r"\b\w\w+\b")
_CACHED_WORDS = 32_768
_CACHED_LENGTH = 32


class Ngrams(NamedTuple):
    """The n-grams of one text.

    Attributes:
        ids: int64 [K], ascending, each once, in 1..buckets-1.
        counts: float32 [K], how often each occurs.
    """

    ids: Array
    counts: Array


class NgramOptions(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Counts of hashed word and character n-grams; the operation `ngrams` and the options of `ngram_counts`.

    Word n-grams are those of `TfidfVectorizer()`, character n-grams those of `TfidfVectorizer(analyzer="char_wb")`: within
    words, each padded by one space. Ids are CRC-32 of the UTF-8 text; 0 is padding. With both kinds, words have the ids
    1..buckets/2-1 and characters buckets/2..buckets-1; with one kind, it has all.

    Attributes:
        word: shortest and longest word n-gram; empty for none.
        char: shortest and longest character n-gram; empty for none.
        buckets: number of ids, padding included.
        max_ngrams: distinct n-grams that are kept, those that occur first.
        pad_multiple: the row's length is padded to a multiple, whatever its neighbors are.
        max_chars: characters of a text that are read.
    """

    takes: ClassVar[tuple[str, ...]] = ("text",)
    gives: ClassVar[str] = "tensors"

    word: tuple[Length, ...] = (1, 2)
    char: tuple[Length, ...] = (2, 5)
    buckets: Annotated[int, msgspec.Meta(ge=8, le=1 << 28)] = 1 << 18
    lowercase: bool = True
    max_ngrams: Count = 2048
    pad_multiple: Count = 64
    max_chars: Count = 10_000

    @property
    def first_char_id(self) -> int:
        """The first id of character n-grams; ids below are words."""
        if not self.word:
            return 1
        return self.buckets // 2 if self.char else self.buckets

    def bind(self, assets: Assets) -> Callable[[Any], Any]:
        """See `Operation.bind`."""
        del assets
        for name, span in (("word", self.word), ("char", self.char)):
            if span and (len(span) != 2 or span[0] > span[1]):
                raise InvalidBundle(f"{name} is {list(span)}, it must be the shortest and the longest, or empty")
        if not self.word and not self.char:
            raise InvalidBundle("word and char are both empty")
        return self

    def __call__(self, value: str) -> tuple[Array, Array]:
        """See `Operation.__call__`."""
        ids, counts = ngram_counts(value, self)
        return pad(ids, self.pad_multiple), pad(counts, self.pad_multiple)


def ngram_counts(text: str, options: NgramOptions) -> Ngrams:
    """The n-grams of one text, not padded; the same text and options give the same arrays on every machine."""
    text = text[: options.max_chars]
    if options.lowercase:
        text = text.lower()
    parts: list[Array] = []
    if options.word:
        words = np.array(_word_ids(text, options), dtype=np.int64)
        parts.append(words)
    if options.char:
        span, first, size = options.char, options.first_char_id, options.buckets - options.first_char_id
        for word in text.split():
            ids = _cached_char_ids if len(word) <= _CACHED_LENGTH else _char_ids
            parts.append(ids(word, span[0], span[-1], first, size))
    return _counted(np.concatenate(parts) if parts else np.empty(0, np.int64), options.max_ngrams)


def pad(row: Array, multiple: int, *, limit: int | None = None) -> Array:
    """Pad a row with zeros to the next multiple (at least one), never beyond `limit`."""
    length = max(multiple, -(-len(row) // multiple) * multiple)
    if limit is not None:
        length = min(length, limit)
    padded = np.zeros(length, row.dtype)
    padded[: len(row)] = row
    return padded


class Tokenize(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Tokens of a `tokenizers` JSON file: ids and mask, and type ids where a third tensor is named.

    Attributes:
        tokenizer: the file in the Bundle, e.g. `assets/tokenizer.json`.
        max_length: tokens that are kept, special ones included.
        pad_multiple: rows are padded to a multiple, at most to `max_length`.
    """

    takes: ClassVar[tuple[str, ...]] = ("text",)
    gives: ClassVar[str] = "tensors"
    library: ClassVar[str] = "tokenizers"

    tokenizer: str
    max_length: Count = 128
    pad_multiple: Count = 16
    pad_id: Annotated[int, msgspec.Meta(ge=0)] = 0

    def bind(self, assets: Assets) -> Callable[[Any], Any]:
        """See `Operation.bind`."""
        tokenizer = load_tokenizer(assets(self.tokenizer).read_bytes(), max_length=self.max_length)

        def tokenize_one(value: str) -> tuple[Array, ...]:
            return self._row(tokenizer.encode(well_formed(value)))

        return tokenize_one

    def _row(self, encoding: Any) -> tuple[Array, ...]:
        ids = np.array(encoding.ids, np.int64)
        padded = pad(ids, self.pad_multiple, limit=self.max_length)
        padded[len(ids) :] = self.pad_id
        mask = pad(np.array(encoding.attention_mask, np.int64), self.pad_multiple, limit=self.max_length)
        types = pad(np.array(encoding.type_ids, np.int64), self.pad_multiple, limit=self.max_length)
        return padded, mask, types


def load_tokenizer(content: bytes, *, max_length: int) -> Any:
    """A `tokenizers.Tokenizer` that truncates at `max_length` and never pads by itself.

    Raises:
        InvalidBundle: not a tokenizer file.
        MissingDependency: the package `tokenizers` is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise missing_package("tokenizers", "text", "the operation 'tokenize'") from error
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as error:  # the package raises nothing narrower
        raise InvalidBundle(f"no tokenizer file ({len(content)} bytes): {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[Array]:
    """The token ids of many texts at once, int64, not padded; the same ids as the operation `tokenize` yields.

    Args:
        tokenizer: from `load_tokenizer`.
        texts: any number of them.
    """
    return [np.array(encoding.ids, np.int64) for encoding in tokenizer.encode_batch([well_formed(text) for text in texts])]


def well_formed(text: str) -> str:
    """The text with lone surrogates, which JSON may carry and UTF-8 cannot, replaced by `?`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _word_ids(text: str, options: NgramOptions) -> list[int]:
    words = _WORD.findall(text)
    size = options.first_char_id - 1 if options.char else options.buckets - 1
    crc32 = zlib.crc32
    ids: list[int] = []
    for length in range(options.word[0], options.word[-1] + 1):
        if length == 1:
            grams: Sequence[str] = words
        else:
            grams = [" ".join(part) for part in zip(*(words[start:] for start in range(length)), strict=False)]
        ids.extend([1 + crc32(gram.encode("utf-8", "replace")) % size for gram in grams])
    return ids


def _char_ids(word: str, shortest: int, longest: int, first: int, size: int) -> Array:
    """The ids of one word's character n-grams; a word shorter than n counts once as a whole."""
    padded = f" {word} "
    crc32 = zlib.crc32
    ids: list[int] = []
    for length in range(shortest, longest + 1):
        last = max(len(padded) - length, 0)
        grams = [padded[start : start + length] for start in range(last + 1)]
        ids.extend([first + crc32(gram.encode("utf-8", "replace")) % size for gram in grams])
        if last == 0:
            break
    return np.array(ids, dtype=np.int64)


_cached_char_ids = lru_cache(maxsize=_CACHED_WORDS)(_char_ids)


def _counted(ids: Array, most: int) -> Ngrams:
    distinct, counts = np.unique(ids, return_counts=True)
    if len(distinct) > most:
        _, first = np.unique(ids, return_index=True)
        kept = np.sort(np.argsort(first, kind="stable")[:most])
        distinct, counts = distinct[kept], counts[kept]
    return Ngrams(distinct, counts.astype(np.float32))
