"""`tokenize_files`, killed, interrupted or out of space, goes on to the same bytes, and with nothing else."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minilm import files
from minilm.data import tokenize_files
from minilm.errors import DataError
from minilm.text import CharTokenizer

LINES = "".join(f"{i % 1900} to be or not — é\n" for i in range(2000))
SHARD = 4000
linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "lock"}


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.txt").write_bytes(LINES.encode())
    return tmp_path / "a.txt"


@pytest.fixture
def make(tmp_path, source):
    """make("name", ...): tokenize `source`, by lines without duplicates, into the folder of that name."""

    def make(name="out", sources=(source,), tokenizer=None, **options):
        options = {"shard_bytes": SHARD, "dedup": "line", "jobs": 1, **options}
        tokenize_files(sources, tmp_path / name, tokenizer, **options)
        return contents(tmp_path / name)

    return make


def children(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@linux
@pytest.mark.parametrize("seen", ["hashes-00002-000.bin", "shard-00002.bin"])
def test_two_processes_killed_go_on(tmp_path, source, make, seen):
    """SIGKILL for the parent while its processes work: they end too, and what is whole is kept."""
    source.write_bytes("".join(f"{i} and {j}\n" for i in range(1000) for j in range(70)).encode())
    out = tmp_path / "out"
    call = f"tokenize_files([{str(source)!r}], {str(out)!r}, shard_bytes={5 * SHARD}, dedup='line', jobs=2)"
    process = subprocess.Popen([sys.executable, "-c", f"from minilm.data import tokenize_files; {call}"])
    while not (out / seen).exists() and process.poll() is None:
        time.sleep(0.001)
    workers = children(process.pid)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert len(workers) >= 2
    assert not (out / "index.json").exists()
    deadline = time.monotonic() + 30
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "processes outlive the one that started them"
        time.sleep(0.01)
    kept = {p: p.stat().st_mtime_ns for p in out.glob("shard-*")}
    assert make(jobs=2, shard_bytes=5 * SHARD) == make("whole", shard_bytes=5 * SHARD)
    assert all(p.stat().st_mtime_ns == before for p, before in kept.items())


def test_one_process_killed_is_said_and_goes_on(tmp_path, make):
    def kill(done, total):
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with pytest.raises(ChildProcessError, match="a process was ended from outside, perhaps for want of memory"):
        make(jobs=2, progress=kill)
    assert (tmp_path / "out" / "plan.json").exists()
    assert not (tmp_path / "out" / "index.json").exists()
    assert make(jobs=2) == make("whole")


def test_a_disk_that_is_full_at_any_write_is_said_and_it_goes_on(tmp_path, make, monkeypatch):
    left = 0

    class Disk:
        """A file on a disk that takes `left` more writes."""

        def __init__(self, *args, **options):
            self.file = open(*args, **options)  # noqa: SIM115

        def write(self, data):
            nonlocal left
            if left == 0:
                self.file.write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left -= 1
            return self.file.write(data)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    whole, named = make("whole", shard_bytes=20_000), set()
    for writes in range(1000):
        left = writes
        name = f"after-{writes}"
        with monkeypatch.context() as m:
            m.setattr(files, "open", Disk, raising=False)
            try:
                make(name, shard_bytes=20_000)
                break
            except OSError as error:
                failed = error
        assert failed.errno == errno.ENOSPC
        assert Path(failed.filename).parent == tmp_path / name
        named.add(Path(failed.filename).name)
        assert not list((tmp_path / name).glob(".*.part"))
        assert make(name, shard_bytes=20_000) == whole
    assert named == {"plan.json", "tokenizer.json", "index.json"} | {
        kind.format(i) for i in range(3) for kind in ("shard-{:05d}.bin", "hashes-{:05d}-000.bin")
    }


@linux
@pytest.mark.parametrize("seen", ["plan.json", "shard-00000.bin"])  # while processes start; while they work
def test_ctrl_c_ends_all_with_130_and_it_goes_on(tmp_path, source, make, seen):
    source.write_bytes(LINES.encode() * 200)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "minilm.cli", "tokenize", source, "-o", out, "--shard-mb", "1", "--jobs", "2"],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (out / seen).exists() and process.poll() is None:
        time.sleep(0.001)
    time.sleep(0.2 if seen == "plan.json" else 0)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all processes
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 130
    assert not (out / "index.json").exists()
    options = {"shard_bytes": 1 << 20, "dedup": None}
    assert make(**options) == make("whole", **options)


@pytest.fixture
def unfinished(make, tmp_path):
    """A folder whose making was stopped after a shard."""

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(progress=stop)
    assert {"plan.json", "tokenizer.json", "shard-00000.bin", "hashes-00000-000.bin"} <= contents(
        tmp_path / "out"
    ).keys()
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"shard_bytes": 5000}, "shard_bytes was 4000, is 5000"),
        ({"dedup": None}, "dedup was 'line', is None"),
        (
            {"dedup": None, "document_separator": "|"},
            r"document_separator was None, is '\|'; dedup was 'line', is None",
        ),
        ({"kind": "bpe", "vocab_size": 300}, r"tokenizer was one to learn \(char\), is one to learn \(bpe, 300\)"),
        ({"tokenizer": CharTokenizer.train(LINES)}, r"tokenizer was one to learn \(char\), is [0-9a-f]{12}\."),
        ({"sources": ["a", "a"]}, "a file was given another number of times"),
        ({"sources": ["a", "b"]}, r"the files were [^,]*a\.txt, are [^,]*a\.txt, [^,]*b\.txt"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_another_call_is_refused_with_what_differs(unfinished, source, make, options, what):
    before = contents(unfinished)
    source.with_name("b.txt").write_bytes(b"b\n")
    if "sources" in options:
        options = {**options, "sources": [source.with_name(f"{name}.txt") for name in options["sources"]]}
    with pytest.raises(
        DataError, match=rf"out: holds the unfinished shards of another call: {what}.*call it as before"
    ):
        make(**options)
    assert contents(unfinished) == before
    assert make() == make("whole")


@pytest.mark.parametrize("change", ["longer", "touched"])
def test_a_text_that_was_changed_since_is_refused(unfinished, source, make, change):
    before, size = contents(unfinished), len(LINES.encode())
    text = LINES.encode() + (b"more\n" if change == "longer" else b"")
    source.write_bytes(text)
    os.utime(source, ns=(1, 1))
    with pytest.raises(DataError, match=rf"a\.txt was changed since \({size} bytes then, {len(text)} now\)"):
        make()
    assert contents(unfinished) == before


def test_a_text_that_is_changed_meanwhile_leaves_nothing(tmp_path, source, make):
    def append(done, total):
        if done == total:
            source.write_bytes(LINES.encode() + b"more\n")

    with pytest.raises(DataError, match=r"a\.txt: was changed while it was read"):
        make(progress=append)
    assert not (tmp_path / "out").exists()


def test_what_only_deduplication_needed_goes_at_the_end(tmp_path, make):
    names = set(make())
    assert not any(name.startswith("hashes") or name == "plan.json" for name in names)
    (tmp_path / "out" / "hashes-00000-000.bin").touch()  # a call that was killed before its last step
    assert set(make()) == names
