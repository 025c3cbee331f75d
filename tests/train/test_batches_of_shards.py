"""Shuffled blocks and mixtures as functions of the step; a run on a folder of shards."""

from __future__ import annotations

import numpy as np
import pytest

from minilm.data import CausalBlocks, tokenize_files
from minilm.errors import CheckpointError, DataError
from minilm.text import CharTokenizer
from minilm.train import Mixture, Observer, ShuffledBlocks
from minilm.train.corpus import named
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


@pytest.fixture
def folders(tmp_path):
    """Two folders of shards with one tokenizer, whose texts have different letters."""
    for name in ("ab", "cd"):
        (tmp_path / f"{name}.txt").write_text(f"{name[0]}{name[1]} {name[1]}{name[0]}{name}\n" * 50)
    both = CharTokenizer(sorted("abcd \n"))
    for name in ("ab", "cd"):
        tokenize_files([tmp_path / f"{name}.txt"], tmp_path / name, both, shard_bytes=200, jobs=1)
    return tmp_path / "ab", tmp_path / "cd"


def test_folders_are_mixed_by_weight_to_learn_and_to_validate(folders, tmp_path, small):
    ab, cd = folders
    trainer, corpus = new_run(named([f"{ab}:3", str(cd)]), tmp_path / "run", small(batch_size=20))
    for batch in (trainer.data.batch, trainer.data.validation):
        letters = [corpus.tokenizer.decode(row) for step in range(40) for row in batch(step)[0]]
        of_ab = [bool(set(text) & set("ab")) for text in letters]
        assert not any(first and set(text) & set("cd") for first, text in zip(of_ab, letters))
        assert abs(np.mean(of_ab) - 0.75) < 0.05  # 800 draws: a deviation of 0.015
    assert len(corpus) == 800


def test_a_mixed_run_goes_on_to_the_bit(folders, tmp_path, small):
    source = named([f"{place}:{weight}" for place, weight in zip(folders, (0.7, 0.3))])
    whole, _ = new_run(source, tmp_path / "whole", small(steps=20))
    whole.train()
    half, _ = new_run(source, tmp_path / "half", small(steps=20, checkpoint_every=10))
    half.observers = [StopAt(10)]
    half.train()
    assert half.progress.step == 10
    rest, _ = continued_run(tmp_path / "half", {})
    rest.train()
    assert rest.progress.step == 20
    for (name, p), q in zip(whole.model.named_parameters(), rest.model.parameters()):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy(), err_msg=name)


class StopAt(Observer):
    """Interrupt a run behind a step, as Ctrl-C does."""

    def __init__(self, step):
        self.last = step

    def stepped(self, trainer):
        trainer.interrupted = trainer.progress.step == self.last


def test_other_weights_are_another_run(folders, tmp_path, small):
    new_run(named([f"{folders[0]}:0.7", f"{folders[1]}:0.3"]), tmp_path / "run", small())
    path = tmp_path / "run" / "shards.json"
    path.write_text(path.read_text().replace("0.7", "0.6"))
    with pytest.raises(CheckpointError, match=r"ab and .*cd: is not what the run learnt from"):
        continued_run(tmp_path / "run", {})


def test_folders_that_cannot_be_mixed_are_named(folders, tmp_path, small):
    ab, cd = folders
    other = tmp_path / "other"
    tokenize_files([tmp_path / "ab.txt"], other, jobs=1)
    for texts, why in (
        ([ab, other], r"other: was made by another tokenizer than .*ab, .* --tokenizer .*ab"),
        ([f"{ab}:0", cd], r"ab: has the weight 0\.0; it must be a number above 0"),
        ([f"{ab}:nan"], r"ab: has the weight nan"),
        ([ab, f"{tmp_path}/none:2"], r"none: there is no such folder"),
        ([ab, tmp_path / "ab.txt"], r"ab\.txt: is a file, and only folders"),
        ([f"{ab}:2x"], r"ab:2x: there is no such file"),
    ):
        with pytest.raises(DataError, match=why):
            new_run(named(list(map(str, texts))), tmp_path / "run", small())
        assert not (tmp_path / "run").exists()


def test_a_name_with_a_colon_is_a_name(tmp_path):
    (tmp_path / "text:2").touch()
    assert named([f"{tmp_path}/text:2"]) == f"{tmp_path}/text:2"
    assert named([f"{tmp_path}/text:3"]) == [(f"{tmp_path}/text", 3.0)]
