"""Pairs of segments: half of them true neighbours, the others from elsewhere, packed to T, drawn anew at each step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data.masking import IGNORED, Masking
from minilm.data.sentence_pairs import AROUND, IS_NEXT, NOT_NEXT, SentencePairs, _fitted
from minilm.data.sentences import Documents
from minilm.errors import DataError

PAD, CLS, SEP, MASK = 0, 2, 3, 4


def documents(counts, low=1, high=9, seed=0):
    """Documents of so many sentences, whose tokens are numbered from 5 on: a token says where it stands."""
    sizes = np.random.default_rng(seed).integers(low, high, size=sum(counts))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Documents(np.arange(5, 5 + starts[-1]), starts, np.concatenate([[0], np.cumsum(counts)]))


def pairs_of(docs, T=32, B=64, probability=0.15, **settings):
    V = int(docs.tokens.max()) + 1
    masking = Masking(MASK, CLS, SEP, PAD, np.arange(V) < 5, np.zeros(V, bool), probability)
    return SentencePairs(docs, T, B, masking, **settings)


def document_of(docs, places):
    return np.searchsorted(docs.sentences[docs.documents], places, side="right")


SEVERAL = documents([40, 2, 300, 1, 77, 150])
ONE = documents([400])


@pytest.mark.parametrize("docs", [SEVERAL, ONE], ids=["several", "one"])
@given(seed=st.integers(0, 2**63), step=st.integers(0, 10**6), T=st.sampled_from([5, 7, 32, 128]))
@settings(max_examples=25)
def test_what_a_batch_is(docs, seed, step, T):
    pairs = pairs_of(docs, T)
    seen, types, present, labels, label = pairs.batch(seed, step)
    tokens = np.where(labels == IGNORED, seen, labels)  # the masks taken off
    assert {x.shape for x in (seen, types, present, labels)} == {(64, T)}
    assert label.shape == (64,)
    assert {x.dtype for x in (seen, types, present, labels, label)} == {np.dtype(np.int64)}
    for j in range(64):
        n = present[j].sum()
        np.testing.assert_array_equal(present[j], np.arange(T) < n)
        assert (tokens[j, n:] == PAD).all()
        assert tokens[j, 0] == CLS
        first, last = np.flatnonzero(tokens[j] == SEP)
        assert last == n - 1
        np.testing.assert_array_equal(types[j], (np.arange(T) > first) & (np.arange(T) <= last))
        a, b = tokens[j, 1:first] - 5, tokens[j, first + 1 : last] - 5
        assert len(a) >= 1
        assert len(b) >= 1
        assert (np.diff(a) == 1).all()
        assert (np.diff(b) == 1).all()
        in_a, in_b = (set(document_of(docs, x)) for x in (a, b))
        assert len(in_a) == len(in_b) == 1
        if label[j] == IS_NEXT:
            assert in_a == in_b
            assert 0 < b[0] - a[-1] <= 16  # right behind, but for what was taken off: less than two sentences
        elif docs is SEVERAL:
            assert in_a != in_b
        else:
            assert b[-1] < a[0] or b[0] > a[-1] + 1


def many(docs, steps=60, **settings):
    made = [pairs_of(docs, **settings).batch(1, step) for step in range(steps)]
    return [np.concatenate(parts) for parts in zip(*made)]


@pytest.mark.parametrize("docs", [SEVERAL, ONE], ids=["several", "one"])
def test_half_of_the_pairs_are_neighbours_and_15_percent_are_hidden(docs):
    *_, present, labels, label = many(docs, T=103)  # room for 100 tokens
    count = len(label)
    assert np.isin(label, [IS_NEXT, NOT_NEXT]).all()
    assert (label == IS_NEXT).mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(count))
    real = present.sum() - AROUND * count
    assert (labels != IGNORED).sum() / real == pytest.approx(0.15, abs=0.002)


def test_pairs_are_packed_full_but_for_one_in_ten():
    docs = documents([500, 500, 500])
    *_, present, _, label = many(docs)
    assert (present.all(1)).mean() == pytest.approx(0.9, abs=0.02)
    for kind in (IS_NEXT, NOT_NEXT):  # the length does not give the answer away
        assert present[label == kind].all(1).mean() == pytest.approx(0.9, abs=0.03)
    *_, present, _, _ = many(docs, short_probability=0.0)
    assert present.all(1).mean() > 0.98  # only at the end of a document there is not enough
    *_, present, _, _ = many(docs, short_probability=1.0)
    assert present.sum(1).mean() == pytest.approx(AROUND + (2 + 29) / 2, abs=1)


def test_the_longer_segment_gives_first():
    a, b, length = np.array([3, 30, 20, 21, 5]), np.array([40, 3, 20, 2, 5]), np.array([29, 29, 29, 29, 29])
    fitted = _fitted(a, b, length)
    np.testing.assert_array_equal(fitted, [[3, 26, 14, 21, 5], [26, 3, 15, 2, 5]])


def test_a_batch_is_a_function_of_seed_and_step():
    def same(x, y):
        return all((p == q).all() for p, q in zip(x, y))

    first, again = pairs_of(SEVERAL), pairs_of(SEVERAL)
    batch = first.batch(3, 4)
    assert not same(batch, first.batch(3, 5))
    assert not same(batch, first.batch(4, 4))
    assert same(batch, first.batch(3, 4))
    assert same(batch, again.batch(3, 4))


def test_other_masks_leave_the_pairs_as_they_are():
    few, most = pairs_of(SEVERAL).batch(1, 2), pairs_of(SEVERAL, probability=0.5).batch(1, 2)
    assert (few[3] != most[3]).any()
    for part in (1, 2, 4):
        np.testing.assert_array_equal(few[part], most[part])


def test_training_never_sees_what_validates():
    train, validation = SEVERAL.split(0.8)
    for part, other in ((train, validation), (validation, train)):
        pairs = pairs_of(part, probability=1.0)
        originals = np.unique([pairs.batch(1, step)[3] for step in range(20)])  # every token is to be guessed
        assert set(originals) - {IGNORED} <= set(part.tokens.tolist())
        assert not set(originals) & set(other.tokens.tolist())


def test_every_sentence_comes():
    pairs = pairs_of(documents([30, 40]), B=512)
    drawn = pairs.segments(np.random.default_rng(0))
    covered = np.zeros(len(pairs.documents.tokens), bool)
    for starts, lengths in ((drawn.a, drawn.a_length), (drawn.b, drawn.b_length)):
        for start, length in zip(starts, lengths):
            covered[start : start + length] = True
    assert covered.all()


def test_texts_without_two_unrelated_segments_are_refused():
    with pytest.raises(DataError, match="no document has more than one"):
        pairs_of(documents([1, 1, 1]))
    with pytest.raises(DataError, match="too few for unrelated segments of up to 32; at least 128 are needed"):
        pairs_of(documents([20], high=3))
    with pytest.raises(DataError, match="block_size is 4"):
        pairs_of(SEVERAL, T=4)
