"""`minilm tokenize` and `minilm train DIR:WEIGHT`: what a user sees; a mistake is one line and exit code 2."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from minilm import files
from minilm.data import ShardedTokens
from minilm.text import CharTokenizer

TEXT = "the cat sat on the mat, and the dog sat on the cat.\n"
TINY = {
    "model": {"block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8},
    "batch_size": 4,
    "steps": 3,
    "eval_batches": 1,
    "sample_length": 5,
}


@pytest.fixture(autouse=True)
def texts(tmp_path):
    (tmp_path / "cat.txt").write_text(TEXT * 40)
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "dog.json").write_text(CharTokenizer("dgo").to_json())


def test_it_says_what_was_made_and_once_made_says_it_again(call):
    for _ in range(2):
        expected = f"out: {40 * len(TEXT):,} tokens of {len(set(TEXT))} kinds in 1 shards\n"
        assert call("tokenize", "cat.txt", "-o", "out") == (0, expected, "")
    assert CharTokenizer.load("out").decode(ShardedTokens("out")[:]) == TEXT * 40


def test_every_option_arrives(call):
    Path("two.txt").write_text("a b\n\nc d\n\na b\n\n")
    code, out, _ = call("tokenize", "two.txt", "two.txt", "-o", "out", "--dedup", "document", "--document-separator",
                        r"\n\n", "--kind", "bpe", "--vocab-size", 258, "--shard-mb", 3, "--jobs", 2)  # fmt: skip
    assert (code, out) == (0, "out: 9 tokens of 258 kinds in 1 shards\n")
    plan = json.loads(Path("out/index.json").read_text())["plan"]
    assert plan["shard_bytes"] == 3 << 20
    assert plan["tokenizer"] == {"kind": "bpe", "vocab_size": 258}
    assert ShardedTokens("out").tokenizer().decode(ShardedTokens("out")[:]) == "a b\n\nc d\n\n"
    assert call("tokenize", "two.txt", "-o", "again", "--tokenizer", "out")[0] == 0
    assert ShardedTokens("again").fingerprint == ShardedTokens("out").fingerprint


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["none.txt"], "none.txt: there is no such file"),
        (["cat.txt", "."], ".: this is a folder; a text file is needed"),
        (["empty.txt"], "empty.txt: the file is empty (0 bytes)"),
        (["cat.txt", "latin1.txt"], "latin1.txt: byte 0xe9 at offset 3, line 1"),
        (["cat.txt", "--tokenizer", "none.json"], "none.json: there is no such file"),
        (["cat.txt", "--tokenizer", "cat.txt"], "cat.txt: is not JSON"),
        (["cat.txt", "--tokenizer", "latin1.txt"], "latin1.txt: cannot be read as a tokenizer"),
        (["cat.txt", "--tokenizer", "dog.json"], "cat.txt: in bytes 0 to 2080: character 't' (U+0074)"),
        (["cat.txt", "--kind", "word"], "kind is 'word'; it must be 'char' or 'bpe'"),
        (["cat.txt", "--kind", "bpe", "--vocab-size", "9"], "vocab_size is 9"),
        (["cat.txt", "--dedup", "word"], "dedup is 'word'; it must be 'line' or 'document'"),
        (["cat.txt", "--dedup", "document"], "dedup 'document' needs a document_separator"),
        (["cat.txt", "--jobs", "0"], "jobs is 0; it must be at least 1"),
        (["cat.txt", "--shard-mb", "0"], "shard_bytes is 0; it must be at least 1"),
        (["cat.txt", "--out", "cat.txt"], "cat.txt: is a file, and shards need a folder"),
        (["cat.txt", "--out", "/proc/none/out"], "No such file or directory"),
        ([], "Missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing(call, tmp_path, args, said):
    call()  # makes the files
    before = sorted(tmp_path.rglob("*"))
    code, out, err = call("tokenize", *args, *([] if "--out" in args else ["-o", "out"]))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("minilm: ")
    assert said in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("barred", "said"), [("cat.txt", "no permission to read this file"), ("dog.json", "Permission")]
)
def test_a_file_without_permission_is_one_line(call, monkeypatch, barred, said):
    """Everything may be read by the superuser, whom tests may run as; so the refusal is played."""
    real = Path.open

    def refuse(path, *args, **options):
        if path.name == barred:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    code, _, err = call("tokenize", "cat.txt", "-o", "out", "--tokenizer", "dog.json")
    assert (code, err.count("\n")) == (2, 1)
    assert barred in err
    assert said in err
    assert not Path("out").exists()


def test_a_folder_without_permission_is_one_line(call, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), args[0])

    monkeypatch.setattr(os, "mkdir", refuse)
    assert call("tokenize", "cat.txt", "-o", "out") == (2, "", "minilm: out: Permission denied\n")


def test_a_full_disk_is_one_line_and_it_goes_on_when_there_is_space(call, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as m:
        m.setattr(files.os, "fsync", full)
        assert call("tokenize", "cat.txt", "-o", "out") == (2, "", "minilm: out/plan.json: No space left on device\n")
    assert call("tokenize", "cat.txt", "-o", "out")[0] == 0


def test_another_call_on_a_folder_says_what_differs(call):
    assert call("tokenize", "cat.txt", "-o", "out")[0] == 0
    code, _, err = call("tokenize", "cat.txt", "-o", "out", "--dedup", "line", "--tokenizer", "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "out: holds the shards of another call: dedup was None, is 'line'; tokenizer was one to learn (char)" in err


def test_train_mixes_folders_by_weight_and_goes_on(call, tmp_path):
    Path("tiny.json").write_text(json.dumps(TINY))
    call("tokenize", "cat.txt", "-o", "one")
    call("tokenize", "cat.txt", "cat.txt", "-o", "two", "--tokenizer", "one")
    code, out, err = call("train", "one:0.7", "two:0.3", "--config", "tiny.json", "--out", "run")
    assert (code, err) == (0, "")
    assert "a GPT learns from one:0.7 and two:0.3\n" in out
    assert f"{3 * 40 * len(TEXT):,} tokens of" in out
    parts = json.loads(Path("run/shards.json").read_text())
    assert [(part["folder"], part["weight"]) for part in parts] == [
        (str(tmp_path / "one"), 0.7),
        (str(tmp_path / "two"), 0.3),
    ]
    assert call("train", "--resume", "run", "--set", "steps=5")[0] == 0
    for args, said in (
        (["one:0.7", "cat.txt:0.3"], "cat.txt: is a file, and only folders"),
        (["one:0.7", "none:0.3"], "none: there is no such folder"),
        (["one:0.7", "two:-1"], "two: has the weight -1.0; it must be a number above 0"),
    ):
        code, _, err = call("train", *args, "--config", "tiny.json", "--out", "other")
        assert (code, err.count("\n"), said in err) == (2, 1, True)
        assert not Path("other").exists()
