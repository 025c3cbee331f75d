"""Generation: how a token is chosen, the cache, streaming, and where a text stops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import minilm as ml
from minilm import generation, kernels
from minilm.errors import ConfigError, DataError, ShapeError
from minilm.generation import LayerCache, Sampling, constant_weights, generate, generate_text, stream
from minilm.models import GPT, GPTConfig
from minilm.nn import functional as F
from minilm.text import BPETokenizer, CharTokenizer

LOGITS = np.array([[2.0, -1.0, 0.5, 3.0, 1.0], [0.1, 0.2, 0.4, 0.3, -2.0]])
NOTHING_SEEN = np.zeros((2, 0), np.int64)


def build(block_size=7, **settings) -> GPT:
    ml.manual_seed(0)
    shape = {"vocab_size": 13, "n_layer": 2, "n_head": 2, "n_embd": 10, **settings}
    model = GPT(GPTConfig(block_size=block_size, **shape)).to("float64")
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.array[...] *= 10  # initial values hardly tell one token from another
    return model


def distribution(sampling: Sampling, logits=LOGITS, seen=NOTHING_SEEN) -> np.ndarray:
    scores = sampling.scores(logits, seen)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Parrot:
    """A model that says `ids` one after the other, whatever it reads."""

    training = False

    def __init__(self, ids, vocab_size, block_size=1000):
        self.ids, self.vocab_size, self.said = list(ids), vocab_size, 0
        self.config = type("Config", (), {"block_size": block_size})

    def new_cache(self, batch_size):
        return None

    def eval(self):
        pass

    def train(self, mode=True):
        pass

    def __call__(self, tokens, cache=None):
        logits = np.zeros((*tokens.shape, self.vocab_size))
        logits[:, -1, self.ids[self.said]] = 100
        self.said += 1
        return ml.tensor(logits)


# --- choosing a token ------------------------------------------------------------------------------


def test_temperature_zero_takes_the_likeliest():
    model, prompt = build(), [3, 1]
    expected = list(prompt)
    for _ in range(5):
        expected.append(int(model(ml.tensor([expected])).array[0, -1].argmax()))
    assert generate(model, prompt, 5, temperature=0).tolist() == expected
    assert generate(model, prompt, 5, temperature=0, seed=1).tolist() == expected
    assert generate(model, prompt, 5, temperature=0, top_k=2, top_p=0.3).tolist() == expected


def test_temperature_divides_the_logits():
    e = np.exp(LOGITS / 0.7)
    np.testing.assert_allclose(distribution(Sampling(0.7)), e / e.sum(-1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4, 5, 9])
def test_top_k_leaves_the_k_likeliest(k):
    e = np.exp(LOGITS / 0.5)
    for row in e:
        row[np.argsort(row)[: max(5 - k, 0)]] = 0
    np.testing.assert_allclose(distribution(Sampling(0.5, top_k=k)), e / e.sum(-1, keepdims=True), rtol=1e-12)


def test_top_k_leaves_k_where_scores_are_equal():
    assert (distribution(Sampling(top_k=2), np.ones((1, 5)), NOTHING_SEEN[:1]) > 0).sum() == 2


@pytest.mark.parametrize(
    ("p", "kept"),
    [(1e-9, [3]), (0.4, [3]), (0.5, [3]), (0.51, [3, 0]), (0.79, [3, 0]), (0.81, [3, 0, 2]), (1.0, [3, 0, 2, 1])],
)
def test_top_p_leaves_the_smallest_set_that_reaches_p(p, kept):
    chances = np.array([[0.3, 0.05, 0.15, 0.5]])  # 3: 0.5, with 0: 0.8, with 2: 0.95
    expected = np.zeros((1, 4))
    expected[0, kept] = chances[0, kept] / chances[0, kept].sum()
    np.testing.assert_allclose(distribution(Sampling(top_p=p), np.log(chances)), expected, rtol=1e-9)


def test_top_p_is_applied_to_what_top_k_leaves():
    chances = np.array([[0.3, 0.05, 0.15, 0.5]])
    found = distribution(Sampling(top_k=2, top_p=0.6), np.log(chances))  # of two, the first has 0.625
    np.testing.assert_allclose(found, [[0, 0, 0, 1]], atol=1e-12)


def test_repetition_penalty_divides_positive_scores_and_multiplies_negative_ones():
    seen = np.array([[0, 1, 0], [4, 4, 4]])
    expected = LOGITS.copy()
    expected[0, 0] /= 1.5
    expected[0, 1] *= 1.5
    expected[1, 4] *= 1.5
    before = LOGITS.copy()
    np.testing.assert_allclose(Sampling(repetition_penalty=1.5).scores(LOGITS, seen), expected, rtol=1e-12)
    np.testing.assert_array_equal(LOGITS, before)


def test_draws_follow_the_distribution():
    sampling, n = Sampling(0.9, top_k=4, top_p=0.95), 20000
    logits = np.repeat(LOGITS[:1], n, axis=0)
    drawn = sampling.choose(logits, np.zeros((n, 0), np.int64), ml.random.Generator(5))
    expected = distribution(sampling)[0]
    found = np.bincount(drawn, minlength=5) / n
    assert (found[expected == 0] == 0).all()
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(n))  # four standard deviations


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0, not -0.1"),
        ({"temperature": float("nan")}, "temperature must be at least 0, not nan"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1, not 0"),
        ({"top_k": 2.5}, "top_k must be a whole number of at least 1, not 2.5"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.1}, "top_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0, not 0.0"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_computed(settings, message):
    with pytest.raises(ConfigError, match=message):
        stream(None, [1], 3, **settings)  # no model is ever asked


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_impossible_seeds_are_refused(seed):
    with pytest.raises(ConfigError, match=f"seed must be from 0 to .*, not {seed}"):
        stream(None, [1], 3, seed=seed)


def test_a_negative_number_of_tokens_is_refused():
    with pytest.raises(ConfigError, match="max_new_tokens must be at least 0, not -1"):
        generate(build(), [1], -1)


# --- one token after the other ---------------------------------------------------------------------


def test_the_same_seed_draws_the_same_tokens():
    model = build()
    first = generate(model, [1, 2], 12, seed=7).tolist()
    ml.manual_seed(99)
    assert generate(model, [1, 2], 12, seed=7).tolist() == first
    assert generate(model, [1, 2], 12, seed=8).tolist() != first
    ml.manual_seed(3)
    default = generate(model, [1, 2], 12).tolist()
    assert generate(model, [1, 2], 12).tolist() != default  # the default generator goes on
    ml.manual_seed(3)
    assert generate(model, [1, 2], 12).tolist() == default


@pytest.mark.parametrize("block_size", [1, 2, 5, 7, 64])
@pytest.mark.parametrize("T", [1, 4, 11])
@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 3, "repetition_penalty": 1.3}], ids=str)
def test_cached_and_uncached_give_the_same_tokens_also_beyond_the_context(block_size, T, settings):
    model = build(block_size)
    prompt = np.random.default_rng(T).integers(0, 13, (2, T))
    cached = generate(model, prompt, 20, **settings)
    assert cached.shape == (2, T + 20)
    np.testing.assert_array_equal(cached.numpy()[:, :T], prompt)
    np.testing.assert_array_equal(generate(model, prompt, 20, use_cache=False, **settings).numpy(), cached.numpy())


def test_with_the_cache_each_token_is_read_once_until_the_context_is_full():
    model, lengths = build(block_size=6), []
    original = model.forward
    model.forward = lambda tokens, cache=None: (lengths.append(tokens.shape[1]), original(tokens, cache))[1]
    generate(model, [1, 2], 9, temperature=0)
    assert lengths == [2, 1, 1, 1, 1, 3, 1, 1, 1]  # 6 are full: the newer half is read anew


def test_the_cache_holds_no_more_than_the_context():
    model = build(block_size=3)
    cache = model.new_cache(1)
    with ml.no_grad():
        model(ml.tensor([[1, 2, 3]]), cache)
    one = ml.tensor(np.zeros((1, 1, 10)))
    with pytest.raises(ShapeError, match="4 positions do not fit into the context of 3"):
        cache.layers[0].attend(one, one, one)
    cache.clear()
    assert cache.length == 0


def test_rows_of_a_batch_do_not_influence_each_other():
    model, prompts = build(), np.array([[1, 2, 3], [7, 0, 12], [5, 5, 5]])
    together = generate(model, prompts, 10, temperature=0, repetition_penalty=1.7).tolist()
    assert together == [generate(model, p, 10, temperature=0, repetition_penalty=1.7).tolist() for p in prompts]


def test_stream_yields_each_token_before_it_computes_the_next():
    model = build()
    calls = []
    original = model.forward
    model.forward = lambda *args: (calls.append(1), original(*args))[1]
    tokens = stream(model, [[1], [2]], 4, temperature=0)
    assert not calls
    first = next(tokens)
    assert first.shape == (2,)
    assert len(calls) == 1
    rest = [first, *tokens]
    assert len(rest) == len(calls) == 4
    np.testing.assert_array_equal(np.stack(rest, 1), generate(model, [[1], [2]], 4, temperature=0).numpy()[:, 1:])


def test_no_new_tokens_gives_the_prompt():
    assert generate(build(), [3, 1], 0).tolist() == [3, 1]
    assert generate(build(), [[3, 1], [2, 2]], 0).tolist() == [[3, 1], [2, 2]]


def test_the_prompt_and_the_gradients_are_untouched():
    model, prompt = build(), np.array([[3, 1]])
    found = model.generate(prompt, 4, seed=0)
    assert prompt.tolist() == [[3, 1]]
    assert found.dtype == ml.int64
    assert not found.requires_grad
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_meanwhile_and_the_mode_comes_back(training):
    model = build(dropout=0.5)
    model.train(training)
    first = generate(model, [1], 6, temperature=0).tolist()
    assert generate(model, [1], 6, temperature=0).tolist() == first
    tokens = stream(model, [1], 6, temperature=0)
    next(tokens)
    assert all(m.training is training for m in model.modules())  # also between two tokens
    with pytest.raises(IndexError):
        generate(model, [13], 1)
    assert all(m.training is training for m in model.modules())


@pytest.mark.parametrize("prompt", [[], [[]], np.zeros((1, 2, 3), int), [1.5], 3], ids=str)
def test_prompts_of_another_shape_are_refused(prompt):
    with pytest.raises(ShapeError, match=r"tokens \(B, T\) with T at least 1"):
        generate(build(), prompt, 1)


@pytest.mark.parametrize("token", [13, -1])
def test_tokens_outside_the_vocabulary_are_refused(token):
    with pytest.raises(IndexError, match=str(token)):
        generate(build(), [1, token], 1)


def test_stop_sequences_of_tokens_end_a_row_behind_them():
    model = Parrot([4, 5, 6, 7, 8], 13)
    assert generate(model, [1], 5, stop=[[9], [5, 6], []], temperature=0).tolist() == [1, 4, 5, 6]
    with pytest.raises(ShapeError, match="stop sequences end one row, and there are 2"):
        generate(model, [[1], [1]], 5, stop=[[5]])


# --- text ------------------------------------------------------------------------------------------

ALPHABET = CharTokenizer.train("abcdxyz")


def told(text: str, stop=(), tokenizer=ALPHABET, pieces=None) -> list[str]:
    ids = tokenizer.encode(text) if pieces is None else pieces
    parrot = Parrot(ids, tokenizer.vocab_size)
    return list(generate_text(parrot, tokenizer, "x", len(ids), stop=stop, temperature=0))


def test_text_comes_character_by_character():
    assert told("abcd") == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("text", "stop", "pieces"),
    [
        ("xyabcd", ["abc"], ["x", "y"]),
        ("xyabzd", ["abc"], ["x", "y", "abz", "d"]),  # held back, then no stop after all
        ("aabc", ["abc"], ["a"]),  # the stop begins inside its own beginning
        ("xababac", ["abac"], ["x", "ab"]),
        ("xyab", ["abc"], ["x", "y", "ab"]),  # held back until the end, then released
        ("abc", ["abc"], []),
        ("xabd", ["abc", "bd"], ["x", "a"]),  # one stop inside another's beginning
        ("xabcd", ["abcd", "bc"], ["x", "a"]),
        ("xyz", [""], ["x", "y", "z"]),
        ("xayz", ["a", "a"], ["x"]),
    ],
)
def test_the_text_ends_before_a_stop_string(text, stop, pieces):
    assert told(text, stop) == pieces


WORDS = st.text("ab", min_size=1, max_size=4)


@example(text="aba", stop=["b", "aba"], cuts=set())
@given(text=st.text("abc", max_size=12), stop=st.lists(WORDS, max_size=3), cuts=st.sets(st.integers(0, 12)))
def test_where_a_text_stops_does_not_depend_on_how_tokens_cut_it(text, stop, cuts):
    class Chunks:
        """Tokens that are arbitrary pieces of the text."""

        bounds = sorted({0, len(text), *(c for c in cuts if c < len(text))})
        pieces = [text[i:j] for i, j in pairwise(bounds)] or [""]
        vocab_size = len(pieces)

        def encode_array(self, prompt):
            return np.zeros(1, np.int64)

        def token_bytes(self, index):
            return self.pieces[index].encode()

        def _checked(self, ids):
            return np.asarray(ids)

    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    expected = text[: min(ends)[1]] if ends else text  # the stop that is complete first
    chunks = Chunks()
    assert "".join(told("", stop, chunks, range(len(chunks.pieces)))) == expected


def test_characters_that_several_bytes_make_come_whole():
    text = "xé漢🙂z"
    bpe = BPETokenizer.train("x", 257)  # every byte a token
    ids = bpe.encode(text)
    assert len(ids) == len(text.encode())
    assert told("", tokenizer=bpe, pieces=ids) == list(text)
    assert told("", ["漢"], bpe, ids) == ["x", "é"]
    assert told("", tokenizer=bpe, pieces=ids[:-2]) == ["x", "é", "漢", "\ufffd"]  # the limit cuts a character


def test_a_text_of_a_model_is_the_decoded_tokens():
    model, tokenizer = build(vocab_size=7), ALPHABET
    settings = {"seed": 4, "temperature": 1.3, "top_k": 5}
    text = "".join(generate_text(model, tokenizer, "abc", 15, **settings))
    assert text == tokenizer.decode(generate(model, tokenizer.encode("abc"), 15, **settings).numpy()[3:])
    assert list(generate_text(model, tokenizer, "abc", 0)) == []


def test_prompts_that_cannot_be_continued_are_refused():
    with pytest.raises(ShapeError, match="the prompt is empty"):
        list(generate_text(build(), ALPHABET, "", 3))
    with pytest.raises(DataError, match=r"'é' \(U\+00E9\) at position 2 is not in the vocabulary of 7"):
        list(generate_text(build(), ALPHABET, "abé", 3))


# --- the cache of one layer, and weights that are packed once -----------------------------------------


def attended(cache, steps, rng, rows):
    """What new queries of so many steps see, and what they would by attention to all that was appended."""
    q, k, v = (ml.tensor(rng.standard_normal((rows, steps, 2 * 5))) for _ in range(3))
    return cache.attend(q, k, v), (q, k, v)


@pytest.mark.parametrize("steps", [[1, 1, 1, 1], [3, 1, 2, 1], [2, 2, 1, 2]], ids=str)
def test_rows_of_a_cache_go_on_as_those_that_they_were(steps):
    rng, cache = np.random.default_rng(0), LayerCache(3, 2, 8, 5, np.float64)
    past = [np.zeros((3, 0, 10)), np.zeros((3, 0, 10))]
    for step, moved in zip(steps, ([2, 0, 0, 1, 2], [4, 4, 1], [1, 0, 2, 1], [0])):
        y, (q, k, v) = attended(cache, step, rng, len(past[0]))
        past = [np.concatenate([old, new.array], 1) for old, new in zip(past, (k, v))]
        S = past[0].shape[1]
        heads = [ml.tensor(x.reshape(len(x), -1, 2, 5).transpose(0, 2, 1, 3)) for x in (q.array, *past)]
        mask = ml.tensor(np.tri(step, S, S - step, dtype=bool))
        expected = F.scaled_dot_product_attention(*heads, mask).transpose(1, 2).reshape(y.shape)
        np.testing.assert_allclose(y.array, expected.array, rtol=1e-12, atol=1e-13)
        cache.reorder(np.array(moved))
        past = [x[moved] for x in past]
    assert cache.length == sum(steps)


def test_reordering_a_cache_moves_no_keys():
    cache = LayerCache(4, 2, 8, 5, np.float64)
    attended(cache, 1, np.random.default_rng(0), 4)
    keys, before = cache._keys, cache._keys[:, :1].copy()
    cache.reorder(np.array([3, 3, 0]))
    assert cache._keys is keys
    np.testing.assert_array_equal(keys[:, :1], before)


def test_a_model_that_was_trained_in_between_writes_with_its_new_weights():
    model = build()
    before = generate(model, [[1, 2]], 12, temperature=0).numpy()
    for parameter in model.parameters():
        parameter.array[...] = parameter.array[..., ::-1].copy()
    after = generate(model, [[1, 2]], 12, temperature=0).numpy()
    assert (before != after).any()
    np.testing.assert_array_equal(generate(model, [[1, 2]], 12, temperature=0, use_cache=False).numpy(), after)


def test_weights_are_packed_once_while_a_text_is_written(native, monkeypatch):
    model, held = build(), []
    monkeypatch.setattr(generation, "constant_weights", lambda m: held.append(constant_weights(m)) or held[-1])
    with kernels.use("native"):
        generate(model, [[1, 2]], 4, temperature=0)
    assert len(held) == 1
    packed = [panels for panels in held[0]._held.values() if panels is not None]
    assert len(packed) >= 4  # a block's maps at least
