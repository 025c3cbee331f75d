"""N-gram models over token ids: by hand, against a slow definition, against nltk.lm, and what always holds."""

from __future__ import annotations

import math
import time
import tracemalloc
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import corpora
from minilm.errors import ConfigError, DataError, ShapeError
from minilm.generation import generate, generate_text
from minilm.models.ngram import NGram
from minilm.models.ngram_counts import NGramCounts
from minilm.text import CharTokenizer

SMOOTHINGS = ("kneser-ney", "witten-bell", "add-k")


# --- by hand -----------------------------------------------------------------------------------------

# "a b a", V = 2, bigrams with <s> before: <s> a, a b, b a.
A, B, BOS = 0, 1, 2


def close(model, context, expected):
    found = model.distribution(np.array([context], np.int64).reshape(1, -1))[0]
    np.testing.assert_allclose(found, [float(p) for p in expected], rtol=1e-12)


def test_kneser_ney_by_hand():
    model = NGram.fit([A, B, A], 2, 2, discount=0.5)
    # a follows 2 different tokens, b follows 1: (2 - 1/2) / 3 + (2 * 1/2) / 3 * 1/2, (1 - 1/2) / 3 + the same
    unigrams = Fraction(3, 6) + Fraction(1, 6), Fraction(1, 6) + Fraction(1, 6)
    close(model, [], unigrams)
    close(model, [A], [unigrams[0] / 2, Fraction(1, 2) + unigrams[1] / 2])
    close(model, [B], [Fraction(1, 2) + unigrams[0] / 2, unigrams[1] / 2])
    close(model, [BOS], [Fraction(1, 2) + unigrams[0] / 2, unigrams[1] / 2])


def test_witten_bell_by_hand():
    model = NGram.fit([A, B, A], 2, 2, "witten-bell")
    unigrams = (2 + 2 * Fraction(1, 2)) / 5, (1 + 2 * Fraction(1, 2)) / 5
    close(model, [], unigrams)
    close(model, [A], [unigrams[0] / 2, (1 + unigrams[1]) / 2])


def test_add_k_by_hand():
    model = NGram.fit([A, B, A], 2, 3, "add-k", k=0.5)
    close(model, [], [Fraction(5, 8), Fraction(3, 8)])  # (2 + 1/2) / (3 + 1), (1 + 1/2) / (3 + 1)
    close(model, [A], [Fraction(1, 4), Fraction(3, 4)])
    close(model, [A, B], [Fraction(3, 4), Fraction(1, 4)])
    close(model, [B, B], [Fraction(1, 2), Fraction(1, 2)])  # never seen: nothing is known, whatever follows b


def test_discounts_by_hand():
    # of a single order, the counts are 1, 1, 1, 2, 2, 3, 4: n1 = 3, n2 = 2, n3 = 1, n4 = 1
    ids = np.repeat(np.arange(7), [1, 1, 1, 2, 2, 3, 4])
    model = NGram.fit(ids, 7, 1)
    y = 3 / 7
    expected = 1 - 2 * y * 2 / 3, 2 - 3 * y * 1 / 2, 3 - 4 * y * 1 / 1
    np.testing.assert_allclose(model.discounts, [expected])
    assert model.fallback == []
    d1, d2, d3 = expected
    rest = (3 * d1 + 2 * d2 + 2 * d3) / 14
    close(model, [], [(c - d) / 14 + rest / 7 for c, d in zip([1, 1, 1, 2, 2, 3, 4], [d1, d1, d1, d2, d2, d3, d3])])


def test_counts_that_give_no_discounts_fall_back_and_say_so():
    model = NGram.fit([A, B, A, A], 2, 2)
    assert model.fallback == [1, 2]
    assert model.discounts == [(0.5, 1.0, 1.5)] * 2


