"""A run's folder: whole from its beginning or not there, and never in another's place."""

from __future__ import annotations

import errno
import os

import pytest

from minilm.errors import CheckpointError, ConfigError, DataError
from minilm.train import Corpus, load_run, run
from minilm.train.run import FILES, continued_run, new_run


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def fails(before, error, message, *args):
    """`new_run(*args)` fails and everything in the folder `before` is as it was."""
    held = contents(before)
    with pytest.raises(error, match=message) as caught:
        new_run(*args)
    assert contents(before) == held
    return caught.value


def test_a_new_run_is_whole_before_it_trains(tmp_path, text, small):
    folder = tmp_path / "a" / "b" / "run"
    config = small()
    trainer, corpus = new_run(text, folder, config)
    assert trainer.folder == folder
    assert trainer.model.config.vocab_size == corpus.tokenizer.vocab_size > 1
    load_run(folder)
    assert continued_run(folder, {})[0].progress.step == 0


def test_an_empty_folder_and_one_with_other_files_will_do(tmp_path, text, small):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    new_run(text, folder, small())
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_folder_that_holds_a_run_stays_untouched(tmp_path, text, small, begin):
    folder = begin(steps=3).folder
    fails(tmp_path, CheckpointError, "holds a run already, which stays as it is", text, folder, small())


@pytest.mark.parametrize("name", [name for name in FILES if name != "checkpoints"])
def test_a_file_that_a_run_would_overwrite_stays(tmp_path, text, small, name):
    (tmp_path / name).write_text("mine")
    fails(tmp_path, CheckpointError, f"holds a {name}, which a run would overwrite", text, tmp_path, small())


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("content", [b"", b"too short", b"bad \xff byte" * 50])
def test_a_text_that_cannot_be_used_leaves_no_folder(tmp_path, small, content, exists):
    source, folder = tmp_path / "x.txt", tmp_path / "a" / "run"
    source.write_bytes(content)
    if exists:
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    error = fails(tmp_path, DataError, None, source, folder, small())
    assert "\n" not in str(error)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("4 GiB"), OSError(errno.ENOSPC, "full")], ids=repr)
@pytest.mark.parametrize("where", ["_model", "Trainer", "save_checkpoint"])
def test_whatever_fails_leaves_no_folder(tmp_path, text, small, monkeypatch, error, where):
    def fail(*args, **settings):
        raise error

    monkeypatch.setattr(run, where, fail)
    fails(tmp_path, type(error), None, text, tmp_path / "a" / "run", small())


@pytest.mark.parametrize("at", range(4))  # tokens, tokenizer, configuration, checkpoint
def test_a_disk_that_fills_up_leaves_no_folder(tmp_path, text, small, monkeypatch, at):
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    fails(tmp_path, OSError, "No space left", text, tmp_path / "a" / "run", small())
    assert len(calls) == at + 1


def test_places_that_cannot_be_a_folder_are_named(tmp_path, text, small):
    fails(tmp_path, CheckpointError, "is a file, and a run needs a folder", text, text, small())
    error = fails(tmp_path, OSError, "Not a directory", text, text / "run", small())
    assert str(text) in str(error.filename)
    error = fails(tmp_path, OSError, None, text, tmp_path / "a" / ("x" * 300), small())
    assert error.errno == errno.ENAMETOOLONG
    with pytest.raises(OSError, match="/proc/run"):
        new_run(text, run.Path("/proc/run"), small())


@pytest.mark.parametrize(("key", "value"), [("seed", 2), ("batch_size", 2), ("model.n_layer", 2), ("stepz", 2)])
def test_what_would_be_another_run_cannot_change(begin, key, value):
    folder = begin().folder
    held = contents(folder)
    with pytest.raises(ConfigError, match=rf"{key} cannot change when a run goes on.*; steps, .* can"):
        continued_run(folder, {key: value})
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        continued_run(folder, {"steps": 0})
    assert contents(folder) == held


def test_a_run_that_is_done_says_how_to_get_more(begin):
    trainer = begin(steps=2)
    trainer.train()
    held = contents(trainer.folder)
    for settings in ({}, {"steps": 1}):
        with pytest.raises(ConfigError, match=r"the run is at step 2 of [12]: there is nothing left .*--set steps=\d"):
            continued_run(trainer.folder, settings)
    assert contents(trainer.folder) == held
    again, corpus = continued_run(trainer.folder, {"steps": 4, "log_every": 1})
    assert isinstance(corpus, Corpus)
    assert (again.progress.step, again.config.steps, again.config.log_every) == (2, 4, 1)
