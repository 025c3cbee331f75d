"""Bengio's model, recurrent models and TextCNN: beside twins in PyTorch, and what must hold of them by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilm as ml
from minilm.errors import ConfigError, DtypeError, ShapeError
from minilm.generation import generate
from minilm.models import (
    FeedForwardConfig,
    FeedForwardLM,
    RecurrentConfig,
    RecurrentLM,
    TextCNN,
    TextCNNConfig,
)
from minilm.testing import assert_same

B, T, V = 3, 7, 13
rng = np.random.default_rng(0)
TOKENS, TARGETS = rng.integers(0, V, (2, B, T))


def tokens(array=TOKENS):
    return ml.Tensor(array)


def same_as_twin(torch, ours, theirs, loss, their_loss, renamed=lambda name: name):
    """The twin takes our weights by name, and both give the same loss and gradients."""
    state = {renamed(name): torch.from_numpy(tensor.array.copy()) for name, tensor in ours.state_dict().items()}
    theirs.double().load_state_dict(state, strict=True)
    first, second = loss(), their_loss()
    assert first.item() == pytest.approx(second.item(), rel=1e-12)
    first.backward()
    second.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert_same(parameter.grad, gradients[renamed(name)], rtol=1e-10, name=name)
    back = {name: ml.Tensor(value.numpy()) for name, value in theirs.state_dict().items()}
    assert list(back) == list(map(renamed, ours.state_dict()))


# --- recurrent ------------------------------------------------------------------------------------


def recurrent(kind="lstm", **options):
    ml.manual_seed(3)
    return RecurrentLM(RecurrentConfig(kind, V, T, 2, 5, options.pop("n_hidden", 6), **options)).to("float64")


def recurrent_twin(torch, config):
    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[config.kind]
            self.wte = torch.nn.Embedding(V, config.n_embd)
            self.rnn = layer(config.n_embd, config.n_hidden, config.n_layer, batch_first=True)
            self.lm_head = torch.nn.Linear(config.n_hidden, V, bias=False)
            if config.tied:
                self.lm_head.weight = self.wte.weight

        def forward(self, x, state=None):
            y, state = self.rnn(self.wte(x), state)
            return self.lm_head(y), state

    return Twin()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_a_recurrent_model_is_its_twin_in_pytorch(torch, kind, tied):
    ours = recurrent(kind, tied=tied, n_hidden=5 if tied else 6)
    theirs = recurrent_twin(torch, ours.config)

    def their_loss():
        scores, _ = theirs(torch.from_numpy(TOKENS))
        return torch.nn.functional.cross_entropy(scores.reshape(-1, V), torch.from_numpy(TARGETS).reshape(-1))

    same_as_twin(torch, ours, theirs, lambda: ours.loss(tokens(), tokens(TARGETS)), their_loss)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_a_state_goes_in_and_out_with_its_gradient(torch, kind):
    ours = recurrent(kind)
    theirs = recurrent_twin(torch, ours.config).double()
    theirs.load_state_dict({name: torch.from_numpy(t.array.copy()) for name, t in ours.state_dict().items()})
    arrays = [rng.standard_normal((2, B, 6)) for _ in range(2 if kind == "lstm" else 1)]
    state = tuple(ml.Tensor(a, requires_grad=True) for a in arrays)
    logits, last = ours.scores(tokens(), state)
    given = tuple(torch.from_numpy(a.copy()).requires_grad_() for a in arrays)
    scores, ended = theirs(torch.from_numpy(TOKENS), given if kind == "lstm" else given[0])
    assert_same(logits, scores, rtol=1e-12)
    ended = ended if kind == "lstm" else (ended,)
    total, other = (logits * logits).sum(), (scores * scores).sum()
    for i, (a, b) in enumerate(zip(last, ended)):
        assert_same(a, b, rtol=1e-12)
        total, other = total + (i + 2) * (a * a * a).sum(), other + (i + 2) * (b * b * b).sum()
    total.backward()
    other.backward()
    for a, b in zip(state, given):
        assert_same(a.grad, b.grad, rtol=1e-10)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_a_future_token_moves_no_past_score(kind):
    model = recurrent(kind).eval()
    before = model(tokens()).detach().numpy()
    changed = TOKENS.copy()
    changed[:, 4] = (changed[:, 4] + 1) % V
    after = model(tokens(changed)).detach().numpy()
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any((0, 2)).all()


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(1, T - 1), kind=st.sampled_from(["rnn", "lstm", "gru"]))
def test_what_is_read_in_two_parts_is_read_whole(cut, kind):
    model = recurrent(kind).eval()
    with ml.no_grad():
        cache = model.new_cache(B)
        parts = [model(tokens(TOKENS[:, :cut]), cache), model(tokens(TOKENS[:, cut:]), cache)]
        assert_same(ml.cat(parts, 1), model(tokens()), rtol=1e-12)
        cache.clear()
        assert_same(model(tokens(), cache), model(tokens()), rtol=1e-12)


def test_dropout_is_drawn_in_training_only():
    model = recurrent(dropout=0.5)
    assert not ml.equal(model(tokens()), model(tokens()))
    model.eval()
    assert ml.equal(model(tokens()), model(tokens()))


def test_an_lstm_begins_with_the_gate_of_its_memory_open():
    model = recurrent()
    assert (model.rnn.bias_ih_l1.array[6:12] == 1).all()
    assert not model.rnn.bias_hh_l1.array[6:12].any()
    assert np.abs(model.rnn.bias_ih_l1.array[:6]).max() < 1 / np.sqrt(6)


def test_its_arithmetic_is_counted():
    model = recurrent()
    matrices = 4 * 6 * (5 + 6) + 4 * 6 * (6 + 6) + V * 6
    assert model.flops_per_token() == 6 * matrices


# --- Bengio ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True])
def test_the_feed_forward_model_is_the_papers_equation(torch, direct):
    ml.manual_seed(3)
    ours = FeedForwardLM(FeedForwardConfig(V, 4, T, 5, 6, direct=direct)).to("float64")
    ours.lm_head.bias.array[...] = rng.standard_normal(V)

    class Twin(torch.nn.Module):
        """y = b + W x + U tanh(d + H x), for one place at a time."""

        def __init__(self):
            super().__init__()
            self.C = torch.nn.Parameter(torch.zeros(V, 5))
            self.H = torch.nn.Parameter(torch.zeros(6, 20))
            self.d = torch.nn.Parameter(torch.zeros(6))
            self.U = torch.nn.Parameter(torch.zeros(V, 6))
            self.b = torch.nn.Parameter(torch.zeros(V))
            if direct:
                self.W = torch.nn.Parameter(torch.zeros(V, 20))

        def score(self, last):
            x = torch.cat([torch.zeros(5 * (4 - len(last))).double(), *[self.C[token] for token in last]])
            y = self.b + self.U @ torch.tanh(self.d + self.H @ x)
            return y + self.W @ x if direct else y

    theirs = Twin()
    names = {
        "wte.weight": "C",
        "hidden.weight": "H",
        "hidden.bias": "d",
        "lm_head.weight": "U",
        "lm_head.bias": "b",
        "direct.weight": "W",
    }

    def their_loss():
        scores = [theirs.score(TOKENS[b, max(0, t - 3) : t + 1]) for b in range(B) for t in range(T)]
        return torch.nn.functional.cross_entropy(torch.stack(scores), torch.from_numpy(TARGETS).reshape(-1))

    same_as_twin(torch, ours, theirs, lambda: ours.loss(tokens(), tokens(TARGETS)), their_loss, names.__getitem__)


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(1, T - 1), n=st.integers(1, 9))
def test_the_feed_forward_model_sees_the_last_tokens_only(cut, n):
    ml.manual_seed(3)
    model = FeedForwardLM(FeedForwardConfig(V, n, T, 5, 6, direct=True)).eval()
    with ml.no_grad():
        whole = model(tokens())
        cache = model.new_cache(B)
        parts = [model(tokens(TOKENS[:, :cut]), cache), model(tokens(TOKENS[:, cut:]), cache)]
        assert_same(ml.cat(parts, 1), whole, rtol=1e-6)
        if n < T:
            assert_same(model(tokens(TOKENS[:, -n:]))[:, -1], whole[:, -1], rtol=1e-6)
        changed = TOKENS.copy()
        changed[:, 0] = (changed[:, 0] + 1) % V
        moved = (model(tokens(changed)).numpy() != whole.numpy()).any((0, 2))
    np.testing.assert_array_equal(moved, np.arange(T) < n)


def test_generation_goes_on_beyond_a_block():
    for model in (recurrent(), FeedForwardLM(FeedForwardConfig(V, 4, T, 5, 6))):
        first = generate(model, TOKENS[0], 20, seed=1)
        assert first.shape == (27,)
        assert ml.equal(first, generate(model, TOKENS[0], 20, seed=1, use_cache=False))
        assert ml.equal(model.generate(tokens(TOKENS[0]), 20, seed=1), first)


@pytest.mark.parametrize("model", [recurrent(), FeedForwardLM(FeedForwardConfig(V, 4, T, 5, 6))])
def test_what_are_no_tokens_is_refused(model):
    with pytest.raises(DtypeError, match="Tensor of integers"):
        model(TOKENS)
    for shape in ((3,), (3, 0), (2, 3, 4)):
        with pytest.raises(ShapeError, match=r"\(B, T\)"):
            model(ml.Tensor(np.zeros(shape, np.int64)))


# --- TextCNN --------------------------------------------------------------------------------------


def text_cnn(**options):
    ml.manual_seed(3)
    return TextCNN(TextCNNConfig(V, 3, 5, 4, **options)).to("float64").eval()


def test_text_cnn_is_its_twin_in_pytorch(torch):
    ours = text_cnn()

    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = torch.nn.Embedding(V, 5)
            self.convs = torch.nn.ModuleList([torch.nn.Conv1d(5, 4, k) for k in (3, 4, 5)])
            self.classifier = torch.nn.Linear(12, 3)

        def forward(self, x):
            e = self.wte(x).transpose(1, 2)
            return self.classifier(torch.cat([conv(e).relu().amax(-1) for conv in self.convs], -1))

    theirs = Twin()
    labels = np.array([0, 2, 1])

    def their_loss():
        return torch.nn.functional.cross_entropy(theirs(torch.from_numpy(TOKENS)), torch.from_numpy(labels))

    same_as_twin(torch, ours, theirs, lambda: ours(tokens(), labels=tokens(labels)).loss, their_loss)
    assert_same(ours(tokens()).logits, theirs(torch.from_numpy(TOKENS)), rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4), more=st.integers(0, 4), seed=st.integers(0, 99))
def test_padding_changes_no_class(lengths, more, seed):
    model, draws = text_cnn(), np.random.default_rng(seed)
    texts = [draws.integers(0, V, n) for n in lengths]
    size = max(lengths) + more
    padded = np.stack([np.concatenate([text, draws.integers(0, V, size - len(text))]) for text in texts])
    mask = np.arange(size) < np.array(lengths)[:, None]
    logits = model(tokens(padded), ml.Tensor(mask.astype(np.int64))).logits
    for text, row in zip(texts, logits):
        assert_same(model(tokens(text[None])).logits[0], row, rtol=1e-12)


def test_text_cnn_has_a_loss_for_training():
    model = text_cnn()
    mask, labels = ml.Tensor(np.ones((B, T), np.int64)), tokens(np.array([0, 1, 2]))
    assert model.loss(tokens(), mask, labels).item() == model(tokens(), labels=labels).loss.item()
    model.train()
    assert not ml.equal(model(tokens()).logits, model(tokens()).logits)


def test_what_a_text_cnn_cannot_read_is_refused():
    model = text_cnn()
    for mask in ([[1, 0, 1]], [[0, 1, 1]], [[0, 0, 0]]):
        with pytest.raises(ShapeError, match="padding must stand behind"):
            model(tokens(TOKENS[:1, :3]), ml.tensor(mask))
    with pytest.raises(ShapeError, match="does not fit"):
        model(tokens(), ml.tensor([[1, 1, 1]]))
    with pytest.raises(ShapeError, match=r"\(B, T\)"):
        model(ml.zeros(3, 0, dtype=ml.int64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RecurrentConfig("elman"), "kind must be one of rnn, lstm, gru"),
        (lambda: RecurrentConfig(n_layer=0), "n_layer must be at least 1"),
        (lambda: RecurrentConfig(dropout=1.0), "dropout"),
        (lambda: RecurrentConfig(n_hidden=5, tied=True), r"n_hidden must be n_embd \(512\)"),
        (lambda: FeedForwardConfig(context=0), "context must be at least 1"),
        (lambda: TextCNNConfig(widths="3,x"), "widths must be whole numbers"),
        (lambda: TextCNNConfig(widths="3,0"), "widths must be whole numbers"),
        (lambda: TextCNNConfig(num_labels=0), "num_labels must be at least 1"),
    ],
)
def test_impossible_shapes_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
