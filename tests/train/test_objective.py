"""A loss of several parts, each a mean over its own targets, is the same sum however its batch is split."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilm as ml
from minilm import nn
from minilm.errors import DataError
from minilm.nn import functional as F
from minilm.train import LogFile, TrainConfig, Trainer
from minilm.train.batches import IGNORED
from minilm.train.checkpoint import checkpoints, resume
from minilm.train.objective import mean_loss, parts_of

B, T, V = 6, 4, 7


class Pretraining(nn.Module):
    """As BERT's pre-training: a token's identity at some places, and one label for each sequence."""

    config = TrainConfig.build().model

    def __init__(self, dropout=0.0, parts=2):
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(V, 8), nn.Dropout(dropout)
        self.tokens, self.label = nn.Linear(8, V), nn.Linear(8, 2)
        self.parts = parts

    def loss(self, tokens, masked, label):
        """Masked language model, next sentence."""
        x = self.dropout(self.embedding(tokens))
        masked = F.cross_entropy(self.tokens(x).reshape(-1, V), masked.reshape(-1))
        following = F.cross_entropy(self.label(x.mean(1)), label)
        return (masked, following) if self.parts == 2 else following


class Batches:
    """The same batches again and again, for training and for validation."""

    def __init__(self, *made):
        self.made = made

    def batch(self, step):
        return self.made[step % len(self.made)]

    def validation(self, index, seed=0):
        return self.made[index % len(self.made)]


def drawn(masked, labelled, seed=0):
    """A batch with targets at these places of B * T, and labels of these examples of B."""
    rng = np.random.default_rng(seed)
    tokens, targets, labels = rng.integers(0, V, (B, T)), np.full((B, T), IGNORED), np.full(B, IGNORED)
    for place in masked:
        targets.flat[place] = rng.integers(V)
    for place in labelled:
        labels[place] = rng.integers(2)
    return tokens, targets, labels


def trainer_of(*batches, size=0, dropout=0.0, folder=None, **options):
    ml.manual_seed(1)
    options = {"steps": 1, "micro_batch_size": size, "warmup_steps": 0, "eval_every": 1000, "grad_clip": 0, **options}
    options.setdefault("eval_batches", len(batches))
    trainer = Trainer(Pretraining(dropout), Batches(*batches), TrainConfig.build(None, options), folder)
    trainer.evaluate, trainer.really_evaluate = (lambda: 0.0), trainer.evaluate
    return trainer


def trained(*batches, **options):
    trainer = trainer_of(*batches, **options)
    trainer.train()
    return trainer


def gradients(trainer):
    return {n: p.grad.numpy().copy() for n, p in trainer.model.named_parameters() if p.grad is not None}


def weights(trainer):
    return {n: p.array.copy() for n, p in trainer.model.named_parameters()}


places = st.sets(st.integers(0, B * T - 1))
examples = st.sets(st.integers(0, B - 1))


@settings(max_examples=60, deadline=None)
@given(masked=places, labelled=examples, size=st.integers(1, B), dropout=st.sampled_from([0.0, 0.4]))
def test_any_split_gives_the_same_sum_of_means(masked, labelled, size, dropout):
    """Also when a micro-batch, or the whole batch, has no target in one part or in all."""
    batch = drawn(masked, labelled)
    whole, split = (trained(batch, size=s, dropout=dropout) for s in (0, size))
    expected, found = gradients(whole), gradients(split)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert np.isfinite(gradient).all()
        np.testing.assert_allclose(found[name], gradient, rtol=1e-5, atol=1e-6 * np.abs(gradient).max())
    assert split.progress.recent == pytest.approx(whole.progress.recent, rel=1e-6)
    assert split.progress.targets == whole.progress.targets == len(masked) + len(labelled)
    assert split.progress.tokens == B * T
    assert split.progress.skipped == (not masked and not labelled)
    if not dropout and (masked or labelled):
        alone = [part.item() for part in Pretraining.loss(trainer_of(batch).model, *map(ml.tensor, batch))]
        expected = sum(loss for loss, its in zip(alone, (masked, labelled)) if its)
        assert whole.progress.recent == pytest.approx([expected], rel=1e-6)


def test_a_batch_without_targets_changes_nothing_and_is_counted(tmp_path):
    full, empty = drawn({1, 5, 20}, {0, 3}), drawn((), ())
    trainer = trainer_of(full, empty, steps=4, size=2, log_every=1)
    trainer.observers, seen = [LogFile(tmp_path)], []
    update = trainer._update
    trainer._update = lambda: (seen.append(trainer.progress.step), update())
    trainer.train()
    assert seen == [0, 2]
    assert (trainer.progress.step, trainer.progress.skipped) == (4, 2)
    assert all(np.isfinite(value).all() for value in weights(trainer).values())
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert ['"skipped"' in line for line in lines] == [False, True, True, True]
    assert ['"loss": null' in line for line in lines] == [False, True, False, True]


def test_each_part_of_the_validation_loss_is_weighted_by_its_own_targets():
    first, second, empty = drawn(range(20), {0}, 1), drawn({3}, range(B), 2), drawn((), (), 3)
    trainer = trainer_of(first, second, empty)
    model, together = trainer.model.eval(), [np.concatenate(arrays) for arrays in zip(first, second, empty)]
    expected = sum(part.item() for part in model.loss(*map(ml.tensor, together)))
    assert trainer.really_evaluate() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(DataError, match="no targets in array -2"):
        mean_loss(model, [drawn((), {1}), drawn((), {2})])
    model.parts = 1
    mean_loss(model, [drawn((), {1})])  # the array before the last is not this loss's


@pytest.mark.parametrize("stop", [1, 3, 5])  # after 5 one head has a gradient, if there are labels
@pytest.mark.parametrize("labelled", [(), (4, 5)])
def test_a_stop_after_micro_batches_without_targets_and_a_resume_change_no_bit(tmp_path, stop, labelled):
    """The first micro-batches have no target at all, so there may be no gradient to keep."""
    batches = drawn((21, 23), labelled), drawn(range(9), (0,))
    whole = trained(*batches, size=1, steps=3, dropout=0.3)
    (tmp_path / "checkpoints").mkdir()
    part = trainer_of(*batches, size=1, steps=3, dropout=0.3, folder=tmp_path)
    loss, calls = part.model.loss, []

    def stopping(*micro):
        calls.append(1)
        part.interrupted |= len(calls) == stop
        return loss(*micro)

    part.model.loss = stopping
    part.train()
    assert part.progress.examples == stop
    assert f"+{stop}" in checkpoints(tmp_path)[0].name
    resumed = trainer_of(*batches, size=1, steps=3, dropout=0.3, folder=tmp_path)
    resume(resumed, tmp_path)
    resumed.train()
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(weights(resumed)[name], value)
    assert resumed.progress.targets == whole.progress.targets


def test_a_loss_with_more_parts_than_the_batch_has_arrays_is_refused():
    one = ml.tensor(1.0)
    assert [k for k, _ in parts_of(one, (1, 2, 3))] == [-1]
    assert [k for k, _ in parts_of((one, one), (1, 2, 3))] == [-2, -1]
    with pytest.raises(DataError, match="has 2 parts, each with its own targets; the batch 1 arrays"):
        parts_of((one, one), (1,))
    with pytest.raises(DataError, match="has 0 parts"):
        parts_of((), (1,))


def test_a_part_that_is_no_number_is_still_told():
    trainer = trainer_of(drawn({1}, {2}))
    trainer.model.label.weight.array[...] = math.inf
    with pytest.raises(ArithmeticError, match="the loss is nan at step 1"):
        trainer.train()
