"""A text as documents of sentences: nothing is lost, the cuts do not depend on the parts, no sentence is in two."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data.sentences import Documents, sentences
from minilm.errors import DataError

TEXT = 'Who? "I!" he said. (Then.) 3.5 it was.\n\nA line\nand another.\n\n\n\nThe next one.\n'


def test_sentences_end_at_marks_and_lines_and_documents_at_blank_lines():
    assert list(sentences([TEXT], 3)) == [
        *["Who?", '"I!"', "he said.", "(Then.)", "3.5 it was.", "A line", "and another.", None],
        *["The next one.", None],
    ]


@pytest.mark.parametrize(("blank_lines", "documents"), [(0, 1), (1, 3), (2, 2), (3, 2), (4, 1)])
def test_how_many_blank_lines_end_a_document(blank_lines, documents):
    assert list(sentences([TEXT], blank_lines)).count(None) == documents


def test_without_text_there_is_no_document():
    assert list(sentences([" \n\n", "\t"], 1)) == []


@given(text=st.text(alphabet="ab.?!\"') \n。", max_size=60), cuts=st.lists(st.integers(0, 60)), gap=st.integers(0, 3))
def test_nothing_but_white_space_is_lost_and_parts_do_not_matter(text, cuts, gap):
    whole = list(sentences([text], gap))
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert list(sentences([text[i:j] for i, j in pairwise(places)], gap)) == whole
    assert "".join("".join(s for s in whole if s).split()) == "".join(text.split())
    assert all(s is None or s == s.strip() != "" for s in whole)


def made(sizes):
    """Documents with sentences of so many tokens, numbered from 0 on."""
    flat = [size for document in sizes for size in document]
    return Documents(
        np.arange(sum(flat)), np.cumsum([0, *flat]), np.cumsum([0, *(len(document) for document in sizes)])
    )


@given(
    sizes=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=5),
    fraction=st.floats(0.01, 0.99),
)
def test_the_parts_of_a_split_are_the_whole_and_no_sentence_is_cut(sizes, fraction):
    whole = made(sizes)
    try:
        train, validation = whole.split(fraction)
    except DataError:
        count = len(whole.sentences) - 1
        assert count == 1 or len(whole.tokens) * fraction < whole.sentences[1]
        return
    np.testing.assert_array_equal(np.concatenate([train.tokens, validation.tokens]), whole.tokens)
    cut = len(train.tokens)
    assert cut in whole.sentences
    assert cut <= len(whole.tokens) * fraction < cut + np.diff(whole.sentences).max()
    np.testing.assert_array_equal(
        np.concatenate([np.diff(train.sentences), np.diff(validation.sentences)]), np.diff(whole.sentences)
    )
    bounds = {int(whole.sentences[i]) for i in whole.documents}
    found = {int(train.sentences[i]) for i in train.documents}
    found |= {cut + int(validation.sentences[i]) for i in validation.documents}
    assert found == bounds | {cut}


@given(
    sizes=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=6), min_size=1, max_size=5),
    fraction=st.floats(0.01, 0.99),
)
def test_each_document_can_be_split_by_itself(sizes, fraction):
    """The parts are those that the documents have when they are split alone."""
    wanted = ([], [])
    first = 0
    for document in sizes:
        starts = np.cumsum([0, *document])
        at = int(np.searchsorted(starts, starts[-1] * fraction, side="right")) - 1
        for part, bounds in zip(wanted, ((0, at), (at, len(document)))):
            if bounds[0] < bounds[1]:
                part.append(list(range(first + starts[bounds[0]], first + starts[bounds[1]])))
        first += starts[-1]
    if not all(wanted):
        with pytest.raises(DataError, match="both need some"):
            made(sizes).split(fraction, each=True)
        return
    for part, documents in zip(made(sizes).split(fraction, each=True), wanted):
        bounds = part.sentences[part.documents]
        assert [part.tokens[a:b].tolist() for a, b in pairwise(bounds)] == documents


@pytest.mark.parametrize(
    ("sentence_starts", "documents"), [([0, 2, 2, 5], [0, 3]), ([0, 2, 4], [0, 2]), ([0, 5], [0, 0, 1]), ([0], [0])]
)
def test_bounds_that_do_not_cover_the_tokens_are_refused(sentence_starts, documents):
    with pytest.raises(DataError, match="do not cover the tokens"):
        Documents(np.arange(5), np.array(sentence_starts), np.array(documents))
