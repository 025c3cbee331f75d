"""BERT's tokenizer gives what Hugging Face's gives, on a real vocabulary and on text of all kinds."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minilm.data import corpora
from minilm.text import BertTokenizer
from minilm.text.bert_files import BertSettings

LINES = 10_000

# Ranges of code points: scripts with and without case, accents, marks that combine, ideographs (some beyond U+FFFF),
# emoji with joiners and variation selectors, blanks of all kinds, control and format characters, private use.
RANGES = [
    (0x20, 0x7F), (0xA0, 0x180), (0x180, 0x250), (0x250, 0x370), (0x370, 0x400), (0x400, 0x530), (0x530, 0x590),
    (0x590, 0x600), (0x600, 0x700), (0x900, 0x980), (0xB80, 0xC00), (0xE00, 0xE80), (0x10A0, 0x1100), (0x1100, 0x1200),
    (0x1E00, 0x2000), (0x2000, 0x2070), (0x20A0, 0x20D0), (0x2100, 0x2200), (0x2600, 0x2700), (0x3000, 0x3100),
    (0x3400, 0x3420), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xE000, 0xE020), (0xF900, 0xFAFF), (0xFE00, 0xFE10),
    (0xFF00, 0xFFEF), (0x1D400, 0x1D800), (0x1F300, 0x1F650), (0x20000, 0x20050), (0x300, 0x370), (0x0, 0x20),
    (0x7F, 0xA0), (0x200B, 0x2010), (0xFFF0, 0x10000),
]  # fmt: skip
EXTRA = ["[MASK]", "[SEP]", " [CLS] ", "##ing", "don't", "İstanbul", "ΣΊΣΥΦΟΣ", "ſtraße", "e\u0301", "ﬁ",
         "👩‍👩‍👧", "🇪🇸",
         "x" * 101, "x" * 100, "\ufeff", "\u2028", "\x00", "\ufffd", "…", "ǅ",
         "한국어", "が", "か\u3099", "ไทย"]  # fmt: skip


def mixed_lines(count: int, seed: int = 20) -> list[str]:
    """Lines that mix Shakespeare's words with characters of one, two or three of the ranges."""
    draw = random.Random(seed)
    words = corpora.shakespeare()[1_000_000:1_200_000].split()
    lines = []
    for _ in range(count):
        ranges = draw.sample(RANGES, draw.randint(1, 3))
        parts = []
        for _ in range(draw.randint(0, 14)):
            kind = draw.random()
            if kind < 0.4:
                parts.append(draw.choice(words))
            elif kind < 0.5:
                parts.append(draw.choice(EXTRA))
            else:
                span = draw.choice(ranges)
                parts.append("".join(chr(draw.randrange(*span)) for _ in range(draw.randint(1, 8))))
        lines.append(draw.choice(["", " ", "\t"]).join(parts) if draw.random() < 0.3 else " ".join(parts))
    return lines


@pytest.fixture(scope="module")
def theirs(transformers: ModuleType, real_bert: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(real_bert)


@pytest.fixture(scope="module")
def ours(real_bert: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(real_bert)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return mixed_lines(LINES)


def assert_same_encoding(ours: Any, theirs: Any) -> None:
    assert list(ours) == list(theirs)
    for key in theirs:
        assert ours[key] == theirs[key], key


def test_ten_thousand_lines_of_mixed_unicode(ours: BertTokenizer, theirs: Any, lines: list[str]) -> None:
    options = {"truncation": True, "padding": True, "return_offsets_mapping": True, "return_special_tokens_mask": True}
    expected = theirs(lines, **options)
    assert_same_encoding(ours(lines, **options), expected)
    unknown = sum(row.count(ours.unk_token_id) for row in expected["input_ids"])
    known = sum(map(sum, expected["attention_mask"])) - unknown
    assert min(unknown, known) > 10_000  # the lines try both what the vocabulary has and what it lacks
    ids = expected["input_ids"][:2000]
    assert ours.batch_decode(ids) == theirs.batch_decode(ids)
    skipped = ours.batch_decode(ids, skip_special_tokens=True)
    assert skipped == theirs.batch_decode(ids, skip_special_tokens=True)


def test_shakespeare_whole(ours: BertTokenizer, theirs: Any) -> None:
    text = corpora.shakespeare()[:400_000]
    expected = theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.encode_array(text).tolist() == expected
    assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_length": 12},
        {"padding": True},
        {"padding": "max_length", "truncation": True},
        {"padding": "max_length", "max_length": 20, "truncation": "longest_first"},
        {"padding": "longest", "max_length": 16, "truncation": True, "pad_to_multiple_of": 8},
        {"max_length": 13, "truncation": True, "stride": 3, "return_overflowing_tokens": True},
        {"max_length": 40, "truncation": "only_first", "stride": 5, "return_overflowing_tokens": True, "padding": True},
        {"return_token_type_ids": False, "return_attention_mask": False, "return_length": True},
        {"add_special_tokens": False, "padding_side": "left", "padding": True},
    ],
)
@pytest.mark.parametrize("paired", [False, True])
def test_options(ours: BertTokenizer, theirs: Any, lines: list[str], options: dict[str, Any], paired: bool) -> None:
    firsts, seconds = lines[:400], lines[400:800]
    if options.get("truncation") == "only_first":  # the second text must leave room
        seconds = [ours.decode(row, skip_special_tokens=True)[:8] for row in ours(seconds).input_ids]
    pair = (seconds,) if paired else ()
    options = {"return_offsets_mapping": True, **options}
    expected, got = theirs(firsts, *pair, **options), ours(firsts, *pair, **options)
    assert_same_encoding(got, expected)
    for i in range(0, len(expected["input_ids"]), 7):
        assert got.word_ids(i) == expected.word_ids(i)
        assert got.sequence_ids(i) == expected.sequence_ids(i)
        assert got.tokens(i) == expected.tokens(i)
    for i in range(20):  # one text alone
        pair = (seconds[i],) if paired else ()
        assert_same_encoding(ours(firsts[i], *pair, **options), theirs(firsts[i], *pair, **options))


