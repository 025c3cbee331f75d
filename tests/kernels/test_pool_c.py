"""The pool of threads as a C program of its own, without Python; `make sanitize` runs it under the sanitizers too."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from minilm.kernels import sources

PROGRAM = sources.ROOT / "tests/csrc/pool_test.c"


@pytest.mark.skipif(sys.platform == "win32", reason="the pool is made of POSIX threads")
@pytest.mark.skipif(not sources.source_files(), reason="minilm is installed without its sources")
def test_pool(tmp_path):
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if not shutil.which(compiler[0]):
        pytest.skip("there is no C compiler")
    program = tmp_path / "pool_test"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    files = ["-I", sources.ROOT / "csrc", PROGRAM, sources.ROOT / "csrc/pool.c"]
    command = [*compiler, "-std=gnu11", "-O2", *warnings, "-pthread", *files, "-o", program]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert not compiled.returncode, compiled.stderr
    run = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, "ok\n"), run.stderr
