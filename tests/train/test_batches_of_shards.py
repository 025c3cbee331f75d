"""Shuffled blocks and mixtures as functions of the step; a run on a folder of shards."""

from __future__ import annotations

import numpy as np
import pytest

from minilm.data import CausalBlocks, tokenize_files
from minilm.errors import CheckpointError, DataError
from minilm.train import Mixture, ShuffledBlocks
from minilm.train.run import continued_run, new_run


def source(first, seed=1):
    blocks = CausalBlocks(np.arange(first, first + 53), 4)  # 13 blocks
    return ShuffledBlocks(blocks, blocks, 5, seed)


def test_each_epoch_has_every_block_once_in_a_new_order():
    data = source(0)
    starts = np.concatenate([data.batch(step)[0][:, 0] for step in range(13)]).reshape(5, 13)
    for epoch in starts:
        assert sorted(epoch) == list(range(0, 52, 4))
    assert len({tuple(epoch) for epoch in starts.tolist()}) == 5


def test_a_mixture_draws_by_weight_and_by_the_step():
    data = Mixture([(source(0), 3), (source(100), 1)], seed=2)
    first = np.concatenate([data.batch(step)[0][:, 0] for step in range(400)])
    assert abs((first < 100).mean() - 0.75) < 0.04
    np.testing.assert_array_equal(data.batch(7)[1], Mixture([(source(0), 3), (source(100), 1)], 2).batch(7)[1])
    with pytest.raises(DataError, match="weights"):
        Mixture([(source(0), 0.0)])


def test_a_run_refers_to_shards_and_refuses_others(tmp_path, text, small):
    shards = tmp_path / "shards"
    tokenize_files([text], shards, shard_bytes=200, jobs=1)
    trainer, _ = new_run(shards, tmp_path / "run", small())
    assert not (tmp_path / "run" / "tokens.bin").exists()
    x = continued_run(tmp_path / "run", {})[0].data.batch(1)[0]
    np.testing.assert_array_equal(x, trainer.data.batch(1)[0])
    for path in shards.iterdir():
        path.unlink()
    tokenize_files([text, text], shards, shard_bytes=200, jobs=1)
    with pytest.raises(CheckpointError, match="is not what the run learnt from"):
        continued_run(tmp_path / "run", {})