def test_windows_of_a_long_second_text(ours: BertTokenizer, theirs: Any, lines: list[str]) -> None:
    questions = [line[:10] for line in lines[:30]]
    contexts = [" ".join(lines[i * 20 : i * 20 + 20]) for i in range(30)]
    options: dict[str, Any] = {
        "truncation": "only_second", "max_length": 64, "stride": 16, "padding": "max_length",
        "return_overflowing_tokens": True, "return_offsets_mapping": True,
    }  # fmt: skip
    expected, got = theirs(questions, contexts, **options), ours(questions, contexts, **options)
    assert_same_encoding(got, expected)
    assert len(got.input_ids) > 100
    for i in range(0, 400, 13):
        assert got.char_to_token(0, i, 1) == expected.char_to_token(0, i, sequence_index=1)
    as_arrays = ours(questions, contexts, **options, return_tensors="np")
    assert as_arrays.offset_mapping.tolist() == [[list(o) for o in row] for row in expected["offset_mapping"]]


def test_words_given(ours: BertTokenizer, theirs: Any, lines: list[str]) -> None:
    words = [line.split() for line in lines[:500]]
    options: dict[str, Any] = {"is_split_into_words": True, "truncation": True, "max_length": 24, "padding": True}
    expected, got = theirs(words, **options), ours(words, **options)
    assert_same_encoding(got, expected)
    assert [got.word_ids(i) for i in range(500)] == [expected.word_ids(i) for i in range(500)]
    pairs = theirs(words[:250], words[250:], is_split_into_words=True)
    assert_same_encoding(ours(words[:250], words[250:], is_split_into_words=True), pairs)
    assert_same_encoding(ours(words[3], is_split_into_words=True), theirs(words[3], is_split_into_words=True))


def test_tokens_and_names(ours: BertTokenizer, theirs: Any, lines: list[str]) -> None:
    assert len(ours) == len(theirs)
    assert ours.model_max_length == theirs.model_max_length
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert sorted(ours.all_special_ids) == sorted(theirs.all_special_ids)
    for role in ("unk", "sep", "pad", "cls", "mask"):
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
        assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token")
    assert ours.get_vocab() == theirs.get_vocab()
    for pair in (False, True):
        assert ours.num_special_tokens_to_add(pair) == theirs.num_special_tokens_to_add(pair)
    for line in lines[:200]:
        tokens = theirs.tokenize(line)
        assert ours.tokenize(line) == tokens
        assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
        assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)
    ids = list(range(0, 30_000, 97))
    assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
    assert ours.convert_ids_to_tokens([101, 7], True) == theirs.convert_ids_to_tokens([101, 7], True)
    assert ours.convert_tokens_to_ids(["a", "no such"]) == theirs.convert_tokens_to_ids(["a", "no such"])


@pytest.mark.parametrize(
    "settings",
    [
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
    ],
)
def test_they_read_what_is_saved(
    transformers: ModuleType, ours: BertTokenizer, lines: list[str], tmp_path: Path, settings: dict[str, Any]
) -> None:
    mine = BertTokenizer(ours.get_vocab(), BertSettings(**settings, model_max_length=77))
    mine.save_pretrained(tmp_path)
    options = {"truncation": True, "padding": True, "return_offsets_mapping": True}
    read = [transformers.AutoTokenizer.from_pretrained(tmp_path)]
    (tmp_path / "tokenizer.json").unlink()  # and from vocab.txt
    read.append(transformers.AutoTokenizer.from_pretrained(tmp_path))
    for theirs in read:
        assert theirs.model_max_length == 77
        assert_same_encoding(mine(lines[:1500], **options), theirs(lines[:1500], **options))
    assert_same_encoding(BertTokenizer.from_pretrained(tmp_path)(lines[:50]), read[0](lines[:50]))


def test_they_read_what_is_trained(transformers: ModuleType, lines: list[str], tmp_path: Path) -> None:
    trained = BertTokenizer.train(lines[:3000], vocab_size=3000, limit_alphabet=500)
    trained.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert_same_encoding(trained(lines[3000:6000]), theirs(lines[3000:6000]))


def test_we_read_what_they_save(theirs: Any, lines: list[str], tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    assert_same_encoding(BertTokenizer.from_pretrained(tmp_path)(lines[:1000]), theirs(lines[:1000]))
