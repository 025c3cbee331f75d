"""From tagged sentences to a model's inputs, and from its predictions back to a tag for each word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.data.labels import LabelMap
from minilm.data.tagging import TaggedSentence
from minilm.data.text_inputs import PART
from minilm.errors import DataError
from minilm.text.wordpiece import BertTokenizer

IGNORED = -100  # the label that losses leave out


@dataclass(frozen=True)
class TagWindows:
    """N windows of at most max_length tokens over sentences.

    rows: `input_ids`, `token_type_ids`, `attention_mask` and `labels`, int64 of shape (T,) each, T differing. A word's
        label stands at its first token, in one window alone; all else is -100.
    sentence: (N,), the number of each window's sentence.
    word: for each window (T,), the number of the word whose label stands there, or -1.
    untokenised: how many words have no token at all, such as one of control characters only.
    """

    rows: list[dict[str, NDArray[np.int64]]]
    sentence: NDArray[np.int64]
    word: list[NDArray[np.int64]]
    untokenised: int


def first_tokens(word_ids: Sequence[int | None]) -> NDArray[np.bool_]:
    """Where (T,) a word has its first token. `word_ids`: each token's word, None for special tokens."""
    words = np.array([-1 if word is None else word for word in word_ids], dtype=np.int64)
    return (words >= 0) & np.append(True, words[1:] != words[:-1])[: len(words)]


def align_labels(word_ids: Sequence[int | None], labels: Sequence[int]) -> NDArray[np.int64]:
    """The labels (T,) of tokens: a word's at its first token, -100 at its others and at special tokens.

    Source: Devlin et al. 2019, section 5.3 (the first sub-token represents the word).
    """
    words = np.array([-1 if word is None else word for word in word_ids], dtype=np.int64)
    return np.where(first_tokens(word_ids), np.append(labels, IGNORED)[words], IGNORED).astype(np.int64)


def window_spans(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Cut 0 .. length into spans (start, stop) of `size`, the last perhaps shorter; each repeats `overlap` places.

    Errors: DataError if the overlap is not less than the size.
    """
    if not 0 <= overlap < size:
        raise DataError(f"windows of {size} tokens cannot overlap by {overlap}")
    starts = range(0, max(length - overlap, 1), size - overlap)
    return [(start, min(start + size, length)) for start in starts]


def owners(spans: Sequence[tuple[int, int]], length: int) -> NDArray[np.int64]:
    """For each place (length,) the number of the window in which it has most context: they change in mid-overlap."""
    changes = [(start + stop + 1) // 2 for (_, stop), (start, _) in pairwise(spans)]
    return np.searchsorted(np.array(changes, dtype=np.int64), np.arange(length), side="right").astype(np.int64)


def tag_windows(
    tokenizer: BertTokenizer,
    sentences: Sequence[TaggedSentence],
    labels: LabelMap | None = None,
    max_length: int | None = None,
    overlap: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> TagWindows:
    """Tokenise sentences; those longer than `max_length` tokens (by default the model's) become several windows.

    labels: without them no label is set (to predict).
    overlap: how many tokens a window repeats of the one before, so that no word is without context.
    progress: called with (sentences done, sentences) as it goes.

    Errors: DataError with file and line for a tag that training did not have, or for an overlap that leaves no room.
    """
    limit = tokenizer.model_max_length if max_length is None else max_length
    size = limit - tokenizer.num_special_tokens_to_add()
    rows, numbers, words, untokenised = [], [], [], 0
    for number, sentence in enumerate(sentences):
        if number % PART == 0:
            part = [list(s.words) for s in sentences[number : number + PART]]
            encoded = tokenizer(part, is_split_into_words=True, add_special_tokens=False)
            if progress is not None:
                progress(number + len(part), len(sentences))
        ids = np.array(encoded.input_ids[number % PART], dtype=np.int64)
        word_ids = encoded.word_ids(number % PART)
        first = np.flatnonzero(first_tokens(word_ids))
        word = np.full(len(ids), -1)
        word[first] = [word_ids[i] for i in first]
        untokenised += len(sentence.words) - len(first)
        label = np.full(len(ids), IGNORED)
        if labels is not None:
            known = [labels.id(tag, sentence.where(i)) for i, tag in enumerate(sentence.tags)]
            label = align_labels(word_ids, known)
        spans = window_spans(len(ids), size, overlap)
        owner = owners(spans, len(ids))
        for window, (start, stop) in enumerate(spans):
            mine = owner[start:stop] == window
            rows.append(_row(tokenizer, ids[start:stop], np.where(mine, label[start:stop], IGNORED)))
            words.append(_between(np.where(mine, word[start:stop], -1), -1, -1))
            numbers.append(number)
    return TagWindows(rows, np.array(numbers, dtype=np.int64), words, untokenised)


def word_tags(
    predicted: Sequence[Any], windows: TagWindows, sentences: Sequence[TaggedSentence], labels: LabelMap
) -> list[list[str]]:
    """The tags of all words of each sentence, from the predicted label numbers (T or more,) of each window.

    A word without a token gets "O" or, where labels have none, the first label.

    Errors: DataError if there is not one prediction for each window.
    """
    if len(predicted) != len(windows.rows):
        raise DataError(f"word_tags: {len(predicted)} predictions for {len(windows.rows)} windows")
    default = "O" if "O" in labels.names else labels.names[0]
    tags = [[default] * len(sentence.words) for sentence in sentences]
    for number, word, row in zip(windows.sentence, windows.word, predicted):
        ids = np.asarray(row)
        for place in np.flatnonzero(word >= 0):
            tags[number][word[place]] = labels.names[int(ids[place])]
    return tags


def _row(tokenizer: BertTokenizer, ids: NDArray[Any], label: NDArray[Any]) -> dict[str, NDArray[np.int64]]:
    inputs = _between(ids, tokenizer.cls_token_id, tokenizer.sep_token_id)
    return {
        "input_ids": inputs,
        "token_type_ids": np.zeros_like(inputs),
        "attention_mask": np.ones_like(inputs),
        "labels": _between(label, IGNORED, IGNORED),
    }


def _between(array: NDArray[Any], before: int, behind: int) -> NDArray[np.int64]:
    return np.concatenate([[before], array, [behind]]).astype(np.int64)
