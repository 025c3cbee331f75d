"""Checkpoints: what is missing, cut short, foreign or does not fit is named, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

import minilm.files
from minilm.errors import CheckpointError, DataError, MinilmError
from minilm.generation import generate
from minilm.models import GPT, GPTConfig
from minilm.serialization import load_with_metadata, save
from minilm.tensor import Tensor
from minilm.text import CharTokenizer
from minilm.train import Observer, Trainer, load_run, resume
from minilm.train.checkpoint import _checksum, checkpoints, read_config, save_checkpoint
from minilm.train.run import continued_run


@pytest.fixture
def run(begin):
    """The folder of a run at step 3 of 6, begun by `begin`."""
    trainer = begin(steps=3)
    trainer.train()
    return trainer.folder


def newest(run):
    """The file of the newest checkpoint."""
    return checkpoints(run)[0]


def only(run):
    """The file of the newest checkpoint, when the others are gone."""
    path, *others = checkpoints(run)
    for other in others:
        other.unlink()
    return path


def rewrite(run, record=lambda record: record, tensors=lambda tensors: tensors):
    """Change what the newest checkpoint holds, and its checksum with it; the others go."""
    path = only(run)
    held, metadata = load_with_metadata(path)
    text = json.dumps(record(json.loads(metadata["minilm"])))
    changed = {n: Tensor(t) for n, t in tensors({n: t.array for n, t in held.items()}).items()}
    save(changed, path, {"minilm": text, "sha256": _checksum(changed, text)})


def refused(run, message):
    """Both ways of reading refuse it, in one line that names the folder."""
    for read in (load_run, lambda folder: continued_run(folder, {"steps": 6})):
        with pytest.raises((CheckpointError, DataError), match=message) as caught:
            read(run)
        assert str(caught.value).startswith(str(run))
        assert "\n" not in str(caught.value)


def test_a_run_comes_back_ready_to_generate(begin):
    trainer = begin(steps=3, **{"model.dropout": 0.5})
    trainer.train()
    model, tokenizer = load_run(trainer.folder)
    assert not model.training
    assert model.config == trainer.model.config
    for (name, p), q in zip(model.named_parameters(), trainer.model.parameters()):
        np.testing.assert_array_equal(p.array, q.array, err_msg=name)
        assert p.requires_grad
    assert model.lm_head.weight is model.transformer["wte"].weight
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"
    assert read_config(trainer.folder) == trainer.config
    settings = {"temperature": 0}
    assert generate(model, [1], 5, **settings).tolist() == generate(trainer.model, [1], 5, **settings).tolist()


def test_tied_weights_are_written_once(run):
    tensors, _ = load_with_metadata(only(run))
    names = [name for name in tensors if name.startswith("model.")]
    assert "model.transformer.wte.weight" in names
    assert "model.lm_head.weight" not in names
    assert len(names) == len(load_run(run)[0].state_dict()) - 1


def test_a_folder_that_is_no_run_is_named(tmp_path, text):
    for place, message in (
        (tmp_path / "nowhere", "there is no such folder"),
        (text, "there is no such folder"),
        (tmp_path, "holds no checkpoints"),
    ):
        refused(place, message)


def test_a_checkpoint_cut_at_any_length_is_refused(run):
    content = only(run).read_bytes()
    for length in {0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1} | set(range(0, len(content), 997)):
        (only(run)).write_bytes(content[:length])
        refused(run, "cannot be read as safetensors, perhaps it was cut short")


def test_random_damage_is_an_error_of_ours_or_none(run):
    content, rng = (only(run)).read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(0, 3000, 3)] = rng.integers(0, 256, 3)  # the header
        (only(run)).write_bytes(damaged.tobytes())
        for read in (load_run, lambda folder: continued_run(folder, {"steps": 6})):
            try:
                read(run)
            except MinilmError as error:
                assert "\n" not in str(error)  # noqa: PT017 - any of ours will do, and none too


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["model.transformer.wte.weight", "optimizer.0.exp_avg_sq"])
def test_values_that_are_no_numbers_are_refused(run, name, value):
    def spoil(tensors):
        tensors[name].flat[3] = value
        return tensors

    rewrite(run, tensors=spoil)
    refused(run, f"the tensor {name} holds NaN or infinity")


def test_foreign_files_are_refused(run):
    save({"weight": np.ones(3)}, only(run))
    refused(run, "is damaged, or was not written by minilm's training")
    save({"weight": np.ones(3)}, only(run), {"minilm": "[1]"})
    refused(run, "is damaged, or was not written by minilm's training")
    save({"weight": np.ones(3)}, only(run), {"minilm": "no JSON"})
    refused(run, "is damaged, or was not written by minilm's training")
    (only(run)).write_text("just a text, longer than the eight bytes of the header's length")
    refused(run, "cannot be read as safetensors")


@pytest.mark.parametrize("version", [0, 1, "2", None])
def test_another_version_is_refused(run, version):
    rewrite(run, lambda record: {**record, "version": version})
    refused(run, f"is of version {version}; this minilm reads version 2")


@pytest.mark.parametrize("part", ["config", "model", "optimizer", "progress"])
def test_a_record_without_a_part_is_refused(run, part):
    rewrite(run, lambda record: {k: v for k, v in record.items() if k != part})
    refused(run, f"its record has no {part}")


def test_configurations_that_cannot_be_used_are_refused(run):
    content = (only(run)).read_bytes()
    rewrite(run, lambda record: {**record, "model": {**record["model"], "n_head": 3}})
    with pytest.raises(CheckpointError, match=r"its model cannot be built: n_embd must be a multiple of n_head \(3\)"):
        load_run(run)
    (only(run)).write_bytes(content)
    rewrite(run, lambda record: {**record, "config": {**record["config"], "stepz": 3}})
    with pytest.raises(CheckpointError, match="its configuration cannot be used: unknown key 'stepz'"):
        continued_run(run, {"steps": 6})


def test_tensors_that_are_missing_or_do_not_fit_are_named(run):
    content = (only(run)).read_bytes()
    rewrite(run, tensors=lambda ts: {n: t for n, t in ts.items() if n != "model.transformer.wpe.weight"})
    refused(run, "the tensor model.transformer.wpe.weight is missing")
    (only(run)).write_bytes(content)
    rewrite(run, tensors=lambda ts: {**ts, "model.transformer.wpe.weight": np.zeros((7, 8), np.float32)})
    refused(run, r"model.transformer.wpe.weight has shape \(7, 8\), the model needs \(8, 8\)")


def test_a_tokenizer_that_does_not_fit_is_refused(run):
    CharTokenizer.train("abc").save(run)
    with pytest.raises(CheckpointError, match=r"the tokenizer has 3 tokens, the model \d+"):
        load_run(run)
    with pytest.raises(DataError, match="was written by another tokenizer"):
        continued_run(run, {"steps": 6})


@pytest.mark.parametrize("name", ["tokenizer.json", "tokens.bin"])
def test_a_run_without_its_other_files_cannot_go_on(run, name):
    (run / name).write_bytes((run / name).read_bytes()[:-5])
    with pytest.raises(DataError, match=name):
        continued_run(run, {"steps": 6})
    (run / name).unlink()
    with pytest.raises(DataError, match=name):
        continued_run(run, {"steps": 6})


def unfit(trainer, folder, message):
    """Refused, and the trainer is as it was."""
    weights = {name: t.array.copy() for name, t in trainer.model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        resume(trainer, folder)
    for name, tensor in trainer.model.state_dict().items():
        np.testing.assert_array_equal(tensor.array, weights[name])
    assert not trainer.optimizer.state_dict()["state"]
    assert trainer.progress.step == 0


@pytest.fixture
def fresh(begin):
    return begin("fresh")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {**r, "progress": {}}, "where the run stood cannot be read: 'step'"),
        (lambda r: {**r, "progress": {**r["progress"], "step": "x"}}, "where the run stood cannot be read"),
        (lambda r: {**r, "optimizer": {"x.step": 3}}, "where the run stood cannot be read"),
        (lambda r: {**r, "optimizer": {}}, "where the run stood cannot be read"),
        (lambda r: {**r, "optimizer": {**r["optimizer"], "99.step": 3}}, "there is no parameter 99"),
        (lambda r: {**r, "model": {**r["model"], "n_layer": 2}}, "a model with another n_layer than the one"),
    ],
    ids=range(6),
)
def test_a_resume_that_is_refused_changes_nothing(run, fresh, change, message):
    rewrite(run, change)
    unfit(fresh, run, message)


def test_another_model_cannot_be_resumed(run, fresh):
    config = fresh.config
    other = GPT(GPTConfig.from_dict({**config.model.to_dict(), "n_embd": 16, "bias": True}))
    trainer = Trainer(other, fresh.data, config)
    unfit(trainer, run, "holds a model with another n_embd, bias than the one to be resumed")


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_a_full_disk_leaves_the_last_checkpoint(begin, monkeypatch, call):
    trainer = begin(checkpoint_every=5)
    trainer.observers.append(_FillsTheDisk(monkeypatch, call, 8))
    with pytest.raises(OSError, match="No space left on device") as caught:
        trainer.train()
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert not [path for path in trainer.folder.iterdir() if path.name.startswith(".")]
    load_run(trainer.folder)
    assert continued_run(trainer.folder, {})[0].progress.step == 5


class _FillsTheDisk(Observer):
    """From a step on the file system has no space."""

    def __init__(self, monkeypatch, call, step):
        self.monkeypatch, self.call, self.step = monkeypatch, call, step

    def stepped(self, trainer):
        if trainer.progress.step == self.step:
            trainer.observers = []  # the log's own trouble is another test's
            if self.call == "write":
                self.monkeypatch.setattr(minilm.files, "open", _full_file, raising=False)
            else:
                self.monkeypatch.setattr(os, self.call, _full)


def _full(*args, **settings):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full_file(path, mode, *args, **settings):
    open(path, mode).close()  # there is room for a name
    return open("/dev/full", "wb")  # the kernel's own full disk


def test_a_save_leaves_no_other_file(begin):
    trainer = begin()
    names = {path.name for path in trainer.folder.rglob("*")}
    assert names == {"checkpoints", "step-00000000.safetensors", "config.json", "tokenizer.json", "tokens.bin", "lock"}
    save_checkpoint(trainer, trainer.folder)
    assert {path.name for path in trainer.folder.rglob("*")} == names