def test_a_sentence_ends_and_the_next_begins_anew():
    end = 2  # V = 3
    counts = NGramCounts([A, B, end, B, end], 3, 3, eos=end)
    bigrams = {divmod(int(key), 4) for key in counts.grams[1].keys}
    assert bigrams == {(3, A), (A, B), (B, end), (3, B)}  # <s> is 3; nothing goes beyond the end
    assert counts.grams[0].counts.tolist() == [1, 2, 2, 2], "<s> begins two sentences, and none behind the last end"
    model = NGram.fit([A, B, end, B, end], 3, 3, eos=end)
    np.testing.assert_array_equal(model.distribution([[A, B, end]]), model.distribution([[3]]))
    model = NGram.fit([A, B, end, B, end], 3, 3, "add-k", eos=end)  # of which a longer context that never was is 1 / V
    np.testing.assert_array_equal(model.distribution([[A, B, end]]), model.distribution([[3]]))
    np.testing.assert_allclose(np.exp(model.log_probs([A, end, B])[2]), (1 + 1) / (2 + 3))  # B behind <s>: 1 of 2


# --- against the definition, written slowly ----------------------------------------------------------


def slow_grams(text, order, bos):
    """The n-grams that end at each token but <s>, of each order, as lists of tuples; text has its <s>."""
    grams = [[] for _ in range(order + 1)]
    for i, token in enumerate(text):
        if token == bos:
            continue
        for m in range(1, order + 1):
            gram = tuple(text[max(i - m + 1, 0) : i + 1])
            if len(gram) == m and bos not in gram[1:]:
                grams[m].append(gram)
    return grams


