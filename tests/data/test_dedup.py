"""Duplicates against a plain set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import dedup, tokenize_files
from minilm.errors import DataError
from minilm.text import CharTokenizer

ALPHABET = "ab é\n|"  # "aa" can begin inside of "aa"


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
@pytest.mark.parametrize("separator", ["\n", "|", "a|", "aa"])
def test_the_first_of_each_stays(tmp_path_factory, separator, text, size, jobs):
    folder = tmp_path_factory.mktemp("dedup")
    (folder / "text").write_bytes(text.encode())
    given = CharTokenizer(sorted(ALPHABET))
    how = {"dedup": "line"} if separator == "\n" else {"dedup": "document", "document_separator": separator}
    tokens = tokenize_files([folder / "text"], folder / "out", given, shard_bytes=size, jobs=jobs, **how)
    assert given.decode(tokens[:]) == first_of_each(text, separator)


@given(st.lists(st.lists(st.integers(0, 30).map(str) | st.just("")), max_size=5), st.integers(1, 40))
def test_ranges_and_spans_are_a_set(tmp_path_factory, spans, hashes_in_a_range):
    """Against a set: which records of which span are new. Done twice, it is the same."""
    folder = tmp_path_factory.mktemp("ranges")
    texts = ["".join(record + "\n" for record in span) for span in spans]
    paths = [folder / str(i) for i in range(len(texts))]
    for path, text in zip(paths, texts):
        dedup.write_hashes(path, [text], "\n")
    with pytest.MonkeyPatch.context() as m:
        m.setattr(dedup, "RANGE", hashes_in_a_range)
        bounds = dedup.ranges(paths)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 2**64 - 1
    assert [last + 1 for _, last in bounds[:-1]] == [first for first, _ in bounds[1:]]
    for _ in range(2):
        if paths:
            for first, last in bounds:
                dedup.mark_repeated(paths, first, last)
        left = ["".join(dedup.kept([text], "\n", path)) for path, text in zip(paths, texts)]
        assert "".join(left) + "\n" == first_of_each("".join(texts) + "\n", "\n")


def test_equal_first_words_are_not_equal_hashes(tmp_path, monkeypatch):
    """Hashes that differ in one word only, in either, are of different records."""
    words = iter([[(1, 1), (1, 2), (2, 1), (1, 1)], [(1, 2), (3, 1), (1, 3)]])
    monkeypatch.setattr(dedup, "hashes", lambda *_: np.array(next(words), np.uint64))
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        dedup.write_hashes(path, [], "\n")
    dedup.mark_repeated(paths, 0, 2**64 - 1)
    assert "".join(dedup.kept(["a\nb\nc\nd\n"], "\n", paths[0])) == "a\nb\nc\n"
    assert "".join(dedup.kept(["e\nf\ng\n"], "\n", paths[1])) == "f\ng\n"


def test_records_are_those_of_the_whole_text_whatever_the_parts():
    text = "one||two|three|||"
    for size in range(1, 20):
        parts = [text[i : i + size] for i in range(0, len(text), size)]
        assert [r for group in dedup.records(parts, "||") for r in group] == ["one||", "two|three||", "|"]


def test_a_record_too_long_to_hold_is_refused():
    with pytest.raises(DataError, match="more than 10 characters"):
        list(dedup.records(["ab\n", "123456", "78901"], "\n", longest=10))
