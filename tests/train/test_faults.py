"""A disk that fails at any call, and a checkpoint cut anywhere: never an unreadable run, never a wrong one."""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import io
import itertools
import json
import os
import re
import shutil

import pytest

from minilm.errors import CheckpointError
from minilm.train import Costs, LogFile, load_run
from minilm.train.checkpoint import CheckpointWarning, checkpoints
from minilm.train.run import continued_run, new_run


class FailingDisk:
    """Counts what is asked of the file system to change anything under `place`, and lets the k-th call fail.

    With `lasting`, as on a full disk, all after it fail too, but for those that need no room. A write that fails leaves
    half of its bytes, as the kernel's does.
    """

    def __init__(self, place, k=0, error=errno.EIO, lasting=False):
        self.place, self.k, self.error, self.lasting = str(place), k, error, lasting
        self.calls = []
        self.half = False

    def fails(self, what):
        self.calls.append(what)
        now = len(self.calls)
        return now == self.k or (self.lasting and 0 < self.k < now and what not in ("unlink", "open a folder"))

    def raise_error(self):
        raise OSError(self.error, os.strerror(self.error))

    @contextlib.contextmanager
    def failing(self):
        with pytest.MonkeyPatch.context() as patch:
            for module, name in ((builtins, "open"), (io, "open")):
                patch.setattr(module, name, self.opening(getattr(module, name)))
            for module, name in (
                *((os, name) for name in ("open", "fsync", "replace", "mkdir", "unlink")),
                (fcntl, "flock"),
            ):
                patch.setattr(module, name, self.counted(name, getattr(module, name)))
            yield

    def counted(self, name, real):
        def call(*args, **settings):
            ours = isinstance(args[0], int) or hasattr(args[0], "fileno") or str(args[0]).startswith(self.place)
            what = "open a folder" if name == "open" else name
            if ours and self.fails(what):
                self.raise_error()
            return None if name == "fsync" else real(*args, **settings)  # nobody cuts the power here

        return call

    def opening(self, real):
        def call(path, mode="r", buffering=-1, encoding=None, *args, **settings):
            if not set(mode) & set("wax+") or not str(path).startswith(self.place):
                return real(path, mode, buffering, encoding, *args, **settings)
            if self.fails("open"):
                self.raise_error()
            raw = FailingFile(self, path, mode.replace("b", ""))
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding)

        return call


