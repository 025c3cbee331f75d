"""Batches of pairs: every pair once in an epoch, within the limit, alike in length, a function of the step."""

from __future__ import annotations

import numpy as np
import pytest

from minilm.data.pair_batches import WIDTH, EncodedPairs, TokenBatches
from minilm.errors import DataError


def pairs(count=211, longest=37, seed=0):
    rng = np.random.default_rng(seed)
    sources = [np.append(rng.integers(2, 50, rng.integers(1, longest - 1)), 1) for _ in range(count)]
    targets = [
        np.concatenate([[100 + n], s[: rng.integers(1, len(s) + 1)], [1]])[:longest] for n, s in enumerate(sources)
    ]
    return EncodedPairs(sources, targets)


def batches(seed=3, limit=150, train=None):
    return TokenBatches(train or pairs(), pairs(23, seed=1), limit, seed, 0, lambda model: (0.0, {}))


def numbers(batch):
    return (batch[2][:, 0] - 100).tolist()  # each target begins with its pair's number


def test_a_batch_holds_its_pairs_padded():
    train = pairs()
    ids, mask, labels = train.gather(np.array([5, 0]), 0)
    for row, number in enumerate((5, 0)):
        length = train.source_lengths[number]
        assert mask[row].tolist() == [1] * length + [0] * (ids.shape[1] - length)
        assert ids[row, length - 1] == 1
        assert not ids[row, length:].any()
        assert (labels[row] == -100).sum() == labels.shape[1] - train.target_lengths[number]
    assert ids.shape[1] == train.source_lengths[[5, 0]].max()
    assert {x.dtype for x in (ids, mask, labels)} == {np.dtype(np.int64)}


@pytest.mark.parametrize("epoch", [0, 1])
def test_every_pair_comes_once_in_an_epoch(epoch):
    data = batches()
    steps = range(epoch * data.steps, (epoch + 1) * data.steps)
    assert sorted(n for step in steps for n in numbers(data.batch(step))) == list(range(211))


def test_batches_stay_within_the_limit_and_fill_it():
    data = batches()
    sizes = [max(x.size for x in data.batch(step)) for step in range(data.steps)]
    assert max(sizes) <= 150
    assert np.mean(sizes) > 0.7 * 150
    alone = TokenBatches(pairs(), pairs(23), 5, 0, 0, lambda model: (0.0, {}))
    assert alone.steps > 150
    assert max(len(alone.batch(step)[0]) for step in range(alone.steps)) <= 5 // 2


def test_targets_of_a_batch_are_alike_in_length():
    data = batches()
    spread = [np.ptp((data.batch(step)[2] != -100).sum(1)) for step in range(data.steps)]
    assert np.median(spread) < 2 * WIDTH


def test_a_batch_depends_on_seed_and_step_alone():
    data, again = batches(), batches()
    order = [data.steps + 3, 0, 2 * data.steps, 1]
    for step in order:
        for x, y in zip(data.batch(step), again.batch(step)):
            np.testing.assert_array_equal(x, y)
    again.batch(5 * data.steps)
    assert numbers(again.batch(2)) == numbers(data.batch(2))
    assert numbers(data.batch(2)) != numbers(batches(seed=4).batch(2))
    first, second = ([sorted(numbers(data.batch(s + e))) for s in range(data.steps)] for e in (0, data.steps))
    assert sorted(first) != sorted(second), "pairs of like lengths are shuffled among themselves"


def test_validation_covers_all():
    data = batches()
    seen = [n for index in range(data.evaluations) for n in numbers(data.validation(index))]
    assert sorted(seen) == list(range(23))


def test_no_pair():
    with pytest.raises(DataError, match="there is no pair"):
        EncodedPairs([], [])
