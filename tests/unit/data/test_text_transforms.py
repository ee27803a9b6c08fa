import collections
import itertools
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidBundle
from inferloop.data.transforms.text import NgramOptions, Tokenize, load_tokenizer, ngram_counts, pad, tokenize

OPTIONS = NgramOptions(buckets=4096, pad_multiple=16)


def grams_as_scikit_learn_cuts_them(text: str) -> tuple[list[str], list[str]]:
    """`CountVectorizer(ngram_range=(1, 2))` and `CountVectorizer(analyzer="char_wb", ngram_range=(2, 5))`, written plainly."""
    words = re.findall(r"\b\w\w+\b", text.lower())
    pairs = [f"{first} {second}" for first, second in itertools.pairwise(words)]
    chars = []
    for word in text.lower().split():
        padded = f" {word} "
        for size in range(2, 6):
            if size > len(padded):
                break
            chars += [padded[start : start + size] for start in range(len(padded) - size + 1)]
            if size == len(padded):
                break
    return words + pairs, chars


@pytest.mark.parametrize(
    "text", ["I am dissatisfied, give me my money back!!", "", "Ärger  mit\tSÄTZEN :-(", "x" * 60, "no no no"]
)
def test_ngrams_are_hashed_by_crc32_words_below_characters(text):
    words, chars = grams_as_scikit_learn_cuts_them(text)
    half = OPTIONS.buckets // 2
    expected = collections.Counter(1 + zlib.crc32(gram.encode()) % (half - 1) for gram in words)
    expected.update(half + zlib.crc32(gram.encode()) % half for gram in chars)
    found = ngram_counts(text, OPTIONS)
    assert dict(zip(found.ids.tolist(), found.counts.tolist(), strict=True)) == expected


@given(st.text(max_size=200))
@example("\ud800 lone")
@example("İ ß")
def test_ids_are_ascending_distinct_and_within_range(text):
    ids, counts = ngram_counts(text, OPTIONS)
    assert ids.dtype == np.int64
    assert counts.dtype == np.float32
    assert np.all(np.diff(ids) > 0)
    assert not len(ids) or (ids[0] >= 1 and ids[-1] < OPTIONS.buckets)
    assert np.all(counts >= 1)


@given(st.text(max_size=200), st.integers(1, 100))
def test_padding_never_changes_counts(text, multiple):
    options = NgramOptions(buckets=4096, pad_multiple=multiple)
    ids, counts = options(text)
    plain = ngram_counts(text, OPTIONS)
    assert len(ids) == len(counts)
    assert len(ids) % multiple == 0
    np.testing.assert_array_equal(ids[: len(plain.ids)], plain.ids)
    np.testing.assert_array_equal(counts[: len(plain.ids)], plain.counts)
    assert not ids[len(plain.ids) :].any()
    assert not counts[len(plain.ids) :].any()


@given(st.text(alphabet="abc d", max_size=100), st.integers(1, 30))
def test_a_limit_keeps_the_ngrams_that_occur_first(text, most):
    limited = ngram_counts(text, NgramOptions(buckets=4096, max_ngrams=most))
    plain = ngram_counts(text, OPTIONS)
    every = dict(zip(plain.ids.tolist(), plain.counts.tolist(), strict=True))
    assert len(limited.ids) == min(most, len(every))
    assert all(every[int(key)] == count for key, count in zip(limited.ids, limited.counts, strict=True))


def test_words_and_characters_do_not_share_ids():
    words = ngram_counts("refund please", NgramOptions(buckets=100, char=()))
    both = ngram_counts("refund please", NgramOptions(buckets=100))
    assert len(words.ids) == 3
    assert (both.ids < NgramOptions(buckets=100).first_char_id).sum() == 3


def test_a_text_is_read_to_its_limit_only():
    options = NgramOptions(buckets=4096, max_chars=10)
    np.testing.assert_array_equal(ngram_counts("0123456789" + "x" * 10**6, options).ids, ngram_counts("0123456789", options).ids)


@pytest.mark.parametrize(
    "options", [NgramOptions(word=(), char=()), NgramOptions(word=(2, 1)), NgramOptions(char=(5, 2)), NgramOptions(word=(1,))]
)
def test_options_that_contradict_are_refused(options):
    with pytest.raises(InvalidBundle, match=r"word|char"):
        options.bind(Path)


@given(st.integers(0, 50), st.integers(1, 20), st.integers(1, 60))
def test_rows_are_padded_to_the_next_multiple_but_not_beyond_the_limit(length, multiple, limit):
    row = np.ones(min(length, limit), np.int64)
    padded = pad(row, multiple, limit=limit)
    assert padded.sum() == len(row)
    assert len(padded) == limit or (len(padded) % multiple == 0 and len(padded) - len(row) < max(multiple, 1) + (len(row) == 0))


def tokenizer_file(path: Path) -> bytes:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "give", "me", "money", "back", "##s"]
    content = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: index for index, word in enumerate(words)},
        },
    }
    path.write_text(json.dumps(content))
    return path.read_bytes()


def test_tokens_are_padded_to_a_multiple_with_mask_zero(tmp_path: Path):
    pytest.importorskip("tokenizers", reason="pip install 'inferloop[text]'")
    tokenizer_file(tmp_path / "tokenizer.json")
    run = Tokenize(tokenizer="tokenizer.json", max_length=12, pad_multiple=8).bind(lambda name: tmp_path / name)
    ids, mask, types = run("Give me moneys")
    assert ids.tolist() == [2, 4, 5, 6, 8, 3, 0, 0]
    assert mask.tolist() == [1, 1, 1, 1, 1, 1, 0, 0]
    assert types.tolist() == [0] * 8
    assert len(run("back " * 100)[0]) == 12


def test_training_and_serving_tokens_are_the_same(tmp_path: Path):
    pytest.importorskip("tokenizers", reason="pip install 'inferloop[text]'")
    content = tokenizer_file(tmp_path / "tokenizer.json")
    run = Tokenize(tokenizer="tokenizer.json", max_length=6, pad_multiple=4).bind(lambda name: tmp_path / name)
    texts = ["", "give", "money back " * 9, "\ud800?"]
    for text, ids in zip(texts, tokenize(load_tokenizer(content, max_length=6), texts), strict=True):
        row, mask, _ = run(text)
        assert row[: int(mask.sum())].tolist() == ids.tolist()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]"])
def test_what_is_no_tokenizer_is_an_invalid_bundle(content):
    pytest.importorskip("tokenizers", reason="pip install 'inferloop[text]'")
    with pytest.raises(InvalidBundle, match="no tokenizer file"):
        load_tokenizer(content, max_length=8)