class FailingFile(io.FileIO):
    """A file of a FailingDisk."""

    def __init__(self, disk, path, mode):
        self.disk = disk
        super().__init__(path, mode)

    def write(self, content):
        if self.disk.half:
            self.disk.half = False
            self.disk.raise_error()
        if not self.disk.fails("write"):
            return super().write(content)
        if self.disk.lasting and len(self.disk.calls) > self.disk.k:
            self.disk.raise_error()
        self.disk.half = True  # the next one, for the rest, is told of the error
        return super().write(bytes(content)[: len(content) // 2])

    def truncate(self, *size):
        if self.disk.fails("truncate"):
            self.disk.raise_error()
        return super().truncate(*size)


SETTINGS = {"steps": 4, "micro_batch_size": 1, "checkpoint_every": 2, "keep_checkpoints": 1, "log_every": 2}
FAULTS = pytest.mark.parametrize(
    ("error", "lasting"), [(errno.EIO, False), (errno.ENOSPC, True)], ids=["EIO", "ENOSPC"]
)


def weights(trainer):
    return {name: tensor.array.tobytes() for name, tensor in trainer.model.state_dict().items()}


def watched(trainer):
    trainer.observers = [LogFile(trainer.folder), Costs(trainer.folder)]
    return trainer


def outcome(trainer):
    """What must be the same whatever happened on the way."""
    return weights(trainer), (trainer.folder / "log.jsonl").read_bytes()


def temporary(folder):
    return [path.name for path in folder.rglob(".*")]


@FAULTS
def test_a_disk_that_fails_at_any_call_of_training(begin, stop_after, tmp_path, error, lasting):
    """Training ends with the error, the run is readable, and goes on to the bits of an undisturbed one."""
    whole = watched(begin("whole", **SETTINGS))
    whole.train()
    expected = outcome(whole)
    begin("begun", **SETTINGS)
    folder, seen = tmp_path / "part", set()
    for k in itertools.count(1):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "begun", folder)
        trainer = watched(continued_run(folder, {})[0])
        stop_after(trainer, 8)  # in the middle of the third step
        disk, failed = FailingDisk(tmp_path, k, error, lasting), None
        with disk.failing():
            try:
                trainer.train()
            except OSError as caught:
                failed = caught
        if len(disk.calls) < k:
            break
        seen.add(disk.calls[k - 1])
        if disk.calls[k - 1] != "mkdir" or lasting:  # of a folder that is there already
            assert failed is not None, f"call {k}, {disk.calls[k - 1]}, failed in silence"
            assert failed.errno == error
        assert not temporary(folder), f"call {k}, {disk.calls[k - 1]}"
        load_run(folder)
        resumed = watched(continued_run(folder, {})[0])
        resumed.train()
        assert outcome(resumed) == expected, f"call {k}, {disk.calls[k - 1]}"
    assert failed is None
    assert seen >= {"open", "write", "fsync", "replace", "flock", "truncate", "unlink", "open a folder"}
    assert k > 50


@FAULTS
def test_a_disk_that_fails_at_any_call_of_a_runs_creation(text, tmp_path, small, error, lasting):
    """Nothing is left, and the run can be made again."""
    place = tmp_path / "runs"
    first, _ = new_run(text, place / "first", small(**SETTINGS))
    folder, seen = place / "new" / "run", set()
    for k in itertools.count(1):
        disk, failed = FailingDisk(place, k, error, lasting), None
        with disk.failing():
            try:
                new_run(text, folder, small(**SETTINGS))
            except OSError as caught:
                failed = caught
        if len(disk.calls) < k:
            break
        seen.add(disk.calls[k - 1])
        assert failed is not None, f"call {k}, {disk.calls[k - 1]}, failed in silence"
        assert failed.errno == error
        assert [path.name for path in place.iterdir()] == ["first"], f"call {k}, {disk.calls[k - 1]}"
    assert failed is None
    assert weights(continued_run(folder, {})[0]) == weights(first)
    assert seen >= {"open", "write", "fsync", "replace", "mkdir", "flock"}


@FAULTS
def test_a_disk_that_fails_at_any_call_when_a_run_is_changed(begin, tmp_path, error, lasting):
    trainer = begin("begun", **SETTINGS)
    trainer.train()
    folder = tmp_path / "part"
    for k in itertools.count(1):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "begun", folder)
        disk, failed = FailingDisk(tmp_path, k, error, lasting), None
        with disk.failing():
            try:
                continued_run(folder, {"steps": 9})
            except OSError as caught:
                failed = caught
        if len(disk.calls) < k:
            break
        if disk.calls[k - 1] != "mkdir" or lasting:
            assert failed is not None, f"call {k}, {disk.calls[k - 1]}, failed in silence"
        assert not temporary(folder)
        assert weights(continued_run(folder, {"steps": 9})[0]) == weights(trainer)
    assert k > 10


# --- truncation ---------------------------------------------------------------------------------------------


def lengths_of_every_kind(content):
    """Lengths to cut a safetensors file to, by what is cut."""
    header = 8 + int.from_bytes(content[:8], "little")
    described = {name: what for name, what in json.loads(content[8:header]).items() if name != "__metadata__"}
    found = {"empty": 0, "within the length": 5, "before the header": 8, "within the header": header // 2}
    found |= {"one byte of the header": header - 1, "after the header": header, "one byte short": len(content) - 1}
    for name, what in described.items():
        begin, end = what["data_offsets"]
        found |= {f"within {name}": header + (begin + end) // 2, f"before {name}": header + begin}
    return found


def test_a_checkpoint_cut_anywhere_is_seen_and_the_one_before_serves(begin, stop_after):
    """Cut in the middle of a batch, so that all kinds of tensors are there."""
    part = begin("part", **{**SETTINGS, "keep_checkpoints": 2}, ema_decay=0.9)
    stop_after(part, 8)
    part.train()
    newest, before = checkpoints(part.folder)[:2]
    assert ("+" in newest.name, "+" in before.name) == (True, False)
    content = newest.read_bytes()
    lengths = lengths_of_every_kind(content)
    assert {name.split(".")[0].split()[-1] for name in lengths} >= {"model", "optimizer", "average", "gradient"}
    found = set()
    for where, length in lengths.items():
        newest.write_bytes(content[:length])
        with pytest.warns(
            CheckpointWarning, match=f"{re.escape(newest.name)}: .*; in its place serves {before.name}"
        ) as told:
            resumed, _ = continued_run(part.folder, {})
        assert len(told) == 1, where
        found.add((resumed.progress.step, resumed.progress.examples, *weights(resumed).values()))
        with pytest.warns(CheckpointWarning):
            load_run(part.folder)
    assert len(found) == 1
    assert (resumed.progress.step, resumed.progress.examples) == (2, 0)
    before.write_bytes(before.read_bytes()[:-1])
    for path in checkpoints(part.folder)[2:]:
        path.unlink()
    with pytest.raises(CheckpointError, match=re.escape(newest.name)):
        load_run(part.folder)
