"""15% of the tokens must be guessed: 80/10/10, whole words whole, special tokens never; the original comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data.draws import Purpose, generator
from minilm.data.masking import IGNORED, Masking
from minilm.errors import DataError
from minilm.text import CharTokenizer

V, MASK = 41, 4
SPECIAL = np.arange(V) < 5
CONTINUES = np.arange(V) % 3 == 0


def masking(**settings):
    return Masking(MASK, 2, 3, 0, SPECIAL, CONTINUES & ~SPECIAL, **settings)


def draws(step=0):
    return generator(7, step, Purpose.MASKING)


@st.composite
def tokens_BT(draw):
    shape = draw(st.sampled_from([(1, 1), (1, 2), (3, 17), (5, 31), (2, 127)]))
    seed = draw(st.integers(0, 2**32))
    low = draw(st.sampled_from([0, 5]))  # with and without special tokens
    return np.random.default_rng(seed).integers(low, V, size=shape)


@given(tokens=tokens_BT(), whole_words=st.booleans(), step=st.integers(0, 99), probability=st.sampled_from([0.15, 0.5]))
def test_the_labels_restore_the_text_and_special_tokens_stay(tokens, whole_words, step, probability):
    before = tokens.copy()
    seen, labels = masking(whole_words=whole_words, probability=probability)(tokens, draws(step))
    np.testing.assert_array_equal(np.where(labels == IGNORED, seen, labels), tokens)
    np.testing.assert_array_equal(tokens, before)
    assert not SPECIAL[labels[labels != IGNORED]].any()
    np.testing.assert_array_equal(seen[SPECIAL[tokens]], tokens[SPECIAL[tokens]])
    possible = (~SPECIAL[tokens]).sum(1)
    assert ((labels != IGNORED).any(1) == (possible > 0)).all()


@given(tokens=tokens_BT(), step=st.integers(0, 99))
def test_exactly_the_share_is_chosen_of_each_row(tokens, step):
    chosen = masking().chosen(tokens, draws(step))
    possible = (~SPECIAL[tokens]).sum(1)
    np.testing.assert_array_equal(chosen.sum(1), np.where(possible, np.maximum(np.round(0.15 * possible), 1), 0))


@given(tokens=tokens_BT(), step=st.integers(0, 99), probability=st.sampled_from([0.15, 0.5]))
def test_whole_words_are_chosen_whole(tokens, step, probability):
    made = masking(whole_words=True, probability=probability)
    chosen = made.chosen(tokens, draws(step))
    for row, taken in zip(tokens, chosen):
        word = None
        for token, is_taken in zip(row, taken):
            if SPECIAL[token]:
                word = None
            elif word is None or not made.continues[token]:
                word = is_taken
            else:
                assert is_taken == word


def test_whole_words_are_as_many_tokens_in_the_mean():
    tokens = np.random.default_rng(0).integers(5, V, size=(200, 128))
    share = masking(whole_words=True).chosen(tokens, draws()).mean()
    assert share == pytest.approx(0.15, abs=0.003)


@pytest.mark.parametrize("whole_words", [False, True])
def test_of_the_chosen_80_percent_are_masked_10_random_10_kept(whole_words):
    tokens = np.random.default_rng(0).integers(5, V, size=(400, 128))
    seen, labels = masking(whole_words=whole_words)(tokens, draws())
    chosen = labels != IGNORED
    count = chosen.sum()
    masked = (seen == MASK) & chosen
    kept = (seen == tokens) & chosen
    random = chosen & ~masked & ~kept
    sd = np.sqrt(0.1 * 0.9 / count)
    assert masked.sum() / count == pytest.approx(0.8, abs=5 * sd * 4 / 3)
    ordinary = V - 5
    assert random.sum() / count == pytest.approx(0.1 * (1 - 1 / ordinary), abs=5 * sd)  # one in V is the same by chance
    assert kept.sum() / count == pytest.approx(0.1 * (1 + 1 / ordinary), abs=5 * sd)
    drawn = np.bincount(seen[random], minlength=V)
    assert (drawn[:5] == 0).all()
    assert (drawn[5:] > 0).all()


def test_every_position_and_every_word_is_as_likely():
    tokens = np.random.default_rng(0).integers(5, V, size=(3000, 20))
    chosen = masking().chosen(tokens, draws())
    np.testing.assert_allclose(chosen.mean(0), 0.15, atol=5 * np.sqrt(0.15 * 0.85 / 3000))


def test_it_is_a_function_of_the_draws():
    tokens = np.random.default_rng(0).integers(0, V, size=(5, 31))
    first, again, other = (masking()(tokens, draws(step)) for step in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first[1] != other[1]).any()


@pytest.mark.parametrize(
    "settings", [{"probability": 0}, {"probability": 1.1}, {"masked": 0.8, "random": 0.3}, {"masked": -0.1}]
)
def test_impossible_shares_are_refused(settings):
    with pytest.raises(DataError, match="Masking: "):
        masking(**settings)


def test_a_tokenizer_without_special_tokens_is_refused():
    with pytest.raises(DataError, match=r"has no \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"):
        Masking.of(CharTokenizer.train("abc"))
