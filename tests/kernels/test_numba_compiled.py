"""How Numba's kernels are shared among threads and kept on disk."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from minilm.kernels import reference, threads

jit = pytest.importorskip("minilm.kernels.jit")
from minilm.kernels import jit_compiled  # noqa: E402


def test_large_arrays_are_shared(monkeypatch):
    """The test above compares nothing if nothing is shared."""
    submitted = []
    start = jit_compiled._Helper.start
    monkeypatch.setattr(
        jit_compiled._Helper,
        "start",
        lambda helper, kernel, arguments: submitted.append(arguments[:2]) or start(helper, kernel, arguments),
    )
    monkeypatch.setattr(threads, "get_num_threads", lambda: 3)
    x = np.random.default_rng(0).normal(size=(101, 1009))
    np.testing.assert_allclose(jit.softmax(x), reference.softmax(x), rtol=1e-12)
    assert submitted == [(33, 67), (67, 101)]
    jit.softmax(x[:3])
    assert len(submitted) == 2


def test_an_error_in_a_helper_is_the_callers_and_the_next_call_is_whole(monkeypatch):
    monkeypatch.setattr(threads, "get_num_threads", lambda: 2)
    done = []

    def fails(first, end, x):
        if first and x is None:
            raise MemoryError("no room")
        done.append((first, end))

    with pytest.raises(MemoryError, match="no room"):
        jit_compiled._share(fails, 4, 1 << 30, (None,))
    jit_compiled._share(fails, 4, 1 << 30, (1,))
    assert sorted(done) == [(0, 2), (0, 2), (2, 4)]


def test_a_call_within_a_shared_one_runs_alone(monkeypatch):
    monkeypatch.setattr(threads, "get_num_threads", lambda: 2)
    done = []

    def outer(first, end):
        jit_compiled._share(lambda a, b: done.append((first, a, b)), 3, 1 << 30, ())

    jit_compiled._share(outer, 2, 1 << 30, ())
    assert sorted(done) == [(0, 0, 3), (1, 0, 3)]


@pytest.mark.parametrize("error", [RuntimeError("cannot cache function: no locator available"), OSError("disk full")])
def test_an_unwritable_cache_is_no_error(error, monkeypatch):
    njit, asked = jit_compiled.numba.njit, []

    def without_disk(*args, **options):
        asked.append(options.get("cache", False))
        if options.get("cache"):
            raise error
        return njit(*args, **options)

    monkeypatch.setattr(jit_compiled.numba, "njit", without_disk)

    @jit_compiled.compiled(lambda t: (t[::1],))
    def double(first, end, x):
        for i in range(first, end):
            x[i] *= 2

    x = np.arange(3.0)
    double(3, 3, x)
    np.testing.assert_array_equal(x, [0, 2, 4])
    assert asked == [True, False]


def test_another_error_of_the_compiler_is_not_hidden():
    @jit_compiled.compiled(lambda t: (t[::1],))
    def wrong(first, end, x):
        x.no_such_method()

    with pytest.raises(Exception, match="no_such_method"):
        wrong(3, 3, np.arange(3.0))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_has_threads_of_its_own():
    code = """
import os, sys
import numpy as np
from minilm.kernels import jit, threads
threads.set_num_threads(2)
x = np.ones((512, 512), np.float32)
jit.softmax(x)
child = os.fork()
if child == 0:
    jit.softmax(x)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ}
    )
    assert done.stdout == "7\n", done.stderr