def slow_kneser_ney(text, V, order, bos):
    """p(w, h) of modified Kneser-Ney by Chen & Goodman 1998, over dictionaries."""
    grams = slow_grams(text, order, bos)
    counts = [Counter(g) for g in grams]
    for m in range(1, order):
        before = Counter(gram[1:] for gram in counts[m + 1])
        counts[m] = Counter({g: n if g[0] == bos else before[g] for g, n in counts[m].items()})

    def discounts(m):
        n = [sum(c == j for c in counts[m].values()) for j in range(5)]
        if all(n[1:4]):
            y = n[1] / (n[1] + 2 * n[2])
            d = [0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
            if all(0 < d[j] <= j for j in (1, 2, 3)):
                return d
        return [0, 0.5, 1, 1.5]

    d = [None, *(discounts(m) for m in range(1, order + 1))]

    def p(w, h):
        h = h[len(h) - min(len(h), order - 1) :]
        below = p(w, h[1:]) if h else 1 / V
        m = len(h) + 1
        following = {g[-1]: n for g, n in counts[m].items() if g[:-1] == h}
        if not following:
            return below
        total = sum(following.values())
        freed = sum(d[m][min(n, 3)] for n in following.values())
        count = following.get(w, 0)
        return (count - d[m][min(count, 3)]) / total + freed / total * below

    return p


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("eos", [None, 6])
def test_modified_kneser_ney_is_its_definition(order, eos):
    V = 7
    rng = np.random.default_rng(order)
    ids = np.minimum(rng.geometric(0.3, 400) - 1, 6)
    bos = V
    text = [bos]
    for i in ids.tolist():
        text += [i, bos] if i == eos else [i]
    text = text[:-1] if text[-1] == bos else text
    model, p = NGram.fit(ids, V, order, eos=eos), slow_kneser_ney(text, V, order, bos)
    assert order == 1 or order not in model.fallback  # the closed form is at work
    contexts = [tuple(rng.integers(0, V, order + 1)) for _ in range(40)] + [(bos,), (bos, 1), (bos, 5, 5)]
    for context in contexts:
        plain = context if eos is None else tuple(bos if i == eos else i for i in context)
        while bos in plain[1:]:
            plain = plain[plain.index(bos, 1) :]  # nothing reaches beyond a beginning
        expected = [p(w, plain) for w in range(V)]
        np.testing.assert_allclose(model.distribution([context])[0], expected, atol=1e-12)


# --- against nltk ------------------------------------------------------------------------------------


def nltk_model(make, ids, V, order, **settings):
    """nltk's model of the same n-grams; tokens are numbers as text, the last is nltk's own <UNK>, and <s> begins."""
    pytest.importorskip("nltk")
    from nltk.lm import NgramCounter, Vocabulary

    names = [str(i) for i in range(V - 1)] + ["<UNK>", "<s>"]
    text = [V, *ids]
    grams = [tuple(names[i] for i in gram) for of_order in slow_grams(text, order, V) for gram in of_order]
    model = make(order=order, vocabulary=Vocabulary(names[: V - 1]), counter=NgramCounter([grams]), **settings)
    assert len(model.vocab) == V
    return lambda w, h: model.unmasked_score(names[w], tuple(names[i] for i in h))


NLTK = {
    "Lidstone": ("add-k", {"k": 0.3}, {"gamma": 0.3}),
    "Laplace": ("add-k", {"k": 1.0}, {}),
    "WittenBellInterpolated": ("witten-bell", {"uniform": False}, {}),
    "KneserNeyInterpolated": ("kneser-ney", {"uniform": False, "discount": 0.7}, {"discount": 0.7}),
}


@pytest.mark.parametrize("name", NLTK)
@pytest.mark.parametrize("order", [2, 3, 4])
def test_equal_to_nltk(name, order):
    lm = pytest.importorskip("nltk.lm")
    smoothing, ours, theirs = NLTK[name]
    V = 6
    rng = np.random.default_rng(17)
    ids = np.minimum(rng.geometric(0.4, 150) - 1, V - 2)  # the last token never occurs
    p = nltk_model(getattr(lm, name), ids.tolist(), V, order, **theirs)
    model = NGram.fit(ids, V, order, smoothing, **ours)
    contexts = {tuple(rng.integers(0, V, length).tolist()) for length in range(1, order) for _ in range(25)}
    contexts |= {(V, *rng.integers(0, 2, order - 2).tolist()) for _ in range(3)}  # behind <s>, of the full length
    for context in sorted(contexts):
        expected = [p(w, context) for w in range(V)]
        np.testing.assert_allclose(model.distribution([context])[0], expected, rtol=0, atol=1e-9)


# --- what always holds -------------------------------------------------------------------------------


@st.composite
def models(draw):
    V = draw(st.integers(1, 9))
    ids = draw(st.lists(st.integers(0, V - 1), min_size=1, max_size=60))
    eos = draw(st.sampled_from([None, V - 1]))
    settings = {
        "order": draw(st.integers(1, 6)),
        "smoothing": draw(st.sampled_from(SMOOTHINGS)),
        "k": draw(st.floats(1e-3, 5)),
        "discount": draw(st.none() | st.floats(0.01, 1)),
    }
    return NGram.fit(ids, V, eos=eos, **settings), ids


@given(models(), st.data())
def test_every_context_adds_up_to_one(made, data):
    model, ids = made
    T = data.draw(st.integers(0, 7))
    token = st.integers(0, model.vocab_size)  # <s> too
    contexts = data.draw(st.lists(st.lists(token, min_size=T, max_size=T), min_size=1, max_size=5))
    if len(ids) >= T:
        contexts.append(ids[len(ids) - T :])
    p = model.distribution(np.array(contexts, np.int64).reshape(len(contexts), T))
    assert (p > 0).all()
    np.testing.assert_allclose(p.sum(1), 1, rtol=0, atol=1e-9)


@given(models())
def test_a_text_is_scored_as_its_contexts_say(made):
    model, ids = made
    before = [[model.bos, *ids[:i]] for i in range(len(ids))]
    expected = [model.log_distribution([context])[0, i] for context, i in zip(before, ids)]
    np.testing.assert_allclose(model.log_probs(ids), expected, atol=1e-12)
    unknown = [model.log_distribution([ids[:i]])[0, token] for i, token in enumerate(ids) if i]
    np.testing.assert_allclose(model.log_probs(ids, begins=False)[1:], unknown, atol=1e-12)
    assert math.isclose(model.perplexity(ids), math.exp(-np.mean(expected)), rel_tol=1e-9)


@given(models())
def test_logits_are_those_of_each_position_also_with_a_cache(made):
    model, ids = made
    tokens = np.array([ids, ids[::-1]])
    logits = model(tokens).array
    for t in range(len(ids)):
        np.testing.assert_array_equal(logits[:, t], model.log_distribution(tokens[:, : t + 1]))
    cache = model.new_cache(2)
    parts = [model(tokens[:, t : t + 1], cache).array for t in range(len(ids))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), logits)


