"""Beam search over scores that are written down: against a search that does one sentence at a time, and by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minilm as ml
from minilm.beam import BeamSearch, CausalDecoder, beam_search, continuations, sample
from minilm.errors import ConfigError, ShapeError
from minilm.generation import Sampling
from minilm.models import GPT, GPTConfig
from minilm.random import Generator

V, END = 13, 1


class Table:
    """A model whose scores are a function of the sentence and of the last two tokens; it notes what it is asked."""

    def __init__(self, sentences, seed=0, scale=2.0):
        rng = np.random.default_rng(seed)
        self.scores = (scale * rng.standard_normal((sentences, V, V, V))).astype(np.float32)
        self.sentence, self.seen, self.rows = np.arange(sentences), np.zeros((sentences, 1), np.int64), []

    def __call__(self, tokens):
        self.rows.append(len(tokens))
        self.seen = np.concatenate([self.seen, tokens], 1)
        return self.scores[self.sentence, self.seen[:, -2], self.seen[:, -1]]

    def reorder(self, rows):
        self.sentence, self.seen = self.sentence[rows], self.seen[rows]


def plainly(table, number, search):
    """The same search for one sentence, with lists: beginnings, all their continuations, the best of them."""
    running, finished = [((), np.float32(0))], []
    for step in range(search.max_new_tokens):
        options = []
        for tokens, score in running:
            before = (0, 0, *tokens)[-2:]
            logits = table.scores[number, before[0], before[1]].astype(np.float64)
            log_p = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
            if search.no_repeat_ngram_size == 2:
                said = (0, *tokens)
                for a, b in pairwise(said):
                    if a == said[-1]:
                        log_p[b] = -np.inf
            if step < search.min_new_tokens:
                log_p[END] = -np.inf
            options += [((*tokens, v), score + np.float32(log_p[v])) for v in range(V)]
        options = sorted(options, key=lambda o: -o[1])[: 2 * search.num_beams]
        last = step == search.max_new_tokens - 1
        for tokens, score in options[: search.num_beams]:
            if tokens[-1] == END or last:
                finished.append((tokens, score / np.float32(len(tokens) ** search.length_penalty)))
        finished = sorted(finished, key=lambda f: -f[1])[: search.num_beams]
        running = [o for o in options if o[0][-1] != END][: search.num_beams]
        if len(finished) == search.num_beams:
            length = step + 1
            if search.early_stopping == "never" and search.length_penalty > 0:
                length = search.max_new_tokens
            possible = running[0][1] / np.float32(length**search.length_penalty)
            if search.early_stopping is True or possible <= finished[-1][1]:
                break
    return finished[: search.num_return_sequences]


SEARCHES = [
    BeamSearch(4, 4, 1.0, False, 9, eos_token_id=END),
    BeamSearch(3, 2, 0.6, True, 9, eos_token_id=END),
    BeamSearch(5, 5, 1.5, "never", 9, eos_token_id=END),
    BeamSearch(4, 3, -0.5, "never", 7, 2, eos_token_id=END),
    BeamSearch(2, 2, 0.0, False, 12, 3, 2, eos_token_id=END),
    BeamSearch(1, 1, 1.0, False, 9, eos_token_id=END),
]


@pytest.mark.parametrize("search", SEARCHES, ids=range(len(SEARCHES)))
def test_all_sentences_together_are_as_each_alone(search):
    table = Table(40)
    found = beam_search(table, np.zeros((40, 1), np.int64), search)
    for number, group in enumerate(found):
        expected = plainly(table, number, search)
        assert [tuple(h.tokens) for h in group] == [tokens for tokens, _ in expected]
        np.testing.assert_allclose([h.score for h in group], [score for _, score in expected], rtol=1e-5)


def test_sentences_that_are_done_leave_the_batch():
    table = Table(40)
    beam_search(table, np.zeros((40, 1), np.int64), BeamSearch(4, max_new_tokens=30, eos_token_id=END))
    assert table.rows[0] == 40, "the first step has one beginning for each"
    assert table.rows[1] == 160
    assert all(b <= a for a, b in zip(table.rows[1:], table.rows[2:]))
    assert table.rows[-1] < 160


def test_a_prompt_of_several_tokens():
    table = Table(3)
    prompt = np.array([[0, 5, 7], [0, 5, 8], [0, 2, 7]])
    search = BeamSearch(3, max_new_tokens=4, eos_token_id=END)
    together = beam_search(table, prompt, search)
    assert table.rows[0] == 3
    alone = Table(3)
    alone.reorder(np.array([2]))
    assert beam_search(alone, prompt[2:], search)[0][0].tokens.tolist() == together[2][0].tokens.tolist()


def test_forced_ends_and_suppressed_tokens():
    scores = Table(6)
    scores.scores[..., END] -= 100
    found = beam_search(
        scores, np.zeros((6, 1), np.int64), BeamSearch(3, 3, max_new_tokens=5, eos_token_id=END, forced_eos=True)
    )
    assert all(len(h.tokens) == 5 and h.tokens[-1] == END for group in found for h in group)
    often = Table(6)
    often.scores[..., 4] += 20
    search = BeamSearch(3, 3, max_new_tokens=5, eos_token_id=END, suppress_tokens=(4,))
    assert not any(4 in h.tokens for group in beam_search(often, np.zeros((6, 1), np.int64), search) for h in group)


@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from([13, 64, 640, 6413]))
def test_the_best_continuations_are_those_of_all(seed, k, V):
    rng, (B, K) = np.random.default_rng(seed), (3, 4)
    log_probs = rng.standard_normal((B * K, V)).astype(np.float32)
    log_probs[rng.random(log_probs.shape) < 0.3] = -np.inf
    scores = rng.standard_normal((B, K)).astype(np.float32)
    every = (log_probs.reshape(B, K, V) + scores[:, :, None]).reshape(B, -1)
    order = np.argsort(-every, 1, kind="stable")[:, :k]
    best, parents, tokens = continuations(log_probs, scores, k)
    np.testing.assert_array_equal(best, np.take_along_axis(every, order, 1))
    certain = np.isfinite(best)
    np.testing.assert_array_equal((parents * V + tokens)[certain], order[certain])


def test_scores_that_are_no_numbers():
    with pytest.raises(ShapeError, match="NaN"):
        continuations(np.full((2, 6400), np.nan, np.float32), np.zeros((2, 1), np.float32), 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1, not 0"),
        ({"num_beams": 2, "num_return_sequences": 3}, "from 1 to num_beams"),
        ({"length_penalty": float("inf")}, "finite"),
        ({"early_stopping": "soon"}, "early_stopping must be True, False or 'never'"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"min_new_tokens": 200}, "min_new_tokens must be from 0 to max_new_tokens"),
        ({"no_repeat_ngram_size": -1}, "at least 0"),
    ],
)
def test_impossible_settings(settings, said):
    with pytest.raises(ConfigError, match=said):
        BeamSearch(**settings)


def test_a_beam_wider_than_the_vocabulary_and_no_prompt():
    with pytest.raises(
        ConfigError, match="num_beams 7 is too wide: of each 14 tokens go on, and the vocabulary has 13"
    ):
        beam_search(Table(2), np.zeros((2, 1), np.int64), BeamSearch(7))
    with pytest.raises(ShapeError, match="T at least 1"):
        beam_search(Table(2), np.zeros((2, 0), np.int64), BeamSearch(2))


def test_greedy_is_a_beam_of_one_and_drawing_follows_its_seed():
    prompt = np.zeros((30, 1), np.int64)
    greedy = sample(Table(30), prompt, Sampling(temperature=0), 9, END)
    beam = beam_search(Table(30), prompt, BeamSearch(1, max_new_tokens=9, eos_token_id=END))
    for tokens, group in zip(greedy, beam):
        assert tokens.tolist()[: len(group[0].tokens)] == group[0].tokens.tolist()[: len(tokens)]
    first, again, other = (sample(Table(30), prompt, Sampling(), 9, END, generator=Generator(s)) for s in (1, 1, 2))
    assert [x.tolist() for x in first] == [x.tolist() for x in again]
    assert [x.tolist() for x in first] != [x.tolist() for x in other]
    assert all(END not in x[:-1] and (x[-1] == END or len(x) == 9) for x in first)
    assert not any(5 in x for x in sample(Table(30), prompt, Sampling(), 9, END, (5,)))


class Rereading:
    """A GPT that reads everything again for each token."""

    def __init__(self, model):
        self.model, self.seen = model, None

    def __call__(self, tokens):
        self.seen = tokens if self.seen is None else np.concatenate([self.seen, tokens], 1)
        return self.model(ml.tensor(self.seen)).detach().numpy()[:, -1]

    def reorder(self, rows):
        self.seen = self.seen[rows]


def test_a_gpt_with_its_cache_and_without():
    ml.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=V, block_size=16, n_layer=2, n_head=2, n_embd=12)).to("float64").eval()
    for parameter in model.parameters():
        parameter.array[...] *= 5
    prompt = np.random.default_rng(0).integers(2, V, (7, 4))
    search = BeamSearch(4, 4, max_new_tokens=9, eos_token_id=END)
    found, expected = (beam_search(d, prompt, search) for d in (CausalDecoder(model, 7), Rereading(model)))
    for ours, theirs in zip(found, expected):
        assert [h.tokens.tolist() for h in ours] == [h.tokens.tolist() for h in theirs]
    assert len({tuple(h.tokens) for group in found for h in group}) > 14
    drawn = sample(CausalDecoder(model, 7), prompt, Sampling(temperature=0), 9, END)
    again = sample(Rereading(model), prompt, Sampling(temperature=0), 9, END)
    assert [x.tolist() for x in drawn] == [x.tolist() for x in again]
    with pytest.raises(ShapeError, match="at most 16 positions"):
        beam_search(CausalDecoder(model, 7), prompt, BeamSearch(2, max_new_tokens=20))
