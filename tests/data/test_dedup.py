"""Duplicates against a plain set; the table of hashes against one too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import dedup, tokenize_files
from minilm.errors import DataError
from minilm.text import CharTokenizer

ALPHABET = "ab é\n|"


def first_of_each(text: str, separator: str) -> str:
    """The definition: empty records all stay, of others the first."""
    seen, kept = set(), []
    *whole, last = text.split(separator)
    for record in [*(r + separator for r in whole), last]:
        bare = record.removesuffix(separator)
        if not bare or bare not in seen:
            kept.append(record)
        seen.add(bare)
    return "".join(kept)


@given(text=st.text(st.sampled_from(ALPHABET), min_size=1), size=st.integers(1, 9), jobs=st.just(1))
@pytest.mark.parametrize("separator", ["\n", "|", "a|"])
def test_the_first_of_each_stays(tmp_path_factory, separator, text, size, jobs):
    folder = tmp_path_factory.mktemp("dedup")
    (folder / "text").write_bytes(text.encode())
    given = CharTokenizer(sorted(ALPHABET))
    how = {"dedup": "line"} if separator == "\n" else {"dedup": "document", "document_separator": separator}
    tokens = tokenize_files([folder / "text"], folder / "out", given, shard_bytes=size, jobs=jobs, **how)
    assert given.decode(tokens[:]) == first_of_each(text, separator)


@given(st.lists(st.lists(st.integers(0, 50), max_size=60), max_size=8))
def test_the_table_is_a_set(groups):
    table, seen = dedup.Seen(), set()
    for group in groups:
        # Few first halves, so that many hashes want one slot; 0 stands for an empty record.
        hashes = np.array([(n % 3 << 11, n) for n in group], np.uint64).reshape(-1, 2)
        expected = []
        for n in group:
            expected.append(n == 0 or n not in seen)
            seen.add(n)
        assert table.add(hashes).tolist() == expected
        assert len(table) == len(seen - {0})


def test_the_table_grows_and_takes_21_to_43_bytes_for_each():
    table = dedup.Seen()
    hashes = np.random.default_rng(1).integers(1, 2**64, (200_003, 2), np.uint64)
    for part in np.array_split(hashes, 100):
        assert table.add(part).all()
        if len(table) > 1000:
            assert 21 < table.nbytes / len(table) < 43
    assert not table.add(hashes).any()
    assert len(table) == 200_003


def test_records_are_those_of_the_whole_text_whatever_the_parts():
    text = "one||two|three|||"
    for size in range(1, 20):
        parts = [text[i : i + size] for i in range(0, len(text), size)]
        assert [r for group in dedup.records(parts, "||") for r in group] == ["one||", "two|three||", "|"]


def test_a_record_too_long_to_hold_is_refused():
    with pytest.raises(DataError, match="more than 10 characters"):
        list(dedup.records(["ab\n", "123456", "78901"], "\n", longest=10))
