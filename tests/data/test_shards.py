"""Shards: the same bytes by any number of processes, read as one sequence, going on after a kill."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import CausalBlocks, ShardedTokens, sharding, tokenize_files
from minilm.errors import DataError
from minilm.text import BPETokenizer, CharTokenizer

TEXT = "".join(f"{i} to be or not — é\n" for i in range(400))


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "lock"}


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    return tmp_path / "a.txt"


def test_any_number_of_processes_gives_the_same_bytes(tmp_path, source):
    for jobs in (1, 2, 3):
        tokenize_files([source, source], tmp_path / str(jobs), shard_bytes=2000, dedup="line", jobs=jobs)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


@given(st.integers(-9000, 9000), st.integers(-9000, 9000), st.sampled_from([1, 2, -1, 700]))
def test_slices_are_those_of_the_array(tmp_path_factory, start, stop, step):
    folder = tmp_path_factory.getbasetemp() / "slices"
    if not folder.exists():
        (folder.parent / "slices.txt").write_bytes(TEXT.encode())
        tokenize_files([folder.parent / "slices.txt"], folder, shard_bytes=700, jobs=1)
    tokens, plain = ShardedTokens(folder), CharTokenizer.train(TEXT).encode_array(TEXT)
    np.testing.assert_array_equal(tokens[start:stop:step], plain[start:stop:step], strict=True)
    np.testing.assert_array_equal(tokens.window(start, stop)[:], plain[start:stop])


def test_blocks_are_those_of_the_array(tmp_path, source):
    tokens = tokenize_files([source], tmp_path / "out", shard_bytes=700, jobs=1)
    ours, plain = CausalBlocks(tokens, 50, stride=1), CausalBlocks(tokens[:], 50, stride=1)
    for a, b in zip(ours.random_batch(9, seed=1, step=2), plain.random_batch(9, seed=1, step=2)):
        np.testing.assert_array_equal(a, b)


def test_damage_is_named(tmp_path, source):
    tokens = tokenize_files([source], tmp_path / "out", shard_bytes=2000, jobs=1)
    tokens.verify()
    path = tmp_path / "out" / "shard-00001.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-00001\.bin: is damaged"):
        tokens.verify()


def test_killed_it_goes_on_and_gives_the_same_bytes(tmp_path, source):
    source.write_bytes(TEXT.encode() * 100)
    out, shard = tmp_path / "out", 4000
    call = f"tokenize_files([{str(source)!r}], {str(out)!r}, shard_bytes={shard}, jobs=1)"
    code = f"from minilm.data import tokenize_files; {call}"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (out / "shard-00003.bin").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not (out / "index.json").exists()
    tokenize_files([source], out, shard_bytes=shard, jobs=1)
    tokenize_files([source], tmp_path / "whole", shard_bytes=shard, jobs=1)
    assert contents(out) == contents(tmp_path / "whole")


def test_bad_input_leaves_nothing(tmp_path, source):
    (tmp_path / "bad").write_bytes(b"abc\n\xff\n")
    for name, why in (("bad", "line 2, is not valid UTF-8"), ("no", "no such file")):
        with pytest.raises(DataError, match=why):
            tokenize_files([tmp_path / name], tmp_path / "out", jobs=1)
        assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"holds something else \(a\.txt\)"):
        tokenize_files([source], tmp_path, jobs=1)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """A file of some 190 MB takes less than 64 MB beyond what a small one takes, learning included."""
    peaks = []
    for name, times in (("small", 1), ("large", 20_000)):
        (tmp_path / name).write_bytes(TEXT.encode() * times)
        call = f"tokenize_files([{str(tmp_path / name)!r}], {str(tmp_path / 'out')!r} + {name!r}, jobs=1)"
        code = f"from minilm.data import tokenize_files; {call}"
        code += "; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
        peaks.append(int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))
    assert (tmp_path / "large").stat().st_size > 150 << 20
    assert peaks[1] - peaks[0] < 64 << 10


def test_byte_pairs_are_learnt_from_all_of_a_text_or_from_parts_all_over_it(tmp_path, monkeypatch):
    lines = [f"the {animal} number {i} sat on the mat\n" for i in range(40) for animal in ("cat", "dog", "owl")]
    path = tmp_path / "text.txt"
    path.write_text("".join(lines))
    assert "".join(sharding._learnt_from([path])) == "".join(lines)
    shards = tokenize_files([path], tmp_path / "out", kind="bpe", vocab_size=280, jobs=1)
    assert shards.tokenizer().fingerprint == BPETokenizer.train_files(path, 280).fingerprint
    monkeypatch.setattr(sharding, "PART_BYTES", 100)
    monkeypatch.setattr(sharding, "LEARNT", len("".join(lines)) // 4)
    some = "".join(sharding._learnt_from([path, path]))
    assert len(some) <= sharding.LEARNT + 200
    numbers = [int(line.split()[3]) for line in some.splitlines()]
    assert numbers[0] < 3
    assert max(numbers) > 35
    assert sum(after < before for before, after in pairwise(numbers)) == 1  # both files