def test_learning_helps():
    text = corpora.shakespeare()[:200_000]
    ids = CharTokenizer.train(text).encode_array(text)
    found = {}
    for smoothing in SMOOTHINGS:
        found[smoothing] = [NGram.fit(ids[:180_000], 84, n, smoothing).perplexity(ids[180_000:]) for n in range(1, 6)]
    assert found["kneser-ney"] == sorted(found["kneser-ney"], reverse=True)  # each order helps
    assert found["kneser-ney"][-1] < found["witten-bell"][-1] < found["add-k"][-1] < 84


# --- writing -----------------------------------------------------------------------------------------


def test_it_writes_by_the_same_generation_as_other_models():
    text = "the cat sat on the mat. the cat ate. " * 5
    tokenizer = CharTokenizer.train(text)
    model = NGram.fit(tokenizer.encode_array(text), tokenizer.vocab_size, 6)
    written = "".join(generate_text(model, tokenizer, "the c", 30, temperature=0))
    assert written.startswith("at ")
    assert all(written[i : i + 6] in text for i in range(25))
    pair = np.array([tokenizer.encode("the c"), tokenizer.encode("at sa")])
    cached, plain = (generate(model, pair, 600, seed=3, use_cache=use).array for use in (True, False))
    np.testing.assert_array_equal(cached, plain)
    assert cached.shape == (2, 605)


def test_samples_follow_the_probabilities():
    model = NGram.fit([0, 0, 0, 1, 2, 0, 1], 3, 1, "add-k")
    drawn = np.bincount(list(model.sample([], 4000, seed=5)), minlength=3) / 4000
    np.testing.assert_allclose(drawn, model.distribution([[]])[0], atol=0.03)


def test_sampling_begins_where_texts_begin():
    end = 2
    model = NGram.fit([0, 1, end] * 50, 3, 3, eos=end)
    assert list(model.sample([], 6, temperature=0)) == [0, 1, end, 0, 1, end]


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0, 7, -1, 2.0, "3", True])
def test_impossible_orders(order):
    with pytest.raises(ConfigError, match="from 1 to 6"):
        NGram.fit([0, 1], 2, order)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"smoothing": "add-k", "k": 0}, "above 0, not 0"),
        ({"smoothing": "add-k", "k": -1.0}, "above 0"),
        ({"smoothing": "add-k", "k": math.nan}, "above 0"),
        ({"smoothing": "katz"}, "kneser-ney, witten-bell, add-k, not 'katz'"),
        ({"discount": 0.0}, "discount"),
        ({"discount": 1.5}, "discount"),
    ],
)
def test_impossible_settings(settings, said):
    with pytest.raises(ConfigError, match=said):
        NGram.fit([0, 1], 2, 2, **settings)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([], "the corpus is empty"),
        ([0, 2], "id 2 is outside the vocabulary of 2"),
        ([-1], "id -1 is outside"),
        ([[0, 1]], "one dimension"),
        ([0.5], "integers"),
    ],
)
def test_impossible_ids(ids, said):
    with pytest.raises(DataError, match=said):
        NGram.fit(ids, 2, 2)


def test_impossible_contexts():
    model = NGram.fit([0, 1], 2, 2)
    with pytest.raises(ShapeError, match=r"\(B, T\)"):
        model.distribution([0, 1])
    with pytest.raises(IndexError, match="leave the vocabulary of 2"):
        model.distribution([[3]])
    with pytest.raises(DataError, match="no tokens"):
        model.perplexity([])


# --- time and memory ---------------------------------------------------------------------------------


def test_a_fivegram_of_half_a_million_characters_in_a_tenth_of_the_time_and_memory_of_five():
    text = corpora.shakespeare()[:500_000]
    ids = CharTokenizer.train(text).encode_array(text)
    began = time.process_time()
    NGram.fit(ids, 84, 5)
    assert time.process_time() - began < 2  # 20 s for 5 million
    tracemalloc.start()
    try:
        NGram.fit(ids, 84, 5)
        assert tracemalloc.get_traced_memory()[1] < 100e6  # 1 GB for 5 million
    finally:
        tracemalloc.stop()
