"""A batch in parts is the batch: gradients, dropout, averages of weights, memory for time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilm as ml
from minilm import nn, optim
from minilm.errors import AnomalyError, ConfigError, DataError
from minilm.models import GPT, GPTConfig
from minilm.nn import functional as F
from minilm.nn.recompute import recompute
from minilm.train import ShuffledEpochs, TrainConfig, Trainer
from minilm.train.batches import IGNORED, targets_in
from minilm.train.trainer import DivergedError

B, T, V = 7, 5, 11


class Once:
    """One batch for every step, with some targets that are none."""

    def __init__(self, seed=0, ignored=()):
        rng = np.random.default_rng(seed)
        tokens, targets = rng.integers(0, V, (2, B, T))
        for place in ignored:
            targets[place] = IGNORED
        self.made = tokens, targets

    def batch(self, step):
        return self.made

    def validation(self, index, seed=0):
        return self.made


def trained(data, size, steps=1, dropout=0.3, **options):
    ml.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=V, block_size=T, n_layer=2, n_head=2, n_embd=8, dropout=dropout))
    options = {
        "steps": steps,
        "micro_batch_size": size,
        "warmup_steps": 0,
        "eval_every": 1000,
        "grad_clip": 0,
        **options,
    }
    trainer = Trainer(model, data, TrainConfig.build(None, options))
    trainer.evaluate = lambda: 0.0
    trainer.train()
    return trainer


def gradients(trainer):
    return np.concatenate([p.grad.array.ravel() for p in trainer.model.parameters()])


places = st.lists(st.tuples(st.integers(0, B - 1), st.integers(0, T - 1)), max_size=12, unique=True)


@settings(max_examples=25)
@given(size=st.integers(1, B), seed=st.integers(0, 100), ignored=places)
def test_any_split_of_a_batch_gives_its_gradient(size, seed, ignored):
    data = Once(seed, ignored)
    whole, parts = trained(data, 0), trained(data, size)
    expected, found = gradients(whole), gradients(parts)
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    assert parts.progress.recent == pytest.approx(whole.progress.recent, rel=1e-6)
    assert parts.progress.targets == whole.progress.targets == B * T - len(ignored)


def test_the_parts_are_weighted_by_their_targets():
    """With as many targets ignored in one part, a plain mean of means would be another number."""
    data = Once(3, [(b, t) for b in range(3) for t in range(4)])
    assert targets_in(data.made) == B * T - 12
    whole, parts = trained(data, 0, dropout=0.0), trained(data, 3, dropout=0.0)
    assert np.abs(gradients(parts) - gradients(whole)).max() <= 1e-6 * np.abs(gradients(whole)).max()


@pytest.mark.parametrize("layer", ["dropout", "attention", "self_attention", "weights"])
def test_dropout_belongs_to_the_example(layer):
    ml.manual_seed(0)
    x = ml.randn(6, 3, 8)
    attention = nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=True)

    def run(x):
        if layer == "dropout":
            return F.dropout(x, 0.5, True)
        if layer == "weights":
            return attention(x, x, x, need_weights=True)[0]
        if layer == "attention":
            heads = x.reshape(len(x), 3, 2, 4).transpose(1, 2)
            return F.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.4)
        return F.self_attention(ml.cat([x, x, x], -1), 2, dropout_p=0.4)

    ml.manual_seed(5)
    whole = run(x).detach().numpy()
    for first, end in ((0, 1), (1, 3), (3, 6)):
        ml.manual_seed(5)
        with ml.random.examples(first, end - first, 6):
            part = run(x[first:end]).detach().numpy()
        np.testing.assert_array_equal(part, whole[first:end])
    ml.manual_seed(5)
    assert not np.array_equal(run(x[3:]).detach().numpy(), whole[3:])


# --- activations computed twice --------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_activations_give_the_same_bits(dropout):
    data = Once()
    for size in (0, 2):
        plain = trained(data, size, steps=2, dropout=dropout)
        again = trained(data, size, steps=2, dropout=dropout, recompute=True)
        assert again.model.recompute
        np.testing.assert_array_equal(gradients(again), gradients(plain))
        for p, q in zip(plain.model.parameters(), again.model.parameters()):
            np.testing.assert_array_equal(p.array, q.array)


def test_recompute_keeps_the_inputs_only():
    block = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8))
    x = ml.randn(16, 8, requires_grad=True)
    y = recompute(block, x)
    assert y.node is not None
    assert [s.shape for s in y.node.saved_tensors] == [(16, 8)]
    y.square().sum().backward()
    found = [t.grad.numpy().copy() for t in (x, *block.parameters())]
    for t in (x, *block.parameters()):
        t.grad = None
    block(x).square().sum().backward()
    for f, t in zip(found, (x, *block.parameters())):
        np.testing.assert_array_equal(f, t.grad.numpy())


def test_recompute_of_frozen_parts_and_inputs():
    block = nn.Linear(3, 3)
    block.weight.requires_grad_(False)
    x = ml.randn(2, 3)
    recompute(block, x).sum().backward()
    assert block.weight.grad is None
    assert x.grad is None
    np.testing.assert_array_equal(block.bias.grad.numpy(), [2, 2, 2])


# --- the average of the weights ---------------------------------------------------------------------------


def test_the_average_follows_its_formula():
    p = nn.Parameter(ml.tensor([1.0, 2.0]))
    average = optim.WeightAverage([p], 0.5)
    expected = p.array.astype(np.float64).copy()
    for step in range(20):
        p.array[...] += 1
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * p.array
        np.testing.assert_allclose(average.values[0], expected, rtol=1e-5)
    own = p.array.copy()
    with average.applied():
        np.testing.assert_array_equal(p.array, average.values[0])
    np.testing.assert_array_equal(p.array, own)
    with pytest.raises(ConfigError, match="below 1, not 1"):
        optim.WeightAverage([p], 1.0)


def test_the_average_is_what_is_evaluated_and_what_generates(begin):
    from minilm.train import load_run

    trainer = begin(ema_decay=0.9)
    trainer.train()
    with trainer.average.applied():
        averaged = [p.array.copy() for p in trainer.model.parameters()]
        trainer.average, average = None, trainer.average
        expected = trainer.evaluate()
        trainer.average = average
    assert trainer.evaluate() == expected == trainer.progress.validation_loss
    model, _ = load_run(trainer.folder)
    for p, value in zip(model.parameters(), averaged):
        np.testing.assert_array_equal(p.array, value)


# --- early ends and skipped batches ------------------------------------------------------------------------


def test_training_ends_when_validation_gets_no_better(begin):
    trainer = begin(eval_every=2, patience=3)
    losses = iter([3.0, 2.0, 2.5, 2.1, 2.0, 1.0])
    trainer.evaluate = lambda: next(losses)
    assert trainer.train().step == 10
    assert trainer.progress.stopped
    from minilm.train.run import continued_run

    with pytest.raises(ConfigError, match="nothing left"):
        continued_run(trainer.folder, {})
    again, _ = continued_run(trainer.folder, {"patience": 10})
    assert again.train().step == 24


def test_a_bad_batch_is_skipped_when_asked(begin):
    trainer = begin(on_nan="skip", steps=12)
    original = trainer.model.loss
    bad = (3, 7)
    trainer.model.loss = lambda *args: original(*args) * (math.nan if trainer.progress.step in bad else 1)
    before = {}

    def remember():
        before.setdefault(trainer.progress.step, [p.array.copy() for p in trainer.model.parameters()])
        return None

    batch = trainer.data.batch
    trainer.data.batch = lambda step: (remember(), batch(step))[1]
    assert trainer.train().step == 12
    assert trainer.progress.skipped == 2
    for step in bad:
        for a, b in zip(before[step], before[step + 1]):
            np.testing.assert_array_equal(a, b)


def test_the_report_says_where_a_nan_was_born(begin):
    trainer = begin()
    trainer.model.loss = lambda tokens, targets: (trainer.model.lm_head.weight.sum() * 0 - 1).log()
    with pytest.raises(DivergedError, match=r"the loss is nan at step 1: .* usually helps. log: NaN was born"):
        trainer.train()
    assert issubclass(AnomalyError, ml.MinilmError)


def test_bfloat16_is_switched_on_for_the_while(begin):
    trainer, seen = begin(precision="bf16", steps=1), []
    original = trainer.model.loss
    trainer.model.loss = lambda *args: (seen.append(ml.get_float32_matmul_precision()), original(*args))[1]
    trainer.train()
    assert set(seen) == {"medium"}
    assert ml.get_float32_matmul_precision() == "highest"


# --- epochs --------------------------------------------------------------------------------------------------


def test_epochs_pass_through_everything_once_in_orders_of_their_own():
    examples = [(np.array([i]), np.array(i)) for i in range(7)]
    data = ShuffledEpochs(examples, examples[:3], batch_size=3, seed=5)
    assert data.steps_per_epoch == 3
    seen = [np.concatenate([data.batch(step)[1] for step in range(3 * e, 3 * e + 3)]).tolist() for e in range(3)]
    assert all(sorted(order) == list(range(7)) for order in seen)
    assert len({tuple(order) for order in seen}) == 3
    assert [len(data.batch(step)[0]) for step in range(3)] == [3, 3, 1]
    assert data.batch(4)[1].tolist() == seen[1][3:6]  # any step at any time
    assert data.validation(0)[1].tolist() == data.validation(0)[1].tolist()
    for wrong in ((examples, examples, 0), ([], examples, 1), (examples, [], 1)):
        with pytest.raises(DataError, match="each must be at least 1"):
            ShuffledEpochs(*wrong)


class Classifier(nn.Module):
    """Any model with a loss will do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def loss(self, x, label):
        """Cross-entropy."""
        return F.cross_entropy(self.layer(x), label)


def test_the_trainer_trains_any_model_with_a_loss():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((60, 2)).astype(np.float32)
    labels = np.argmax(points @ np.array([[1, -1, 0], [0, 1, -1]]), 1)
    examples = list(zip(points, labels))
    config = TrainConfig.build(None, {"steps": 200, "learning_rate": 0.1, "eval_every": 100, "micro_batch_size": 7})
    trainer = Trainer(Classifier(), ShuffledEpochs(examples[:50], examples[50:], 20), config)
    trainer.train()
    assert trainer.progress.validation_loss < 0.3
