"""Labels of words at their first tokens, windows over long sentences, and tags from predictions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import LabelMap, TaggedSentence, align_labels, tag_windows, word_tags
from minilm.data.tag_inputs import first_tokens, owners, window_spans
from minilm.errors import DataError
from minilm.text import BertTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "to", "be", "em", "##bed", "##ding", "##s"]
TAGS = LabelMap(["B", "I", "O"])


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer({token: i for i, token in enumerate(WORDS)})


def sentence(words: str, tags: str) -> TaggedSentence:
    several = tuple(words.split(" "))
    return TaggedSentence(several, tuple(tags), tuple(range(7, 7 + len(several))), "dev.conll")


def test_labels_at_first_tokens() -> None:
    word_ids = [None, 0, 1, 1, 1, 2, None, 2, None]
    assert align_labels(word_ids, [4, 5, 6]).tolist() == [-100, 4, 5, -100, -100, 6, -100, 6, -100]
    assert align_labels(word_ids, [4, 5, 6]).dtype == np.int64
    assert align_labels([], []).tolist() == []
    assert first_tokens([0, 0, 1]).tolist() == [True, False, True]


@given(length=st.integers(0, 60), size=st.integers(1, 12), data=st.data())
def test_windows_cover_all_and_each_place_has_one_owner(length: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    spans = window_spans(length, size, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(after[0] == before[1] - overlap for before, after in pairwise(spans))
    assert all(stop - start == size for start, stop in spans[:-1])
    owner = owners(spans, length)
    for place, window in enumerate(owner):
        start, stop = spans[window]
        assert start <= place < stop
        if 2 * overlap <= size:  # no place is in three windows

            def context(i: int, place: int = place) -> float:
                left = np.inf if i == 0 else place - spans[i][0]
                right = np.inf if i == len(spans) - 1 else spans[i][1] - 1 - place
                return min(left, right)

            others = [context(i) for i, (a, b) in enumerate(spans) if a <= place < b]
            assert context(window) == max(others)


def test_a_long_sentence_becomes_windows(tokenizer: BertTokenizer) -> None:
    long, short = sentence("to embeddings be embeddings to", "OBIBO"), sentence("be", "I")
    windows = tag_windows(tokenizer, [long, short], TAGS, max_length=7, overlap=2)
    # to em ##bed ##ding ##s | ##ding ##s be em ##bed | em ##bed ##ding ##s to
    assert [tokenizer.convert_ids_to_tokens(row["input_ids"]) for row in windows.rows] == [
        ["[CLS]", "to", "em", "##bed", "##ding", "##s", "[SEP]"],
        ["[CLS]", "##ding", "##s", "be", "em", "##bed", "[SEP]"],
        ["[CLS]", "em", "##bed", "##ding", "##s", "to", "[SEP]"],
        ["[CLS]", "be", "[SEP]"],
    ]
    none = -100
    assert [row["labels"].tolist() for row in windows.rows] == [
        [none, 2, 0, none, none, none, none],
        [none, none, none, 1, 0, none, none],
        [none, none, none, none, none, 2, none],
        [none, 1, none],
    ]
    assert windows.sentence.tolist() == [0, 0, 0, 1]
    assert windows.word[1].tolist() == [-1, -1, -1, 2, 3, -1, -1]
    assert all(array.dtype == np.int64 for row in windows.rows for array in row.values())
    assert windows.rows[0]["attention_mask"].tolist() == [1] * 7


@given(data=st.data())
def test_right_predictions_give_the_tags_back(tokenizer: BertTokenizer, data: st.DataObject) -> None:
    pairs = st.lists(st.tuples(st.sampled_from(["to", "embeddings", "x", "beds"]), st.sampled_from("BIO")), min_size=1)
    sentences = [
        sentence(" ".join(word for word, _ in found), "".join(tag for _, tag in found))
        for found in data.draw(st.lists(pairs, min_size=1, max_size=3))
    ]
    overlap = data.draw(st.integers(0, 3))
    windows = tag_windows(tokenizer, sentences, TAGS, max_length=6, overlap=overlap)
    labelled = sum(int((row["labels"] >= 0).sum()) for row in windows.rows)
    assert labelled == sum(len(s.words) for s in sentences)  # each word counts once, whatever the overlap
    predicted = [np.append(np.where(row["labels"] >= 0, row["labels"], 1), [0] * 3) for row in windows.rows]
    assert word_tags(predicted, windows, sentences, TAGS) == [list(s.tags) for s in sentences]


def test_words_without_tokens(tokenizer: BertTokenizer) -> None:
    sentences = [TaggedSentence(("to", "\u200b", "be"), ("B", "I", "B"), (1, 2, 3), "f"),
                 TaggedSentence(("\u200b",), ("B",), (5,), "f")]  # fmt: skip
    windows = tag_windows(tokenizer, sentences, TAGS)
    assert windows.untokenised == 2
    predicted = [row["labels"] for row in windows.rows]
    assert word_tags(predicted, windows, sentences, TAGS) == [["B", "O", "B"], ["O"]]
    assert word_tags([np.zeros(4)] * 2, windows, sentences, LabelMap("BI")) == [["B", "B", "B"], ["B"]]


def test_without_labels(tokenizer: BertTokenizer) -> None:
    bare = TaggedSentence(("to", "be"), (), (1, 2), "f")
    windows = tag_windows(tokenizer, [bare])
    assert windows.rows[0]["labels"].tolist() == [-100] * 4
    assert word_tags([[1, 0, 1, 1]], windows, [bare], TAGS) == [["B", "I"]]


def test_refused(tokenizer: BertTokenizer) -> None:
    one = sentence("to be", "OX")
    with pytest.raises(DataError, match=r"dev\.conll: line 8: the label 'X' is none of training's: B, I, O"):
        tag_windows(tokenizer, [one], TAGS)
    with pytest.raises(DataError, match="windows of 8 tokens cannot overlap by 8"):
        tag_windows(tokenizer, [one], max_length=10, overlap=8)
    with pytest.raises(DataError, match="1 predictions for 2 windows"):
        word_tags([[0]], tag_windows(tokenizer, [one, one]), [one, one], TAGS)
